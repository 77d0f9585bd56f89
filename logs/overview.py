"""What the overview shows: sums of hourly rollups, in buckets of the reader's time zone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Sum
from django.db.models.functions import Coalesce, TruncDay

from codexflow.lib.keep import kept
from logs import histogram
from logs.models import UsageHourly
from logs.periods import HOUR, Period
from logs.series import quantiles

METRICS = ("cost", "requests", "tokens", "errors")
# name in the URL -> column of the rollups
GROUPS = {"model": "model", "stage": "stage", "key": "key_id", "member": "user_id"}
# Further series are one, in grey: five colours are told apart, ten are not.
MAX_SERIES = 4
OTHER = ""
# How old the sums of days and hours that are over may be.
KEPT_S = 120


@dataclass(slots=True)
class Sums:
    """What is added up."""

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
    """One line of the legend: a value for every bucket. `name` is empty for the rest of them."""

    name: str
    values: list[int] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.values)


@dataclass(frozen=True, slots=True)
class Chart:
    """Sums by bucket and by group, of everything; and of one metric by both."""

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
    """Percentiles (ms; None where nothing was measured) of the period and of the one before, and p95 by bucket."""

    latency: dict[str, float | None]
    ttft: dict[str, float | None]
    earlier: dict[str, float | None]
    p95_by_bucket: list[int]


def has_usage(organization_id: UUID) -> bool:
    """Whether anything was ever counted."""
    return UsageHourly.objects.filter(organization_id=organization_id).exists()


def chart_of(organization_id: UUID, period: Period, *, metric: str, group: str) -> Chart:
    """Sums by bucket and group. `group` is one of GROUPS; ids come as text.

    What is over is read once for a while: only corrections still change it.
    """
    column, zone = GROUPS[group], period.start.tzinfo

    def cells(start: datetime, end: datetime) -> list[tuple[Any, ...]]:
        rows = UsageHourly.objects.filter(organization_id=organization_id, hour__gte=start, hour__lt=end)
        if period.is_hourly:
            named = rows.values_list("hour", column)
        else:
            named = rows.annotate(bucket=TruncDay("hour", tzinfo=zone)).values_list("bucket", column)
        # In UTC: within one zone an hour that the clocks repeat would be taken for the hour before it.
        found = named.annotate(**_SUMS).order_by()
        return [(bucket.astimezone(UTC), str(name), *map(int, sums)) for bucket, name, *sums in found]

    fresh_from = _fresh_from(period)
    kept_as = f"overview:cells:{organization_id}:{group}:{zone}:{_span(period.start, fresh_from)}"
    known = kept(kept_as, lambda: cells(period.start, fresh_from), seconds=KEPT_S)
    index = {bucket.astimezone(UTC): i for i, bucket in enumerate(period.buckets)}
    totals = [Sums() for _ in period.buckets]
    groups: dict[str, Sums] = {}
    found: dict[str, list[int]] = {}
    for bucket, name, *sums in [*known, *cells(fresh_from, period.end)]:
        place = index.get(bucket)
        if place is None:
            continue
        cell = Sums(*sums)
        totals[place].add(cell)
        groups.setdefault(name, Sums()).add(cell)
        found.setdefault(name, [0] * len(index))[place] += cell.of(metric)
    return Chart(period, totals, groups, _largest(found, len(index)))


def _fresh_from(period: Period) -> datetime:
    """From where on sums are always read anew: the present day, or the present hour and the one before."""
    return period.buckets[-2] if period.is_hourly else period.buckets[-1]


def _span(start: datetime, end: datetime) -> str:
    return f"{int(start.timestamp())}-{int(end.timestamp())}"


def sums_before(organization_id: UUID, start: datetime, end: datetime) -> Sums:
    """Everything of the hours that begin in a span that is over. Read once for a while, as `chart_of` does."""
    full = end.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    end = full if full == end else full + HOUR  # an hour that began counts whole
    name = f"overview:sums:{organization_id}:{_span(start, end)}"
    return kept(name, lambda: _sums(organization_id, start, end), seconds=KEPT_S)


def _sums(organization_id: UUID, start: datetime, end: datetime) -> Sums:
    found = UsageHourly.objects.filter(organization_id=organization_id, hour__gte=start, hour__lt=end).aggregate(
        **_SUMS
    )
    return Sums(*(int(found[name]) for name in _SUMS))


_HISTOGRAMS_SQL = """
SELECT moment, kind, n, sum(count) FROM (
    SELECT {moment} AS moment, kind, counts
    FROM {table}, LATERAL (VALUES ('latency', latency_histogram), ('ttft', ttft_histogram)) AS kinds (kind, counts)
    WHERE organization_id = %(organization)s AND {moment} >= %(first)s AND {moment} < %(end)s
) AS cells, unnest(counts) WITH ORDINALITY AS buckets (count, n)
WHERE count <> 0 GROUP BY 1, 2, 3
"""


def latency_of(organization_id: UUID, period: Period, earlier: tuple[datetime, datetime]) -> Latency:
    """Percentiles from added histograms, each within 5 %.

    Days are UTC's here, taken by their date whatever the zone: hours would be twenty-four times as much to add.
    """
    is_hourly = period.is_hourly
    places: dict[Any, int] = {
        (bucket.astimezone(UTC) if is_hourly else bucket.date()): i for i, bucket in enumerate(period.buckets)
    }
    first, end = _ends(earlier[0], period.end, is_hourly=is_hourly)
    last_earlier = _ends(earlier[0], earlier[1], is_hourly=is_hourly)[1]
    fresh_from = _ends(_fresh_from(period), period.end, is_hourly=is_hourly)[0]
    kept_as = f"overview:latency:{organization_id}:{first}:{fresh_from}".replace(" ", "T")
    known = kept(kept_as, lambda: _histograms(organization_id, first, fresh_from, is_hourly=is_hourly), seconds=KEPT_S)
    by_bucket: list[list[int]] = [[] for _ in period.buckets]
    ttft: list[int] = []
    before: list[int] = []
    for moment, kind, n, count in [*known, *_histograms(organization_id, fresh_from, end, is_hourly=is_hourly)]:
        place = places.get(moment.astimezone(UTC) if is_hourly else moment)
        if place is None and kind == "latency" and moment < last_earlier:
            _put(before, n - 1, count)
        elif place is not None:
            _put(by_bucket[place] if kind == "latency" else ttft, n - 1, count)
    total: list[int] = []
    for counts in by_bucket:
        total = histogram.merged(total, counts)
    p95s = [round(histogram.quantile(counts, 0.95) or 0) for counts in by_bucket]
    return Latency(quantiles(total), quantiles(ttft), quantiles(before), p95s)


def _histograms(organization_id: UUID, first: Any, end: Any, *, is_hourly: bool) -> list[tuple[Any, ...]]:
    """Moment, kind, place from 1 and count of what is not empty."""
    shape = {"table": "usage_hourly" if is_hourly else "usage_daily", "moment": "hour" if is_hourly else "day"}
    with connection.cursor() as cursor:
        cursor.execute(_HISTOGRAMS_SQL.format(**shape), {"organization": organization_id, "first": first, "end": end})
        return [(moment, kind, n, int(count)) for moment, kind, n, count in cursor.fetchall()]


def _ends(start: datetime, end: datetime, *, is_hourly: bool) -> tuple[Any, Any]:
    """The span as the rollups count: hours, or whole days of which the last begins before the end."""
    if is_hourly:
        return start.astimezone(UTC), end.astimezone(UTC)
    last: date = (end - timedelta(microseconds=1)).date()
    return start.date(), last + timedelta(days=1)


def _put(counts: list[int], place: int, count: int) -> None:
    counts.extend([0] * (place + 1 - len(counts)))
    counts[place] += count


def _largest(found: dict[str, list[int]], buckets: int) -> list[Series]:
    """The largest groups in the order of their names, so that colours stay; the others as one."""
    ranked = sorted(found, key=lambda name: (-sum(found[name]), name))
    shown = [Series(name, found[name]) for name in sorted(ranked[:MAX_SERIES]) if any(found[name])]
    rest = ranked[MAX_SERIES:]
    if any(any(found[name]) for name in rest):
        shown.append(Series(OTHER, _added((found[name] for name in rest), buckets)))
    return shown


def _added(columns: Iterable[Sequence[int]], length: int) -> list[int]:
    added = [0] * length
    for column in columns:
        for i, value in enumerate(column):
            added[i] += value
    return added


_SUMS: dict[str, Any] = {
    "sum_cost": Coalesce(Sum("cost_nanos"), 0),
    "sum_requests": Coalesce(Sum("requests"), 0),
    "sum_tokens": Coalesce(Sum("prompt_tokens"), 0) + Coalesce(Sum("completion_tokens"), 0),
    "sum_errors": Coalesce(Sum("errors"), 0),
}
