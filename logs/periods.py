"""Spans of time that pages show, cut into buckets of the reader's time zone. Pure."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

HOUR = timedelta(hours=1)
# name in the URL -> days; a single day is cut into hours.
RANGES = {"24h": 1, "7d": 7, "14d": 14, "30d": 30}


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` until `end` (excluded), in buckets that begin at `buckets`."""

    start: datetime
    end: datetime
    buckets: tuple[datetime, ...]
    is_hourly: bool


def midnight(day: date, zone: tzinfo) -> datetime:
    """When the day begins in the zone. Where the clocks skip midnight, the first moment after."""
    return datetime.combine(day, time.min, zone).astimezone(UTC).astimezone(zone)


def period_of(name: str, now: datetime, zone: tzinfo) -> Period:
    """The span named in the URL, up to and with the present hour or day."""
    days = RANGES[name]
    here = now.astimezone(zone)
    if days == 1:
        end = now.replace(minute=0, second=0, microsecond=0) + HOUR
        hours = tuple((end - HOUR * left).astimezone(zone) for left in range(24, 0, -1))
        return Period(hours[0], end.astimezone(zone), hours, is_hourly=True)
    # Days are counted on the calendar: a day may have 23 or 25 hours.
    starts = tuple(midnight(here.date() - timedelta(days=left), zone) for left in range(days - 1, -1, -1))
    return Period(starts[0], midnight(here.date() + timedelta(days=1), zone), starts, is_hourly=False)


def day_of(now: datetime, zone: tzinfo) -> tuple[datetime, datetime]:
    """Today in the zone: its first moment and the present one."""
    return midnight(now.astimezone(zone).date(), zone), now
