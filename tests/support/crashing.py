"""Unexpected exceptions in a gateway, for `Installation.new_gateway(application=CRASHING)`.

A call crashes where its header `X-Crash` says. The exception quotes the caller's credentials, as a library's may.
Making an API key on its page always crashes, in PostgreSQL's words, which quote the row.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from django.db import IntegrityError

from keys import services
from routing import accept, chat, relay
from routing.upstream import attempts

CRASHING = "tests.support.crashing_application:application"
PLACES = ("accept", "attempts", "stream")  # before admission, after it, in the middle of the response
CREDENTIALS = (b"authorization", b"x-api-key", b"cookie", b"proxy-authorization")

_headers: ContextVar[dict[bytes, bytes]] = ContextVar("headers")


def _crash(place: str) -> None:
    headers = _headers.get({})
    if headers.get(b"x-crash") != place.encode():
        return
    shown = {name: headers[name] for name in CREDENTIALS if name in headers}
    raise RuntimeError(f"nobody expected {shown} with {headers.get(b'authorization', b'').decode()}")


_accept, _plan_attempts, _pass = (
    accept.accept,
    attempts.plan_attempts,
    relay.StreamRelay._pass,
)


async def _crashing_accept(context: Any, incoming: Any, surface: Any) -> Any:
    _headers.set(incoming.headers)
    accepted = await _accept(context, incoming, surface)
    _crash("accept")
    return accepted


def _crashing_plan(*args: Any) -> Any:
    _crash("attempts")
    return _plan_attempts(*args)


async def _crashing_pass(self: Any, *args: Any, **named: Any) -> Any:
    _crash("stream")
    return await _pass(self, *args, **named)


def _crashing_issue(*args: Any, **named: Any) -> Any:
    row = ", ".join(str(each) for each in (*args, *named.values()))
    detail = f"DETAIL:  Failing row contains (1, {row}, null)."
    raise IntegrityError(f'null value in column "hash" of relation "keys_apikey" violates a constraint\n{detail}\n')


def install() -> None:
    """Put the exceptions in, for the rest of this process. Only for one that is started to crash."""
    changes: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
        (chat, "accept", _crashing_accept),
        (chat, "plan_attempts", _crashing_plan),
        (relay.StreamRelay, "_pass", _crashing_pass),
        (services, "issue_key", _crashing_issue),
    )
    for owner, name, replacement in changes:
        setattr(owner, name, replacement)
