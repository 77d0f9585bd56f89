"""What the overview shows: sums of hourly rollups, in buckets of the reader's time zone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from typing import Any
from uuid import UUID

from django.db.models import Sum
from django.db.models.functions import Coalesce, TruncDay

from logs.models import UsageHourly
from logs.periods import HOUR, Period, midnight

METRICS = ("cost", "requests", "tokens", "errors")
GROUPS = ("model", "stage")
# Further series are one, in grey: five colours are told apart, ten are not.
MAX_SERIES = 4
OTHER = ""


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


@dataclass(frozen=True, slots=True)
class Today:
    """Today until now, and yesterday until the same hour."""

    today: Sums
    yesterday: Sums


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
    """Sums by bucket: of everything, and of one metric by group."""

    period: Period
    totals: list[Sums]
    series: list[Series]


def has_usage(organization_id: UUID) -> bool:
    """Whether anything was ever counted."""
    return UsageHourly.objects.filter(organization_id=organization_id).exists()


def today_of(organization_id: UUID, now: datetime, zone: tzinfo) -> Today:
    """Today's sums, with what yesterday had by the same hour to compare with."""
    here = now.astimezone(zone)
    start = midnight(here.date(), zone)
    yesterday = midnight(here.date() - timedelta(days=1), zone)
    return Today(
        _sums(organization_id, start, now + HOUR),
        _sums(organization_id, yesterday, yesterday + (now - start)),
    )


def chart_of(organization_id: UUID, period: Period, *, metric: str, group: str) -> Chart:
    """One query, whatever the period: sums by bucket and group. `group` is one of GROUPS."""
    rows = UsageHourly.objects.filter(organization_id=organization_id, hour__gte=period.start, hour__lt=period.end)
    if period.is_hourly:
        cells = rows.values_list("hour", group)
    else:
        cells = rows.annotate(bucket=TruncDay("hour", tzinfo=period.start.tzinfo)).values_list("bucket", group)
    index = {bucket: i for i, bucket in enumerate(period.buckets)}
    totals = [Sums() for _ in period.buckets]
    found: dict[str, list[int]] = {}
    for bucket, name, *sums in cells.annotate(**_SUMS).order_by():
        place = index.get(bucket)
        if place is None:
            continue
        cell = Sums(*map(int, sums))
        totals[place].add(cell)
        found.setdefault(name, [0] * len(index))[place] += cell.of(metric)
    return Chart(period, totals, _largest(found, len(index)))


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


def _sums(organization_id: UUID, start: datetime, end: datetime) -> Sums:
    found = UsageHourly.objects.filter(organization_id=organization_id, hour__gte=start, hour__lt=end).aggregate(
        **_SUMS
    )
    return Sums(*(int(found[name]) for name in _SUMS))
