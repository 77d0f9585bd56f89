"""Statement of a month: opening balance, entries, usage by day and by model, closing balance. Pure.

A month is half-open, from its first midnight (UTC) to the next month's. Amounts are exact nanos; what follows from them
is rounded once, at the end. Usage of an earlier month that became known after that month was closed is a line of its
own, which names the month.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar

from billing.papers.tax import rounded_cents

K = TypeVar("K", date, str, tuple[date, str])
# A month's usage is booked in it until a day after its end (`billing.ledger`); transactions that began before that
# have an hour to commit.
FINAL_AFTER = timedelta(days=1, hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry of the ledger that is not usage."""

    day: date
    kind: str
    note: str
    amount_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """Usage of one model that was booked on `day`. `usage_day` is another one for usage of a closed month."""

    day: date
    usage_day: date
    model: str
    requests: int
    cost_nanos: int

    @property
    def is_late(self) -> bool:
        return self.usage_day != self.day


@dataclass(slots=True)
class Usage:
    """Requests and cost of a line."""

    requests: int = 0
    cost_nanos: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A month of an organization's money."""

    month: date
    opening_nanos: int
    entries: tuple[Entry, ...]
    # Usage of the month itself.
    by_day: Mapping[date, Usage]
    by_model: Mapping[str, Usage]
    # Usage of earlier months that was booked in this one, by the first day of that month and model.
    late: Mapping[tuple[date, str], Usage]
    # Both of it by the caller's tag; calls without one are not part of it.
    by_tag: Mapping[str, Usage] = field(default_factory=dict)

    @property
    def by_kind(self) -> dict[str, int]:
        """Sums of the entries by kind, in the order in which the kinds appear."""
        sums: dict[str, int] = {}
        for entry in self.entries:
            sums[entry.kind] = sums.get(entry.kind, 0) + entry.amount_nanos
        return sums

    @property
    def untagged(self) -> Usage:
        """Usage booked in the month by calls without a tag."""
        both = [*self.by_day.values(), *self.late.values()]
        return Usage(
            requests=sum([each.requests for each in both]) - sum([each.requests for each in self.by_tag.values()]),
            cost_nanos=self.usage_nanos + self.late_nanos - sum([each.cost_nanos for each in self.by_tag.values()]),
        )

    @property
    def usage_nanos(self) -> int:
        """Cost of the month's own usage."""
        return sum([each.cost_nanos for each in self.by_day.values()])

    @property
    def late_nanos(self) -> int:
        return sum([each.cost_nanos for each in self.late.values()])

    @property
    def closing_nanos(self) -> int:
        return self.opening_nanos + sum(self.by_kind.values()) - self.usage_nanos - self.late_nanos

    @property
    def closing_cents(self) -> int:
        return rounded_cents(self.closing_nanos)


def statement(
    month: date,
    *,
    opening_nanos: int,
    entries: Iterable[Entry],
    booked: Iterable[Booked],
    spent: Mapping[date, int],
    by_tag: Mapping[str, Usage] | None = None,
) -> Statement:
    """Return the statement of the month that begins on `month`.

    `spent` is what was booked on each day in all. What of it no row of `booked` tells of, because it is older than
    those rows, is usage of its day with an unnamed model: the sums by day and by model are the same.
    """
    by_day: dict[date, Usage] = {}
    by_model: dict[str, Usage] = {}
    late: dict[tuple[date, str], Usage] = {}
    untold = dict(spent)
    for each in booked:
        untold[each.day] = untold.get(each.day, 0) - each.cost_nanos
        if each.is_late:
            _add(late, (each.usage_day.replace(day=1), each.model), each.requests, each.cost_nanos)
        else:
            _add(by_day, each.day, each.requests, each.cost_nanos)
            _add(by_model, each.model, each.requests, each.cost_nanos)
    for day, nanos in untold.items():
        if nanos:
            _add(by_day, day, 0, nanos)
            _add(by_model, "", 0, nanos)
    return Statement(
        month=month,
        opening_nanos=opening_nanos,
        entries=tuple(entries),
        by_day=_in_order(by_day),
        by_model=_in_order(by_model),
        late=_in_order(late),
        by_tag=by_tag or {},
    )


def _add(lines: dict[K, Usage], name: K, requests: int, nanos: int) -> None:
    line = lines.setdefault(name, Usage())
    line.requests += requests
    line.cost_nanos += nanos


def _in_order(lines: dict[K, Usage]) -> dict[K, Usage]:
    """Lines by name; one whose requests and cost have gone elsewhere is none."""
    return {name: lines[name] for name in sorted(lines) if lines[name] != Usage()}


def month_after(month: date) -> date:
    """First day of the next month."""
    return (month + timedelta(days=31)).replace(day=1)


def final_at(month: date) -> datetime:
    """Time from which the statement of a month does not change any more."""
    return datetime.combine(month_after(month), datetime.min.time(), UTC) + FINAL_AFTER


def months_until(first: date, last: date) -> list[date]:
    """First days of the months of both days and those between, the newest first."""
    months = [first.replace(day=1)]
    while months[-1] < last.replace(day=1):
        months.append(month_after(months[-1]))
    return months[::-1]


def month_of(name: str) -> date | None:
    """First day of a month named as 2026-11; None for anything else."""
    try:
        month = date.fromisoformat(f"{name}-01")
    except ValueError:
        return None
    return month if f"{month:%Y-%m}" == name else None
