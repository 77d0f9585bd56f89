"""Acceptance of a call: authentication, parsing, routing and prices, before any limit is checked."""

from collections.abc import Iterable
from functools import lru_cache

from msgspec import Struct

from billing.limiter.holds import MOST_CONTEXT_TOKENS, CallSize, worst_nanos
from billing.pricing import FrozenRates, frozen
from codexflow.catalogue.lineup import Lineup
from codexflow.catalogue.schema import ALL_STAGES, Catalogue
from codexflow.env import Env
from codexflow.lib import clock
from codexflow.lib.complexity import TooComplex, check_complexity, is_light
from codexflow.lib.heavy import beside_the_loop
from codexflow.lib.money import format_usd
from keys.principal import Principal
from logs.pipeline.events import UsageEvent
from routing.context import GatewayContext
from routing.errors import (
    InvalidRequestBody,
    InvalidStage,
    MaxCostExceeded,
    ModelNotAllowedForKey,
    ModelNotPriced,
    NotOffered,
    StageNotAllowedForKey,
    SurfaceNotAllowedForKey,
)
from routing.incoming import Incoming
from routing.planner.engage import Mode
from routing.planner.request import Planning, cap_of, considered, is_considered
from routing.stages import Route, permitted_names
from routing.surfaces import body, tags
from routing.surfaces.bounds import bounded, reserved_tokens, windows_of
from routing.surfaces.served import known_name
from routing.surfaces.table import COUNT_TOKENS, Surface
from routing.surfaces.tools import added_by_agent, is_agent, least_units
from routing.upstream.open import UpstreamRequest

MAX_USER_AGENT_CHARS = 200
MAX_NAME_CHARS = 200


class AcceptedCall(Struct, frozen=True, kw_only=True):
    """A call that is understood and permitted. What limiter and upstream need of it is made by its methods."""

    incoming: Incoming
    principal: Principal
    surface: Surface
    raw: bytes  # the body as received
    request: body.ParsedRequest
    catalogue: Catalogue
    route: Route
    max_tokens: int
    size: CallSize
    tokens_reserved: int
    rates: dict[str, FrozenRates]  # of every model that may serve the call, in the order in which they are tried
    tag: str = ""  # the caller's own
    planning: Planning | None = None  # where the planner has looked at it
    # One pass could cost more than the caller's cap; a plan may not, nor a prompt whose tokens were counted.
    is_above_cap: MaxCostExceeded | None = None

    @property
    def first_model(self) -> str:
        return next(iter(self.rates))

    def upstream_request(self, env: Env) -> UpstreamRequest:
        """Build what is sent upstream with every attempt. Raises InvalidRequestBody."""
        request, route, surface = self.request, self.route, self.surface
        tails = body.Tails(request, self._fit, may_drop=is_agent(self.incoming.headers))
        tails.of(self.first_model)
        return UpstreamRequest(
            path=surface.path,
            headers=surface.headers(self.incoming.headers),
            tail_of=tails.of,
            response_format=surface.response_format,
            is_stream=request.is_stream,
            first_byte_s=route.timeout_s,
            idle_s=env.upstream_idle_s,
            total_s=env.upstream_total_s if request.is_stream else self.catalogue.total_timeout_s,
            response_limit_bytes=env.answer_limit_bytes,
            breaker=self.catalogue.breaker,
            payer=self.principal.payer,
            entries=self.catalogue.entries,
        )

    def _fit(self, model: str) -> body.Fit:
        """Fit parameters to a model. The one that the caller named gets the caller's own as they are."""
        entry, route, max_tokens = self.catalogue.entries[model], self.route, self.max_tokens
        if entry.max_output_tokens is not None and entry.max_output_tokens < max_tokens:
            max_tokens = entry.max_output_tokens
        temperature = route.default_temperature if "temperature" in entry.takes else None
        if model == route.exact_model:
            return body.Fit(max_tokens, temperature)
        return body.Fit(max_tokens, temperature, body.refused_fields(entry.takes))

    def left_out(self, model: str) -> tuple[str, ...]:
        """Return the caller's fields that the model was not sent, because it refuses them."""
        if model == self.route.exact_model:
            return ()
        refused = self._fit(model).left_out
        return tuple(sorted(refused & self.request.fields.keys())) if refused else ()

    def rates_of(self, served: str) -> tuple[str, FrozenRates] | None:
        """Price a model that answered in place of the asked one, by its own price list; None if it is not known."""
        name = known_name(served, self.catalogue.prices)
        if name is None:
            return None
        return name, frozen(self.catalogue.prices[name], margin_bp=self.principal.margin_bp)

    def most_tokens(self, model: str) -> tuple[int, int]:
        """Return the most tokens that the call may have a model read and write. Anything beyond is a wrong count."""
        entry, size = self.catalogue.entries.get(model), self.size
        windows = windows_of(self.request)
        context_tokens = (entry and entry.context_tokens) or MOST_CONTEXT_TOKENS
        written = (entry and entry.max_output_tokens) or context_tokens
        return context_tokens * windows, max(size.completion_tokens, written * size.choices * windows)

    def intent(self) -> UsageEvent:
        """Build the intent: enough for the sweeper to finish the call, should this process die."""
        budgeted = self.principal.tags.get(self.tag) if self.tag else None
        incoming, principal, request, size = self.incoming, self.principal, self.request, self.size
        model = self.first_model
        return UsageEvent(
            request_id=incoming.request_id,
            organization_id=principal.organization_id,
            key_id=principal.key_id,
            user_id=principal.user_id,
            started_ms=clock.now_ms(),
            surface=self.surface.name,
            endpoint=incoming.scope["path"],
            stage=self.route.stage,
            stage_reason=self.route.reason,
            requested_model=_storable((request.model or "")[:MAX_NAME_CHARS]),
            model=model,
            rates=self.rates[model],
            hold_nanos=worst_nanos(size, self.rates),
            tokens_reserved=self.tokens_reserved,
            prompt_tokens_guess=size.guess(model),
            units_guess=size.expected_units,
            least_units=least_units(request.hosted) if request.hosted else None,
            catalogue_version=self.catalogue.version,
            is_stream=request.is_stream,
            client_address=incoming.address,
            user_agent=_storable(incoming.headers.get(b"user-agent", b"")[:MAX_USER_AGENT_CHARS]),
            first_key_id=principal.first_key_id,
            tag=self.tag,
            tag_budget_id=budgeted.budget_id if budgeted is not None else None,
            planner=self.planning.decision.reason if self.planning is not None else "",
        )


