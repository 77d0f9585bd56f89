"""Schema of models.yaml: stages, allow-list, aliases, inference words, prices and default limits. Pure.

`parse` is the only constructor of a Catalogue, so every Catalogue can be served: each model that routing can reach has
a price, and each name refers to something that exists.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from difflib import get_close_matches
from fnmatch import fnmatchcase
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args

from codexflow.catalogue import yaml_nodes
from codexflow.catalogue.yaml_nodes import Plain
from codexflow.lib.money import InvalidAmount, parse_usd

ModelField = Literal["direct", "ignore"]
T = TypeVar("T")

STAGES = ("plan", "code", "review")
DIRECT = "direct"
ALL_STAGES = (*STAGES, DIRECT)  # of a request: a stage, or none
AUTO_MODELS = ("cfx-auto", "auto")
# Model names in requests that mean something else than an upstream model.
RESERVED_MODELS = frozenset({*STAGES, *(f"cfx-{stage}" for stage in STAGES), *AUTO_MODELS, DIRECT})

# Default of the `prices` section, for files written before it existed.
SHIPPED_PRICES: dict[str, Plain] = {
    "claude-sonnet-4.5": {
        "input": 3, "cached_input": Decimal("0.30"), "cache_write": Decimal("3.75"), "cache_write_1h": 6, "output": 15,
    },
    "claude-haiku-3.5": {
        "input": Decimal("0.80"), "cached_input": Decimal("0.08"), "cache_write": 1, "cache_write_1h": Decimal("1.60"),
        "output": 4,
    },
    "deepseek-v3": {"input": Decimal("0.27"), "output": Decimal("1.10")},
    "gpt-4o-mini": {"input": Decimal("0.15"), "output": Decimal("0.60")},
    "gpt-4o": {"input": Decimal("2.50"), "output": 10},
    "gemini-2.5-pro": {"input": Decimal("1.25"), "output": 10},
    "gemini-2.0-flash": {"input": Decimal("0.10"), "output": Decimal("0.40")},
    "text-embedding-3-small": {"input": Decimal("0.02"), "output": 0},
}  # fmt: skip

_NAME = re.compile(r"[!-~]{1,100}")  # printable ASCII without spaces: what fits a header and a log line
_WORD = re.compile(r"\w{1,60}")
_PHRASE = re.compile(r"\w{1,60}(?: \w{1,60}){0,3}-?")
MIN_STEM_CHARS = 4  # shorter stems would match half of the dictionary
_MAX_TOKENS = 10_000_000
_MAX_SECONDS = 86_400
_MAX_COUNT = 1_000_000_000
_MAX_USD = 1_000_000


class CatalogueError(Exception):
    """The text is not a valid catalogue; `problems` lists every problem as `source: path.to.key: problem`."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("The catalogue is not usable:\n" + "\n".join(f"  - {line}" for line in problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Prices of one model in nano-USD per 1,000,000 tokens."""

    input_nanos: int
    cached_nanos: int  # input tokens read from the provider's cache
    cache_write_nanos: int  # input tokens written to it for the default time
    cache_write_1h_nanos: int  # input tokens written to it for an hour
    output_nanos: int


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
class EmbeddingsConfig:
    """Models of /v1/embeddings, which no other endpoint accepts. `timeout_s` limits the whole response."""

    allowed_models: tuple[str, ...] = ()
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
    embeddings: EmbeddingsConfig
    inference: InferenceConfig
    aliases: tuple[tuple[str, str], ...]  # (glob pattern, stage or allowed model); the first match wins
    prices: Mapping[str, Rates]
    daily_requests: int
    concurrent_streams: int
    breaker: BreakerConfig
    model_field: ModelField
    total_timeout_s: float
    planner: PlannerConfig | None

    @property
    def models(self) -> tuple[str, ...]:
        """Upstream models that a request can reach, sorted; models that only have a price are left out."""
        found = {*self.direct.allowed_models, *self.direct.fallback, *self.embeddings.allowed_models}
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
    root = _Section(content, "", problems)
    catalogue = _catalogue(root)
    if problems:
        raise CatalogueError([f"{source}: {problem}" for problem in problems])
    return replace(catalogue, version=_version(catalogue))


