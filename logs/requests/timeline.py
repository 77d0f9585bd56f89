"""Numbers of requests over time above the log: succeeded, failed, and refused.

Rollups count where they know all that is filtered for and buckets are hours. Everything else is counted in the rows,
from the newest on and for a bounded time: what lies before has no bar, and the page says so. Refused calls have a key
and a code only, so they are shown where nothing else is filtered for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID

from django.db.models import BigIntegerField, Count, F, Func, Q, Sum

from codexflow.lib.clock import monotonic_s, now
from codexflow.lib.ids import uuid7_floor
from codexflow.lib.replica import may_be_old, reading
from logs.models import UsageHourly
from logs.requests.search import deadline_s, hours_of, steps
from logs.requests.selectors import COUNTED, Filters, query_of, requests_before
from logs.requests.spans import HOUR, Span
from logs.usage.finished_days import Versions, of_finished_days
from logs.usage.periods import midnight

_REFUSED_SQL = """
SELECT width_bucket(minute, %s::timestamptz[]), sum(count) FROM refusal_count
WHERE organization_id = %s AND minute >= %s AND minute < %s
  AND (%s::uuid IS NULL OR key_id = %s) AND (%s = '' OR code = %s)
GROUP BY 1
"""


@dataclass(slots=True)
class Bar:
    """Numbers of one bucket."""

    span: Span
    ok: int = 0
    failed: int = 0
    refused: int = 0

    @property
    def total(self) -> int:
        return self.ok + self.failed + self.refused


@dataclass(slots=True)
class Timeline:
    """Bars, oldest first. Bars that end before `counted_from` were not counted; None: all were."""

    bars: list[Bar] = field(default_factory=list)
    counted_from: datetime | None = None


@may_be_old
def timeline_of(
    organization_id: UUID, filters: Filters, buckets: Sequence[Span], *, time_limit_s: float | None = None
) -> Timeline:
    """Count what the filters find in each bucket, which replace the filters' own times."""
    found = Timeline([Bar(bucket) for bucket in buckets])
    if not buckets:
        return found
    if _is_counted_by_rollups(filters, buckets):
        _count_by_rollups(found, organization_id, filters)
    else:
        _count_rows(found, organization_id, filters, time_limit_s)
    if _may_match_refusals(filters):
        _count_refusals(found, organization_id, filters)
    return found


def _is_counted_by_rollups(filters: Filters, buckets: Sequence[Span]) -> bool:
    others = (filters.surface, filters.error_code, filters.source, filters.tag, filters.id_part, filters.is_planned)
    return (
        buckets[0].end - buckets[0].start >= HOUR
        and not any(others)
        and filters.is_stream is None
        and filters.status in ("", "ok", "errors")
        and all(condition.column in COUNTED for condition in filters.conditions)
    )


def _may_match_refusals(filters: Filters) -> bool:
    others = (
        filters.stage, filters.model, filters.user_id, filters.surface, filters.source, filters.tag,
        filters.id_part, filters.is_planned, filters.conditions, filters.status == "ok",
    )  # fmt: skip
    return not any(others) and filters.is_stream is None and not filters.status.isdecimal()


# An hour (UTC), its requests and its errors.
_Hour = tuple[datetime, int, int]


