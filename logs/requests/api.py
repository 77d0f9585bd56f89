"""Management API of usage."""

from datetime import date, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.permissions import Action
from billing.selectors import account_of, ledger_of_request
from codexflow.lib import isolation
from codexflow.lib.clock import now
from codexflow.lib.errors import BadRequest, NotFound
from codexflow.lib.redis import sync_client
from keys.api_access import ManagementView, caller_of
from logs.content.store import content_of
from logs.errors import ContentNotKept
from logs.litellm.reconciliation import compare, totals
from logs.requests.queries import FilterQuery
from logs.requests.search import find_requests
from logs.requests.selectors import is_on_its_way, request_of
from logs.requests.serializers import (
    PendingRequestSerializer,
    ReconciliationSerializer,
    RequestContentSerializer,
    RequestPageSerializer,
    RequestRowSerializer,
    RequestSerializer,
    UsagePageSerializer,
)
from logs.usage.periods import Interval
from logs.usage.series import GROUPS, usage_of


class RequestView(ManagementView):
    """One request of the caller's organization."""

    @extend_schema(
        operation_id="requests_show",
        responses={
            200: RequestSerializer,
            202: OpenApiResponse(
                PendingRequestSerializer, description="Known, but its row is still on its way: ask again in a second."
            ),
            404: OpenApiResponse(description="No such request in this organization."),
        },
    )
    def get(self, request: Request, request_id: UUID) -> Response:
        caller = caller_of(request)
        organization_id = caller.organization.id
        retention_days = account_of(caller.organization).plan.log_retention_days
        detail = request_of(organization_id, request_id, retention_days=retention_days)
        if detail is not None:
            ledger = ledger_of_request(caller.organization, request_id)
            return Response(RequestSerializer(detail, context={"ledger": ledger}).data)
        if is_on_its_way(sync_client(settings.ENV.redis_url), settings.ENV.redis_prefix, organization_id, request_id):
            return Response({"id": str(request_id), "state": "pending"}, status=202, headers={"Retry-After": "1"})
        raise NotFound


class RequestContentView(ManagementView):
    """Prompt and answer of one request, where the organization wants them kept."""

    @extend_schema(
        operation_id="requests_content",
        responses={
            200: RequestContentSerializer,
            404: OpenApiResponse(description="No such request, or (`content_not_kept`) nothing is kept of it."),
        },
    )
    def get(self, request: Request, request_id: UUID) -> Response:
        """Prompt and answer as they went over the wire, for owners, administrators and developers."""
        caller = caller_of(request)
        caller.require(Action.READ_CONTENT)
        organization = caller.organization
        retention_days = account_of(organization).plan.log_retention_days
        if request_of(organization.id, request_id, retention_days=retention_days) is None:
            raise NotFound
        texts = content_of(organization, request_id)
        if texts is None:
            raise ContentNotKept
        return Response(RequestContentSerializer(texts).data, headers={"Cache-Control": "no-store"})


MAX_PAGE = 200
MAX_DAYS = {"hour": 31, "day": 366, "month": 366 * 5}
# What any zone's calendar can be asked for without leaving that of the machine.
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2200, 1, 1)


class RequestQuery(FilterQuery):
    """Which page of which requests."""

    before = serializers.UUIDField(required=False, help_text="`next` of the page before.")
    limit = serializers.IntegerField(required=False, min_value=1, max_value=MAX_PAGE, default=50)


class RequestsView(ManagementView):
    """The organization's requests, newest first."""

    @extend_schema(operation_id="requests_list", parameters=[RequestQuery], responses=RequestPageSerializer)
    def get(self, request: Request) -> Response:
        organization = caller_of(request).organization
        query = RequestQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        wanted = query.validated_data
        filters = query.filters(organization)
        found = find_requests(organization.id, filters, before=wanted.get("before"), limit=wanted["limit"])
        rows = RequestRowSerializer(found.rows, many=True).data
        return Response({"data": rows, "next": str(found.next_before) if found.next_before else None})


class UsageQuery(serializers.Serializer[Any]):
    """Which days, cut into what."""

    start = serializers.DateField(
        required=False, help_text="The first day, in `tz`. Default: 29 days before the end (hours: the day before)."
    )
    end = serializers.DateField(required=False, help_text="The last day, included. Default: today.")
    interval = serializers.ChoiceField(["hour", "day", "month"], default="day")
    tz = serializers.CharField(
        default="UTC",
        max_length=64,
        help_text="IANA name. What is counted is counted by UTC's hours; an hour belongs to where it begins.",
    )
    group = serializers.ChoiceField(["none", *GROUPS], default="none")

    def validate_tz(self, name: str) -> ZoneInfo:
        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise serializers.ValidationError("Not the name of a time zone.") from None


class UsageView(ManagementView):
    """Sums over time."""

    @extend_schema(operation_id="usage_series", parameters=[UsageQuery], responses=UsagePageSerializer)
    def get(self, request: Request) -> Response:
        """Sums by hour, day or month, oldest first; what is empty is left out.

        Percentiles come from histograms that were added up: they are within 5 %, for any span.
        """
        organization = caller_of(request).organization
        query = UsageQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        wanted = query.validated_data
        zone: ZoneInfo = wanted["tz"]
        interval: Interval = wanted["interval"]
        group: str | None = None if wanted["group"] == "none" else wanted["group"]
        end: date = wanted.get("end", now().astimezone(zone).date())
        if not FIRST_DAY <= end <= LAST_DAY:
            raise BadRequest(f"The days are {FIRST_DAY} to {LAST_DAY}.", param="end")
        start: date = wanted.get("start", end - timedelta(days=1 if interval == "hour" else 29))
        most = MAX_DAYS[interval]
        if not FIRST_DAY <= start <= end or end - start >= timedelta(days=most):
            raise BadRequest(f"The days must be in order and at most {most} by {interval}.", param="start")
        usage = usage_of(organization.id, start, end, interval=interval, zone=zone, group=group)
        facts = {"interval": interval, "tz": str(zone), "start": start, "end": end, "group_by": wanted["group"]}
        return Response(UsagePageSerializer({**facts, "data": usage.cells, "total": usage.total}).data)


MAX_RECONCILED_DAYS = 35


class ReconciliationQuery(serializers.Serializer[Any]):
    """Which days (UTC)."""

    start = serializers.DateField(required=False, help_text="Default: the end.")
    end = serializers.DateField(required=False, help_text="Default: yesterday.")


class ReconciliationView(ManagementView):
    """Our rows against LiteLLM's reports, for operators of the site."""

    @extend_schema(operation_id="reconciliation", parameters=[ReconciliationQuery], responses=ReconciliationSerializer)
    def get(self, request: Request) -> Response:
        caller = caller_of(request)
        # A key's reach is its organization; only a person who signed in is an operator.
        if caller.user is None or not caller.user.is_staff:
            raise NotFound
        isolation.leave()  # operators look over all organizations
        query = ReconciliationQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        end = query.validated_data.get("end", now().date() - timedelta(days=1))
        start = query.validated_data.get("start", end)
        if not timedelta(0) <= end - start < timedelta(days=MAX_RECONCILED_DAYS):
            raise BadRequest(f"The days must be in order and at most {MAX_RECONCILED_DAYS}.", param="start")
        days = [start + timedelta(days=each) for each in range((end - start).days + 1)]
        found = {"data": [row for day in days for row in compare(day)], "totals": totals(days)}
        return Response(ReconciliationSerializer(found).data)
