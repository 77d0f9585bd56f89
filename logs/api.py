"""Management API of usage."""

from uuid import UUID

from django.conf import settings
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from codexflow.lib.errors import NotFound
from codexflow.lib.redis import sync_client
from keys.api_access import ManagementView, caller_of
from logs.selectors import is_on_its_way, request_of
from logs.serializers import RequestSerializer


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
