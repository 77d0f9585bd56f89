"""Schema of models.yaml: stages, allow-list, aliases, inference words, prices and default limits. Pure.

`parse` is the only constructor of a Catalogue, so every Catalogue can be served: each model that routing can reach has
a price, and each name refers to something that exists.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cache
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Literal, get_args

from codexflow.catalogue import built_in, yaml_nodes
from codexflow.catalogue.entries import ModelEntry, Rates, read_entries, read_prices
from codexflow.catalogue.sections import MAX_COUNT, MAX_TOKENS, Section, hint, shown
from codexflow.catalogue.surfaces import COUNTED_UNITS, OWN_MODELS
from codexflow.lib.money import format_usd, parse_usd

ModelField = Literal["direct", "ignore"]

STAGES = ("plan", "code", "review")
DIRECT = "direct"
ALL_STAGES = (*STAGES, DIRECT)  # of a request: a stage, or none
AUTO_MODELS = ("cfx-auto", "auto")
# Names of stages in a request's `model`.
STAGE_MODELS = {f"cfx-{stage}": stage for stage in STAGES}
# The same for Claude Code: its model picker shows only ids that contain "claude" or "anthropic".
PICKER_MODELS = {f"claude-{name}": stage for name, stage in STAGE_MODELS.items()}
# Model names in requests that mean something else than an upstream model.
RESERVED_MODELS = frozenset({*STAGES, *STAGE_MODELS, *PICKER_MODELS, *AUTO_MODELS, DIRECT})

MIN_STEM_CHARS = 4  # shorter stems would match half of the dictionary


class CatalogueError(Exception):
    """The text is not a valid catalogue; `problems` lists every problem as `source: path.to.key: problem`."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("The catalogue is not usable:\n" + "\n".join(f"  - {line}" for line in problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class StageConfig:
    """Model, fallbacks and parameters of one stage. `max_tokens` is the default and the maximum of output tokens."""

    name: str
    model: str
    max_tokens: int
    temperature: float | None
    timeout_s: float
    fallback: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectConfig:
    """Models that callers may select by name."""

    allowed_models: tuple[str, ...]
    max_tokens_cap: int
    default_max_tokens: int
    timeout_s: float
    fallback: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnModels:
    """Models of a surface that no other surface accepts. `timeout_s` limits the whole response."""

    allowed_models: tuple[str, ...] = ()
    fallback: tuple[str, ...] = ()
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class IntentConfig:
    """Vocabulary for natural-language inference: `verbs` select a stage, and a maker selects the stage of its `nouns`.

    Entries are words or short phrases; one that ends with a dash is a Turkish stem. Stages map to entries.
    """

    verbs: Mapping[str, tuple[str, ...]]
    makers: tuple[str, ...]
    nouns: Mapping[str, tuple[str, ...]]
    questions: Mapping[str, tuple[str, ...]]


NO_INTENT = IntentConfig(verbs={}, makers=(), nouns={}, questions={})


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceConfig:
    """Words that select a stage: `keywords` match whole words, `stems` also longer words except `not_stems`."""

    keywords: Mapping[str, tuple[str, ...]]
    stems: Mapping[str, tuple[str, ...]]
    not_stems: tuple[str, ...] = ()
    intent: IntentConfig = NO_INTENT


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerConfig:
    """Thresholds of the circuit breaker of upstream models, and how long it stays open."""

    failure_threshold: int
    recovery_timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerConfig:
    """Settings for splitting large requests. Thresholds and chunk sizes are in tokens."""

    enabled: bool
    auto_enable: bool
    large_request_tokens: int  # estimated input
    max_tokens_threshold: int  # requested output, before any cap
    max_chunks: int
    optimal_chunk_tokens: int
    max_chunk_tokens: int
    min_chunk_tokens: int
    cost_optimization_enabled: bool
    planner_model: str
    fast_execution_model: str
    deep_execution_model: str
    max_cost_nanos: int
    cost_safety_margin: Decimal  # this fraction of the cap stays unspent
    planner_timeout_s: float
    chunk_timeout_s: float
    total_timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """One validated configuration. `version` changes exactly when its meaning does."""

    version: str
    stages: Mapping[str, StageConfig]
    direct: DirectConfig
    own: Mapping[str, OwnModels]  # by surface
    inference: InferenceConfig
    aliases: tuple[tuple[str, str], ...]  # (glob pattern, stage or allowed model); the first match wins
    entries: Mapping[str, ModelEntry]  # every model that is known, whether or not a request can reach it
    prices: Mapping[str, Rates]  # of the same models
    daily_requests: int
    concurrent_streams: int
    breaker: BreakerConfig
    model_field: ModelField
    total_timeout_s: float
    planner: PlannerConfig | None

    @property
    def models(self) -> tuple[str, ...]:
        """Upstream models that a request can reach, sorted; models that only have a price are left out."""
        found = {*self.direct.allowed_models, *self.direct.fallback}
        for own in self.own.values():
            found |= {*own.allowed_models, *own.fallback}
        for stage in self.stages.values():
            found |= {stage.model, *stage.fallback}
        if self.planner is not None:
            found |= {
                self.planner.planner_model,
                self.planner.fast_execution_model,
                self.planner.deep_execution_model,
            }
        return tuple(sorted(found))

    def alias_target(self, model: str) -> str | None:
        """Stage or allowed model of the first alias that matches; None if none does."""
        return _alias_target(self.aliases, model)


