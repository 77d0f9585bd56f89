"""One call on any metered surface, start to end. Read this first."""

from collections.abc import Mapping

from msgspec import Struct

from billing.limiter.holds import CallSize, worst_nanos
from billing.limiter.limits import Admission
from billing.pricing import FrozenRates, frozen
from codexflow.catalogue import directory
from codexflow.catalogue.schema import Catalogue
from codexflow.env import Env
from codexflow.lib import clock
from codexflow.lib.http import Header
from keys.principal import Principal
from logs.pipeline.events import UsageEvent
from routing import relay
from routing.content_capture import Copy, Copying, Outgoing
from routing.context import House
from routing.errors import (
    ModelNotAllowedForKey,
    ModelNotPriced,
    StageNotAllowedForKey,
    SurfaceNotAllowedForKey,
)
from routing.incoming import Incoming
from routing.stages import Route
from routing.surfaces import body
from routing.surfaces.table import Surface
from routing.upstream.attempts import plan_attempts
from routing.upstream.open import Order, Upstream

MAX_USER_AGENT_CHARS = 200
MAX_NAME_CHARS = 200


async def serve(house: House, incoming: Incoming, surface: Surface) -> None:
    """Answer one call on any metered surface.

    Up to the first upstream byte a failure is an ordinary HTTP error and the next attempt may run; after it the
    failure travels inside the stream. Every admitted call ends in exactly one usage event.
    """
    accepted = await accept(house, incoming, surface)  # 400, 401, 403, 413
    call = accepted.call
    # Before admission: what is wrong with the body must not be found once the call is counted.
    order = _order(house.env, incoming, accepted)  # 400
    house.breakers.refuse_if_all_rest(accepted.rates, order.caller)  # 503
    live = await house.desk.admit(
        accepted.principal, accepted.intent, accepted.rates, size=accepted.size
    )  # 402, 429, 503
    upstream = Upstream(house.pool, house.breakers, house.retries, live, order)
    incoming.watch(upstream.abort)
    live.on_shutdown = upstream.shut_down
    incoming.admission = live.admission
    outgoing: Outgoing = incoming
    if accepted.principal.keeps_content:
        live.content = Copy(accepted.raw)
        outgoing = Copying(incoming, live.content)
    async with live:  # settled and recorded once, whatever happens
        models = tuple(live.rates)  # those that the hold covers
        attempts = plan_attempts(models, house.breakers.resting(models, order.caller))
        opened = await upstream.open_first(attempts)  # 4xx of the upstream, 429, 503, 504
        headers = answer_headers(accepted.route, opened.attempt.model, live.admission)
        if not call.is_stream:
            await relay.send_body(outgoing, live, opened, headers)
            return
        stream = relay.StreamRelay(
            outgoing,
            live,
            upstream,
            opened,
            dialect=surface.dialect,
            wants_usage=call.shape.wants_usage,
            idle_s=house.env.upstream_idle_s,
        )
        await stream.send(headers)


class Accepted(Struct, frozen=True):
    """A call that is understood and allowed, before any limit is asked."""

    principal: Principal
    surface: Surface
    raw: bytes  # the body as received; `call` stands on it
    call: body.Call
    catalogue: Catalogue
    route: Route
    max_tokens: int
    size: CallSize
    rates: dict[str, FrozenRates]  # of every model that may answer, in the order in which they are tried
    intent: UsageEvent


async def accept(house: House, incoming: Incoming, surface: Surface) -> Accepted:
    """Who asks for what, and who may answer. Raises what the caller hears as 400, 401, 403, 408, 413."""
    env = house.env
    principal = await incoming.principal(house.keys)
    if not principal.policy.permits_surface(surface.name):
        raise SurfaceNotAllowedForKey
    raw = await incoming.read(limit_bytes=env.request_body_limit_bytes, timeout_s=env.request_body_timeout_s)
    call = body.parse(raw, surface.shape)
    catalogue = directory.current()
    route = surface.route(call, incoming.header(b"x-cfx-stage"), catalogue)
    rates = _rates(_permitted(route, principal), catalogue, principal.margin_bp)
    max_tokens = call.max_tokens(default=route.default_max_tokens, cap=route.max_tokens_cap)
    size = call.size(max_tokens)
    intent = _intent(incoming, principal, surface, route, call, catalogue, rates, size)
    return Accepted(principal, surface, raw, call, catalogue, route, max_tokens, size, rates, intent)


