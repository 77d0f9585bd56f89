"""Management API of keys. The same services as the pages."""

from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.permissions import Action
from codexflow.lib.errors import NotFound
from keys import services
from keys.api_access import Caller, ManagementView, caller_of
from keys.models import ApiKey
from keys.selectors import keys_of
from keys.serializers import IssuedKeySerializer, KeySerializer, NewKeySerializer, RenameSerializer
from keys.services import KeyTerms


class KeysView(ManagementView):
    """The organization's keys."""

    @extend_schema(operation_id="keys_list", responses=KeySerializer(many=True))
    def get(self, request: Request) -> Response:
        caller = caller_of(request)
        return Response({"data": KeySerializer(keys_of(caller.organization), many=True).data})

    @extend_schema(operation_id="keys_create", request=NewKeySerializer, responses={201: IssuedKeySerializer})
    def post(self, request: Request) -> Response:
        caller = caller_of(request)
        caller.require(Action.MANAGE_KEYS)
        wanted = NewKeySerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        fields = dict(wanted.validated_data)
        name = fields.pop("name")
        terms = KeyTerms(**fields)
        if caller.key is not None:
            # A key can make others, but none that may do more than itself.
            terms = terms.within(caller.key)
        issued = services.issue_key(
            caller.organization, name=name, created_by=caller.responsible, actor_label=caller.label, terms=terms
        )
        issued.row.key = issued.plain  # type: ignore[attr-defined] # for this one answer
        return Response(IssuedKeySerializer(issued.row).data, status=201, headers={"Cache-Control": "no-store"})


class KeyView(ManagementView):
    """One key."""

    @extend_schema(operation_id="keys_show", responses=KeySerializer)
    def get(self, request: Request, key_id: UUID) -> Response:
        return Response(KeySerializer(_key(caller_of(request), key_id)).data)

    @extend_schema(operation_id="keys_rename", request=RenameSerializer, responses=KeySerializer)
    def patch(self, request: Request, key_id: UUID) -> Response:
        caller = caller_of(request)
        key = _key(caller, key_id)
        caller.require(Action.MANAGE_KEYS)
        wanted = RenameSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        name = wanted.validated_data["name"]
        services.rename_key(key, name=name, actor=caller.user, actor_label=caller.label)
        return Response(KeySerializer(key).data)

    @extend_schema(operation_id="keys_revoke", request=None, responses=KeySerializer)
    def delete(self, request: Request, key_id: UUID) -> Response:
        """Stops the key for good. It stays in the list, because requests were made with it."""
        caller = caller_of(request)
        key = _key(caller, key_id)
        caller.require(Action.MANAGE_KEYS)
        services.revoke_key(key, actor=caller.user, actor_label=caller.label)
        return Response(KeySerializer(key).data)


def _key(caller: Caller, key_id: UUID) -> ApiKey:
    key = keys_of(caller.organization).filter(pk=key_id).first()
    if key is None:
        raise NotFound
    return key