def parse(text: str, *, source: str) -> Catalogue:
    """Parse models.yaml from `text`. `source` (a file name, "operator edit"…) prefixes the problems.

    Raises CatalogueError with every problem at once, each as `source: path.to.key: what is wrong`.
    """
    content, problems = yaml_nodes.read(text)
    if not problems and not isinstance(content, dict):
        problems = ["must be a mapping with sections such as stages, direct and prices"]
    if problems or not isinstance(content, dict):
        # Problems in the content of text that is not valid YAML would be guesswork.
        raise CatalogueError([f"{source}: {problem}" for problem in problems])
    root = Section(content, "", problems)
    catalogue = _catalogue(root)
    if problems:
        raise CatalogueError([f"{source}: {problem}" for problem in problems])
    return replace(catalogue, version=_version(catalogue))


def parse_planner(text: str, catalogue: Catalogue, *, source: str) -> PlannerConfig | None:
    """Read the planner's section of another file, such as LiteLLM's; None where it has none. Raises CatalogueError."""
    content, problems = yaml_nodes.read(text)
    if not problems and not (isinstance(content, dict) and "haiku_planner" in content):
        return None
    planner = None
    if isinstance(content, dict) and not problems:
        section = Section(content, "", problems).section("haiku_planner")
        planner = _planner(section, catalogue.prices, catalogue.aliases)
    if problems:
        raise CatalogueError([f"{source}: {problem}" for problem in problems])
    return planner


# Settings of the planner that the file calls otherwise.
_IN_THE_FILE = {
    "large_request_tokens": "large_request_threshold",
    "optimal_chunk_tokens": "optimal_chunk_size",
    "max_chunk_tokens": "max_chunk_size",
    "min_chunk_tokens": "min_chunk_size",
    "max_cost_nanos": "max_cost_per_request",
    "planner_timeout_s": "planner_timeout",
    "chunk_timeout_s": "chunk_timeout",
    "total_timeout_s": "total_timeout",
}


def shown_of(planner: PlannerConfig) -> dict[str, str]:
    """Return the planner's values as the file writes them, by their names in it."""
    values = {name: getattr(planner, name) for name in planner.__slots__}
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}
    found = {_IN_THE_FILE.get(name, name): text for name, text in texts.items()}
    return {**found, "max_cost_per_request": format_usd(planner.max_cost_nanos)}


def with_planner(catalogue: Catalogue, planner: PlannerConfig) -> Catalogue:
    """Return a catalogue with another planner, under a version of its own."""
    changed = replace(catalogue, version="", planner=planner)
    return replace(changed, version=_version(changed))


@cache
def built_in_entries() -> Mapping[str, ModelEntry]:
    """Models that are known without a file."""
    content, problems = yaml_nodes.read(built_in.TEXT)
    entries = read_entries(Section(content, "models", problems), {}) if isinstance(content, dict) else {}
    if problems:
        raise CatalogueError(problems)
    return MappingProxyType(entries)


def _catalogue(root: Section) -> Catalogue:
    """Read every section, adding to `problems`. If there are any, the result must not be used."""
    entries = _entries(root)
    prices = MappingProxyType({name: entry.rates for name, entry in entries.items()})
    stages = root.section("stages")
    configs = MappingProxyType({name: _stage(stages.section(name), name, prices) for name in STAGES})
    stages.close()
    direct = _direct(root.section("direct"), prices)
    own = _own_models(root, prices, direct)
    aliases = _aliases(root.section("aliases"), direct) if "aliases" in root else ()
    limits = root.section("rate_limit", optional=True)
    breaker = root.section("circuit_breaker", optional=True)
    routing = root.section("routing", optional=True)
    catalogue = Catalogue(
        version="",
        stages=configs,
        direct=direct,
        own=own,
        inference=_inference(root.section("inference", optional=True)),
        aliases=aliases,
        entries=entries,
        prices=prices,
        daily_requests=limits.whole("daily_requests", default=1000, high=MAX_COUNT),
        concurrent_streams=limits.whole("concurrent_streams", default=3, high=MAX_COUNT),
        breaker=BreakerConfig(
            failure_threshold=breaker.whole("failure_threshold", default=5, high=MAX_COUNT),
            recovery_timeout_s=breaker.seconds("recovery_timeout", default=30),
        ),
        model_field=routing.choice("model_field", get_args(ModelField), default="direct"),
        total_timeout_s=root.seconds("total_timeout", default=300),
        planner=_planner(root.section("haiku_planner"), prices, aliases) if "haiku_planner" in root else None,
    )
    for section in (limits, breaker, routing, root):
        section.close()
    return catalogue


