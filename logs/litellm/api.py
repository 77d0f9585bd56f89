"""Management API of the reconciliation with LiteLLM."""

from datetime import date, timedelta
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from codexflow.lib import isolation
from codexflow.lib.clock import now
from codexflow.lib.errors import BadRequest, NotFound
from keys.api_access import ManagementView, caller_of
from logs.litellm.reconciliation import compare, totals
from logs.litellm.serializers import ReconciliationSerializer

MAX_DAYS = 35


class DaysQuery(serializers.Serializer[Any]):
    """Which days (UTC)."""

    start = serializers.DateField(required=False, help_text="Default: the end.")
    end = serializers.DateField(required=False, help_text="Default: yesterday.")


def operator_days(request: Request) -> list[date]:
    """Return the days that an operator asks about, and look over all organizations from here on.

    Raises NotFound for everybody else, and BadRequest.
    """
    caller = caller_of(request)
    # A key's reach is its organization; only a person who signed in is an operator.
    if caller.user is None or not caller.user.is_staff:
        raise NotFound
    isolation.leave()
    query = DaysQuery(data=request.query_params)
    query.is_valid(raise_exception=True)
    end = query.validated_data.get("end", now().date() - timedelta(days=1))
    start = query.validated_data.get("start", end)
    if not timedelta(0) <= end - start < timedelta(days=MAX_DAYS):
        raise BadRequest(f"The days must be in order and at most {MAX_DAYS}.", param="start")
    return [start + timedelta(days=each) for each in range((end - start).days + 1)]


class ReconciliationView(ManagementView):
    """Our rows against LiteLLM's reports, for operators of the site."""

    @extend_schema(operation_id="reconciliation", parameters=[DaysQuery], responses=ReconciliationSerializer)
    def get(self, request: Request) -> Response:
        days = operator_days(request)
        found = {"data": [row for day in days for row in compare(day)], "totals": totals(days)}
        return Response(ReconciliationSerializer(found).data)
