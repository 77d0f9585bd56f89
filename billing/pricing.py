"""Price of a call: its usage times frozen rates, in nanos. Pure.

`price_lines` is the only place where a price is applied: hold, settlement, row, page and statement all follow from it.
"""

from typing import NamedTuple

from msgspec import Struct

from codexflow.catalogue.entries import INPUT_PARTS, OUTPUT_PARTS, PARTS, PriceDetails, Rates, Tier
from codexflow.lib.money import round_div

TOKENS_PER_RATE = 1_000_000
BASIS_POINTS = 10_000


class Usage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens and units of one call.

    `cached_tokens` and `cache_write_tokens` are parts of the prompt: those read from the provider's cache, and those
    written to it, of which `cache_write_1h_tokens` for an hour. `reasoning_tokens` are part of the completion.
    `details` counts what has a price of its own, by name: tokens of `PARTS`, which are parts of the prompt or of the
    completion, and units that are no tokens, such as `web_search`. None: nothing of the kind.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    details: dict[str, int] | None = None

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class FrozenRates(Struct, frozen=True, kw_only=True):
    """Price at admission: nanos per million tokens, and the plan's margin in basis points.

    Without a price of their own, as in older events, tokens written to a cache cost the same as other input.
    """

    input_nanos: int
    cached_nanos: int
    output_nanos: int
    cache_write_nanos: int | None = None
    cache_write_1h_nanos: int | None = None
    margin_bp: int = 0
    details: PriceDetails | None = None


class PriceLine(NamedTuple):
    """One class of a call's usage. `rate_nanos` are per million tokens, or per piece of a unit."""

    kind: str
    quantity: int
    rate_nanos: int
    is_unit: bool = False

    @property
    def nanos(self) -> int:
        """Price in nanos, rounded down for display: the total is rounded once, not line by line."""
        return self.millionths // TOKENS_PER_RATE

    @property
    def millionths(self) -> int:
        """Price in nanos times a million, before the one rounding at the end."""
        return self.quantity * self.rate_nanos * (TOKENS_PER_RATE if self.is_unit else 1)


# Every call freezes the prices of all its models, and a catalogue has few: by identity of the price, and margin.
_frozen: dict[tuple[int, int], tuple[Rates, FrozenRates]] = {}
_MOST_FROZEN = 10_000


def frozen(price: Rates, *, margin_bp: int = 0) -> FrozenRates:
    """Freeze a price of the catalogue."""
    known = _frozen.get((id(price), margin_bp))
    if known is not None and known[0] is price:
        return known[1]
    if len(_frozen) >= _MOST_FROZEN:
        _frozen.clear()
    rates = _freeze(price, margin_bp)
    _frozen[id(price), margin_bp] = price, rates
    return rates


def _freeze(price: Rates, margin_bp: int) -> FrozenRates:
    return FrozenRates(
        input_nanos=price.input_nanos,
        cached_nanos=price.cached_nanos,
        output_nanos=price.output_nanos,
        cache_write_nanos=price.cache_write_nanos,
        cache_write_1h_nanos=price.cache_write_1h_nanos,
        margin_bp=margin_bp,
        details=price.details,
    )


def price_lines(usage: Usage, rates: FrozenRates) -> tuple[PriceLine, ...]:
    """Split usage into classes, each with its rate. Every token is in exactly one.

    The whole prompt chooses the tier, which then applies to the whole call. Tokens of a part without a price of its own
    are ordinary ones; units without a price cost nothing.
    """
    prices: FrozenRates | Tier = tier_of(usage.prompt_tokens, rates) or rates
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    written = min(usage.cache_write_tokens, usage.prompt_tokens - cached)
    for_an_hour = min(usage.cache_write_1h_tokens, written)
    write_nanos, write_1h_nanos = prices.cache_write_nanos, prices.cache_write_1h_nanos
    input_parts, plain = _parts(INPUT_PARTS, usage.prompt_tokens - cached - written, usage, rates)
    output_parts, output = _parts(OUTPUT_PARTS, usage.completion_tokens, usage, rates)
    return (
        PriceLine("input", plain, prices.input_nanos),
        PriceLine("cached", cached, prices.cached_nanos),
        PriceLine("cache_write", written - for_an_hour, prices.input_nanos if write_nanos is None else write_nanos),
        PriceLine("cache_write_1h", for_an_hour, prices.input_nanos if write_1h_nanos is None else write_1h_nanos),
        *input_parts,
        PriceLine("output", output, prices.output_nanos),
        *output_parts,
        *_units(usage, rates),
    )


def tier_of(prompt_tokens: int, rates: FrozenRates) -> Tier | None:
    """The prices by length that a prompt of this many tokens reaches; None: the usual ones."""
    if rates.details is None:
        return None
    found = None
    for tier in rates.details.tiers:
        if prompt_tokens < tier.from_tokens:
            break
        found = tier
    return found


def _parts(names: tuple[str, ...], whole: int, usage: Usage, rates: FrozenRates) -> tuple[list[PriceLine], int]:
    """Lines of the parts that have a price of their own, and the tokens that are left of the whole."""
    lines: list[PriceLine] = []
    if usage.details and rates.details:
        for name in names:
            if name in rates.details.part_nanos and (count := min(whole, usage.details.get(name, 0))):
                lines.append(PriceLine(name, count, rates.details.part_nanos[name]))
                whole -= count
    return lines, whole


def _units(usage: Usage, rates: FrozenRates) -> list[PriceLine]:
    prices = rates.details.unit_nanos if rates.details else {}
    return [
        PriceLine(name, count, prices.get(name, 0), is_unit=True)
        for name, count in sorted((usage.details or {}).items())
        if name not in PARTS
    ]


def cost_nanos(usage: Usage, rates: FrozenRates) -> int:
    """Cost for the customer, in nanos. Rounded once, at the end, half to even."""
    if usage.cached_tokens or usage.cache_write_tokens or usage.details:
        millionths = sum([line.millionths for line in price_lines(usage, rates)])
    else:  # a fast path with the same result: it runs several times a call
        prices = tier_of(usage.prompt_tokens, rates) or rates
        millionths = usage.prompt_tokens * prices.input_nanos + usage.completion_tokens * prices.output_nanos
    return round_div(millionths * (BASIS_POINTS + rates.margin_bp), TOKENS_PER_RATE * BASIS_POINTS)
