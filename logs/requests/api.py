"""Management API of requests."""

from uuid import UUID

from django.conf import settings
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.permissions import Action
from billing.selectors import ledger_of_request, retention_days_of
from codexflow.lib.errors import NotFound
from codexflow.lib.redis import sync_client
from keys.api_access import ManagementView, caller_of
from logs.content.store import content_of
from logs.errors import ContentNotKept
from logs.requests.queries import FilterQuery
from logs.requests.search import find_requests
from logs.requests.selectors import is_pending, request_of
from logs.requests.serializers import (
    PendingRequestSerializer,
    RequestContentSerializer,
    RequestPageSerializer,
    RequestRowSerializer,
    RequestSerializer,
)

MAX_PAGE = 200


class RequestView(ManagementView):
    """One request of the caller's organization."""

    @extend_schema(
        operation_id="requests_show",
        responses={
            200: RequestSerializer,
            202: OpenApiResponse(PendingRequestSerializer, description="Known, but not stored yet: retry in a second."),
            404: OpenApiResponse(description="No such request in this organization."),
        },
    )
    def get(self, request: Request, request_id: UUID) -> Response:
        caller = caller_of(request)
        organization_id = caller.organization.id
        detail = request_of(organization_id, request_id, retention_days=retention_days_of(caller.organization))
        if detail is not None:
            ledger = ledger_of_request(caller.organization, request_id)
            return Response(RequestSerializer(detail, context={"ledger": ledger}).data)
        if is_pending(sync_client(settings.ENV.redis_url), settings.ENV.redis_prefix, organization_id, request_id):
            return Response({"id": str(request_id), "state": "pending"}, status=202, headers={"Retry-After": "1"})
        raise NotFound


class RequestContentView(ManagementView):
    """Prompt and response of one request, where the organization stores them."""

    @extend_schema(
        operation_id="requests_content",
        responses={
            200: RequestContentSerializer,
            404: OpenApiResponse(description="No such request, or (`content_not_kept`) its content is not stored."),
        },
    )
    def get(self, request: Request, request_id: UUID) -> Response:
        """Prompt and response as they went over the wire, for owners, administrators and developers."""
        caller = caller_of(request)
        caller.require(Action.READ_CONTENT)
        organization = caller.organization
        if request_of(organization.id, request_id, retention_days=retention_days_of(organization)) is None:
            raise NotFound
        texts = content_of(organization, request_id)
        if texts is None:
            raise ContentNotKept
        return Response(RequestContentSerializer(texts).data, headers={"Cache-Control": "no-store"})


class RequestQuery(FilterQuery):
    """Filters and page of the list of requests."""

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
