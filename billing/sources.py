"""Sources of an organization's credit, and which of them pays. Pure.

Credit that expires first is spent first; of two that expire together, what was given is spent before what was paid
for. What no source covers is debt, which the next credit pays off.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

# Name of the part of an entry that no source covers, or that pays off what none covered. Source ids begin at 1.
DEBT = 0
# A call that was admitted before its source expired is still paid by it for so long; then the rest is gone.
SETTLES_WITHIN = timedelta(hours=1)
# Kinds of sources in the order in which they are spent.
PLAN, PROMOTIONAL, PAID = "plan", "promotional", "paid"
_ORDER = (PLAN, PROMOTIONAL, PAID)
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class Source:
    """One source, with the nanos that are left of it. `expires_at` None: never."""

    id: int
    kind: str
    remaining_nanos: int
    expires_at: datetime | None = None
    # For pages.
    label: str = ""
    name: str = ""
    granted_nanos: int = 0

    def is_open(self, at: datetime) -> bool:
        """Return whether a call admitted at this time may be paid from it."""
        return self.expires_at is None or at < self.expires_at


def in_order(sources: Iterable[Source]) -> list[Source]:
    """Sort sources as they are spent: soonest expiry, then kind, then age."""
    return sorted(sources, key=lambda each: (each.expires_at or _NEVER, _ORDER.index(each.kind), each.id))


class Purse:
    """The sources of one organization and its debt, while entries are booked. Amounts are nanos."""

    def __init__(self, sources: Iterable[Source], *, debt_nanos: int = 0) -> None:
        self.sources = in_order(sources)
        self.debt_nanos = debt_nanos
        self.changed: set[int] = set()

    @property
    def balance_nanos(self) -> int:
        return sum([each.remaining_nanos for each in self.sources]) - self.debt_nanos

    def source(self, source_id: int) -> Source:
        """Return a source. Raises StopIteration for one that was not loaded."""
        return next(each for each in self.sources if each.id == source_id)

    def add(self, source: Source) -> None:
        """Put a new source in its place."""
        self.sources = in_order([*self.sources, source])

    def spend(self, amount_nanos: int, *, admitted_at: datetime) -> dict[int, int]:
        """Pay for usage. Returns the parts by source, negative; what no source covers is debt."""
        parts: dict[int, int] = {}
        for source in self.sources:
            if amount_nanos <= 0:
                return parts
            if source.remaining_nanos > 0 and source.is_open(admitted_at):
                amount_nanos -= self._take(source, amount_nanos, parts)
        if amount_nanos > 0:
            self._owe(amount_nanos, parts)
        return parts

    def give_back(self, amount_nanos: int, paid: Mapping[int, int]) -> dict[int, int]:
        """Return usage that was charged too much to what paid for it, the last one that paid first.

        `paid` has the parts of the request so far. Where the debt is paid off meanwhile, the rest goes to a source:
        there must be one. A source that has expired takes its part, which expires with it.
        """
        parts: dict[int, int] = {}
        owed = min(amount_nanos, -paid.get(DEBT, 0), self.debt_nanos)
        if owed > 0:
            self._pay_off(owed, parts)
            amount_nanos -= owed
        paid_by = [each for each in reversed(self.sources) if paid.get(each.id, 0) < 0]
        for source in paid_by:
            part = min(amount_nanos, -paid[source.id])
            if part > 0:
                self._add(source, part, parts)
                amount_nanos -= part
        if amount_nanos > 0:
            amount_nanos -= self._pay_off(min(amount_nanos, self.debt_nanos), parts)
        if amount_nanos > 0:
            self._add(paid_by[0] if paid_by else self.sources[-1], amount_nanos, parts)
        return parts

    def grant(self, source: Source, amount_nanos: int) -> dict[int, int]:
        """Add credit as a new source. Debt is paid off first. The source is among the parts even if nothing is left."""
        self.add(source)
        return self.put_back(source, amount_nanos)

    def put_back(self, source: Source, amount_nanos: int) -> dict[int, int]:
        """Add credit to a source, as when a dispute is won. Debt is paid off first."""
        parts: dict[int, int] = {}
        amount_nanos -= self._pay_off(min(amount_nanos, self.debt_nanos), parts)
        self._add(source, amount_nanos, parts)
        return parts

    def take_from(self, source: Source, amount_nanos: int) -> dict[int, int]:
        """Take credit back from a source, as for a refund or a dispute. What is spent already becomes debt."""
        parts: dict[int, int] = {}
        amount_nanos -= self._take(source, amount_nanos, parts)
        if amount_nanos > 0:
            self._owe(amount_nanos, parts)
        return parts

    def expire(self, source: Source) -> dict[int, int]:
        """Take all that is left of an expired source."""
        parts: dict[int, int] = {}
        self._take(source, source.remaining_nanos, parts)
        return parts

    def _take(self, source: Source, amount_nanos: int, parts: dict[int, int]) -> int:
        part = min(source.remaining_nanos, amount_nanos)
        if part > 0:
            self._add(source, -part, parts)
        return max(0, part)

    def _add(self, source: Source, part_nanos: int, parts: dict[int, int]) -> None:
        source.remaining_nanos += part_nanos
        parts[source.id] = parts.get(source.id, 0) + part_nanos
        self.changed.add(source.id)

    def _owe(self, amount_nanos: int, parts: dict[int, int]) -> None:
        self.debt_nanos += amount_nanos
        parts[DEBT] = parts.get(DEBT, 0) - amount_nanos

    def _pay_off(self, amount_nanos: int, parts: dict[int, int]) -> int:
        if amount_nanos > 0:
            self._owe(-amount_nanos, parts)
        return amount_nanos


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceBalance:
    """One source as a page shows it. `held_nanos` is what running calls may take of it."""

    source: Source
    held_nanos: int

    @property
    def available_nanos(self) -> int:
        return self.source.remaining_nanos - self.held_nanos


def with_holds(sources: Sequence[Source], held_nanos: int, *, at: datetime) -> list[SourceBalance]:
    """Spread what running calls hold over the open sources, in the order in which they will be spent."""
    shown = []
    for source in in_order(each for each in sources if each.is_open(at)):
        held = min(source.remaining_nanos, held_nanos)
        held_nanos -= held
        shown.append(SourceBalance(source=source, held_nanos=held))
    return shown
