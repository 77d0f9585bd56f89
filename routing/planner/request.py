"""Facts of a request that the planner needs, and its decision."""

import re
from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

from billing.limiter.holds import CallSize, worst_nanos
from billing.pricing import FrozenRates, Usage, cost_nanos, frozen
from codexflow.catalogue.lineup import Lineup
from codexflow.catalogue.schema import DIRECT, PlannerConfig
from codexflow.lib.money import parse_usd
from keys.principal import Principal
from routing.errors import InvalidMaxCost, InvalidPlannerHeader, PlannerDisabled
from routing.planner.engage import Decision, Facts, Mode, Quality, decide, is_large, mode_of, quality_of
from routing.planner.sections import sections_of
from routing.stages import Route
from routing.surfaces.attachments import Message, text_of
from routing.surfaces.body import ParsedRequest
from routing.surfaces.requests import Chat

# The caller's parameters that every part gets.
_KEPT = ("temperature", "top_p", "seed", "user", "presence_penalty", "frequency_penalty", "reasoning_effort")
# Parameters of one answer that parts cannot share.
_OF_ONE_ANSWER = ("stop", "logprobs", "top_logprobs", "logit_bias", "prediction", "audio", "modalities")
_messages = msgspec.json.Decoder(list[Raw])
# As the planner's answer is expected to be.
_PLAN_TOKENS = 600
_OUTLINE_BYTES = 1_200


class PlanModels(Struct, frozen=True):
    """Models of a planned request, each with its price."""

    planner: str
    fast: str
    deep: str
    rates: Mapping[str, FrozenRates]

    def of(self, quality: str) -> tuple[str, ...]:
        """Models that may write a part, in the order in which they are tried."""
        first, other = (self.deep, self.fast) if quality == Quality.DEEP.value else (self.fast, self.deep)
        return (first,) if first == other else (first, other)


class Planning(Struct, frozen=True, kw_only=True):
    """A request as the planner takes it."""

    config: PlannerConfig
    decision: Decision
    mode: Mode
    quality: Quality
    plan_id: str
    cap_nanos: int | None
    models: PlanModels
    system_text: str
    earlier: tuple[Raw, ...]  # messages before the last one of the user
    sections: tuple[str, ...]  # of the last one
    parameters: dict[str, Raw]
    asked_tokens: int | None
    facts: Facts
    one_pass_model: str
    one_pass_most_nanos: int

    @property
    def wanted_tokens(self) -> int:
        """Output that the parts are to give together."""
        capacity = self.config.max_chunks * self.config.max_chunk_tokens
        return min(self.asked_tokens or self.facts.one_pass_tokens, capacity)


def cap_of(headers: Mapping[bytes, bytes]) -> int | None:
    """Read `x-max-cost` in nano-USD. Raises InvalidMaxCost (400)."""
    if b"x-max-cost" not in headers:
        return None
    try:
        cap_nanos = parse_usd(headers[b"x-max-cost"].decode("latin-1").strip())
    except ValueError:
        cap_nanos = -1
    if cap_nanos < 0:
        raise InvalidMaxCost(param="x-max-cost")
    return cap_nanos


def _text(headers: Mapping[bytes, bytes], name: bytes) -> str:
    return headers.get(name, b"").decode("latin-1").strip()


