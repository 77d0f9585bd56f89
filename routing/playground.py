"""Chat completions for the playground, authenticated by the session instead of a key.

The browser sends the request of an SDK to a URL of the organization, with its session's cookie. The gateway serves it
like any other (limits, holds, metering, log), under a key of its own kind: one for each person and organization,
restricted to chat, its secret discarded when it is made. So a page holds nothing that could leak or outlive the
session, any process can serve any call, and the numbers are exact because nothing is counted twice or elsewhere.
Session, membership and role are checked for each call.
"""

import re
from collections.abc import Awaitable

from django.db import DatabaseError
from typing_extensions import override

from accounts.permissions import Action, may
from accounts.selectors import membership_of
from codexflow.lib.asgi import Receive, Scope, Send
from codexflow.lib.db import look_up
from codexflow.lib.errors import NotFound
from codexflow.lib.origin import is_own_origin
from codexflow.lib.session import session_key_in, user_of_session
from keys.errors import AccountSuspended, ActionNotAllowed, AuthenticationUnavailable, InvalidApiKey
from keys.lookup import PrincipalCache, require_usable
from keys.principal import Principal
from keys.selectors import principal_of
from keys.services import playground_key
from routing.gateway import Gateway
from routing.incoming import Incoming
from routing.surfaces.table import CHAT

_PATH = re.compile(r"/o/([-\w]+)/playground/chat", re.ASCII)


def is_playground(path: str) -> bool:
    return path.startswith("/o/") and _PATH.fullmatch(path) is not None


class Playground:
    """`POST /o/<slug>/playground/chat`, with the body of a chat completion."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._gateway.serve(SessionIncoming(scope, receive, send))


class SessionIncoming(Incoming):
    """A request authenticated by the session. To the gateway it is one to the chat surface."""

    __slots__ = ("_slug",)

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _PATH.fullmatch(scope["path"])
        self._slug = found[1] if found else ""
        super().__init__({**scope, "path": CHAT.path}, receive, send)

    @override
    def principal(self, keys: PrincipalCache) -> Awaitable[Principal]:
        return self._principal()

    async def _principal(self) -> Principal:
        # Browsers send the origin of every POST. Without it the request is from no page of ours, whatever its cookie.
        if b"origin" not in self.headers or not is_own_origin(self.scope):
            raise NotFound
        session_key = session_key_in(self.headers.get(b"cookie", b""))
        try:
            return await look_up(session_principal, self._slug, session_key, self.address)
        except DatabaseError as exc:
            raise AuthenticationUnavailable(retry_after_s=1) from exc


def session_principal(slug: str, session_key: str, address: str | None) -> Principal:
    """Return the principal of a session. Blocks: not for the event loop.

    Raises InvalidApiKey (401) without a session, NotFound (404) for strangers, ActionNotAllowed (403) for members
    who may not spend, AccountSuspended (403).
    """
    user = user_of_session(session_key)
    if user is None:
        raise InvalidApiKey("Sign in again.")
    membership = membership_of(user, slug)
    if membership is None:
        raise NotFound
    if user.must_change_password or not may(membership.role, Action.USE_PLAYGROUND):
        raise ActionNotAllowed
    principal = principal_of(playground_key(membership.organization, user).public_id)
    if principal is None:
        raise AccountSuspended
    return require_usable(principal, address)
