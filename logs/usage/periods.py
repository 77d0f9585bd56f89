"""Periods of time and their buckets in a time zone. Pure."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import pairwise
from typing import Literal

HOUR = timedelta(hours=1)
Interval = Literal["hour", "day", "month"]
# name in the URL -> days; a single day is cut into hours.
RANGES = {"24h": 1, "7d": 7, "14d": 14, "30d": 30, "90d": 90}


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` until `end` (excluded), in buckets that begin at `buckets`."""

    start: datetime
    end: datetime
    buckets: tuple[datetime, ...]
    is_hourly: bool


def midnight(day: date, zone: tzinfo) -> datetime:
    """First moment of a day in the zone: midnight, or the first one after where the clocks skip it."""
    return datetime.combine(day, time.min, zone).astimezone(UTC).astimezone(zone)


MONTH = "month"  # the calendar's, beside the names of RANGES
CUSTOM = "custom"  # the days that a reader chooses
MAX_CUSTOM_DAYS = 366
MAX_HOURLY_DAYS = 2  # a longer time is cut into days


def period_of(name: str, now: datetime, zone: tzinfo) -> Period:
    """Period named in the URL, up to and including the present hour or day."""
    here = now.astimezone(zone)
    days = here.day if name == MONTH else RANGES[name]
    if name == MONTH:
        return _days(here.date(), days, zone)
    if days == 1:
        end = now.replace(minute=0, second=0, microsecond=0) + HOUR
        hours = tuple((end - HOUR * left).astimezone(zone) for left in range(24, 0, -1))
        return Period(hours[0], end.astimezone(zone), hours, is_hourly=True)
    return _days(here.date(), days, zone)


def _days(today: date, days: int, zone: tzinfo) -> Period:
    # Days are counted on the calendar: a day may have 23 or 25 hours.
    starts = tuple(midnight(today - timedelta(days=left), zone) for left in range(days - 1, -1, -1))
    return Period(starts[0], midnight(today + timedelta(days=1), zone), starts, is_hourly=False)


def period_of_days(first: date, last: date, now: datetime, zone: tzinfo) -> Period:
    """Period of the days from `first` to `last`, both included, in hours if it is short. Hours end with the present."""
    days = (last - first).days + 1
    if days > MAX_HOURLY_DAYS:
        return _days(last, days, zone)
    found = [bucket.start for bucket in buckets_of(first, last, "hour", zone)[0]]
    hours = tuple(hour for hour in found if hour <= now) or tuple(found[:1])
    return Period(hours[0], (hours[-1].astimezone(UTC) + HOUR).astimezone(zone), hours, is_hourly=True)


def period_before(name: str, period: Period, now: datetime, zone: tzinfo) -> tuple[datetime, datetime]:
    """Span to compare a period with: as much of the time before it as has passed of the period itself."""
    if name == "24h":
        return period.start - HOUR * 24, now - HOUR * 24
    first = period.start.astimezone(zone).date()
    if name == MONTH:
        earlier = (first - timedelta(days=1)).replace(day=1)
    else:
        days = (period.buckets[-1].astimezone(zone).date() - first).days + 1
        earlier = first - timedelta(days=days)
    start = midnight(earlier, zone)
    return start, min(start + (now - period.start), period.start)


def spans_of(period: Period) -> list[tuple[datetime, datetime]]:
    """First moment and end of each bucket, as usage counts them: full hours of UTC, which begin in the bucket."""
    edges = [next_full(moment) for moment in (*period.buckets, period.end)]
    return list(pairwise(edges))


def next_full(moment: datetime) -> datetime:
    """Return the moment itself if it is a full hour of UTC, else the next full hour; in UTC."""
    full = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return full if full == moment else full + HOUR


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket: its first moment, and the calendar day of that moment."""

    start: datetime
    day: date


def buckets_of(first: date, last: date, interval: Interval, zone: tzinfo) -> tuple[list[Bucket], datetime]:
    """Buckets of the days from `first` to `last`, both included: hours, days or months of the zone; and their end.

    Usage is counted by hours of UTC, and such an hour belongs to the bucket in which it begins. Hours therefore
    begin at UTC's full hours (10:30 in Kolkata), and where midnight is no full hour of UTC, the hour that
    runs across it belongs to the day before. So every hour is in exactly one bucket: an hour that the clocks
    repeat is two buckets, one that they skip is none.
    """
    end = midnight(last + timedelta(days=1), zone)
    if interval == "hour":
        return _hours(midnight(first, zone), end, zone), end
    days = (first + timedelta(days=n) for n in range((last - first).days + 1))
    starts = [day for day in days if interval == "day" or day == first or day.day == 1]
    found: list[Bucket] = []
    for day in starts:
        start = midnight(day, zone)
        # A zone that moved across the date line has skipped a day.
        if found and start.astimezone(UTC) <= found[-1].start.astimezone(UTC):
            found.pop()
        found.append(Bucket(start, day))
    return found, end


def _hours(start: datetime, end: datetime, zone: tzinfo) -> list[Bucket]:
    moment, until = next_full(start), end.astimezone(UTC)
    found = []
    while moment < until:
        here = moment.astimezone(zone)
        found.append(Bucket(here, here.date()))
        moment += HOUR
    return found


def day_of(now: datetime, zone: tzinfo) -> tuple[datetime, datetime]:
    """Today in the zone: its first moment, and now."""
    return midnight(now.astimezone(zone).date(), zone), now
