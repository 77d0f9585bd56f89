"""Models of models.yaml: the prices of each, what it takes, and how long it will be there. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date

from codexflow.catalogue.sections import MAX_TOKENS, NAME, Section, hint

# Kinds of tokens that may have a price of their own. The first two are part of the input, the others of the output.
INPUT_PARTS = ("audio_input", "image_input")
OUTPUT_PARTS = ("audio_output", "image_output")
PARTS = (*INPUT_PARTS, *OUTPUT_PARTS)
# What a provider does beside writing tokens, priced by the piece.
TOOL_UNITS = ("web_search", "web_fetch", "code_execution", "file_search", "image_generation", "mcp_call")
# Units of whole calls: searches as rerankers count them, and requests.
CALL_UNITS = ("search_unit", "request")
UNITS = (*TOOL_UNITS, *CALL_UNITS)
ABILITIES = ("temperature", "reasoning", "images", "tools")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Prices in nano-USD per 1,000,000 tokens of calls whose whole prompt has at least `from_tokens`."""

    from_tokens: int
    input_nanos: int
    cached_nanos: int
    cache_write_nanos: int
    cache_write_1h_nanos: int
    output_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceDetails:
    """Prices that few models have. `tiers` ascend; `part_nanos` are per 1,000,000 tokens, `unit_nanos` per piece."""

    tiers: tuple[Tier, ...] = ()
    part_nanos: dict[str, int] = field(default_factory=dict)
    unit_nanos: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Prices of one model in nano-USD per 1,000,000 tokens."""

    input_nanos: int
    cached_nanos: int  # input tokens read from the provider's cache
    cache_write_nanos: int  # input tokens written to it for the default time
    cache_write_1h_nanos: int  # input tokens written to it for an hour
    output_nanos: int
    details: PriceDetails | None = None

    @property
    def sold(self) -> frozenset[str]:
        """Names of the units and parts that have a price of their own."""
        return frozenset((*self.details.part_nanos, *self.details.unit_nanos)) if self.details else frozenset()

    @property
    def call_units(self) -> tuple[str, ...]:
        """Units by which whole calls are sold."""
        return tuple(name for name in CALL_UNITS if name in self.details.unit_nanos) if self.details else ()

    def sells(self, units: Collection[str]) -> bool:
        """Return whether there is a line for a call that counts tokens and these units; a line of 0 is one."""
        call_units = self.call_units
        return not call_units or self.input_nanos > 0 or not frozenset(call_units).isdisjoint(units)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One model: its prices, its bounds in tokens, and its end.

    After the day `retires` (UTC) the provider no longer serves it. `successor` serves calls for it from the day
    `replaced` on; by default from the day after `retires`, or at once when no end is known.
    """

    rates: Rates
    max_output_tokens: int | None = None
    context_tokens: int | None = None
    takes: frozenset[str] = frozenset(ABILITIES)
    silence_s: float | None = None  # the longest that it may think without a byte
    retires: date | None = None
    replaced: date | None = None
    successor: str | None = None

    def is_retired(self, today: date) -> bool:
        """Return whether `today` (UTC) is after its last day."""
        return self.retires is not None and today > self.retires

    def is_replaced(self, today: date) -> bool:
        """Return whether its successor serves calls for it on `today` (UTC)."""
        if self.successor is None:
            return False
        if self.replaced is not None:
            return today >= self.replaced
        return self.retires is None or today > self.retires


def read_rates(section: Section) -> Rates:
    """Read the prices of one model, in USD per 1,000,000 tokens, and of its units, in USD a piece.

    A model that is sold by the call needs no price of tokens.
    """
    unit_nanos = _units(section.section("units")) if "units" in section else {}
    base = _classes(section, is_optional=not unit_nanos.keys().isdisjoint(CALL_UNITS))
    details = PriceDetails(
        tiers=_tiers(section),
        part_nanos={name: section.usd(name) for name in PARTS if name in section},
        unit_nanos=unit_nanos,
    )
    section.close()
    return Rates(**base, details=details if details != PriceDetails() else None)


