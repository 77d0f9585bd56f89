"""Entrances: `/v1/*`, `/health*` and the playground's calls go straight to the gateway, LiteLLM's reports to the
webhook, Prometheus to the metrics, WebSockets to their consumers, the rest to Django.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "codexflow.settings")  # noqa: TID251 - Django reads it there
django_application = get_asgi_application()

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import URLRouter  # noqa: E402
from django.conf import settings  # noqa: E402
from django.urls import path, re_path  # noqa: E402
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware  # noqa: E402

from adminpanel import metrics as operators_metrics  # noqa: E402 - Django must be set up first
from codexflow.lib.envelope import envelope  # noqa: E402
from codexflow.lib.errors import AppError  # noqa: E402
from codexflow.lib.http import headers_of  # noqa: E402
from codexflow.lib.ids import new_id  # noqa: E402
from codexflow.settings import ENV  # noqa: E402
from logs.consumers import LiveTail, Nowhere  # noqa: E402
from logs.litellm import webhook as litellm_webhook  # noqa: E402
from routing.errors import RequestTimeout, RequestTooLarge  # noqa: E402
from routing.gateway import PREFIXES, gateway  # noqa: E402
from routing.playground import Playground, is_playground  # noqa: E402
from routing.runtime import running  # noqa: E402

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

playground = Playground(gateway)
# The session says who it is; the consumer asks whether they may.
websockets: Any = AuthMiddlewareStack(
    URLRouter([path("ws/o/<slug:slug>/logs/", LiveTail.as_asgi()), re_path(r"", Nowhere.as_asgi())])
)
webhook = litellm_webhook.Webhook(ENV)
metrics = operators_metrics.Metrics(ENV)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """The one ASGI application."""
    if scope["type"] != "lifespan":
        for name, _ in scope["headers"]:
            if name.startswith(b"x-forwarded-"):
                await _behind_proxy(scope, receive, send)
                return
    await _served(scope, receive, send)


async def _served(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        if scope["path"].startswith(PREFIXES):
            await gateway(scope, receive, send)
        elif scope["path"] == litellm_webhook.PATH:
            await webhook(scope, receive, send)
        elif scope["path"] == operators_metrics.PATH:
            await metrics(scope, receive, send)
        elif is_playground(scope["path"]):
            await playground(scope, receive, send)
        else:
            await _pages(scope, receive, send)
    elif scope["type"] == "websocket":
        await websockets(scope, receive, send)
    elif scope["type"] == "lifespan":
        await _lifespan(receive, send)


# What Django reads of a form or of JSON anyway; nothing here takes files.
MAX_BODY_BYTES = settings.DATA_UPLOAD_MAX_MEMORY_SIZE


class _Body:
    """A body on its way to Django, which takes it to disk, whoever sends it, before any view could refuse it.

    One that is too large or too slow ends as if its sender had left, and `error` says why.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        is_small = announced.isdigit() and len(announced) < 19 and int(announced) <= MAX_BODY_BYTES
        self.error: AppError | None = None if is_small else _too_large()
        self._receive = receive
        self._left = MAX_BODY_BYTES
        self._until_s = asyncio.get_running_loop().time() + ENV.request_body_timeout_s
        self._is_whole = False

    async def receive(self) -> MutableMapping[str, Any]:
        if self._is_whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until_s):
                message = await self._receive()
        except TimeoutError:
            self.error = RequestTimeout()
            return {"type": "http.disconnect"}
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.error = _too_large()
            return {"type": "http.disconnect"}
        self._is_whole = not message.get("more_body", False)
        return message


def _too_large() -> RequestTooLarge:
    return RequestTooLarge(f"The request body may have at most {MAX_BODY_BYTES} bytes.")


async def _pages(scope: Scope, receive: Receive, send: Send) -> None:
    """Everything that Django serves."""
    body = _Body(scope, receive)
    if body.error is None:
        await django_application(scope, body.receive, send)  # type: ignore[arg-type] # Django types scopes narrower
    if body.error is not None:
        text = msgspec.json.encode(envelope(body.error))
        headers = [
            *headers_of(body.error),
            (b"x-cfx-request-id", str(new_id()).encode()),
            (b"content-length", b"%d" % len(text)),
            (b"connection", b"close"),  # or the rest would be read to its end and thrown away
        ]
        await send({"type": "http.response.start", "status": int(body.error.status), "headers": headers})
        await send({"type": "http.response.body", "body": text})


# Only requests that say they were forwarded are worth a look at who may say so.
_behind_proxy: Any = ProxyHeadersMiddleware(_served, trusted_hosts=list(ENV.trusted_proxies))  # type: ignore[arg-type]


async def _lifespan(receive: Receive, send: Send) -> None:
    """Start the gateway before the first request and end it after the last."""
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(webhook.close)
        stack.push_async_callback(metrics.close)
        await receive()
        try:
            await stack.enter_async_context(running(gateway, ENV))
        except Exception as exc:
            await send({"type": "lifespan.startup.failed", "message": str(exc)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})
