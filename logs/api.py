"""Management API of usage."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing.services import open_account
from codexflow.lib.clock import now
from codexflow.lib.errors import BadRequest, NotFound
from codexflow.lib.redis import sync_client
from keys.api_access import ManagementView, caller_of
from logs.selectors import Filters, is_on_its_way, request_of, requests_of, usage_by_day
from logs.serializers import (
    RequestPageSerializer,
    RequestRowSerializer,
    RequestSerializer,
    UsageDaySerializer,
    UsagePageSerializer,
)


class RequestView(ManagementView):
    """One request of the caller's organization."""

    @extend_schema(
        responses={
            200: RequestSerializer,
            202: OpenApiResponse(description="Known, but its row is still on its way: ask again in a second."),
            404: OpenApiResponse(description="No such request in this organization."),
        }
    )
    def get(self, request: Request, request_id: UUID) -> Response:
        organization_id = caller_of(request).organization.id
        detail = request_of(organization_id, request_id)
        if detail is not None:
            return Response(RequestSerializer(detail).data)
        if is_on_its_way(sync_client(settings.ENV.redis_url), settings.ENV.redis_prefix, organization_id, request_id):
            return Response({"id": str(request_id), "state": "pending"}, status=202, headers={"Retry-After": "1"})
        raise NotFound


MAX_PAGE = 200
MAX_USAGE_DAYS = 366
DEFAULT_DAYS = 7


class RequestQuery(serializers.Serializer[Any]):
    """Which requests are listed. Times are ISO 8601; without a zone they are UTC."""

    start = serializers.DateTimeField(required=False, help_text="Default: seven days ago.")
    end = serializers.DateTimeField(required=False, help_text="Default: now.")
    stage = serializers.CharField(required=False, max_length=20)
    model = serializers.CharField(required=False, max_length=200)
    status = serializers.RegexField(r"^(ok|errors|[1-5]\d\d)$", required=False, help_text="ok, errors or a status.")
    key = serializers.UUIDField(required=False)
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
        kept_since = now() - timedelta(days=open_account(organization).plan.log_retention_days)
        filters = Filters(
            start=max(wanted.get("start", now() - timedelta(days=DEFAULT_DAYS)), kept_since),
            end=wanted.get("end", now() + timedelta(minutes=1)),
            stage=wanted.get("stage", ""),
            model=wanted.get("model", ""),
            status=wanted.get("status", ""),
            key_id=wanted.get("key"),
        )
        # One more than asked for tells whether there is a further page; counting them all would not scale.
        rows = requests_of(organization.id, filters, before=wanted.get("before"), limit=wanted["limit"] + 1)
        page = rows[: wanted["limit"]]
        next_page = str(page[-1].request_id) if len(rows) > len(page) else None
        return Response({"data": RequestRowSerializer(page, many=True).data, "next": next_page})


class UsageQuery(serializers.Serializer[Any]):
    """Which days. Days are UTC, as limits and billing count them."""

    start = serializers.DateField(required=False, help_text="Default: 29 days before the end.")
    end = serializers.DateField(required=False, help_text="Default: today.")
    group = serializers.ChoiceField(["stage", "model", "key"], required=False)


class UsageView(ManagementView):
    """Sums by day."""

    @extend_schema(operation_id="usage_by_day", parameters=[UsageQuery], responses=UsagePageSerializer)
    def get(self, request: Request) -> Response:
        organization = caller_of(request).organization
        query = UsageQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        end = query.validated_data.get("end", now().date())
        start = query.validated_data.get("start", end - timedelta(days=29))
        if not timedelta(0) <= end - start < timedelta(days=MAX_USAGE_DAYS):
            raise BadRequest(f"The days must be in order and at most {MAX_USAGE_DAYS}.", param="start")
        rows = usage_by_day(organization.id, start, end, group=query.validated_data.get("group"))
        return Response({"data": UsageDaySerializer(rows, many=True).data})
