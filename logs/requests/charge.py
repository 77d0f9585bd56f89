"""Charge of a request, explained: its usage by class times the frozen rates. Pure."""

from dataclasses import dataclass

from billing.pricing import TOKENS_PER_RATE, FrozenRates, PriceLine, Usage, cost_nanos, price_lines

# All others are shown only where they have tokens.
_ALWAYS_SHOWN = ("input", "output")


@dataclass(frozen=True, slots=True)
class Charge:
    """Lines, the plan's margin and the total."""

    lines: tuple[PriceLine, ...]
    margin_bp: int
    total_nanos: int

    @property
    def margin_nanos(self) -> int:
        return self.total_nanos - sum(line.millionths for line in self.lines) // TOKENS_PER_RATE


def charge_of(usage: Usage, rates: FrozenRates) -> Charge:
    """Break down the sum of `billing.pricing.cost_nanos`."""
    lines = tuple(line for line in price_lines(usage, rates) if line.quantity or line.kind in _ALWAYS_SHOWN)
    return Charge(lines, rates.margin_bp, cost_nanos(usage, rates))
