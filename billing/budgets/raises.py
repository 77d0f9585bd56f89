"""Temporary raises of budgets. Pure.

A raise adds to a budget until it ends by itself: then the budget counts again as it was set, with all that was spent.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from uuid import UUID

from billing.alerts import DAY, MONTH

# The longest that a raise may last.
LONGEST = timedelta(days=31)
WINDOWS = (DAY, MONTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Raise:
    """A raise in force. Of the organization if it names neither a key's lineage nor the budget of a tag."""

    window: str
    amount_nanos: int
    ends_at: datetime
    key_id: UUID | None = None
    tag_budget_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Raises:
    """Raises of one organization that are in force."""

    each: tuple[Raise, ...] = ()

    def of(
        self, nanos: int | None, window: str, *, key_id: UUID | None = None, tag_budget_id: UUID | None = None
    ) -> int | None:
        """Return a budget with its raises; None, no budget, stays none."""
        if nanos is None or not self.each:
            return nanos
        owner = (window, key_id, tag_budget_id)
        return nanos + sum(
            [each.amount_nanos for each in self.each if (each.window, each.key_id, each.tag_budget_id) == owner]
        )

    def next_end(self) -> datetime | None:
        """Return when the first of them ends."""
        return min([each.ends_at for each in self.each], default=None)


def window_end(window: str, at: datetime) -> datetime:
    """Return when the UTC day or month of a moment ends."""
    day = at.astimezone(UTC).date()
    following = day + timedelta(days=1) if window == DAY else (day.replace(day=1) + timedelta(days=31)).replace(day=1)
    return datetime.combine(following, time.min, UTC)
