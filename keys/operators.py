"""Keys of operators: made on the server, for the operators' API only."""

import re
import secrets
from typing import Any

from django.conf import settings
from django.db import transaction
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView
from typing_extensions import override

from accounts import audit
from accounts.models import User
from codexflow.lib.clock import now
from keys import secret
from keys.errors import InvalidApiKey
from keys.models import OperatorKey

PREFIX = "cfxo"
_KEY = re.compile(rf"{PREFIX}_([0-9A-Za-z]{{8}})_[0-9A-Za-z]{{38}}")


class NotAnOperator(Exception):
    """Only super administrators may have such a key."""


def issue_operator_key(user: User, *, name: str, actor_label: str = "") -> tuple[OperatorKey, str]:
    """Create a key of a super administrator, in one transaction with the audit entry. The text is shown once."""
    if not (user.is_superuser and user.is_active):
        raise NotAnOperator
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    public_id, own = ("".join(secrets.choice(alphabet) for _ in range(length)) for length in (8, 32))
    plain = secret.with_checksum(f"{PREFIX}_{public_id}_{own}")
    with transaction.atomic():
        row = OperatorKey.objects.create(
            user=user,
            name=name,
            public_id=public_id,
            digest=secret.digest(plain, settings.ENV.hash_salt),
            salt_id=secret.salt_id(settings.ENV.hash_salt),
        )
        audit.record("operator_key.issued", row, organization=None, actor=user, actor_label=actor_label, name=name)
    return row, plain


def revoke_operator_key(row: OperatorKey, *, actor_label: str = "") -> None:
    """Revoke a key permanently, in one transaction with the audit entry. Idempotent."""
    with transaction.atomic():
        if OperatorKey.objects.filter(pk=row.pk, revoked_at=None).update(revoked_at=now()):
            audit.record("operator_key.revoked", row, organization=None, actor=row.user, actor_label=actor_label)


class OperatorAuthentication(BaseAuthentication):
    """`Authorization: Bearer cfxo_…`: the operator is `request.user`, the key `request.auth`."""

    @override
    def authenticate(self, request: Request) -> tuple[User, OperatorKey] | None:
        """Raises InvalidApiKey for every reason that a key may not work, also that its user is no operator any more."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        presented = token.strip()
        found = _KEY.fullmatch(presented)
        rows = OperatorKey.objects.select_related("user").filter(public_id=found[1] if found else "", revoked_at=None)
        row = rows.first()
        stored = bytes(row.digest) if row else secret.DUMMY_DIGEST
        index = secret.matches(presented, stored, settings.ENV.salts)
        if index is None or row is None:
            raise InvalidApiKey
        if not row.salt_id:  # made before salts had ids
            OperatorKey.objects.filter(pk=row.pk).update(salt_id=secret.salt_id(settings.ENV.salts[index]))
        if not (row.user.is_superuser and row.user.is_active) or row.user.is_suspended:
            raise InvalidApiKey
        return row.user, row

    @override
    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class IsOperator(BasePermission):
    """Allows operators' keys only. Raises InvalidApiKey (401) for others."""

    @override
    def has_permission(self, request: Request, view: APIView) -> bool:
        if not isinstance(request.auth, OperatorKey):
            raise InvalidApiKey
        return True


class OperatorView(APIView):
    """Base class of the operators' endpoints. They see all organizations."""

    authentication_classes = (OperatorAuthentication,)
    permission_classes = (IsOperator,)


def acting_operator(request: Request) -> dict[str, Any]:
    """Return who acts, as arguments of services."""
    return {"actor": request.user, "address": request.META.get("REMOTE_ADDR") or None}
