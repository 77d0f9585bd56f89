"""Figures of the overview: sums of rollups in buckets of the user's time zone."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any
from uuid import UUID

from django.db import connection

from codexflow.lib.cache import cached
from logs.models import UsageHourly
from logs.pipeline import histogram
from logs.usage.periods import HOUR, Period
from logs.usage.series import quantiles

METRICS = ("cost", "requests", "tokens", "errors")
# name in the URL -> column of the rollups
GROUPS = {"model": "model", "stage": "stage", "key": "key_id", "member": "user_id"}
# Further groups share one grey series: five colours can be distinguished, ten cannot.
MAX_SERIES = 4
OTHER = ""
# Cache lifetime of the sums of past days and hours, which only corrections change.
CACHE_TTL_S = 120


@dataclass(slots=True)
class Sums:
    """Sums of usage."""

    cost_nanos: int = 0
    requests: int = 0
    tokens: int = 0
    errors: int = 0

    def of(self, metric: str) -> int:
        return int(getattr(self, "cost_nanos" if metric == "cost" else metric))

    def add(self, other: "Sums") -> None:
        self.cost_nanos += other.cost_nanos
        self.requests += other.requests
        self.tokens += other.tokens
        self.errors += other.errors


@dataclass(slots=True)
class Series:
    """One series: a value for every bucket. `name` is empty for the groups that share one."""

    name: str
    values: list[int] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.values)


@dataclass(frozen=True, slots=True)
class Chart:
    """Sums by bucket and by group, and one metric by both."""

    period: Period
    totals: list[Sums]
    groups: dict[str, Sums]
    series: list[Series]

    @property
    def total(self) -> Sums:
        found = Sums()
        for sums in self.totals:
            found.add(sums)
        return found


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of the period and of the one before, in ms (None where nothing was measured), and p95 by bucket."""

    latency: dict[str, float | None]
    ttft: dict[str, float | None]
    earlier: dict[str, float | None]
    p95_by_bucket: list[int]


def has_usage(organization_id: UUID) -> bool:
    """Return whether the organization has any usage."""
    return UsageHourly.objects.filter(organization_id=organization_id).exists()


def chart_of(organization_id: UUID, period: Period, *, metric: str, group: str) -> Chart:
    """Sums by bucket and group. `group` is one of GROUPS; ids come as text.

    Past buckets are cached: only corrections still change them.
    """
    cells = _cells_by_hour if period.is_hourly else _cells_by_day
    fresh_from = _fresh_from(period)
    starts = [bucket.astimezone(UTC) for bucket in period.buckets]
    past = [start for start in starts if start < fresh_from]
    cache_key = f"overview:cells:{organization_id}:{group}:{period.start.tzinfo}:{_span(period.start, fresh_from)}"
    known = cached(cache_key, lambda: cells(organization_id, past, fresh_from, GROUPS[group]), seconds=CACHE_TTL_S)
    fresh = cells(organization_id, starts[len(past) :], period.end, GROUPS[group])
    index = {start: i for i, start in enumerate(starts)}
    totals = [Sums() for _ in starts]
    groups: dict[str, Sums] = {}
    by_group: dict[str, list[int]] = {}
    for start, name, *sums in [*known, *fresh]:
        place, cell = index[start], Sums(*sums)
        totals[place].add(cell)
        groups.setdefault(name, Sums()).add(cell)
        by_group.setdefault(name, [0] * len(index))[place] += cell.of(metric)
    return Chart(period, totals, groups, _largest(by_group, len(index)))


# Start of the bucket, group, and the sums in the order of `Sums`.
Cell = tuple[datetime, str, int, int, int, int]
# As bigint, not numeric: a month has thousands of them, and decimals are slow.
_ADDED = (
    "sum(cost_nanos)::bigint, sum(requests)::bigint, sum(prompt_tokens + completion_tokens)::bigint,"
    " sum(errors)::bigint"
)
_HOURS_SQL = """
SELECT hour, {group}::text, {added} FROM usage_hourly
WHERE organization_id = %(organization)s AND hour >= %(first)s AND hour < %(end)s
GROUP BY 1, 2
"""
_DAYS_SQL = """
SELECT day, NULL::integer, {group}::text, {added} FROM usage_daily
WHERE organization_id = %(organization)s AND day >= %(first)s AND day < %(end)s
GROUP BY 1, 3
UNION ALL
SELECT NULL, width_bucket(hour, %(edges)s::timestamptz[]), {group}::text, {added} FROM usage_hourly
WHERE organization_id = %(organization)s AND hour = ANY(%(hours)s)
GROUP BY 2, 3
"""