async def accept(context: GatewayContext, incoming: Incoming, surface: Surface) -> AcceptedCall:
    """Authenticate, read and route a call. Raises the errors that callers see as 400, 401, 403, 408, 413, 429 and 503.

    A large body of a caller who is over a limit is not read.
    """
    env = context.env
    incoming.caller = principal = await incoming.principal(context.keys)
    if not principal.policy.permits_surface(surface.name):
        raise SurfaceNotAllowedForKey.named(surface.name, principal.policy.allowed_surfaces)
    raw = incoming.small_body(limit_bytes=env.request_body_limit_bytes)
    try:
        if raw is not None and is_light(raw):
            return _understood(incoming, principal, surface, raw, context.listing.lineup())  # nearly always
        return await _read(context, incoming, principal, surface, raw)
    except RecursionError:  # the decoder goes deeper than what looks through its values
        raise InvalidRequestBody("The body is nested too deeply.") from None


async def _read(
    context: GatewayContext, incoming: Incoming, principal: Principal, surface: Surface, raw: bytes | None
) -> AcceptedCall:
    """Read a body, unless it is here, and understand it, on a thread if that is much work."""
    env = context.env
    try:
        raw = raw or await incoming.read(
            limit_bytes=env.request_body_limit_bytes,
            timeout_s=env.request_body_timeout_s,
            reception=context.reception,
            check=context.tracker.check if surface is not COUNT_TOKENS else None,  # which takes nothing from the limits
        )
        lineup = context.listing.lineup()
        if is_light(raw):
            return _understood(incoming, principal, surface, raw, lineup)
        return await beside_the_loop(_understood_heavy, incoming, principal, surface, raw, lineup)
    finally:
        incoming.leave_reception()


def _understood_heavy(
    incoming: Incoming, principal: Principal, surface: Surface, raw: bytes, lineup: Lineup
) -> AcceptedCall:
    """As `_understood`, for a body that may be more work than any request. Raises InvalidRequestBody for such a one."""
    try:
        check_complexity(raw)
    except TooComplex as exc:
        raise InvalidRequestBody(str(exc)) from None
    return _understood(incoming, principal, surface, raw, lineup)


def _understood(incoming: Incoming, principal: Principal, surface: Surface, raw: bytes, lineup: Lineup) -> AcceptedCall:
    """Parse and route a call that was read."""
    surface, unfolded = surface.unfolded(raw)
    request = body.parse(unfolded, surface.schema)
    tag = ""
    if tags.HEADER in incoming.headers:
        tag = tags.header_tag(incoming.headers[tags.HEADER])
    elif "metadata" in request.fields:
        tag = tags.metadata_tag(request.fields["metadata"])
    catalogue = lineup.catalogue
    try:
        route = surface.route(request, incoming.header(b"x-cfx-stage"), lineup)
    except NotOffered as exc:
        policy = principal.policy
        if not policy.allowed_models and not policy.allowed_stages:
            raise
        if isinstance(exc, InvalidStage):
            raise exc.for_key([each for each in ALL_STAGES if policy.permits_stage(each)]) from exc
        raise exc.for_key(permitted_names(lineup, policy, surface.name)) from exc
    models = _permitted_models(route, request.model, principal, lineup, surface)
    rates = _rates(models, catalogue, principal.margin_bp)
    if request.hosted:
        request, rates = _with_sold_tools(request, rates, incoming, catalogue)
    if len(rates) > 1 and (needs := request.needs):
        rates = _able_models(rates, needs, catalogue)
    max_tokens = request.max_tokens(default=route.default_max_tokens, cap=route.max_tokens_cap)
    size = request.size(max_tokens)
    headers = incoming.headers
    is_capped = b"x-max-cost" in headers and surface is not COUNT_TOKENS  # which costs nothing
    if principal.has_budget or is_capped or (tag and tag in principal.tags):
        size = bounded(unfolded, request, size, _contexts(rates, catalogue))
    planning = None
    if is_considered(headers, request, lineup):
        planning = considered(headers, request, route=route, rates=rates, size=size, principal=principal, lineup=lineup)
    above_cap = None
    if is_capped:
        try:
            rates = within_cap(cap_of(headers) or 0, size, rates)
        except MaxCostExceeded as exc:
            if planning is not None and planning.mode is Mode.DRY_RUN and not planning.decision.is_planned:
                raise  # nothing else is asked of it
            above_cap = exc
    return AcceptedCall(
        incoming=incoming,
        principal=principal,
        surface=surface,
        raw=raw,
        request=request,
        catalogue=catalogue,
        route=route,
        max_tokens=max_tokens,
        size=size,
        tokens_reserved=reserved_tokens(unfolded, size, principal.tokens_per_minute),
        rates=rates,
        tag=tag,
        planning=planning,
        is_above_cap=above_cap,
    )


