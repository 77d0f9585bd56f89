"""Charge of a request, explained: its usage by class times the frozen rates. Pure."""

from collections.abc import Iterable
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

    @property
    def rounding_nanos(self) -> int:
        """Nanos that the lines lack of the total: each is rounded down, and the total once."""
        shown = sum(line.nanos for line in self.lines) + (self.margin_nanos if self.margin_bp else 0)
        return self.total_nanos - shown


def charge_of_parts(parts: Iterable[tuple[Usage, FrozenRates]]) -> Charge:
    """Break down the sum of a planned request, of parts with prices of their own. Lines of one rate are one."""
    charges = [charge_of(usage, rates) for usage, rates in parts]
    quantities: dict[tuple[str, int, bool], int] = {}
    for line in [line for charge in charges for line in charge.lines if line.quantity]:
        key = (line.kind, line.rate_nanos, line.is_unit)
        quantities[key] = quantities.get(key, 0) + line.quantity
    lines = tuple(PriceLine(kind, count, rate, is_unit) for (kind, rate, is_unit), count in quantities.items())
    margin_bp = max([charge.margin_bp for charge in charges], default=0)
    return Charge(lines, margin_bp, sum([charge.total_nanos for charge in charges]))


def charge_of(usage: Usage, rates: FrozenRates) -> Charge:
    """Break down the sum of `billing.pricing.cost_nanos`."""
    lines = tuple(line for line in price_lines(usage, rates) if line.quantity or line.kind in _ALWAYS_SHOWN)
    return Charge(lines, rates.margin_bp, cost_nanos(usage, rates))
