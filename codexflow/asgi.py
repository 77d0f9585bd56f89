"""HTTP entrances: `/v1/*` and `/health*` go straight to the gateway, everything else to Django."""

import contextlib
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "codexflow.settings")  # noqa: TID251 - Django reads it there
django_application = get_asgi_application()

from codexflow.settings import ENV  # noqa: E402 - Django must be set up first
from routing.gateway import PREFIXES, Gateway  # noqa: E402
from routing.runtime import running  # noqa: E402

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

gateway = Gateway()


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """The one ASGI application."""
    if scope["type"] == "http":
        if scope["path"].startswith(PREFIXES):
            await gateway(scope, receive, send)
        else:
            await django_application(scope, receive, send)  # type: ignore[arg-type] # Django types scopes narrower
    elif scope["type"] == "lifespan":
        await _lifespan(receive, send)


async def _lifespan(receive: Receive, send: Send) -> None:
    """Start the gateway before the first request and end it after the last."""
    async with contextlib.AsyncExitStack() as stack:
        await receive()
        try:
            await stack.enter_async_context(running(gateway, ENV))
        except Exception as exc:
            await send({"type": "lifespan.startup.failed", "message": str(exc)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})
