"""ASGI routing, by path.

`/v1/*`, `/health*` and the playground's calls go straight to the gateway, LiteLLM's reports to the webhook, `/metrics`
to the metrics, WebSockets to their consumers, the rest to Django.
"""

import contextlib
import logging
import os
from collections.abc import Mapping
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
from codexflow.hosts import Hosts  # noqa: E402
from codexflow.lib.asgi import Receive, Scope, Send  # noqa: E402
from codexflow.pages.deadline import Deadline  # noqa: E402
from codexflow.settings import ENV  # noqa: E402
from logs.litellm import webhook as litellm_webhook  # noqa: E402
from logs.tail.consumer import LiveTail, UnknownSocket  # noqa: E402
from routing.gateway import PREFIXES, PROBES, gateway  # noqa: E402
from routing.playground import Playground, is_playground  # noqa: E402
from routing.runtime import running  # noqa: E402

logger = logging.getLogger(__name__)
# Proxies whose headers were not believed, each logged once.
MAX_PROXIES_LOGGED = 16

pages = BoundedBodies(Deadline(django_application))
playground = Playground(gateway)
# The session authenticates; the consumer authorizes.
websockets: Any = AuthMiddlewareStack(
    URLRouter([path("ws/o/<slug:slug>/logs/", LiveTail.as_asgi()), re_path(r"", UnknownSocket.as_asgi())])
)
no_websocket: Any = UnknownSocket.as_asgi()
# Raw applications by their exact path. Each authenticates before it reads a body, and is closed at shutdown.
RAW: dict[str, Any] = {
    litellm_webhook.PATH: litellm_webhook.Webhook(ENV),
    operators_metrics.PATH: operators_metrics.Metrics(ENV),
}


class Application:
    """The ASGI application of the process."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.of(scope, dict(scope.get("headers", ())))(scope, receive, send)

    def of(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Any:
        """Return the application that serves a scope with these headers, so that a server need not go through this one.

        The client's address is corrected for requests from trusted proxies; only those that tell one pay for the check.
        """
        if b"x-forwarded-for" in headers or b"x-forwarded-proto" in headers:
            return _behind_proxy
        return _application_for(scope)


def _by_host(scope: Scope) -> Any:
    """Return the application as `_by_path` does, or the one that responds with 404 where the host does not serve it."""
    if scope["type"] != "lifespan" and not _hosts.serve(scope["headers"], scope.get("method", ""), scope["path"]):
        return no_websocket if scope["type"] == "websocket" else gateway
    return _by_path(scope)


def _by_path(scope: Scope) -> Any:
    if scope["type"] == "http":
        path = scope["path"]
        if path.startswith(PREFIXES) or (scope["method"] == "HEAD" and path in PROBES):
            return gateway
        if is_playground(path):
            return playground
        return RAW.get(path, pages)
    return websockets if scope["type"] == "websocket" else _lifespan


async def _corrected(scope: Scope, receive: Receive, send: Send) -> None:
    await _application_for(scope)(scope, receive, send)


_hosts = Hosts(ENV.api_host, ENV.app_host)
_application_for = _by_host if ENV.api_host or ENV.app_host else _by_path
_proxy_headers = ProxyHeadersMiddleware(_corrected, trusted_hosts=list(ENV.trusted_proxies))  # type: ignore[arg-type]
_not_trusted: set[str] = set()


async def _behind_proxy(scope: Scope, receive: Receive, send: Send) -> None:
    """Correct the client's address by what a trusted proxy says of it; of others it is logged that they are none."""
    address = (scope.get("client") or ("", 0))[0]
    is_news = address not in _proxy_headers.trusted_hosts and address not in _not_trusted
    if is_news and len(_not_trusted) < MAX_PROXIES_LOGGED:
        _not_trusted.add(address)
        logger.warning("proxy.not_trusted", extra={"address": address, "setting": "CFX_TRUSTED_PROXIES"})
    await _proxy_headers(scope, receive, send)  # type: ignore[arg-type]


async def _lifespan(_scope: Scope, receive: Receive, send: Send) -> None:
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


application = Application()
