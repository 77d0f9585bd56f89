"""Figures of the overview: sums of rollups in buckets of the user's time zone."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import pairwise
from typing import Any
from uuid import UUID

from codexflow.lib.cache import cached
from codexflow.lib.replica import may_be_old, reading
from logs.models import UsageHourly
from logs.pipeline import histogram
from logs.usage.finished_days import Versions, of_finished_days
from logs.usage.periods import HOUR, Period, midnight, next_full
from logs.usage.series import quantiles
from logs.usage.sums import Sums
from logs.usage.tables import Times

METRICS = ("cost", "requests", "tokens", "errors")
# name in the URL -> column of the rollups
GROUPS = {"model": "model", "stage": "stage", "key": "key_id", "member": "user_id"}
# Further groups share one grey series: five colours can be distinguished, ten cannot.
MAX_SERIES = 4
OTHER = ""
# Cache lifetime of the sums of past days and hours, which only corrections change.
CACHE_TTL_S = 120
BEFORE_TTL_S = 3600
DAY = timedelta(days=1)


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
    """Percentiles of the period, of the one before and of each bucket, in ms; None where nothing was measured."""

    latency: dict[str, float | None]
    ttft: dict[str, float | None]
    earlier: dict[str, float | None]
    by_bucket: list[Times]

    @property
    def p95_by_bucket(self) -> list[int]:
        """p95 of each bucket, 0 where nothing was measured."""
        return [round(times.p95 or 0) for times in self.by_bucket]


def first_hour_of_usage(organization_id: UUID) -> datetime | None:
    """Return the first hour (UTC) with usage; None before the first request."""
    hours = UsageHourly.objects.filter(organization_id=organization_id).order_by("organization_id", "hour")
    return hours.values_list("hour", flat=True).first()


@may_be_old
def usage_of(
    organization_id: UUID, period: Period, earlier: tuple[datetime, datetime], *, metric: str, group: str
) -> tuple[Chart, Latency]:
    """Sums by bucket and group, and percentiles in the same buckets, each within 5 %, as well as of an earlier span.

    `group` is one of GROUPS; ids come as text. Past buckets are cached: only corrections still change them.
    """
    versions = Versions(organization_id)
    return _chart(versions, period, metric, group), _latency(versions, period, earlier)


def _chart(versions: Versions, period: Period, metric: str, group: str) -> Chart:
    organization_id, column = versions.organization_id, GROUPS[group]
    fresh_from = _fresh_from(period)
    starts = [bucket.astimezone(UTC) for bucket in period.buckets]
    past = [start for start in starts if start < fresh_from]
    cache_key = f"overview:cells:{organization_id}:{group}:{period.start.tzinfo}:{_span(period.start, fresh_from)}"

    def read_past() -> list[Cell]:
        if period.is_hourly:
            return _cells_by_hour(organization_id, past, fresh_from, column)
        return _cells_of_days(versions, past, fresh_from, column)

    known = cached(cache_key, read_past, seconds=CACHE_TTL_S)
    cells = _cells_by_hour if period.is_hourly else _cells_by_day
    fresh = cells(organization_id, starts[len(past) :], period.end, column)
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
    if not starts:
        return []
    values: dict[str, Any] = {"organization": organization_id, "first": starts[0], "end": end}
    with reading().cursor() as cursor:
        cursor.execute(_HOURS_SQL.format(group=column, added=_ADDED), values)
        return [(hour.astimezone(UTC), name, *sums) for hour, name, *sums in cursor.fetchall()]


def _cells_by_day(organization_id: UUID, starts: Sequence[datetime], end: datetime, column: str) -> list[Cell]:
    """Sums of days that begin at `starts`, the last of which ends at `end`; see `_Moves`."""
    moves = _Moves.of(starts, end)
    with reading().cursor() as cursor:
        cursor.execute(_DAYS_SQL.format(group=column, added=_ADDED), moves.values_of(organization_id))
        rows = cursor.fetchall()
    cells: dict[tuple[int, str], list[int]] = {}
    for day, edge, name, *sums in rows:
        for bucket, sign in moves.places_of(day, edge):
            known = cells.get((bucket, name)) or [0] * len(sums)
            cells[bucket, name] = [old + sign * new for old, new in zip(known, sums, strict=True)]
    return [(starts[i], name, *sums) for (i, name), sums in cells.items() if any(sums)]  # type: ignore[misc]


def _cells_of_days(versions: Versions, starts: Sequence[datetime], end: datetime, column: str) -> list[Cell]:
    """Do as `_cells_by_day`, for finished days."""

    def read(starts: Sequence[datetime], end: datetime) -> dict[datetime, list[Cell]]:
        by_day: dict[datetime, list[Cell]] = {start: [] for start in starts}
        for cell in _cells_by_day(versions.organization_id, starts, end, column):
            by_day[cell[0]].append(cell)
        return by_day

    days = of_finished_days(f"cells:{column}", versions, starts, end, read)
    return [cell for start in starts for cell in days[start]]


@dataclass(frozen=True, slots=True)
class _Moves:
    """Days of a zone from daily rollups, which are UTC's.

    Reading hours instead would be up to twenty-four times as much. So each of the zone's days starts as the UTC day
    that begins nearest, and only the hours between the two midnights are read, to be moved to the day before or after.
    Both are read in one statement, so that every hour that is moved has been counted.
    """

    buckets: int
    first: date
    end: date
    bucket_of_day: dict[date, int]
    # Where the two midnights differ: the hours between them, from the bucket of the daily rollups to that of the zone.
    edges: list[datetime]
    moves: list[tuple[int, int]]
    hours: list[datetime]

    @classmethod
    def of(cls, starts: Sequence[datetime], end: datetime) -> "_Moves":
        midnights = [_nearest_midnight(moment) for moment in (*starts, end)]
        bucket_of_day = {
            first + timedelta(days=n): i
            for i, (first, last) in enumerate(pairwise(moment.date() for moment in midnights))
            for n in range((last - first).days)
        }
        edges: list[datetime] = []
        moves: list[tuple[int, int]] = []
        hours: list[datetime] = []
        for i, (start, nearest) in enumerate(zip((*starts, end), midnights, strict=True)):
            if start != nearest:
                edges.append(min(start, nearest))
                moves.append((i - 1, i) if start < nearest else (i, i - 1))
                hours += _hours_between(*sorted((start, nearest)))
        return cls(len(starts), midnights[0].date(), midnights[-1].date(), bucket_of_day, edges, moves, hours)

    def values_of(self, organization_id: UUID) -> dict[str, Any]:
        """Values of the statements that read days and moved hours."""
        names = {"first": self.first, "end": self.end, "edges": self.edges, "hours": self.hours}
        return {"organization": organization_id, **names}

    def places_of(self, day: date | None, edge: int | None) -> list[tuple[int, int]]:
        """Buckets that a row of such a statement changes, each with 1 to add it or -1 to take it away."""
        if edge is None:
            assert day is not None  # noqa: S101 - a row is of a day or of moved hours
            return [(self.bucket_of_day[day], 1)]
        source, target = self.moves[edge - 1]
        return [(bucket, sign) for bucket, sign in ((source, -1), (target, 1)) if 0 <= bucket < self.buckets]


def _nearest_midnight(moment: datetime) -> datetime:
    return (moment + timedelta(hours=12)).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _hours_between(start: datetime, end: datetime) -> Iterator[datetime]:
    """Full hours (UTC) that begin from `start` until before `end`."""
    hour = next_full(start)
    while hour < end:
        yield hour
        hour += HOUR


def _fresh_from(period: Period) -> datetime:
    """First bucket that is never cached: the present day, or the hour before the present one."""
    return period.buckets[-2:][0] if period.is_hourly else period.buckets[-1]


def _span(start: datetime, end: datetime) -> str:
    return f"{int(start.timestamp())}-{int(end.timestamp())}"


@may_be_old
def sums_before(organization_id: UUID, start: datetime, end: datetime) -> Sums:
    """Sums of the hours that begin in a past span. Cached, as in `usage_of`."""
    end = next_full(end)  # an hour that began counts whole
    name = f"overview:before:{organization_id}:{_span(start, end)}"
    # The hours that are moved at either end of a span shorter than a day may be the same.
    cells = _cells_by_day if end - start >= DAY else _cells_by_hour
    found = Sums()
    for _, _, *sums in cached(name, lambda: cells(organization_id, [start], end, "''"), seconds=CACHE_TTL_S):
        found.add(Sums(*sums))
    return found


# The longest histograms, and whether any counts durations below FAST: answers of models are hardly ever there, and half
# of the columns need not be added then.
FAST = histogram.bucket_of(90)
_LENGTHS_SQL = """
SELECT max(cardinality(latency)), max(cardinality(ttft)),
    bool_or(latency <> '{{}}' AND latency[1:{fast}] <> %(none)s::integer[]),
    bool_or(ttft <> '{{}}' AND ttft[1:{fast}] <> %(none)s::integer[])