def _cells_by_hour(organization_id: UUID, starts: Sequence[datetime], end: datetime, column: str) -> list[Cell]:
    values: dict[str, Any] = {"organization": organization_id, "first": starts[0], "end": end}
    with connection.cursor() as cursor:
        cursor.execute(_HOURS_SQL.format(group=column, added=_ADDED), values)
        return [(hour.astimezone(UTC), name, *sums) for hour, name, *sums in cursor.fetchall()]


def _cells_by_day(organization_id: UUID, starts: Sequence[datetime], end: datetime, column: str) -> list[Cell]:
    """Sums of days that begin at `starts`, the last of which ends at `end`.

    Daily rollups are UTC's, and reading hours instead would be up to twenty-four times as much. So each of the zone's
    days starts as the UTC day that begins nearest, and only the hours between the two midnights are read, to be moved
    to the day before or after. In one statement, so that every hour that is moved has been counted.
    """
    midnights = [_nearest_midnight(moment) for moment in (*starts, end)]
    bucket_of_day = {
        first + timedelta(days=n): i
        for i, (first, last) in enumerate(pairwise(moment.date() for moment in midnights))
        for n in range((last - first).days)
    }
    # Where the two midnights differ: the hours between them, from the bucket of the daily rollups to that of the zone.
    edges: list[datetime] = []
    moves: list[tuple[int, int]] = []
    hours: list[datetime] = []
    for i, (start, midnight) in enumerate(zip((*starts, end), midnights, strict=True)):
        if start != midnight:
            edges.append(min(start, midnight))
            moves.append((i - 1, i) if start < midnight else (i, i - 1))
            hours += _hours_between(*sorted((start, midnight)))
    values: dict[str, Any] = {
        "organization": organization_id,
        "first": midnights[0].date(),
        "end": midnights[-1].date(),
        "edges": edges,
        "hours": hours,
    }
    with connection.cursor() as cursor:
        cursor.execute(_DAYS_SQL.format(group=column, added=_ADDED), values)
        rows = cursor.fetchall()
    cells: dict[tuple[int, str], list[int]] = {}
    for day, edge, name, *sums in rows:
        source, target = (None, bucket_of_day[day]) if edge is None else moves[edge - 1]
        for bucket, sign in ((source, -1), (target, 1)):
            if bucket is not None and 0 <= bucket < len(starts):
                known = cells.get((bucket, name)) or [0] * len(sums)
                cells[bucket, name] = [old + sign * new for old, new in zip(known, sums, strict=True)]
    return [(starts[i], name, *sums) for (i, name), sums in cells.items() if any(sums)]  # type: ignore[misc]


def _nearest_midnight(moment: datetime) -> datetime:
    return (moment + timedelta(hours=12)).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _hours_between(start: datetime, end: datetime) -> Iterator[datetime]:
    """Full hours (UTC) that begin from `start` until before `end`."""
    hour = _next_full(start)
    while hour < end:
        yield hour
        hour += HOUR


def _next_full(moment: datetime) -> datetime:
    """The moment itself if it is a full hour, else the next full hour."""
    full = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return full if full == moment else full + HOUR


def _fresh_from(period: Period) -> datetime:
    """First bucket that is never cached: the present day, or the hour before the present one."""
    return period.buckets[-2] if period.is_hourly else period.buckets[-1]


def _span(start: datetime, end: datetime) -> str:
    return f"{int(start.timestamp())}-{int(end.timestamp())}"


def sums_before(organization_id: UUID, start: datetime, end: datetime) -> Sums:
    """Sums of the hours that begin in a past span. Cached, as in `chart_of`."""
    end = _next_full(end)  # an hour that began counts whole
    name = f"overview:before:{organization_id}:{_span(start, end)}"
    cells = cached(name, lambda: _cells_by_day(organization_id, [start], end, "''"), seconds=CACHE_TTL_S)
    return Sums(*cells[0][2:]) if cells else Sums()


_LENGTHS_SQL = """
SELECT coalesce(max(cardinality(latency_histogram)), 0), coalesce(max(cardinality(ttft_histogram)), 0)
FROM {table} WHERE organization_id = %s AND {moment} >= %s AND {moment} < %s
"""
# A column for each bucket, in one pass over the rows. Refused: unnest, which makes a row of each array element.
_HISTOGRAMS_SQL = """
SELECT {moment}{added} FROM {table} WHERE organization_id = %s AND {moment} >= %s AND {moment} < %s GROUP BY 1
"""