def is_considered(headers: Mapping[bytes, bytes], request: ParsedRequest, lineup: Lineup) -> bool:
    """Return whether the planner looks at a request at all. It runs for every call."""
    config = lineup.catalogue.planner
    if b"x-decompose" in headers or b"x-plan" in headers or b"x-quality" in headers:
        return True
    if config is None or not config.enabled or not config.auto_enable:
        return False
    limits = request.limits
    asked = min(limits.values()) if limits else None
    return is_large(config, input_tokens=request.text_bytes // 4, asked_tokens=asked)


def considered(
    headers: Mapping[bytes, bytes],
    request: ParsedRequest,
    *,
    route: Route,
    rates: Mapping[str, FrozenRates],
    size: CallSize,
    principal: Principal,
    lineup: Lineup,
) -> Planning | None:
    """Decide over a request; None where nobody asks for a plan and none is worth a thought.

    Raises PlannerDisabled and InvalidPlannerHeader (400), InvalidMaxCost (400).
    """
    mode = mode_of(_text(headers, b"x-decompose"))
    quality = quality_of(_text(headers, b"x-quality"))
    if mode is None:
        raise InvalidPlannerHeader("`x-decompose` must be 1, 0 or dry-run.", param="x-decompose")
    if quality is None:
        raise InvalidPlannerHeader("`x-quality` must be fast, deep or auto.", param="x-quality")
    plan_id = _text(headers, b"x-plan")
    if plan_id and mode is Mode.AUTO:
        mode = Mode.ON
    config = lineup.catalogue.planner
    if mode is Mode.OFF:
        return None
    if config is None or not config.enabled:
        if mode is Mode.AUTO:
            return None
        raise PlannerDisabled(param="x-decompose")
    messages = request.schema.messages if type(request.schema) is Chat else []
    unsuitable = _unsuitable(request, messages) if messages else "endpoint"
    text = text_of(messages[-1].content) if not unsuitable else ""
    if not unsuitable and not text.strip():
        unsuitable = "no-text"
    if mode is Mode.AUTO and not unsuitable and is_edit(text):
        unsuitable = "edits-one-text"
    if mode is Mode.AUTO and route.stage == DIRECT:
        return None  # a named model is served by that model
    if mode is Mode.AUTO and unsuitable:
        return None  # as every call of a coding agent, which has tools
    models = _models(config, lineup, principal)
    if models is None or not set(models.rates) <= lineup.models:
        unsuitable = unsuitable or "models"
    elif not all(map(principal.policy.permits_model, models.rates)):
        unsuitable = unsuitable or "models-of-the-key"
    asked = min(request.limits.values()) if request.limits else None
    first = next(iter(rates))
    facts = _facts(config, request, route, rates[first], size, lineup, models, asked, unsuitable)
    decision = decide(config, mode, facts)
    if not decision.header or models is None:
        return None
    is_planned = decision.is_planned
    return Planning(
        config=config,
        decision=decision,
        mode=mode,
        quality=quality,
        plan_id=plan_id,
        cap_nanos=cap_of(headers),
        models=models,
        system_text="\n".join([text_of(each.content) for each in messages if each.role in ("system", "developer")]),
        earlier=tuple(_messages.decode(request.fields["messages"])[:-1]) if is_planned else (),
        sections=tuple(_split(text, config)) if is_planned else (),
        parameters={name: request.fields[name] for name in _KEPT if name in request.fields},
        asked_tokens=asked,
        facts=facts,
        one_pass_model=first,
        one_pass_most_nanos=worst_nanos(size, rates),
    )


def _split(text: str, config: PlannerConfig) -> list[str]:
    """Sections of an input that is long by itself; a shorter one goes to each part as it is."""
    return sections_of(text) if len(text.encode()) // 4 > config.large_request_tokens else [text]


def _unsuitable(request: ParsedRequest, messages: list[Message]) -> str:
    """Return why a chat request is never planned; empty when it may be."""
    fields, schema = request.fields, request.schema

    def has(name: str) -> bool:
        return name in fields and bytes(fields[name]) not in (b"null", b"[]", b"false", b"{}")

    if has("tools") or has("functions") or request.hosted or any(each.role == "tool" for each in messages):
        return "tools"
    if request.attachments:
        return "images"
    if has("response_format") and b'"text"' not in bytes(fields["response_format"]):
        return "json"
    if schema.choices > 1:
        return "choices"
    if any(has(name) for name in _OF_ONE_ANSWER):
        return "parameters"
    return "" if messages[-1].role == "user" else "last-message"


_FENCED = re.compile(r"^ {0,3}(```+|~~~+)[^\n]*\n(.*?)^ {0,3}\1", re.DOTALL | re.MULTILINE)
_MOSTLY = 0.5


def is_edit(text: str) -> bool:
    """Return whether a text is mostly one piece of code: what is asked changes it."""
    longest = max([len(found[2]) for found in _FENCED.finditer(text)], default=0)
    return longest > _MOSTLY * len(text)


def _models(config: PlannerConfig, lineup: Lineup, principal: Principal) -> PlanModels | None:
    planner, fast, deep = (
        lineup.serving(name)
        for name in (config.planner_model, config.fast_execution_model, config.deep_execution_model)
    )
    prices = lineup.catalogue.prices
    if not {planner, fast, deep} <= prices.keys():
        return None
    rates = {name: frozen(prices[name], margin_bp=principal.margin_bp) for name in (planner, fast, deep)}
    return PlanModels(planner, fast, deep, rates)


def _facts(
    config: PlannerConfig,
    request: ParsedRequest,
    route: Route,
    rates: FrozenRates,
    size: CallSize,
    lineup: Lineup,
    models: PlanModels | None,
    asked: int | None,
    unsuitable: str,
) -> Facts:
    entry = lineup.catalogue.entries.get(route.models[0])
    one_pass = min(route.max_tokens_cap, (entry and entry.max_output_tokens) or route.max_tokens_cap)
    input_tokens = size.expected_prompt_tokens
    wanted = min(asked or one_pass, config.max_chunks * config.max_chunk_tokens)
    chunks = min(config.max_chunks, max(1, -(-wanted // config.optimal_chunk_tokens)))
    planned = 0
    if models is not None:
        plan = Usage(prompt_tokens=input_tokens + _OUTLINE_BYTES // 4, completion_tokens=_PLAN_TOKENS)
        # Of a long input each part gets its own section; a short one goes to all.
        is_split = input_tokens > config.large_request_tokens
        share = input_tokens // chunks if is_split else input_tokens
        part = Usage(prompt_tokens=share + _OUTLINE_BYTES // 4, completion_tokens=wanted // chunks)
        fast = models.fast if config.cost_optimization_enabled else models.deep
        planned = cost_nanos(plan, models.rates[models.planner]) + chunks * cost_nanos(part, models.rates[fast])
    once = Usage(prompt_tokens=input_tokens, completion_tokens=min(asked or one_pass, one_pass))
    return Facts(
        input_tokens=input_tokens,
        asked_tokens=asked,
        one_pass_tokens=one_pass,
        one_pass_nanos=cost_nanos(once, rates),
        planned_nanos=planned,
        unsuitable=unsuitable,
    )
