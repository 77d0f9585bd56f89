"""Management API of keys and budgets. Calls the same services as the pages."""

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.permissions import Action
from accounts.reauthentication import is_recently_authenticated
from billing.selectors import account_of
from billing.services import set_budgets
from codexflow.lib.clock import now
from codexflow.lib.errors import NotFound
from keys import services
from keys.api_access import Caller, ManagementView, caller_of
from keys.errors import ActionNotAllowed, ReauthenticationRequired
from keys.models import ApiKey
from keys.selectors import keys_of, spend_by_lineage
from keys.serializers import (
    BudgetsSerializer,
    IssuedKeySerializer,
    KeyChangesSerializer,
    KeyPageSerializer,
    KeySerializer,
    NewKeySerializer,
    RotationSerializer,
)
from keys.services import IssuedKey, KeyTerms


class KeysView(ManagementView):
    """Keys of the organization."""

    @extend_schema(operation_id="keys_list", responses=KeyPageSerializer)
    def get(self, request: Request) -> Response:
        caller = caller_of(request)
        return Response({"data": _shown(caller, keys_of(caller.organization), many=True)})

    @extend_schema(operation_id="keys_create", request=NewKeySerializer, responses={201: IssuedKeySerializer})
    def post(self, request: Request) -> Response:
        caller = caller_of(request)
        caller.require(Action.MANAGE_KEYS)
        _require_reauthentication(request, caller)
        wanted = NewKeySerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        fields = dict(wanted.validated_data)
        name = fields.pop("name")
        issued = services.issue_key(
            caller.organization,
            name=name,
            created_by=caller.responsible,
            actor_label=caller.label,
            terms=KeyTerms(**fields),
            by=caller.key,
        )
        return _issued(issued)


class KeyView(ManagementView):
    """One key."""

    @extend_schema(operation_id="keys_show", responses=KeySerializer)
    def get(self, request: Request, key_id: UUID) -> Response:
        caller = caller_of(request)
        return Response(_shown(caller, _key(caller, key_id)))

    @extend_schema(operation_id="keys_change", request=KeyChangesSerializer, responses=KeySerializer)
    def patch(self, request: Request, key_id: UUID) -> Response:
        """Change name, expiry, limits or allow-lists, for calls that begin from now on. Fields left out stay."""
        caller = caller_of(request)
        key = _key(caller, key_id)
        caller.require(Action.MANAGE_KEYS)
        wanted = KeyChangesSerializer(data=request.data, partial=True)
        wanted.is_valid(raise_exception=True)
        key = services.change_key(
            key, wanted.validated_data, actor=caller.user, actor_label=caller.label, by=caller.key
        )
        return Response(_shown(caller, key))

    @extend_schema(operation_id="keys_revoke", request=None, responses=KeySerializer)
    def delete(self, request: Request, key_id: UUID) -> Response:
        """Revoke the key permanently. It stays in the list, because requests were made with it."""
        caller = caller_of(request)
        key = _key(caller, key_id)
        caller.require(Action.MANAGE_KEYS)
        services.revoke_key(key, actor=caller.user, actor_label=caller.label, by=caller.key)
        return Response(_shown(caller, key))


class KeyRotationView(ManagementView):
    """Rotation of a key."""

    @extend_schema(operation_id="keys_rotate", request=RotationSerializer, responses={201: IssuedKeySerializer})
    def post(self, request: Request, key_id: UUID) -> Response:
        """Create a new key with the same name and terms. The old one works until the overlap ends."""
        caller = caller_of(request)
        key = _key(caller, key_id)
        caller.require(Action.MANAGE_KEYS)
        _require_reauthentication(request, caller)
        wanted = RotationSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        return _issued(
            services.rotate_key(
                key,
                overlap_s=wanted.validated_data["overlap_s"],
                created_by=caller.responsible,
                actor=caller.user,
                actor_label=caller.label,
                by=caller.key,
            )
        )


class BudgetsView(ManagementView):
    """Budgets that the organization sets itself, beside its credit."""

    @extend_schema(operation_id="budgets_show", responses=BudgetsSerializer)
    def get(self, request: Request) -> Response:
        caller = caller_of(request)
        caller.require(Action.SEE_BILLING)
        return Response(BudgetsSerializer(account_of(caller.organization)).data)

    @extend_schema(operation_id="budgets_set", request=BudgetsSerializer, responses=BudgetsSerializer)
    def put(self, request: Request) -> Response:
        """Set the budgets. For signed-in users only: a budget limits leaked keys, so no key may raise it.

        Applies from the next call on: a call whose worst-case cost does not fit gets 402.
        """
        caller = caller_of(request)
        caller.require(Action.MANAGE_BILLING)
        if caller.user is None:
            raise ActionNotAllowed
        wanted = BudgetsSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        account = set_budgets(
            caller.organization,
            day_nanos=wanted.validated_data["budget_day_nanos"],
            month_nanos=wanted.validated_data["budget_month_nanos"],
            actor=caller.user,
        )
        return Response(BudgetsSerializer(account).data)


def _require_reauthentication(request: Request, caller: Caller) -> None:
    """Require a recent authentication before a secret is shown, as pages do. Raises ReauthenticationRequired."""
    if caller.user is not None and not is_recently_authenticated(request._request, caller.user):
        raise ReauthenticationRequired


def _issued(issued: IssuedKey) -> Response:
    """Respond with the new key and its secret, which no other response contains."""
    issued.row.key = issued.plain  # type: ignore[attr-defined] # for this one response
    return Response(IssuedKeySerializer(issued.row).data, status=201, headers={"Cache-Control": "no-store"})


def _shown(caller: Caller, keys: ApiKey | QuerySet[ApiKey], *, many: bool = False) -> Any:
    spends = spend_by_lineage(caller.organization, now().date())
    return KeySerializer(keys, many=many, context={"spends": spends}).data


def _key(caller: Caller, key_id: UUID) -> ApiKey:
    key = keys_of(caller.organization).filter(pk=key_id).first()
    if key is None:
        raise NotFound
    return key