def within_cap(cap_nanos: int, size: CallSize, rates: dict[str, FrozenRates]) -> dict[str, FrozenRates]:
    """Return the models with which the call cannot cost more than the caller's cap: all, or those that the first bears.

    Raises MaxCostExceeded (402).
    """
    most = {model: worst_nanos(size, {model: each}) for model, each in rates.items()}
    first = next(iter(most))
    if most[first] > cap_nanos:
        raise MaxCostExceeded(
            f"This request could cost up to ${_exact(most[first])} and `x-max-cost` is ${_exact(cap_nanos)}."
            " Send less text or a smaller `max_tokens`, or raise it.",
            param="x-max-cost",
        )
    return {model: rates[model] for model, nanos in most.items() if nanos <= cap_nanos}


def _exact(nanos: int) -> str:
    """Format an amount with six decimals, or nine where it has them: two that differ are shown as different."""
    return format_usd(nanos, decimals=6 if nanos % 1000 == 0 else 9)


def _permitted_models(
    route: Route, asked: str | None, principal: Principal, lineup: Lineup, surface: Surface
) -> tuple[str, ...]:
    """Models of the route that the key may use. Raises StageNotAllowedForKey, ModelNotAllowedForKey."""
    policy = principal.policy
    if not policy.allowed_stages and not policy.allowed_models:
        return route.models  # nearly always
    if not policy.permits_stage(route.stage):
        raise StageNotAllowedForKey.named(route.stage, [each for each in ALL_STAGES if policy.permits_stage(each)])
    if not policy.permits_model(route.models[0]):
        raise ModelNotAllowedForKey.named(asked, route.models[0], permitted_names(lineup, policy, surface.name))
    return tuple(model for model in route.models if policy.permits_model(model))


def _rates(models: tuple[str, ...], catalogue: Catalogue, margin_bp: int) -> dict[str, FrozenRates]:
    """Freeze today's prices of all models that may serve the call. Raises ModelNotPriced."""
    found = {}
    for model in models:
        price = catalogue.prices.get(model)
        if price is None:
            raise ModelNotPriced(param="model")
        found[model] = frozen(price, margin_bp=margin_bp)
    return found


def _contexts(models: Iterable[str], catalogue: Catalogue) -> dict[str, int]:
    """Return how many tokens each model reads at most."""
    return {model: catalogue.entries[model].context_tokens or MOST_CONTEXT_TOKENS for model in models}


def _able_models(rates: dict[str, FrozenRates], needs: tuple[str, ...], catalogue: Catalogue) -> dict[str, FrozenRates]:
    """Leave out fallbacks that lack what the request plainly needs: they would only refuse it."""
    first = next(iter(rates))
    return {
        model: each
        for model, each in rates.items()
        if model == first or catalogue.entries[model].takes.issuperset(needs)
    }


def _with_sold_tools(
    request: body.ParsedRequest, rates: dict[str, FrozenRates], incoming: Incoming, catalogue: Catalogue
) -> tuple[body.ParsedRequest, dict[str, FrozenRates]]:
    """Drop hosted tools without a price line, and the models that lack one of a tool that is left.

    The first model decides. Raises ToolNotSold.
    """
    first = next(iter(rates))
    added = added_by_agent(incoming.headers)
    request = request.with_sold_tools(sold=catalogue.prices[first].sold, added=added, model=first)
    incoming.dropped = request.dropped
    needed = {tool.unit for tool in request.hosted}
    return request, {model: each for model, each in rates.items() if needed <= catalogue.prices[model].sold}


@lru_cache(maxsize=1024)  # callers come again with the same ones
def _storable(text: str | bytes) -> str:
    """Remove NUL, which PostgreSQL does not store, from a name that is cut already: the memory of these is bounded."""
    if isinstance(text, bytes):
        text = text.decode("latin-1").strip()
    return text.replace("\0", "")
