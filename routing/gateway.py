"""ASGI application of `/v1/*` and `/health*`: route table, guard, and the response to every failure.

No Django middleware runs here: it would cost fifteen thread hops a request, and Django would spool an
unauthenticated body to disk before any view runs.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from billing.limiter.limits import Admission
from codexflow.catalogue import directory
from codexflow.catalogue.lineup import Lineup
from codexflow.lib.asgi import Header, Receive, Scope, Send
from codexflow.lib.errors import AppError
from keys.errors import InvalidApiKey
from routing import chat, cors, count_tokens, health, models_list
from routing.context import GatewayContext
from routing.errors import ClientDisconnected, MethodNotAllowed, ShuttingDown, UnknownRoute, UpgradeRefused
from routing.incoming import Incoming
from routing.surfaces.table import BY_PATH, COUNT_TOKENS, Surface, response_format_of

logger = logging.getLogger(__name__)

Handler = Callable[[GatewayContext, Incoming], Awaitable[None]]
PREFIXES = ("/v1/", "/v2/rerank", "/chat/completions", "/health")
# Claude Code probes its base URL with HEAD before the first call. Any host answers, also one that serves no pages.
PROBES = frozenset({"/", "/api/hello"})


def _metered(surface: Surface) -> dict[str, Handler]:
    return {"POST": lambda context, incoming: chat.serve(context, incoming, surface)}


ROUTES: dict[str, dict[str, Handler]] = {
    **{path: _metered(surface) for path, surface in BY_PATH.items()},
    COUNT_TOKENS.path: {"POST": count_tokens.serve},
    models_list.PATH: {"GET": models_list.list_models},
}
# Known at the upstream, and not sold.
_UNPRICED_PREFIXES = ("/v1/images/", "/v1/audio/")
_WITHOUT_PRICES = "Images and audio have no prices here yet; until they have, their endpoints are not served."
MODEL_ROUTE: dict[str, Handler] = {"GET": models_list.show_model}


class Gateway:
    """The ASGI application. `context` is set from startup to shutdown; without it nothing can be served."""

    def __init__(self) -> None:
        self.context: GatewayContext | None = None
        self.health: health.Health | None = None
        self.is_shutting_down = False

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return self.serve(Incoming(scope, receive, send))

    async def serve(self, incoming: Incoming) -> None:
        """Serve a request, whatever goes wrong; also for callers that are authenticated by other means than a key."""
        try:
            incoming.check_headers()
            await self._dispatch(incoming)
        except ClientDisconnected:
            return  # there is no caller left to respond to; the log has it
        except AppError as error:
            await self._refuse(incoming, error)
        except Exception as exc:
            logger.exception("gateway.failed", extra={"request_id": str(incoming.request_id)})
            await self._refuse(incoming, AppError(reason=repr(exc)))

    def _dispatch(self, incoming: Incoming) -> Awaitable[None]:
        scope = incoming.scope
        path: str = scope["path"]
        if b"origin" in incoming.headers and self.context is not None:
            allowed = self.context.env.cors_origins
            incoming.allow_origin(cors.response_headers(incoming.headers[b"origin"], allowed))
        methods = ROUTES.get(path)
        if methods is None:
            if path.startswith("/health"):
                return self._serve_health(incoming, path)
            if path in PROBES and scope["method"] == "HEAD":
                return incoming.respond(200, [], b"")
            if not path.startswith("/v1/models/"):
                raise UnknownRoute(_WITHOUT_PRICES if path.startswith(_UNPRICED_PREFIXES) else None)
            methods = MODEL_ROUTE
        method = scope["method"]
        handler = methods.get("GET" if method == "HEAD" else method)  # the server leaves the body out
        if handler is None:
            if method == "OPTIONS":
                return self._allow_origin(incoming, methods)
            if incoming.headers.get(b"upgrade", b"").lower() == b"websocket":
                raise UpgradeRefused
            raise MethodNotAllowed(*_with_head(methods))
        if self.context is None or self.is_shutting_down:
            raise ShuttingDown(retry_after_s=1)
        return handler(self.context, incoming)

    async def _allow_origin(self, incoming: Incoming, methods: Iterable[str]) -> None:
        """Answer a browser's question before the request itself; without a permission where its origin has none."""
        headers: list[Header] = [(b"allow", ", ".join([*_with_head(methods), "OPTIONS"]).encode())]
        if self.context is not None and b"origin" in incoming.headers:
            requested = incoming.headers.get(b"access-control-request-headers", b"")
            allowed = self.context.env.cors_origins
            incoming.allow_origin(cors.preflight_headers(incoming.headers[b"origin"], requested, allowed))
        await incoming.respond(204, headers, b"")

    async def _serve_health(self, incoming: Incoming, path: str) -> None:
        if incoming.scope["method"] not in ("GET", "HEAD"):
            raise MethodNotAllowed("GET", "HEAD")
        if path.rstrip("/") == "/health/live":
            await incoming.respond(200, [models_list.JSON], b'{"status":"alive"}')
            return
        if self.health is None or path.rstrip("/") not in ("/health", "/health/ready"):
            raise UnknownRoute
        report = await self.health.report(is_shutting_down=self.is_shutting_down)
        await incoming.respond(200 if report.can_serve else 503, [models_list.JSON], msgspec.json.encode(report.body))

    async def _refuse(self, incoming: Incoming, error: AppError) -> None:
        """Respond with the error, unless a response has begun; then only cutting it off is honest."""
        if incoming.is_started:
            return
        if incoming.caller is not None and incoming.admission is None and self.context is not None:
            # An admitted call has a row of its own.
            self.context.refusals.count(incoming.caller, error.code, error.message)
        if not isinstance(error, InvalidApiKey):
            logger.info(
                "gateway.refused",
                extra={"request_id": str(incoming.request_id), "code": error.code, "status": int(error.status)},
            )
        admission = incoming.admission or error.facts.get("admission")
        headers: list[Header] = admission.headers() if isinstance(admission, Admission) else []
        body = response_format_of(incoming.scope["path"], incoming.headers).error_body(error)
        await incoming.refuse(error, body, headers)


def _with_head(methods: Iterable[str]) -> list[str]:
    return [each for method in methods for each in ((method, "HEAD") if method == "GET" else (method,))]


# The instance of this process. The status page reads it, too.
gateway = Gateway()


def served_lineup() -> Lineup:
    """Return which models this process serves; in one without a gateway, as far as the catalogue alone decides."""
    return gateway.context.listing.lineup() if gateway.context else directory.todays_lineup()