FROM ({found}) AS found
"""
# A column for each bucket, in one pass over the rows. Refused: unnest, which makes a row of each array element.
_HISTOGRAMS_SQL = "SELECT day, place{added} FROM ({found}) AS found GROUP BY 1, 2"
_HOURS_FOUND = """
SELECT hour AS day, NULL::integer AS place, latency_histogram AS latency, ttft_histogram AS ttft FROM usage_hourly
WHERE organization_id = %(organization)s AND hour >= %(first)s AND hour < %(end)s
"""
_DAYS_FOUND = """
SELECT day, NULL::integer AS place, latency_histogram AS latency, ttft_histogram AS ttft FROM usage_daily
WHERE organization_id = %(organization)s AND day >= %(first)s AND day < %(end)s
UNION ALL
SELECT NULL, width_bucket(hour, %(edges)s::timestamptz[]), latency_histogram, ttft_histogram FROM usage_hourly
WHERE organization_id = %(organization)s AND hour = ANY(%(hours)s)
"""


def _latency(versions: Versions, period: Period, earlier: tuple[datetime, datetime]) -> Latency:
    organization_id = versions.organization_id
    fresh_from = _fresh_from(period)
    starts = [bucket.astimezone(UTC) for bucket in period.buckets]
    past = [start for start in starts if start < fresh_from]
    cache_key = f"overview:latency:{organization_id}:{period.start.tzinfo}:{_span(period.start, fresh_from)}"

    def read_past() -> dict[datetime, Histograms]:
        if period.is_hourly:
            return _histograms_by_hour(organization_id, past, fresh_from)
        return _histograms_of_days(versions, past, fresh_from)

    known = cached(cache_key, read_past, seconds=CACHE_TTL_S)
    read = _histograms_by_hour if period.is_hourly else _histograms_by_day
    found = {**known, **read(organization_id, starts[len(past) :], period.end)}
    total: list[int] = []
    ttft: list[int] = []
    for counts in found.values():
        total = histogram.merged(total, counts.latency)
        ttft = histogram.merged(ttft, counts.ttft)
    by_bucket = [_times_of(found[start].latency if start in found else []) for start in starts]
    earlier_latency = _latency_before(versions, *earlier, period.start.tzinfo)
    return Latency(quantiles(total), quantiles(ttft), quantiles(earlier_latency), by_bucket)


def _latency_before(versions: Versions, start: datetime, end: datetime, zone: tzinfo | None) -> list[int]:
    """Histogram of a past span, read once an hour: it only says by how much the latency has changed."""
    organization_id = versions.organization_id
    end = next_full(end)  # an hour that began counts whole

    def read() -> list[int]:
        *days, rest = _days_and_rest(start.astimezone(zone), end)
        found = _histograms_of_days(versions, days, rest)
        last = _histograms_by_hour(organization_id, [rest], end) if rest < end else {}
        total: list[int] = []
        for counts in (*found.values(), *last.values()):
            total = histogram.merged(total, counts.latency)
        return total

    return cached(f"overview:latency-before:{organization_id}:{_span(start, end)}", read, seconds=BEFORE_TTL_S)


def _days_and_rest(start: datetime, end: datetime) -> list[datetime]:
    """First moments (UTC) of the whole days between two moments in the first one's zone, and of the hours after them.

    Without whole days, where the first moment is no midnight, it is all hours.
    """
    edges, zone = [start], start.tzinfo or UTC
    if start == midnight(start.date(), zone):
        while (following := midnight(edges[-1].date() + DAY, zone)) <= end:
            edges.append(following)
    return [edge.astimezone(UTC) for edge in edges]


def _times_of(counts: list[int]) -> Times:
    found = quantiles(counts)
    return Times(found["p50"], found["p95"])


@dataclass(frozen=True, slots=True)
class Histograms:
    """Histograms of an hour or a day."""

    latency: list[int]
    ttft: list[int]


def _histograms_by_hour(organization_id: UUID, starts: Sequence[datetime], end: datetime) -> dict[datetime, Histograms]:
    if not starts:
        return {}
    values: dict[str, Any] = {"organization": organization_id, "first": starts[0], "end": end}
    latency, rows = _added_histograms(_HOURS_FOUND, values)
    return {hour.astimezone(UTC): Histograms(counts[:latency], counts[latency:]) for hour, _, counts in rows}


def _histograms_by_day(organization_id: UUID, starts: Sequence[datetime], end: datetime) -> dict[datetime, Histograms]:
    """Histograms of days that begin at `starts`, the last of which ends at `end`; see `_Moves`."""
    moves = _Moves.of(starts, end)
    values = moves.values_of(organization_id)
    latency, rows = _added_histograms(_DAYS_FOUND, values)
    found: dict[int, list[int]] = {}
    for day, edge, counts in rows:
        for bucket, sign in moves.places_of(day, edge):
            known = found.get(bucket) or [0] * len(counts)
            found[bucket] = [old + sign * new for old, new in zip(known, counts, strict=True)]
    return {starts[i]: Histograms(counts[:latency], counts[latency:]) for i, counts in found.items()}


def _histograms_of_days(versions: Versions, starts: Sequence[datetime], end: datetime) -> dict[datetime, Histograms]:
    """Do as `_histograms_by_day`, for finished days."""

    def read(starts: Sequence[datetime], end: datetime) -> dict[datetime, Histograms]:
        found = _histograms_by_day(versions.organization_id, starts, end)
        return {start: found.get(start) or Histograms([], []) for start in starts}

    return of_finished_days("histograms", versions, starts, end, read)


def _added_histograms(found: str, values: dict[str, Any]) -> tuple[int, list[tuple[Any, int | None, list[int]]]]:
    """Rows of a statement with the counts of both histograms in one list, and the length of the first."""
    with reading().cursor() as cursor:
        cursor.execute(_LENGTHS_SQL.format(found=found, fast=FAST), {**values, "none": [0] * FAST})
        latency, ttft, has_fast, has_fast_ttft = cursor.fetchone()
        columns = [*_columns("latency", latency or 0, has_fast), *_columns("ttft", ttft or 0, has_fast_ttft)]
        if not columns:
            return 0, []
        added = "".join(f", sum({column})::bigint" for column in columns if column)
        cursor.execute(_HISTOGRAMS_SQL.format(found=found, added=added), values)
        rows = []
        for moment, place, *sums in cursor.fetchall():
            read = iter(sums)
            rows.append((moment, place, [(next(read) or 0) if column else 0 for column in columns]))
        return latency or 0, rows


def _columns(name: str, length: int, has_fast: bool | None) -> list[str]:
    """An array's elements in SQL, with empty text for those that are zero in every row."""
    first = 1 if has_fast else FAST + 1
    return ["" if n < first else f"{name}[{n}]" for n in range(1, length + 1)]


def histograms_of_day(day: date) -> Histograms:
    """Histograms of all calls of a day (UTC), of every organization."""
    with reading().cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(max(cardinality(latency_histogram)), 0), coalesce(max(cardinality(ttft_histogram)), 0)"
            " FROM usage_daily WHERE day = %s",
            [day],
        )
        latency, ttft = cursor.fetchone()
        added = [f"sum(latency_histogram[{n}])" for n in range(1, latency + 1)]
        added += [f"sum(ttft_histogram[{n}])" for n in range(1, ttft + 1)]
        if not added:
            return Histograms([], [])
        cursor.execute(f"SELECT {', '.join(added)} FROM usage_daily WHERE day = %s", [day])  # noqa: S608 - numbers
        counts = [int(count or 0) for count in cursor.fetchone()]
    return Histograms(counts[:latency], counts[latency : latency + ttft])


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
