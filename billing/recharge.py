"""When credit is bought by itself. Pure. Amounts are nano-USD."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Below `threshold_nanos` of paid credit, `amount_nanos` are charged; at most `month_limit_nanos` in a month."""

    threshold_nanos: int
    amount_nanos: int
    month_limit_nanos: int

    def is_due(self, *, paid_nanos: int, ordered_nanos: int) -> bool:
        """Return whether credit is to be bought now. `ordered_nanos` were this month, charged or under way."""
        return paid_nanos < self.threshold_nanos and ordered_nanos + self.amount_nanos <= self.month_limit_nanos


def month_of(at: datetime) -> tuple[datetime, datetime]:
    """Return begin and end of a moment's calendar month, half-open. `at` is UTC."""
    first = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    year, month = divmod(first.year * 12 + first.month, 12)
    return first, first.replace(year=year, month=month + 1)