def _stage(section: Section, name: str, prices: Mapping[str, Rates]) -> StageConfig:
    stage = StageConfig(
        name=name,
        model=_model(section, "model", prices),
        max_tokens=section.whole("max_tokens", high=MAX_TOKENS),
        temperature=section.temperature("temperature"),
        timeout_s=section.seconds("timeout"),
        fallback=_models(section, "fallback", prices, may_be_empty=True),
    )
    section.close()
    return stage


def _direct(section: Section, prices: Mapping[str, Rates]) -> DirectConfig:
    cap = section.whole("max_tokens_cap", high=MAX_TOKENS)
    direct = DirectConfig(
        allowed_models=_models(section, "allowed_models", prices, may_be_empty=False),
        max_tokens_cap=cap,
        default_max_tokens=section.whole("default_max_tokens", default=min(4096, cap), high=MAX_TOKENS),
        timeout_s=section.seconds("timeout", default=60),
        fallback=_models(section, "fallback", prices, may_be_empty=True),
    )
    if direct.default_max_tokens > cap:
        section.note("default_max_tokens", f"is above max_tokens_cap ({cap})")
    for model in direct.allowed_models:
        if model in RESERVED_MODELS:
            section.note("allowed_models", f"{model!r} means a stage or inference; a model cannot have that name")
    section.close()
    return direct


def _own_models(root: Section, prices: Mapping[str, Rates], direct: DirectConfig) -> Mapping[str, OwnModels]:
    """Read the sections of the surfaces with models of their own. A name means one thing to all surfaces."""
    found: dict[str, OwnModels] = {}
    taken = {*direct.allowed_models, *RESERVED_MODELS}
    for surface in OWN_MODELS:
        if surface not in root:
            found[surface] = OwnModels()
            continue
        section = root.section(surface)
        by_the_call = surface in COUNTED_UNITS
        found[surface] = own = OwnModels(
            allowed_models=_models(section, "allowed_models", prices, may_be_empty=True, by_the_call=by_the_call),
            # Vectors of two models do not compare.
            fallback=()
            if surface == "embeddings" or "fallback" not in section
            else _models(section, "fallback", prices, may_be_empty=True, by_the_call=by_the_call),
            timeout_s=section.seconds("timeout", default=60),
        )
        for model in own.allowed_models:
            if model in taken:
                section.note("allowed_models", f"{model!r} already means something to the other endpoints")
        taken |= {*own.allowed_models}
        section.close()
    return MappingProxyType(found)


def _aliases(section: Section, direct: DirectConfig) -> tuple[tuple[str, str], ...]:
    """Read aliases in the file's order. Targets are stages and models that callers may select anyway."""
    targets = (*STAGES, *direct.allowed_models)
    found = []
    for pattern in section.names():
        target = section.text(pattern)
        if target and direct.allowed_models and target not in targets:
            section.note(
                pattern,
                f"{target!r} is neither a stage nor one of direct.allowed_models{hint(target, targets)}",
            )
        found.append((pattern, target))
    return tuple(found)


def _alias_target(aliases: tuple[tuple[str, str], ...], model: str) -> str | None:
    return next((target for pattern, target in aliases if fnmatchcase(model, pattern)), None)


def _inference(section: Section) -> InferenceConfig:
    keywords = {stage: section.words(f"{stage}_keywords") for stage in STAGES}
    stems_section = section.section("stems", optional=True)
    stems = {stage: stems_section.words(stage, min_chars=MIN_STEM_CHARS) for stage in STAGES}
    stems_section.close()
    config = InferenceConfig(
        keywords=MappingProxyType(keywords),
        stems=MappingProxyType(stems),
        not_stems=section.words("not_stems", min_chars=MIN_STEM_CHARS),
        intent=_intent(section.section("intent")) if "intent" in section else NO_INTENT,
    )
    section.close()
    return config


def _intent(section: Section) -> IntentConfig:
    intent = IntentConfig(
        verbs=_phrases_by_stage(section.section("verbs", optional=True)),
        makers=section.phrases("makers"),
        nouns=_phrases_by_stage(section.section("nouns", optional=True)),
        questions=_phrases_by_stage(section.section("questions", optional=True)),
    )
    section.close()
    return intent


def _phrases_by_stage(section: Section) -> Mapping[str, tuple[str, ...]]:
    phrases = {stage: section.phrases(stage) for stage in STAGES}
    section.close()
    return MappingProxyType(phrases)