def _classes(section: Section, *, is_optional: bool = False) -> dict[str, int]:
    default_nanos = 0 if is_optional else None
    input_nanos = section.usd("input", default_nanos=default_nanos)
    cache_write_nanos = section.usd("cache_write", default_nanos=input_nanos)
    return {
        "input_nanos": input_nanos,
        "cached_nanos": section.usd("cached_input", default_nanos=input_nanos),
        "cache_write_nanos": cache_write_nanos,
        "cache_write_1h_nanos": section.usd("cache_write_1h", default_nanos=cache_write_nanos),
        "output_nanos": section.usd("output", default_nanos=default_nanos),
    }


def _tiers(section: Section) -> tuple[Tier, ...]:
    """Read prices by context length: `above: 200000` begins at 200,001 tokens, `from: 200000` at 200,000."""
    tiers = []
    for tier in section.sections("tiers"):
        if ("above" in tier) == ("from" in tier):
            tier.note("", "needs either above or from: the number of tokens of the whole prompt")
        is_above = "above" in tier
        threshold = tier.whole("above" if is_above else "from", high=MAX_TOKENS, default=1)
        tiers.append(Tier(from_tokens=threshold + is_above, **_classes(tier)))
        tier.close()
    starts = [tier.from_tokens for tier in tiers]
    if len(set(starts)) != len(starts):
        section.note("tiers", "has two entries for the same length")
    return tuple(sorted(tiers, key=lambda tier: tier.from_tokens))


def _units(section: Section) -> dict[str, int]:
    prices = {name: section.usd(name) for name in UNITS if name in section}
    section.close()
    return prices


def read_prices(section: Section) -> dict[str, Rates]:
    """Read a mapping of models to their prices."""
    return {name: read_rates(section.section(_named(name, section))) for name in section.names()}


def read_entries(section: Section, known: Mapping[str, ModelEntry]) -> dict[str, ModelEntry]:
    """Read a mapping of models to their entries. Successors have an entry, here or in `known`, and form no circle."""
    entries = {name: _entry(section.section(_named(name, section))) for name in section.names()}
    everything = {**known, **entries}
    for name, entry in entries.items():
        if entry.successor is not None and entry.successor not in everything:
            names = tuple(everything)
            section.note(f"{name}.successor", f"{entry.successor!r} has no entry{hint(entry.successor, names)}")
        elif _leads_back(name, everything):
            section.note(f"{name}.successor", "leads back to the model itself")
    return entries


def _named(name: str, section: Section) -> str:
    if not NAME.fullmatch(name):
        section.note(name, "is not a model name: printable ASCII without spaces, at most 100 characters")
    return name


def _entry(section: Section) -> ModelEntry:
    takes = section.texts("takes", may_be_empty=True) if "takes" in section else None
    for index, ability in takes or ():
        if ability not in ABILITIES:
            section.note(f"takes[{index}]", f"must be one of {', '.join(ABILITIES)}, not {ability!r}")
    entry = ModelEntry(
        rates=read_rates(section.section("price")),
        max_output_tokens=section.whole("max_output", high=MAX_TOKENS) if "max_output" in section else None,
        context_tokens=section.whole("context", high=MAX_TOKENS) if "context" in section else None,
        takes=frozenset(ABILITIES) if takes is None else frozenset(ability for _, ability in takes),
        silence_s=section.seconds("silence") if "silence" in section else None,
        retires=section.date("retires"),
        replaced=section.date("replaced"),
        successor=section.text("successor") if "successor" in section else None,
    )
    if entry.replaced is not None and entry.successor is None:
        section.note("replaced", "needs a successor: the model that serves calls for this one from that day on")
    elif entry.replaced is not None and entry.retires is not None and (entry.replaced - entry.retires).days > 1:
        section.note("replaced", "is later than the day after retires: nothing would serve the model in between")
    section.close()
    return entry


def _leads_back(name: str, entries: Mapping[str, ModelEntry]) -> bool:
    seen: set[str] = set()
    at: str | None = name
    while at is not None and at in entries and at not in seen:
        seen.add(at)
        at = entries[at].successor
    return at == name
