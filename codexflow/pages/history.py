"""The past of the status page: a mark for each day and component, and incidents. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

Level = Literal["ok", "warning", "error"]
DAYS = 90
_WORSE: dict[Level, int] = {"ok": 0, "warning": 1, "error": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """Time during which a component was not well. Open without `ended_at`."""

    component: str
    level: Level
    began_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Day:
    """One UTC day of a component: the worst of it, and how long it was not available."""

    day: date
    level: Level
    down: timedelta


@dataclass(frozen=True, slots=True)
class History:
    """Days of one component, the oldest first."""

    days: tuple[Day, ...]

    @property
    def uptime_permille(self) -> int:
        """Available part of the time, in thousandths and rounded down: 1,000 only when it never was away."""
        whole = timedelta(days=len(self.days))
        return int((whole - sum((each.down for each in self.days), timedelta())) * 1000 // whole) if self.days else 1000


def history_of(component: str, outages: Iterable[Outage], now: datetime, days: int = DAYS) -> History:
    """Days of a component up to today."""
    theirs = [each for each in outages if each.component == component]
    first = now.astimezone(UTC).date() - timedelta(days=days - 1)
    return History(tuple(_day(first + timedelta(days=n), theirs, now) for n in range(days)))


def _day(day: date, outages: Sequence[Outage], now: datetime) -> Day:
    start = datetime.combine(day, time.min, UTC)
    end = min(start + timedelta(days=1), now)
    level: Level = "ok"
    spans = []
    for each in outages:
        began, ended = max(each.began_at, start), min(each.ended_at or now, end)
        # One that began and ended within a moment still happened.
        is_moment_of_day = each.began_at == each.ended_at and start <= each.began_at < end
        if began < ended or is_moment_of_day:
            level = max(level, each.level, key=_WORSE.__getitem__)
        if began < ended and each.level == "error":
            spans.append((began, ended))
    return Day(day, level, _covered(spans))


def _covered(spans: Iterable[tuple[datetime, datetime]]) -> timedelta:
    """Length of the union of spans: two that overlap count once."""
    total, reached = timedelta(), None
    for began, ended in sorted(spans):
        if reached is None or began > reached:
            total, reached = total + (ended - began), ended
        elif ended > reached:
            total, reached = total + (ended - reached), ended
    return total
