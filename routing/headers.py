"""Headers of the gateway's responses that tell how a request was routed. Pure."""

from functools import lru_cache

from billing.limiter.limits import Admission
from codexflow.lib.asgi import Header
from routing.stages import Route


def response_headers(
    route: Route, model: str, admission: Admission, planner: str = "", counted_tokens: int | None = None
) -> list[Header]:
    """Headers of every response: its routing, what the planner decided, the prompt's count, and the daily limit."""
    own = [(b"x-cfx-planner", planner.encode())] if planner else []
    if counted_tokens is not None:
        own.append((b"x-cfx-counted-tokens", b"%d" % counted_tokens))
    return [*routing_headers(route.stage, route.reason, model), *own, *admission.headers()]


@lru_cache(maxsize=1024)
def routing_headers(stage: str, reason: str, model: str) -> tuple[Header, ...]:
    """Headers that tell how a request was routed."""
    return (
        (b"x-cfx-stage", stage.encode()),
        (b"x-cfx-stage-reason", reason.encode()),
        (b"x-cfx-model", model.encode("latin-1", "replace")),
    )
