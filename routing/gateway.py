"""The raw ASGI entrance of `/v1/*` and `/health*`: route table, guard, and the last word on every failure.

No Django middleware is met here: it would cost fifteen thread hops a request, and Django would spool an
unauthenticated body to disk before any view runs.
"""

import logging
from collections.abc import Awaitable, Callable

import msgspec

from billing.limits import Admission
from codexflow.catalogue import directory
from codexflow.lib.errors import AppError
from codexflow.lib.http import Header
from keys.errors import InvalidApiKey
from routing import chat, health, stages
from routing.chat import House
from routing.errors import ClientDisconnected, MethodNotAllowed, ShuttingDown, UnknownRoute
from routing.incoming import Incoming, Receive, Scope, Send

logger = logging.getLogger(__name__)

Handler = Callable[[House, Incoming], Awaitable[None]]
PREFIXES = ("/v1/", "/chat/completions", "/health")
# Seconds since 1970 that /v1/models gives as every model's age: nobody knows the real one.
MODELS_CREATED_S = 1_735_689_600


async def list_models(house: House, incoming: Incoming) -> None:
    """GET /v1/models: stages and allowed models in OpenAI's shape."""
    await house.keys.authenticate(incoming.bearer(), incoming.address)
    names = stages.allowed_names(directory.current())
    await _json(incoming, {"object": "list", "data": [_model(name) for name in names]})


async def show_model(house: House, incoming: Incoming) -> None:
    """GET /v1/models/{id}."""
    await house.keys.authenticate(incoming.bearer(), incoming.address)
    name = incoming.scope["path"].removeprefix("/v1/models/")
    if name not in stages.allowed_names(directory.current()):
        raise UnknownRoute(f"There is no model {name[:100]!r}.", param="model")
    await _json(incoming, _model(name))


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": MODELS_CREATED_S, "owned_by": "codexflow"}


async def _json(incoming: Incoming, content: object) -> None:
    await incoming.respond(200, [(b"content-type", b"application/json")], msgspec.json.encode(content))


ROUTES: dict[str, dict[str, Handler]] = {
    "/v1/chat/completions": {"POST": chat.serve},
    "/chat/completions": {"POST": chat.serve},
    "/v1/models": {"GET": list_models},
}
MODEL_ROUTE: dict[str, Handler] = {"GET": show_model}


class Gateway:
    """One a process. `house` is there from startup to shutdown; without it nothing can be served."""

    def __init__(self) -> None:
        self.house: House | None = None
        self.health: health.Health | None = None
        self.is_draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming = Incoming(scope, receive, send)
        try:
            incoming.check_headers()
            await self._answer(incoming)
        except ClientDisconnected:
            return  # nobody is there to hear it; the log has it
        except AppError as error:
            await self._refuse(incoming, error)
        except Exception as exc:
            logger.exception("gateway.failed", extra={"request_id": str(incoming.request_id)})
            await self._refuse(incoming, AppError(reason=repr(exc)))

    async def _answer(self, incoming: Incoming) -> None:
        path: str = incoming.scope["path"]
        if path.startswith("/health"):
            await self._answer_health(incoming, path)
            return
        methods = ROUTES.get(path) or (MODEL_ROUTE if path.startswith("/v1/models/") else None)
        if methods is None:
            raise UnknownRoute
        handler = methods.get(incoming.scope["method"])
        if handler is None:
            raise MethodNotAllowed(f"Allowed: {', '.join(methods)}.")
        if self.house is None or self.is_draining:
            raise ShuttingDown(retry_after_s=1)
        await handler(self.house, incoming)

    async def _answer_health(self, incoming: Incoming, path: str) -> None:
        if incoming.scope["method"] not in ("GET", "HEAD"):
            raise MethodNotAllowed("Allowed: GET.")
        if path.rstrip("/") == "/health/live":
            await _json(incoming, {"status": "alive"})
            return
        if self.health is None or path.rstrip("/") not in ("/health", "/health/ready"):
            raise UnknownRoute
        report = await self.health.report(is_draining=self.is_draining)
        await incoming.respond(
            200 if report.can_serve else 503, [(b"content-type", b"application/json")], msgspec.json.encode(report.body)
        )

    @staticmethod
    async def _refuse(incoming: Incoming, error: AppError) -> None:
        """Tell the caller, unless an answer has begun; then only cutting it off is honest."""
        if incoming.is_started:
            return
        if not isinstance(error, InvalidApiKey):
            logger.info(
                "gateway.refused",
                extra={"request_id": str(incoming.request_id), "code": error.code, "status": int(error.status)},
            )
        admission = incoming.admission or error.facts.get("admission")
        headers: list[Header] = admission.headers() if isinstance(admission, Admission) else []
        await incoming.refuse(error, headers)
