"""Price of a call: its usage times frozen rates, in nanos. Pure."""

from msgspec import Struct

from codexflow.catalogue.schema import Rates
from codexflow.lib.money import round_div

TOKENS_PER_RATE = 1_000_000
BASIS_POINTS = 10_000


class Usage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens of one call.

    `cached_tokens` and `cache_write_tokens` are parts of the prompt: those read from the provider's cache, and those
    written to it, of which `cache_write_1h_tokens` for an hour. `reasoning_tokens` are part of the completion.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0

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


def frozen(price: Rates, *, margin_bp: int = 0) -> FrozenRates:
    """Freeze a price of the catalogue."""
    return FrozenRates(
        input_nanos=price.input_nanos,
        cached_nanos=price.cached_nanos,
        output_nanos=price.output_nanos,
        cache_write_nanos=price.cache_write_nanos,
        cache_write_1h_nanos=price.cache_write_1h_nanos,
        margin_bp=margin_bp,
    )


def tokens_by_class(usage: Usage, rates: FrozenRates) -> tuple[tuple[str, int, int], ...]:
    """Split usage into classes as (kind, tokens, nanos per million). Every token is in exactly one."""
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    written = min(usage.cache_write_tokens, usage.prompt_tokens - cached)
    for_an_hour = min(usage.cache_write_1h_tokens, written)
    write_nanos, write_1h_nanos = rates.cache_write_nanos, rates.cache_write_1h_nanos
    return (
        ("input", usage.prompt_tokens - cached - written, rates.input_nanos),
        ("cached", cached, rates.cached_nanos),
        ("cache_write", written - for_an_hour, rates.input_nanos if write_nanos is None else write_nanos),
        ("cache_write_1h", for_an_hour, rates.input_nanos if write_1h_nanos is None else write_1h_nanos),
        ("output", usage.completion_tokens, rates.output_nanos),
    )


def cost_nanos(usage: Usage, rates: FrozenRates) -> int:
    """Cost for the customer, in nanos. Rounded once, at the end, half to even."""
    if usage.cached_tokens or usage.cache_write_tokens:
        millionths = sum([tokens * rate for _, tokens, rate in tokens_by_class(usage, rates)])
    else:  # a fast path with the same result: it runs several times a call
        millionths = usage.prompt_tokens * rates.input_nanos + usage.completion_tokens * rates.output_nanos
    return round_div(millionths * (BASIS_POINTS + rates.margin_bp), TOKENS_PER_RATE * BASIS_POINTS)
