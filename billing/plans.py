"""Limits of organizations and keys, as plain values, and the month that a plan is paid for. Pure."""

from calendar import monthrange
from dataclasses import dataclass, field
from datetime import datetime
from struct import Struct

UNLIMITED = -1
_PACKED = Struct("<7q")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one scope, an organization or a key. -1 means none; budgets are nano-USD."""

    daily_requests: int = UNLIMITED
    rpm: int = UNLIMITED
    tpm: int = UNLIMITED
    concurrent_streams: int = UNLIMITED
    total_budget_nanos: int = UNLIMITED
    day_budget_nanos: int = UNLIMITED
    month_budget_nanos: int = UNLIMITED

    # All of them packed in the order of admit.lua: computed once, sent with every call.
    packed: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ordered = (
            self.daily_requests,
            self.rpm,
            self.tpm,
            self.concurrent_streams,
            self.total_budget_nanos,
            self.day_budget_nanos,
            self.month_budget_nanos,
        )
        object.__setattr__(self, "packed", _PACKED.pack(*ordered))

    @property
    def has_budget(self) -> bool:
        return max(self.total_budget_nanos, self.day_budget_nanos, self.month_budget_nanos) >= 0


def tighter(a: int, b: int) -> int:
    """Stricter of two limits, where -1 is none."""
    if a < 0:
        return b
    return a if b < 0 else min(a, b)


def months_after(anchor: datetime, months: int) -> datetime:
    """Same day and time some months later, or that month's last day where it is shorter."""
    year, month = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    return anchor.replace(year=year, month=month + 1, day=min(anchor.day, monthrange(year, month + 1)[1]))


def period_end(anchor: datetime, begins: datetime) -> datetime:
    """End of the monthly period that begins then: the anchor's day of the month, so that the 31st stays the 31st."""
    months = (begins.year - anchor.year) * 12 + begins.month - anchor.month
    end = months_after(anchor, months)
    return end if end > begins else months_after(anchor, months + 1)
