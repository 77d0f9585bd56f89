"""Authentication by API key for the REST framework, by the same rules as on /v1."""

from django.conf import settings
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from typing_extensions import override

from keys import openapi  # noqa: F401 - registers this class's scheme for the schema; not for the gateway
from keys.lookup import authenticate_uncached
from keys.principal import Principal


class KeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer cfx_…`. The principal is `request.auth`; there is no user behind a key."""

    @override
    def authenticate(self, request: Request) -> tuple[None, Principal] | None:
        """Return (None, principal), or None without a bearer token. Raises InvalidApiKey, AccountSuspended."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        return None, authenticate_uncached(token.strip(), request.META.get("REMOTE_ADDR"), settings.ENV.salts)

    @override
    def authenticate_header(self, request: Request) -> str:
        return "Bearer"
