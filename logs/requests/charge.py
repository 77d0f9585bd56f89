"""Charge of a request, explained: its tokens by class times the frozen rates. Pure."""

from dataclasses import dataclass

from billing.pricing import FrozenRates, Usage, cost_nanos, tokens_by_class

# Classes of the cache are shown only where they have tokens.
_ALWAYS_SHOWN = ("input", "output")


@dataclass(frozen=True, slots=True)
class Line:
    """One class of tokens. `exact_millionths` are nanos times a million, before the one rounding at the end."""

    kind: str  # as in `billing.pricing.tokens_by_class`
    tokens: int
    rate_nanos: int  # per million tokens
    exact_millionths: int

    @property
    def nanos(self) -> int:
        """Rounded for display; the total is rounded once, not line by line."""
        return self.exact_millionths // 1_000_000


@dataclass(frozen=True, slots=True)
class Charge:
    """Lines, the plan's margin and the total."""

    lines: tuple[Line, ...]
    margin_bp: int
    total_nanos: int

    @property
    def margin_nanos(self) -> int:
        return self.total_nanos - sum(line.exact_millionths for line in self.lines) // 1_000_000


def charge_of(usage: Usage, rates: FrozenRates) -> Charge:
    """Break down the sum of `billing.pricing.cost_nanos`."""
    lines = tuple(
        Line(kind, tokens, rate, tokens * rate)
        for kind, tokens, rate in tokens_by_class(usage, rates)
        if tokens or kind in _ALWAYS_SHOWN
    )
    return Charge(lines, rates.margin_bp, cost_nanos(usage, rates))
