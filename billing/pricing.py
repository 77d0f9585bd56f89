"""Usage times frozen rates gives nanos. Pure."""

from msgspec import Struct

from codexflow.lib.money import round_div

TOKENS_PER_RATE = 1_000_000
BASIS_POINTS = 10_000


class Usage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens of one call. `cached_tokens` are part of the prompt, `reasoning_tokens` part of the completion."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class FrozenRates(Struct, frozen=True, kw_only=True):
    """A price as it stood at admission: nanos per million tokens, and the plan's margin in basis points."""

    input_nanos: int
    cached_nanos: int
    output_nanos: int
    margin_bp: int = 0


def cost_nanos(usage: Usage, rates: FrozenRates) -> int:
    """What the customer pays, in nanos. Rounded once, at the end, half to even."""
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    millionths = (
        (usage.prompt_tokens - cached) * rates.input_nanos
        + cached * rates.cached_nanos
        + usage.completion_tokens * rates.output_nanos
    )
    return round_div(millionths * (BASIS_POINTS + rates.margin_bp), TOKENS_PER_RATE * BASIS_POINTS)