def _entries(root: Section) -> Mapping[str, ModelEntry]:
    """Read `models` and `prices` over what is built in: an entry of the file replaces the built-in one.

    `prices` alone is how files were written before `models` existed; it changes a model's prices only.
    """
    entries = {**built_in_entries()}
    if "models" in root:
        entries |= read_entries(root.section("models"), built_in_entries())
    for name, rates in read_prices(root.section("prices")).items() if "prices" in root else ():
        entries[name] = replace(entries[name], rates=rates) if name in entries else ModelEntry(rates=rates)
    for name, entry in entries.items():
        heir = entries.get(entry.successor) if entry.successor else None
        if heir is not None and bool(heir.rates.call_units) != bool(entry.rates.call_units):
            root.note(
                f"models.{name}.successor", f"{entry.successor!r} must be sold as {name!r} is: by the call or not"
            )
    return MappingProxyType(entries)


def _model(
    section: Section,
    key: str,
    prices: Mapping[str, Rates],
    *,
    default: str | None = None,
    aliases: tuple[tuple[str, str], ...] = (),
) -> str:
    """Read the name of a priced model, or an alias of one."""
    name = default if default is not None and key not in section else section.text(key)
    if name and name not in prices:
        name = _alias_target(aliases, name) or name
    return _priced(section, key, name, prices)


def _models(
    section: Section, key: str, prices: Mapping[str, Rates], *, may_be_empty: bool, by_the_call: bool = False
) -> tuple[str, ...]:
    """Read a list of distinct priced models."""
    names = section.texts(key, may_be_empty=may_be_empty)
    return tuple(_priced(section, f"{key}[{index}]", name, prices, by_the_call=by_the_call) for index, name in names)


def _priced(section: Section, key: str, name: str, prices: Mapping[str, Rates], *, by_the_call: bool = False) -> str:
    """`by_the_call`: the models of this list may be sold by the call; elsewhere only tokens and tools are counted."""
    if name and name not in prices:
        names = tuple(prices)
        section.note(key, f"{shown(name)} has no price, and unpriced models cannot be sold{hint(name, names)}")
    elif name and not by_the_call and (units := prices[name].call_units):
        section.note(key, f"{shown(name)} is sold by {units[0]}, which only {' and '.join(COUNTED_UNITS)} count")
    return name


def _planner(section: Section, prices: Mapping[str, Rates], aliases: tuple[tuple[str, str], ...]) -> PlannerConfig:
    planner = PlannerConfig(
        enabled=section.flag("enabled", default=True),
        auto_enable=section.flag("auto_enable", default=True),
        large_request_tokens=section.whole("large_request_threshold", default=8000, high=MAX_TOKENS),
        max_tokens_threshold=section.whole("max_tokens_threshold", default=15000, high=MAX_TOKENS),
        max_chunks=section.whole("max_chunks", default=3, high=100),
        optimal_chunk_tokens=section.whole("optimal_chunk_size", default=1500, high=MAX_TOKENS),
        max_chunk_tokens=section.whole("max_chunk_size", default=2000, high=MAX_TOKENS),
        min_chunk_tokens=section.whole("min_chunk_size", default=500, high=MAX_TOKENS),
        cost_optimization_enabled=section.flag("cost_optimization_enabled", default=True),
        planner_model=_model(section, "planner_model", prices, default="claude-haiku-5.5", aliases=aliases),
        fast_execution_model=_model(
            section, "fast_execution_model", prices, default="claude-haiku-5.5", aliases=aliases
        ),
        deep_execution_model=_model(
            section, "deep_execution_model", prices, default="claude-sonnet-5.5", aliases=aliases
        ),
        max_cost_nanos=section.usd("max_cost_per_request", default_nanos=parse_usd(1)),
        cost_safety_margin=section.decimal(
            "cost_safety_margin", default=Decimal("0.2"), low=Decimal(0), below=Decimal(1)
        ),
        planner_timeout_s=section.seconds("planner_timeout", default=60),
        chunk_timeout_s=section.seconds("chunk_timeout", default=120),
        total_timeout_s=section.seconds("total_timeout", default=600),
    )
    if not planner.min_chunk_tokens <= planner.optimal_chunk_tokens <= planner.max_chunk_tokens:
        section.note("optimal_chunk_size", "must lie between min_chunk_size and max_chunk_size")
    section.close()
    return planner


def _version(catalogue: Catalogue) -> str:
    """Hash of the meaning: comments, order of sections and spelled-out defaults do not matter."""
    canonical = json.dumps(catalogue, default=_jsonable, sort_keys=True, ensure_ascii=False)
    return sha256(canonical.encode()).hexdigest()[:12]


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value.normalize())
    return {name: getattr(value, name) for name in value.__slots__}