def _catalogue(root: "_Section") -> Catalogue:
    """Read every section, adding to `problems`. If there are any, the result must not be used."""
    prices = _prices(root.section("prices") if "prices" in root else _Section(SHIPPED_PRICES, "prices", []))
    stages = root.section("stages")
    configs = MappingProxyType({name: _stage(stages.section(name), name, prices) for name in STAGES})
    stages.close()
    direct = _direct(root.section("direct"), prices)
    embeddings = _embeddings(root.section("embeddings"), prices, direct) if "embeddings" in root else EmbeddingsConfig()
    aliases = _aliases(root.section("aliases"), direct) if "aliases" in root else ()
    limits = root.section("rate_limit", optional=True)
    breaker = root.section("circuit_breaker", optional=True)
    routing = root.section("routing", optional=True)
    catalogue = Catalogue(
        version="",
        stages=configs,
        direct=direct,
        embeddings=embeddings,
        inference=_inference(root.section("inference", optional=True)),
        aliases=aliases,
        prices=prices,
        daily_requests=limits.whole("daily_requests", default=1000, high=_MAX_COUNT),
        concurrent_streams=limits.whole("concurrent_streams", default=3, high=_MAX_COUNT),
        breaker=BreakerConfig(
            failure_threshold=breaker.whole("failure_threshold", default=5, high=_MAX_COUNT),
            recovery_timeout_s=breaker.seconds("recovery_timeout", default=30),
        ),
        model_field=routing.choice("model_field", get_args(ModelField), default="direct"),
        total_timeout_s=root.seconds("total_timeout", default=120),
        planner=_planner(root.section("haiku_planner"), prices, aliases) if "haiku_planner" in root else None,
    )
    for section in (limits, breaker, routing, root):
        section.close()
    return catalogue


def _stage(section: "_Section", name: str, prices: Mapping[str, Rates]) -> StageConfig:
    stage = StageConfig(
        name=name,
        model=section.model("model", prices),
        max_tokens=section.whole("max_tokens", high=_MAX_TOKENS),
        temperature=section.temperature("temperature"),
        timeout_s=section.seconds("timeout"),
        fallback=section.models("fallback", prices, may_be_empty=True),
    )
    section.close()
    return stage


def _direct(section: "_Section", prices: Mapping[str, Rates]) -> DirectConfig:
    cap = section.whole("max_tokens_cap", high=_MAX_TOKENS)
    direct = DirectConfig(
        allowed_models=section.models("allowed_models", prices, may_be_empty=False),
        max_tokens_cap=cap,
        default_max_tokens=section.whole("default_max_tokens", default=min(4096, cap), high=_MAX_TOKENS),
        timeout_s=section.seconds("timeout", default=60),
        fallback=section.models("fallback", prices, may_be_empty=True),
    )
    if direct.default_max_tokens > cap:
        section.note("default_max_tokens", f"is above max_tokens_cap ({cap})")
    for model in direct.allowed_models:
        if model in RESERVED_MODELS:
            section.note("allowed_models", f"{model!r} means a stage or inference; a model cannot have that name")
    section.close()
    return direct


def _embeddings(section: "_Section", prices: Mapping[str, Rates], direct: DirectConfig) -> EmbeddingsConfig:
    embeddings = EmbeddingsConfig(
        allowed_models=section.models("allowed_models", prices, may_be_empty=True),
        timeout_s=section.seconds("timeout", default=60),
    )
    for model in embeddings.allowed_models:
        if model in direct.allowed_models or model in RESERVED_MODELS:
            section.note("allowed_models", f"{model!r} already means something to the other endpoints")
    section.close()
    return embeddings


def _aliases(section: "_Section", direct: DirectConfig) -> tuple[tuple[str, str], ...]:
    """Read aliases in the file's order. Targets are stages and models that callers may select anyway."""
    targets = (*STAGES, *direct.allowed_models)
    found = []
    for pattern in section.names():
        target = section.text(pattern)
        if target and direct.allowed_models and target not in targets:
            section.note(
                pattern,
                f"{target!r} is neither a stage nor one of direct.allowed_models{_hint(target, targets)}",
            )
        found.append((pattern, target))
    return tuple(found)


def _alias_target(aliases: tuple[tuple[str, str], ...], model: str) -> str | None:
    return next((target for pattern, target in aliases if fnmatchcase(model, pattern)), None)


def _inference(section: "_Section") -> InferenceConfig:
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


def _intent(section: "_Section") -> IntentConfig:
    intent = IntentConfig(
        verbs=_phrases_by_stage(section.section("verbs", optional=True)),
        makers=section.phrases("makers"),
        nouns=_phrases_by_stage(section.section("nouns", optional=True)),
        questions=_phrases_by_stage(section.section("questions", optional=True)),
    )
    section.close()
    return intent


def _phrases_by_stage(section: "_Section") -> Mapping[str, tuple[str, ...]]:
    phrases = {stage: section.phrases(stage) for stage in STAGES}
    section.close()
    return MappingProxyType(phrases)


