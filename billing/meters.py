"""Limits that an organization uses up and is stopped by: credit, requests of the day, budgets. Pure.

Money is nano-USD. The nearest is what stops calls first.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from billing.alerts import CREDIT, DAY, MONTH, WARN_PERCENT

REQUESTS = "requests"
# Of meters that are used up alike, the one that lasts longest is named.
_ORDER = (CREDIT, MONTH, DAY, REQUESTS)
ORGANIZATION, KEY, TAG = "organization", "key", "tag"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """One limit with what is used of it, of the organization or of one of its keys or tags."""

    kind: str
    used: int
    limit: int
    owner: str = ORGANIZATION
    name: str = ""  # of the key or tag
    owner_id: str = ""
    stops: bool = True  # a soft budget only warns

    @property
    def is_money(self) -> bool:
        return self.kind != REQUESTS

    @property
    def part(self) -> Fraction:
        """Used part; a limit of nothing is used up."""
        return Fraction(max(0, self.used), self.limit) if self.limit > 0 else Fraction(1)

    @property
    def percent(self) -> int:
        """Used percent, rounded down: 100 only when nothing is left."""
        return int(self.part * 100)

    @property
    def is_used_up(self) -> bool:
        return self.part >= 1


def nearest(meters: Iterable[Meter]) -> Meter | None:
    """Return the meter that stops calls first; None if nothing is limited."""
    return max((each for each in meters if each.stops), key=_rank, default=None)


def warned(meters: Iterable[Meter]) -> list[tuple[Meter, int]]:
    """Return the meters to warn of, the nearest first, and how many more each stands for.

    Of keys and of tags only the nearest is named: an organization may have hundreds.
    """
    near = sorted((each for each in meters if each.percent >= WARN_PERCENT), key=_rank, reverse=True)
    own = [(each, 0) for each in near if each.owner == ORGANIZATION]
    for owner in (KEY, TAG):
        theirs = [each for each in near if each.owner == owner]
        if theirs:
            others = {each.owner_id for each in theirs} - {theirs[0].owner_id}
            own.append((theirs[0], len(others)))
    return own


def _rank(meter: Meter) -> tuple[bool, Fraction, bool, int]:
    # Used up is used up: then what concerns the whole organization, and lasts, comes first.
    part = min(meter.part, Fraction(1))
    return meter.stops, part, meter.owner == ORGANIZATION, -_ORDER.index(meter.kind)
