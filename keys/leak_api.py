"""POST /api/v1/leaked-keys: report keys that were found in public. Open to everybody who has the key."""

import math
from typing import Any, NoReturn

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView
from typing_extensions import override

from codexflow.lib.addresses import plain_address
from codexflow.lib.errors import BadRequest
from keys.errors import TooManyReports
from keys.leaks import report_leak

MAX_REPORTS = 100


class LeakSerializer(serializers.Serializer[Any]):
    """One report. Secret scanners call the key `token`."""

    token = serializers.CharField(max_length=200, help_text="The whole key")
    url = serializers.CharField(max_length=2_000, required=False, allow_blank=True, help_text="Where it was found")
    source = serializers.CharField(max_length=100, required=False, allow_blank=True)  # type: ignore[assignment] # the scanners\' name
    type = serializers.CharField(max_length=100, required=False, allow_blank=True)


class LeakOutcomeSerializer(serializers.Serializer[Any]):
    """Outcome of a report: `true_positive` for a key of ours, which is revoked; `false_positive` for others."""

    token_type = serializers.CharField()
    label = serializers.ChoiceField(choices=("true_positive", "false_positive"))  # type: ignore[assignment] # theirs


class LeakThrottle(SimpleRateThrottle):
    """Reports of one address: enough for a scanner, too few to try keys."""

    rate = "30/min"
    scope = "leaked_keys"

    @override
    def get_cache_key(self, request: Request, view: APIView) -> str:
        return f"leaked-keys:{plain_address(request.META.get('REMOTE_ADDR') or '')}"


class LeakedKeysView(APIView):
    """Reports of leaked keys."""

    authentication_classes = ()
    permission_classes = ()
    throttle_classes = (LeakThrottle,)

    @override
    def throttled(self, request: Request, wait: float | None) -> NoReturn:
        raise TooManyReports(retry_after_s=math.ceil(wait or 60))

    @extend_schema(
        operation_id="leaked_keys_report",
        auth=[],
        request=LeakSerializer(many=True),
        responses=LeakOutcomeSerializer(many=True),
    )
    def post(self, request: Request) -> Response:
        """Revoke the keys, tell their people, and say which were ours. One report, or a list of at most 100."""
        given = request.data if isinstance(request.data, list) else [request.data]
        if not 0 < len(given) <= MAX_REPORTS:
            raise BadRequest(f"Send one report, or a list of at most {MAX_REPORTS}.")
        reports = LeakSerializer(data=given, many=True)
        reports.is_valid(raise_exception=True)
        address = request.META.get("REMOTE_ADDR") or None
        outcomes = []
        for each in reports.validated_data:
            place = " ".join(filter(None, (each.get("source", ""), each.get("url", ""))))
            found = report_leak(each["token"].strip(), place=place, address=address)
            label = "true_positive" if found.is_ours else "false_positive"
            outcomes.append({"token_type": each.get("type") or "codexflow_api_key", "label": label})
        return Response(outcomes)
