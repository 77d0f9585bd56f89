"""Limits of organizations and keys, as plain values, and the months that a plan is paid for. Pure."""

import re
from calendar import monthrange
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from struct import Struct
from typing import Protocol, TypeVar

from codexflow.lib.money import NANOS_PER_USD

UNLIMITED = -1
CENT_NANOS = NANOS_PER_USD // 100
# The least that cards are charged: an upgrade on the last day costs that, and no discount leaves less.
LEAST_CHARGE_NANOS = NANOS_PER_USD // 2
_MICROSECOND = timedelta(microseconds=1)
SHORTEST_MONTH, LONGEST_MONTH = timedelta(days=28), timedelta(days=31)
_PACKED = Struct("<7d")


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

    # All of them packed in the order of admit.lua, or empty without any: computed once, sent with every call.
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
        packed = _PACKED.pack(*ordered) if max(ordered) >= 0 else b""
        object.__setattr__(self, "packed", packed)

    @property
    def has_budget(self) -> bool:
        return max(self.total_budget_nanos, self.day_budget_nanos, self.month_budget_nanos) >= 0


# A caller's tag, as a whole text.
TAG = re.compile(r"[A-Za-z0-9._:/@-]{1,64}")


def is_tag(text: str) -> bool:
    """Return whether a text has the form of a tag."""
    return TAG.fullmatch(text) is not None


def tighter(a: int, b: int) -> int:
    """Stricter of two limits, where -1 is none."""
    if a < 0:
        return b
    return a if b < 0 else min(a, b)


def months_after(anchor: datetime, months: int) -> datetime:
    """Same day and time some months later, or that month's last day where it is shorter."""
    year, month = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    return anchor.replace(year=year, month=month + 1, day=min(anchor.day, monthrange(year, month + 1)[1]))


def is_month_of(anchor: datetime, at: datetime) -> bool:
    """Return whether a month counted from the anchor begins then."""
    return months_after(anchor, (at.year - anchor.year) * 12 + at.month - anchor.month) == at


def period_end(anchor: datetime, begins: datetime) -> datetime:
    """End of the monthly period that begins then: the anchor's day of the month, so that the 31st stays the 31st.

    A period that begins between two months of the anchor is a whole month all the same.
    """
    if not is_month_of(anchor, begins):
        anchor = begins
    return months_after(anchor, (begins.year - anchor.year) * 12 + begins.month - anchor.month + 1)


class Period(Protocol):
    """A time that a plan is paid for, half-open: at its end the next one is in force.

    The plan's price is that of the time from `month_begins_at` on, which an upgrade shares with the period before.
    """

    @property
    def month_begins_at(self) -> datetime: ...

    @property
    def begins_at(self) -> datetime: ...

    @property
    def ends_at(self) -> datetime: ...


P = TypeVar("P", bound=Period)


def in_force(periods: Iterable[P], at: datetime) -> P | None:
    """Period in force at a moment; of several, the one that began last."""
    current = [each for each in periods if each.begins_at <= at < each.ends_at]
    return max(current, key=lambda each: each.begins_at, default=None)


def paid_until(periods: Iterable[Period], at: datetime) -> datetime:
    """When what is paid is used up: the end of the last period, or now."""
    return max([at, *(each.ends_at for each in periods)])


def _month_of(period: Period) -> timedelta:
    """Length of the month that a plan's price is for: that of the period, unless an operator gave another time."""
    length = period.ends_at - period.month_begins_at
    if SHORTEST_MONTH <= length <= LONGEST_MONTH:
        return length
    return months_after(period.month_begins_at, 1) - period.month_begins_at


def left_of(amount_nanos: int, period: Period, at: datetime) -> int:
    """Worth of the rest of a period at an amount a month, rounded down to nano-USD."""
    left = max(timedelta(), min(period.ends_at - at, period.ends_at - period.month_begins_at))
    return amount_nanos * (left // _MICROSECOND) // (_month_of(period) // _MICROSECOND)


def upgrade_price_nanos(old_nanos: int, new_nanos: int, period: Period, at: datetime) -> int:
    """Price of another plan for the rest of a period that is paid: the difference, rounded up to cents."""
    return -(-max(0, left_of(new_nanos - old_nanos, period, at)) // CENT_NANOS) * CENT_NANOS


def upgrade_credit_nanos(old_nanos: int, new_nanos: int, period: Period, at: datetime) -> int:
    """Included credit that an upgrade adds: the difference for the rest of the period, in whole cents."""
    return max(0, left_of(new_nanos - old_nanos, period, at)) // CENT_NANOS * CENT_NANOS


def discount_nanos(price_nanos: int, *, percent_off: int, off_nanos: int) -> int:
    """Part of a price in whole cents that a code takes off; at least `LEAST_CHARGE_NANOS` of it stay to be paid."""
    off = price_nanos * percent_off // 100 // CENT_NANOS * CENT_NANOS + off_nanos
    return max(0, min(off, price_nanos - LEAST_CHARGE_NANOS))
