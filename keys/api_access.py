"""Callers of the management API: authentication by key or session, organization and role."""

from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponseBase
from rest_framework.authentication import SessionAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView
from typing_extensions import override

from accounts.models import Organization, User
from accounts.permissions import Action, may
from accounts.selectors import membership_of, memberships_of
from codexflow.lib import isolation
from codexflow.lib.errors import NotFound
from keys.authentication import KeyAuthentication
from keys.errors import ActionNotAllowed, InvalidApiKey
from keys.models import ApiKey
from keys.policy import MANAGEMENT
from keys.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A caller of the management API. `key` is set for a bearer, `user` for a session; exactly one of them."""

    organization: Organization
    role: str
    user: User | None = None
    key: ApiKey | None = None

    @property
    def responsible(self) -> User:
        """User responsible for the call: the session's, or the one who made the key."""
        if self.user is not None:
            return self.user
        assert self.key is not None  # noqa: S101 - one of both is set
        return self.key.created_by

    @property
    def label(self) -> str:
        """Actor label for the audit log; empty for a session."""
        return f"key {self.key.public_id}" if self.key else ""

    def require(self, action: Action) -> None:
        """Raise ActionNotAllowed (403) unless the caller's role includes `action`."""
        if not may(self.role, action):
            raise ActionNotAllowed


def caller_of(request: Request) -> Caller:
    """Return the caller. A session selects the organization by `?organization=slug`; the default is its first one.

    From here on the endpoint sees rows of that organization only. Raises InvalidApiKey (401) without authentication,
    NotFound (404) for an organization that is not the caller's.
    """
    caller = _caller_of(request)
    isolation.enter(caller.organization.pk, person_id=caller.responsible.pk)
    return caller


def _caller_of(request: Request) -> Caller:
    if isinstance(request.auth, Principal):
        return _bearer(request.auth)
    if isinstance(request.user, AnonymousUser):
        raise InvalidApiKey
    slug = request.query_params.get("organization")
    membership = membership_of(request.user, slug) if slug else memberships_of(request.user).first()
    if membership is None:
        raise NotFound
    return Caller(organization=membership.organization, role=membership.role, user=request.user)


def _bearer(principal: Principal) -> Caller:
    key = ApiKey.objects.select_related("organization", "created_by").get(pk=principal.key_id)
    membership = membership_of(key.created_by, key.organization.slug)
    # The role is looked up at use, not copied at creation: the user's role may have been reduced since.
    role = membership.role if membership else ""
    if not principal.policy.permits_surface(MANAGEMENT):
        role = ""
    return Caller(organization=key.organization, role=role, key=key)


class IsCaller(BasePermission):
    """Allows callers with a valid key or a session. Raises InvalidApiKey (401) for others."""

    @override
    def has_permission(self, request: Request, view: APIView) -> bool:
        if isinstance(request.auth, Principal):
            return True
        if isinstance(request.user, AnonymousUser):
            raise InvalidApiKey
        if request.user.must_change_password:
            raise ActionNotAllowed("Choose a password of your own first, at /accounts/password/change/.")
        return True


class ManagementView(APIView):
    """Base class of all management endpoints: authentication, permission and row-level isolation."""

    authentication_classes = (KeyAuthentication, SessionAuthentication)
    permission_classes = (IsCaller,)

    @override
    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return super().dispatch(request, *args, **kwargs)
        finally:
            isolation.leave()