def _prices(section: "_Section") -> Mapping[str, Rates]:
    prices = {}
    for model in section.names():
        if not _NAME.fullmatch(model):
            section.note(model, "is not a model name: printable ASCII without spaces, at most 100 characters")
        rates = section.section(model)
        input_nanos = rates.usd("input")
        cache_write_nanos = rates.usd("cache_write", default_nanos=input_nanos)
        prices[model] = Rates(
            input_nanos=input_nanos,
            cached_nanos=rates.usd("cached_input", default_nanos=input_nanos),
            cache_write_nanos=cache_write_nanos,
            cache_write_1h_nanos=rates.usd("cache_write_1h", default_nanos=cache_write_nanos),
            output_nanos=rates.usd("output"),
        )
        rates.close()
    return MappingProxyType(prices)


def _planner(section: "_Section", prices: Mapping[str, Rates], aliases: tuple[tuple[str, str], ...]) -> PlannerConfig:
    planner = PlannerConfig(
        enabled=section.flag("enabled", default=True),
        auto_enable=section.flag("auto_enable", default=True),
        large_request_tokens=section.whole("large_request_threshold", default=8000, high=_MAX_TOKENS),
        max_tokens_threshold=section.whole("max_tokens_threshold", default=15000, high=_MAX_TOKENS),
        max_chunks=section.whole("max_chunks", default=3, high=100),
        optimal_chunk_tokens=section.whole("optimal_chunk_size", default=1500, high=_MAX_TOKENS),
        max_chunk_tokens=section.whole("max_chunk_size", default=2000, high=_MAX_TOKENS),
        min_chunk_tokens=section.whole("min_chunk_size", default=500, high=_MAX_TOKENS),
        cost_optimization_enabled=section.flag("cost_optimization_enabled", default=True),
        planner_model=section.model("planner_model", prices, default="claude-haiku-3.5", aliases=aliases),
        fast_execution_model=section.model("fast_execution_model", prices, default="claude-haiku-3.5", aliases=aliases),
        deep_execution_model=section.model(
            "deep_execution_model", prices, default="claude-sonnet-4.5", aliases=aliases
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
    if isinstance(value, Decimal):
        return str(value.normalize())
    return {name: getattr(value, name) for name in value.__slots__}


class _Section:
    """One mapping of the file. Reading methods record a problem and return a default instead of raising."""

    def __init__(self, content: Mapping[str, Plain], path: str, problems: list[str]) -> None:
        self.content = content
        self.path = path
        self.problems = problems
        self.known: dict[str, None] = {}  # an ordered set: the keys that this version reads

    def __contains__(self, key: str) -> bool:
        self.known[key] = None
        return key in self.content

    def names(self) -> Iterator[str]:
        """Keys of a mapping whose keys are names that the operator chooses."""
        return iter(self.content)

    def note(self, key: str, problem: str) -> None:
        path = ".".join(part for part in (self.path, key) if part)
        self.problems.append(f"{path}: {problem}")

    def close(self) -> None:
        """Record a problem for every key that was not read."""
        for key in self.content:
            if key not in self.known:
                self.note(key, f"is not known here{_hint(key, tuple(self.known))}")

    def section(self, key: str, *, optional: bool = False) -> "_Section":
        value = self.take(key, optional=optional)
        path = ".".join(part for part in (self.path, key) if part)
        if isinstance(value, dict):
            return _Section(value, path, self.problems)
        if value is not None:
            self.note(key, f"must be a mapping, not {_shown(value)}")
        # One problem is enough: the empty section must not report every missing key.
        return _Section({}, path, [])

    def text(self, key: str) -> str:
        value = self.take(key)
        if isinstance(value, str) and value.strip():
            return value
        if value is not None:
            self.note(key, f"must be text, not {_shown(value)}")
        return ""

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.take(key, optional=True)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self.note(key, f"must be true or false, not {_shown(value)}")
        return default

    def choice(self, key: str, options: tuple[T, ...], *, default: T) -> T:
        value = self.take(key, optional=True)
        for option in options:
            if value == option:
                return option
        if value is not None:
            self.note(key, f"must be {' or '.join(map(str, options))}, not {_shown(value)}")
        return default

    def whole(self, key: str, *, high: int, default: int | None = None) -> int:
        """Read a whole number from 1 to `high`."""
        value = self.take(key, optional=default is not None)
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= high:
            return value
        if value is not None:
            self.note(key, f"must be a whole number from 1 to {high:,}, not {_shown(value)}")
        return default or 1

    def seconds(self, key: str, *, default: int | None = None) -> float:
        value = self.take(key, optional=default is not None)
        number = _number(value)
        if number is not None and 0 < number <= _MAX_SECONDS:
            return float(number)
        if value is not None:
            self.note(key, f"must be a number of seconds above 0 and up to {_MAX_SECONDS:,}, not {_shown(value)}")
        return float(default or 1)

    def temperature(self, key: str) -> float | None:
        value = self.take(key, optional=True)
        number = _number(value)
        if number is not None and 0 <= number <= 2:
            return float(number)
        if value is not None:
            self.note(key, f"must be a number from 0 to 2, not {_shown(value)}")
        return None

    def decimal(self, key: str, *, default: Decimal, low: Decimal, below: Decimal) -> Decimal:
        value = self.take(key, optional=True)
        number = _number(value)
        if number is not None and low <= number < below:
            return number
        if value is not None:
            self.note(key, f"must be a number from {low} to below {below}, not {_shown(value)}")
        return default

    def usd(self, key: str, *, default_nanos: int | None = None) -> int:
        """Read an amount of USD as nanos."""
        value = self.take(key, optional=default_nanos is not None)
        number = _number(value)
        if number is not None and 0 <= number <= _MAX_USD:
            try:
                return parse_usd(number)
            except InvalidAmount:
                self.note(key, "has more than nine decimals")
        elif value is not None:
            self.note(key, f"must be an amount of USD from 0 to {_MAX_USD:,}, not {_shown(value)}")
        return default_nanos or 0

    def model(
        self,
        key: str,
        prices: Mapping[str, Rates],
        *,
        default: str | None = None,
        aliases: tuple[tuple[str, str], ...] = (),
    ) -> str:
        """Read the name of a priced model, or an alias of one."""
        name = default if default is not None and key not in self else self.text(key)
        if name and name not in prices:
            name = _alias_target(aliases, name) or name
        return self.priced(key, name, prices)

    def models(self, key: str, prices: Mapping[str, Rates], *, may_be_empty: bool) -> tuple[str, ...]:
        """Read a list of distinct priced models."""
        names = self.texts(key, may_be_empty=may_be_empty)
        return tuple(self.priced(f"{key}[{index}]", name, prices) for index, name in names)

    def priced(self, key: str, name: str, prices: Mapping[str, Rates]) -> str:
        if name and name not in prices:
            hint = _hint(name, tuple(prices))
            self.note(key, f"{_shown(name)} has no price, and unpriced models cannot be sold{hint}")
        return name

    def words(self, key: str, *, min_chars: int = 1) -> tuple[str, ...]:
        if key not in self:
            return ()
        words = self.texts(key, may_be_empty=False)
        for index, word in words:
            if not _WORD.fullmatch(word) or len(word) < min_chars:
                self.note(
                    f"{key}[{index}]",
                    f"must be one word of {min_chars} to 60 letters or digits, not {_shown(word)}",
                )
        return tuple(word for _index, word in words)

    def phrases(self, key: str) -> tuple[str, ...]:
        """Read words or short phrases; a trailing dash makes the last word a stem."""
        if key not in self:
            return ()
        phrases = self.texts(key, may_be_empty=False)
        for index, phrase in phrases:
            if not _PHRASE.fullmatch(phrase):
                self.note(
                    f"{key}[{index}]",
                    f"must be one to four words of letters or digits, a stem with a dash at its end,"
                    f" not {_shown(phrase)}",
                )
        return tuple(phrase for _index, phrase in phrases)

    def texts(self, key: str, *, may_be_empty: bool) -> list[tuple[int, str]]:
        """Read a list of strings, as (index, string). Other types and duplicates are recorded and left out."""
        value = self.take(key, optional=may_be_empty)
        if value is None:
            return []
        if not isinstance(value, list):
            self.note(key, f"must be a list, not {_shown(value)}")
            return []
        if not value and not may_be_empty:
            self.note(key, "must not be empty")
        found: dict[str, int] = {}
        for index, item in enumerate(value):
            if not isinstance(item, str) or not item.strip():
                self.note(f"{key}[{index}]", f"must be text, not {_shown(item)}")
            elif item in found:
                self.note(f"{key}[{index}]", f"{_shown(item)} appears twice")
            else:
                found[item] = index
        return [(index, item) for item, index in found.items()]

    def take(self, key: str, *, optional: bool = False) -> Plain:
        """Read a value; None if it is missing, which is recorded unless `optional`."""
        self.known[key] = None
        value = self.content.get(key)
        if value is None and not optional:
            self.note(key, "is missing")
        return value


def _number(value: Plain) -> Decimal | None:
    """Return a finite number, or None. Booleans are not numbers here."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    number = Decimal(value)
    return number if number.is_finite() else None


def _shown(value: Plain) -> str:
    """Quote a value for a problem: shortened, and without the contents of a list or mapping."""
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return f"{value}"[:60]
    return "nothing" if value is None else repr(value)[:60]


def _hint(name: str, options: tuple[str, ...]) -> str:
    close = get_close_matches(name, options, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
