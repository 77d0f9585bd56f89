"""ASGI routing, by path.

`/v1/*`, `/health*` and the playground's calls go straight to the gateway, LiteLLM's reports to the webhook, `/metrics`
to the metrics, WebSockets to their consumers, the rest to Django.
"""

import contextlib
import os
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "codexflow.settings")  # noqa: TID251 - Django reads it there
django_application = get_asgi_application()

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import URLRouter  # noqa: E402
from django.urls import path, re_path  # noqa: E402
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware  # noqa: E402

from adminpanel import metrics as operators_metrics  # noqa: E402 - Django must be set up first
from codexflow.bodies import BoundedBodies  # noqa: E402
from codexflow.lib.asgi import Receive, Scope, Send  # noqa: E402
from codexflow.pages.deadline import Deadline  # noqa: E402
from codexflow.settings import ENV  # noqa: E402
from logs.litellm import webhook as litellm_webhook  # noqa: E402
from logs.tail.consumer import LiveTail, UnknownSocket  # noqa: E402
from routing.gateway import PREFIXES, PROBES, gateway  # noqa: E402
from routing.playground import Playground, is_playground  # noqa: E402
from routing.runtime import running  # noqa: E402

pages = BoundedBodies(Deadline(django_application))
playground = Playground(gateway)
# The session authenticates; the consumer authorizes.
websockets: Any = AuthMiddlewareStack(
    URLRouter([path("ws/o/<slug:slug>/logs/", LiveTail.as_asgi()), re_path(r"", UnknownSocket.as_asgi())])
)
# Raw applications by their exact path. Each authenticates before it reads a body, and is closed at shutdown.
RAW: dict[str, Any] = {
    litellm_webhook.PATH: litellm_webhook.Webhook(ENV),
    operators_metrics.PATH: operators_metrics.Metrics(ENV),
}


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one ASGI scope, with the client address corrected for requests from trusted proxies."""
    if scope["type"] != "lifespan" and b"\nx-forwarded-" in b"\n".join([b"", *dict(scope["headers"])]):
        await _behind_proxy(scope, receive, send)
    elif scope["type"] == "http" and scope["path"].startswith(PREFIXES):
        await gateway(scope, receive, send)  # without one more step: each costs whenever a call goes on
    else:
        await _served(scope, receive, send)


async def _served(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        if scope["path"].startswith(PREFIXES) or (scope["method"] == "HEAD" and scope["path"] in PROBES):
            await gateway(scope, receive, send)
        elif (raw := RAW.get(scope["path"])) is not None:
            await raw(scope, receive, send)
        elif is_playground(scope["path"]):
            await playground(scope, receive, send)
        else:
            await pages(scope, receive, send)
    elif scope["type"] == "websocket":
        await websockets(scope, receive, send)
    elif scope["type"] == "lifespan":
        await _lifespan(receive, send)


# Only requests with X-Forwarded headers pay for the check whether their sender is a trusted proxy.
_behind_proxy: Any = ProxyHeadersMiddleware(_served, trusted_hosts=list(ENV.trusted_proxies))  # type: ignore[arg-type]


async def _lifespan(receive: Receive, send: Send) -> None:
    """Start the gateway before the first request and stop it after the last."""
    async with contextlib.AsyncExitStack() as stack:
        for raw in RAW.values():
            stack.push_async_callback(raw.close)
        await receive()
        try:
            await stack.enter_async_context(running(gateway, ENV))
        except Exception as exc:
            await send({"type": "lifespan.startup.failed", "message": str(exc)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})
