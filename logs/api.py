"""Management API of usage."""

from uuid import UUID

from django.conf import settings
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from typing_extensions import override

from codexflow.lib.errors import NotFound
from codexflow.lib.redis import sync_client
from keys.authentication import KeyAuthentication
from keys.errors import InvalidApiKey
from keys.principal import Principal
from logs.selectors import is_on_its_way, request_of
from logs.serializers import RequestSerializer


def principal_of(request: Request) -> Principal:
    """Whoever presented the key."""
    if not isinstance(request.auth, Principal):
        raise InvalidApiKey
    return request.auth


class HasKey(BasePermission):
    """Somebody with a working key."""

    @override
    def has_permission(self, request: Request, view: APIView) -> bool:
        return principal_of(request) is not None


class RequestView(APIView):
    """One request of the caller's organization."""

    authentication_classes = (KeyAuthentication,)
    permission_classes = (HasKey,)

    @extend_schema(
        responses={
            200: RequestSerializer,
            202: OpenApiResponse(description="Known, but its row is still on its way: ask again in a second."),
            404: OpenApiResponse(description="No such request in this organization."),
        }
    )
    def get(self, request: Request, request_id: UUID) -> Response:
        organization_id = principal_of(request).organization_id
        detail = request_of(organization_id, request_id)
        if detail is not None:
            return Response(RequestSerializer(detail).data)
        if is_on_its_way(sync_client(settings.ENV.redis_url), settings.ENV.redis_prefix, organization_id, request_id):
            return Response({"id": str(request_id), "state": "pending"}, status=202, headers={"Retry-After": "1"})
        raise NotFound
