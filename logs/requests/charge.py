"""Why a request cost what it did: its tokens by class times the frozen rates. Pure."""

from dataclasses import dataclass

from billing.pricing import FrozenRates, Usage, classes, cost_nanos

# The caches are spoken of where they had a part.
_ALWAYS_SHOWN = ("input", "output")


@dataclass(frozen=True, slots=True)
class Line:
    """One class of tokens. `exact_millionths` are nanos times a million, before the one rounding at the end."""

    kind: str  # as in `billing.pricing.classes`
    tokens: int
    rate_nanos: int  # per million tokens
    exact_millionths: int

    @property
    def nanos(self) -> int:
        """For reading; the sum is rounded once, not line by line."""
        return self.exact_millionths // 1_000_000


@dataclass(frozen=True, slots=True)
class Charge:
    """The lines, the plan's margin and the sum."""

    lines: tuple[Line, ...]
    margin_bp: int
    total_nanos: int

    @property
    def margin_nanos(self) -> int:
        return self.total_nanos - sum(line.exact_millionths for line in self.lines) // 1_000_000


def charge_of(usage: Usage, rates: FrozenRates) -> Charge:
    """The same sum as `billing.pricing.cost_nanos`, taken apart."""
    lines = tuple(
        Line(kind, tokens, rate, tokens * rate)
        for kind, tokens, rate in classes(usage, rates)
        if tokens or kind in _ALWAYS_SHOWN
    )
    return Charge(lines, rates.margin_bp, cost_nanos(usage, rates))