def _order(env: Env, incoming: Incoming, accepted: Accepted) -> Order:
    """What goes upstream with every attempt. Raises InvalidRequestBody."""
    call, route, catalogue = accepted.call, accepted.route, accepted.catalogue
    return Order(
        path=accepted.surface.path,
        headers=accepted.surface.headers(incoming),
        tail=body.upstream_tail(call, max_tokens=accepted.max_tokens, temperature=route.default_temperature),
        dialect=accepted.surface.dialect,
        is_stream=call.is_stream,
        first_byte_s=route.timeout_s,
        total_s=env.upstream_total_s if call.is_stream else catalogue.total_timeout_s,
        answer_limit_bytes=env.answer_limit_bytes,
        breaker=catalogue.breaker,
        caller=accepted.principal.payer.organization,
    )


def _permitted(route: Route, principal: Principal) -> tuple[str, ...]:
    """The models of the route that the key may use. Raises StageNotAllowedForKey, ModelNotAllowedForKey."""
    if not principal.policy.permits_stage(route.stage):
        raise StageNotAllowedForKey
    if not principal.policy.permits_model(route.models[0]):
        raise ModelNotAllowedForKey
    return tuple(model for model in route.models if principal.policy.permits_model(model))


def _rates(models: tuple[str, ...], catalogue: Catalogue, margin_bp: int) -> dict[str, FrozenRates]:
    """Today's prices of all models that may answer, frozen. Raises ModelNotPriced."""
    found = {}
    for model in models:
        price = catalogue.prices.get(model)
        if price is None:
            raise ModelNotPriced(param="model")
        found[model] = frozen(price, margin_bp=margin_bp)
    return found


def _intent(
    incoming: Incoming,
    principal: Principal,
    surface: Surface,
    route: Route,
    call: body.Call,
    catalogue: Catalogue,
    rates: Mapping[str, FrozenRates],
    size: CallSize,
) -> UsageEvent:
    """What is known of the call before it runs: enough for the sweeper to finish it, should this process die."""
    model = next(iter(rates))
    return UsageEvent(
        request_id=incoming.request_id,
        organization_id=principal.organization_id,
        key_id=principal.key_id,
        user_id=principal.user_id,
        started_ms=clock.now_ms(),
        surface=surface.name,
        endpoint=incoming.scope["path"],
        stage=route.stage,
        stage_reason=route.reason,
        requested_model=_storable(call.model)[:MAX_NAME_CHARS],
        model=model,
        rates=rates[model],
        hold_nanos=worst_nanos(size, rates.values()),
        tokens_reserved=size.tokens,
        prompt_tokens_guess=size.expected_prompt_tokens,
        catalogue_version=catalogue.version,
        is_stream=call.is_stream,
        client_address=incoming.address,
        user_agent=_storable(incoming.header(b"user-agent"))[:MAX_USER_AGENT_CHARS],
    )


def _storable(text: str | None) -> str:
    """The caller's words as PostgreSQL takes them: it knows no NUL."""
    return (text or "").replace("\0", "")


def answer_headers(route: Route, model: str, admission: Admission | None) -> list[Header]:
    """What every answer tells of its routing and of the daily limit."""
    headers: list[Header] = [
        (b"x-cfx-stage", route.stage.encode()),
        (b"x-cfx-stage-reason", route.reason.encode()),
        (b"x-cfx-model", model.encode("latin-1", "replace")),
    ]
    return headers + admission.headers() if admission else headers