def _count_by_rollups(timeline: Timeline, organization_id: UUID, filters: Filters) -> None:
    bars = timeline.bars
    first, end, width = bars[0].span.start, bars[-1].span.end, bars[0].span.end - bars[0].span.start
    for hour, requests, errors in _hours(organization_id, filters, first, end):
        bar = bars[(hour - first) // width]
        bar.ok += requests - errors if filters.status != "errors" else 0
        bar.failed += errors if filters.status != "ok" else 0


def _hours(organization_id: UUID, filters: Filters, first: datetime, end: datetime) -> Iterator[_Hour]:
    """Hours with requests, from `first` until before `end`. Finished days (UTC) are cached."""
    known = {name: value for name in COUNTED if (value := getattr(filters, name))}
    rollups = UsageHourly.objects.filter(
        *map(query_of, filters.conditions), organization_id=organization_id, **known
    ).order_by()

    def read(start: datetime, until: datetime) -> Iterator[_Hour]:
        hours = rollups.filter(hour__gte=start, hour__lt=until).values_list("hour")
        for hour, requests, errors in hours.annotate(Sum("requests"), Sum("errors")):
            yield hour, int(requests), int(errors)

    def read_days(starts: Sequence[datetime], until: datetime) -> dict[datetime, list[tuple[int, int, int]]]:
        by_day: dict[datetime, list[tuple[int, int, int]]] = {start: [] for start in starts}
        for hour, requests, errors in read(starts[0], until):
            by_day[midnight(hour.date(), UTC)].append((hour.hour, requests, errors))
        return by_day

    starts = _midnights(first, min(end, now()))
    if len(starts) < 2:
        yield from read(first, end)
        return
    yield from read(first, starts[0])
    what = sha256(repr((known, filters.conditions)).encode()).hexdigest()[:32]
    days = of_finished_days(f"hours:{what}", Versions(organization_id), starts[:-1], starts[-1], read_days)
    for start, hours in days.items():
        yield from ((start + n * HOUR, requests, errors) for n, requests, errors in hours)
    yield from read(starts[-1], end)


def _midnights(first: datetime, end: datetime) -> list[datetime]:
    """Midnights of UTC from `first` until `end`."""
    day = midnight(first.astimezone(UTC).date(), UTC)
    days = (day + timedelta(days=n) for n in range((end - day).days + 1))
    return [each for each in days if first <= each <= end]


class _Milliseconds(Func):
    """Milliseconds since 1970 in a UUIDv7: its first 48 bits."""

    template = "('x' || left(replace(%(expressions)s::text, '-', ''), 12))::bit(48)::bigint"
    output_field = BigIntegerField()


def _count_rows(timeline: Timeline, organization_id: UUID, filters: Filters, time_limit_s: float | None) -> None:
    bars = timeline.bars
    first, width = bars[0].span.start, bars[0].span.end - bars[0].span.start
    wanted = filters.between(first, bars[-1].span.end)
    first_ms, width_ms = int(first.timestamp() * 1000), int(width.total_seconds() * 1000)
    ends_s = deadline_s(time_limit_s)
    hours = hours_of(organization_id, wanted, None)
    matches = requests_before(organization_id, wanted, before=None).order_by()
    for low, high in steps(hours):
        rows = matches.filter(request_id__gte=uuid7_floor(low), request_id__lt=uuid7_floor(high))
        places = rows.alias(ms=_Milliseconds("request_id")).values(place=(F("ms") - first_ms) / width_ms)
        counted = places.annotate(calls=Count("request_id"), failures=Count("request_id", filter=Q(status__gte=400)))
        for place, calls, failures in counted.values_list("place", "calls", "failures"):
            if 0 <= place < len(bars):
                bars[place].ok += calls - failures
                bars[place].failed += failures
        if monotonic_s() >= ends_s and low > hours[-1]:
            timeline.counted_from = next((bar.span.start for bar in bars if bar.span.start >= low), bars[-1].span.end)
            for bar in bars:
                if bar.span.start < timeline.counted_from:
                    bar.ok = bar.failed = 0  # counted in part only
            return


def _count_refusals(timeline: Timeline, organization_id: UUID, filters: Filters) -> None:
    bars = timeline.bars
    starts, key = [bar.span.start for bar in bars], filters.key_id
    code = filters.error_code
    with reading().cursor() as cursor:
        cursor.execute(_REFUSED_SQL, [starts, organization_id, starts[0], bars[-1].span.end, key, key, code, code])
        for place, calls in cursor.fetchall():
            bars[place - 1].refused = int(calls)
