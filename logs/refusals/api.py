"""Management API of refused calls."""

from datetime import timedelta
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing.selectors import retention_days_of
from codexflow.lib.clock import now
from codexflow.lib.errors import BadRequest
from keys.api_access import ManagementView, caller_of
from logs.refusals.selectors import Refusals, refusals_of


class RefusalsQuery(serializers.Serializer[Any]):
    """Which time, and whose calls."""

    start = serializers.DateTimeField(required=False, help_text="Default: 24 hours before the end.")
    end = serializers.DateTimeField(required=False, help_text="Default: now.")
    key = serializers.UUIDField(required=False, help_text="Only calls with this key.")


class RefusalsSerializer(serializers.Serializer[Refusals]):
    """Calls of one key that were refused for one reason."""

    key_id = serializers.UUIDField()
    code = serializers.CharField()
    count = serializers.IntegerField()
    first = serializers.DateTimeField(help_text="The minute of the first one.")
    last = serializers.DateTimeField(help_text="The minute of the last one.")
    message = serializers.CharField(help_text="A message sent in that minute: the limit, its value, and what to do.")


class RefusalsPageSerializer(serializers.Serializer[Any]):
    """The most frequent first, at most 100."""

    data = RefusalsSerializer(many=True)  # type: ignore[assignment] # a field that is named so


class RefusalsView(ManagementView):
    """Calls that were refused before they reached a model."""

    @extend_schema(operation_id="refusals_list", parameters=[RefusalsQuery], responses=RefusalsPageSerializer)
    def get(self, request: Request) -> Response:
        """Numbers by key and code. Refused calls cost nothing and have no entry in the log."""
        organization = caller_of(request).organization
        query = RefusalsQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        end = query.validated_data.get("end", now())
        oldest = now() - timedelta(days=retention_days_of(organization))
        # The calendar has a beginning.
        start = query.validated_data.get("start", max(end, oldest) - timedelta(days=1))
        if "start" in query.validated_data and start > end:
            raise BadRequest("`start` must not be after `end`.", param="start")
        found = refusals_of(organization.pk, max(start, oldest), end, key_id=query.validated_data.get("key"))
        return Response(RefusalsPageSerializer({"data": found}).data)
