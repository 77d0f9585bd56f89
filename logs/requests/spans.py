"""Spans of time in the log's address, and their cut into buckets. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
# Widths of buckets: the shortest with at most MAX_BUCKETS wins. Rollups know whole hours only, so that what is less is
# for a few hours, whose rows can be counted.
WIDTHS = (MINUTE, 5 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, 24 * HOUR, 168 * HOUR)
MAX_BUCKETS = 72
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORMAT = "%Y-%m-%dT%H:%MZ"


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` until `end`, which is excluded."""

    start: datetime
    end: datetime

    @property
    def ends(self) -> dict[str, str]:
        """Its ends as the log's address has them, whole minutes of UTC."""
        return {"since": f"{self.start.astimezone(UTC):{_FORMAT}}", "until": f"{self.end.astimezone(UTC):{_FORMAT}}"}


def buckets_of(span: Span, oldest: datetime, zone: tzinfo) -> list[Span]:
    """Cut a span into whole buckets; none where even weeks would be too many.

    The first may begin before the span, but never before `oldest`; the last ends after it. Those of several hours
    begin at midnight of the zone, moved to a whole hour of UTC.
    """
    width = next((each for each in WIDTHS if (span.end - span.start) / each <= MAX_BUCKETS), None)
    if width is None:
        return []
    offset = zone.utcoffset(span.end.astimezone(zone).replace(tzinfo=None)) or timedelta()
    base = _EPOCH - (offset // HOUR * HOUR if width > HOUR else timedelta())
    start = base + (span.start - base) // width * width
    if start < oldest:
        start = base - (base - oldest) // width * width
    buckets = []
    while start < span.end:
        buckets.append(Span(start, start + width))
        start += width
    return buckets


def heights(counts: Iterable[Sequence[int]], *, full: int) -> list[list[int]]:
    """Heights of the segments of stacked bars, where the highest bar has `full`. What is not zero has one at least."""
    counts = list(counts)
    most = max((sum(each) for each in counts), default=0)
    return [[max(1, round(value * full / most)) if value else 0 for value in each] for each in counts]