def latency_of(organization_id: UUID, period: Period, earlier: tuple[datetime, datetime]) -> Latency:
    """Percentiles from merged histograms, each within 5 %.

    Days are UTC's here, matched by their date in any zone: hours would be twenty-four times as much to add.
    """
    is_hourly = period.is_hourly
    places: dict[Any, int] = {
        (bucket.astimezone(UTC) if is_hourly else bucket.date()): i for i, bucket in enumerate(period.buckets)
    }
    ends = partial(_ends, is_hourly=is_hourly)
    earlier_first, earlier_end = ends(*earlier)
    first, end = ends(period.start, period.end)
    fresh_from, _ = ends(_fresh_from(period), period.end)
    cache_key = f"overview:latency:{organization_id}:{earlier_first}:{earlier_end}:{fresh_from}".replace(" ", "T")
    read = partial(_histograms, organization_id, is_hourly=is_hourly)

    def read_past() -> tuple[dict[Any, Histograms], dict[Any, Histograms]]:
        return read(earlier_first, earlier_end, with_ttft=False), read(first, fresh_from)

    before, known = cached(cache_key, read_past, seconds=CACHE_TTL_S)
    by_bucket: list[list[int]] = [[] for _ in period.buckets]
    total: list[int] = []
    ttft: list[int] = []
    for moment, counts in {**known, **read(fresh_from, end)}.items():
        if moment not in places:
            continue  # a day that the zone skipped
        by_bucket[places[moment]] = counts.latency
        total = histogram.merged(total, counts.latency)
        ttft = histogram.merged(ttft, counts.ttft)
    earlier_total: list[int] = []
    for counts in before.values():
        earlier_total = histogram.merged(earlier_total, counts.latency)
    p95s = [round(histogram.quantile(latencies, 0.95) or 0) for latencies in by_bucket]
    return Latency(quantiles(total), quantiles(ttft), quantiles(earlier_total), p95s)


@dataclass(frozen=True, slots=True)
class Histograms:
    """Histograms of an hour or a day."""

    latency: list[int]
    ttft: list[int]


def _histograms(
    organization_id: UUID, first: Any, end: Any, *, is_hourly: bool, with_ttft: bool = True
) -> dict[Any, Histograms]:
    """Histograms by hour or day."""
    shape = {"table": "usage_hourly" if is_hourly else "usage_daily", "moment": "hour" if is_hourly else "day"}
    values = [organization_id, first, end]
    with connection.cursor() as cursor:
        cursor.execute(_LENGTHS_SQL.format(**shape), values)
        latency, ttft = cursor.fetchone()
        ttft *= with_ttft
        added = [f", sum(latency_histogram[{n}])" for n in range(1, latency + 1)]
        added += [f", sum(ttft_histogram[{n}])" for n in range(1, ttft + 1)]
        cursor.execute(_HISTOGRAMS_SQL.format(**shape, added="".join(added)), values)
        rows = cursor.fetchall()
    found = {}
    for moment, *sums in rows:
        counts = [int(count or 0) for count in sums]
        found[moment.astimezone(UTC) if is_hourly else moment] = Histograms(counts[:latency], counts[latency:])
    return found


def _ends(start: datetime, end: datetime, *, is_hourly: bool) -> tuple[Any, Any]:
    """The span in units of the rollups: hours, or whole days of which the last begins before the end."""
    if is_hourly:
        return _next_full(start), _next_full(end)
    last: date = (end - timedelta(microseconds=1)).date()
    return start.date(), last + timedelta(days=1)


def _largest(values: dict[str, list[int]], buckets: int) -> list[Series]:
    """The largest groups, ordered by name so that colours are stable; the others as one series."""
    ranked = sorted(values, key=lambda name: (-sum(values[name]), name))
    shown = [Series(name, values[name]) for name in sorted(ranked[:MAX_SERIES]) if any(values[name])]
    rest = ranked[MAX_SERIES:]
    if any(any(values[name]) for name in rest):
        shown.append(Series(OTHER, _added((values[name] for name in rest), buckets)))
    return shown


def _added(columns: Iterable[Sequence[int]], length: int) -> list[int]:
    added = [0] * length
    for column in columns:
        for i, value in enumerate(column):
            added[i] += value
    return added
