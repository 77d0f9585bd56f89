"""One call on /v1/chat/completions, start to end. Read this first."""

from collections.abc import Mapping
from dataclasses import dataclass

from billing.holds import CallSize, worst_nanos
from billing.limits import Admission
from billing.pricing import FrozenRates
from codexflow.catalogue import directory
from codexflow.catalogue.schema import Catalogue
from codexflow.env import Env
from codexflow.lib import clock
from codexflow.lib.http import Header
from keys.lookup import Directory
from keys.principal import Principal
from logs.events import UsageEvent
from routing import body, relay, stages
from routing.attempts import plan_attempts
from routing.breaker_store import Breakers
from routing.errors import (
    ModelNotAllowedForKey,
    ModelNotPriced,
    StageNotAllowedForKey,
)
from routing.incoming import Incoming
from routing.live import FrontDesk
from routing.pool import Pool
from routing.stages import Route
from routing.upstream import Order, Upstream

SURFACE = "chat"
PATH = "/v1/chat/completions"
MAX_USER_AGENT_CHARS = 200
MAX_NAME_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What every call of this process shares."""

    env: Env
    keys: Directory
    desk: FrontDesk
    breakers: Breakers
    pool: Pool


async def serve(house: House, incoming: Incoming) -> None:
    """Answer one call.

    Up to the first upstream byte a failure is an ordinary HTTP error and the next attempt may run; after it the
    failure travels inside the stream. Every admitted call ends in exactly one usage event.
    """
    env = house.env
    principal = await house.keys.authenticate(incoming.bearer(), incoming.address)  # 401, 403
    raw = await incoming.read(limit_bytes=env.request_body_limit_bytes, timeout_s=env.request_body_timeout_s)
    call = body.parse(raw)  # 400
    catalogue = directory.current()
    route = stages.route(
        stage_header=incoming.header(b"x-cfx-stage"), model=call.model, prompt=call.prompt, catalogue=catalogue
    )  # 400
    models = _permitted(route, principal)  # 403
    rates = _rates(models, catalogue, principal.margin_bp)
    house.breakers.refuse_if_all_rest(models)  # 503

    max_tokens = call.max_tokens(default=route.default_max_tokens, cap=route.max_tokens_cap)
    size = call.size(max_tokens)
    intent = _intent(incoming, principal, route, call, catalogue, rates, size)
    # Before admission: what is wrong with the body must not be found once the call is counted.
    order = Order(
        path=PATH,
        tail=body.upstream_tail(call, max_tokens=max_tokens, temperature=route.default_temperature),  # 400
        is_stream=call.is_stream,
        first_byte_s=route.timeout_s,
        total_s=env.upstream_total_s if call.is_stream else catalogue.total_timeout_s,
        answer_limit_bytes=env.answer_limit_bytes,
        breaker=catalogue.breaker,
    )
    live = await house.desk.admit(principal, intent, rates)  # 402, 429, 503
    upstream = Upstream(house.pool, house.breakers, live, order)
    incoming.watch(upstream.abort)
    live.on_shutdown = upstream.shut_down
    incoming.admission = live.admission
    async with live:  # settled and recorded once, whatever happens
        attempts = plan_attempts(models, await house.breakers.resting(models, catalogue.breaker))
        opened = await upstream.open_first(attempts)  # 4xx of the upstream, 429, 503, 504
        headers = [*_headers(route, opened.attempt.model), *_limit_headers(live.admission)]
        if not call.is_stream:
            await relay.send_body(incoming, live, opened, headers)
            return
        stream = relay.StreamRelay(
            incoming, live, upstream, opened, wants_usage=call.wants_usage, idle_s=env.upstream_idle_s
        )
        await stream.send(headers)


def _permitted(route: Route, principal: Principal) -> tuple[str, ...]:
    """The models of the route that the key may use. Raises StageNotAllowedForKey, ModelNotAllowedForKey."""
    if not principal.policy.permits_stage(route.stage):
        raise StageNotAllowedForKey
    if not principal.policy.permits_model(route.models[0]):
        raise ModelNotAllowedForKey
    return tuple(model for model in route.models if principal.policy.permits_model(model))


def _rates(models: tuple[str, ...], catalogue: Catalogue, margin_bp: int) -> dict[str, FrozenRates]:
    """Today's prices of all models that may answer, frozen. Raises ModelNotPriced."""
    try:
        prices = [catalogue.prices[model] for model in models]
    except KeyError as exc:
        raise ModelNotPriced(param="model") from exc
    return {
        model: FrozenRates(
            input_nanos=price.input_nanos,
            cached_nanos=price.cached_nanos,
            output_nanos=price.output_nanos,
            margin_bp=margin_bp,
        )
        for model, price in zip(models, prices, strict=True)
    }


def _intent(
    incoming: Incoming,
    principal: Principal,
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
        surface=SURFACE,
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


def _headers(route: Route, model: str) -> list[Header]:
    return [
        (b"x-cfx-stage", route.stage.encode()),
        (b"x-cfx-stage-reason", route.reason.encode()),
        (b"x-cfx-model", model.encode("latin-1", "replace")),
    ]


def _limit_headers(admission: Admission | None) -> list[Header]:
    return admission.headers() if admission else []
