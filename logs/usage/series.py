"""Series of usage: sums of rollups in hours, days or months of a time zone, with percentiles."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, tzinfo
from typing import Any
from uuid import UUID

from accounts.models import Organization
from billing.selectors import spend_by_tag_and_day
from codexflow.lib.replica import may_be_old, reading
from logs.pipeline import histogram
from logs.usage.periods import Bucket, Interval, buckets_of

GROUPS = {"stage": "stage", "model": "model", "key": "key_id", "user": "user_id"}
SUMS = (
    "requests", "errors", "disconnects", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens",
    "cost_nanos",
)  # fmt: skip
TAG_SUMS = ("requests", "cost_nanos")
# Tags by name in one answer; the others are added up.
MAX_TAGS = 200
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(slots=True)
class Cell:
    """Sums of one bucket and one group; `group` is None without grouping. Of tags it has only TAG_SUMS."""

    bucket: Bucket
    group: str | None
    sums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SUMS, 0))
    latency: list[int] = field(default_factory=list)
    ttft: list[int] = field(default_factory=list)

    def add(self, other: "Cell") -> None:
        for name in self.sums:
            self.sums[name] += other.sums[name]
        self.latency = histogram.merged(self.latency, other.latency)
        self.ttft = histogram.merged(self.ttft, other.ttft)

    @property
    def latency_ms(self) -> dict[str, float | None]:
        return quantiles(self.latency)

    @property
    def ttft_ms(self) -> dict[str, float | None]:
        return quantiles(self.ttft)


@dataclass(frozen=True, slots=True)
class Usage:
    """Cells that are not empty, oldest first, and their total."""

    cells: list[Cell]
    total: Cell


def quantiles(counts: Sequence[int]) -> dict[str, float | None]:
    """Return p50, p95 and p99 in ms, each at most 5 % off; None where nothing was measured."""
    values = {name: histogram.quantile(counts, q) for name, q in QUANTILES.items()}
    return {name: value if value is None else round(value, 1) for name, value in values.items()}


_SUMS_SQL = """
SELECT width_bucket({moment}, %(starts)s::{kind}[]) AS place, {group} AS name, {sums}
FROM {table} WHERE organization_id = %(organization)s AND {moment} >= %(first)s AND {moment} < %(end)s
GROUP BY 1, 2
"""
# Histograms are added by the database, bucket by bucket, without empty buckets.
_HISTOGRAM_SQL = """
SELECT place, name, n, sum(count)
FROM (
    SELECT width_bucket({moment}, %(starts)s::{kind}[]) AS place, {group} AS name, {histogram} AS counts
    FROM {table} WHERE organization_id = %(organization)s AND {moment} >= %(first)s AND {moment} < %(end)s
) AS cells, unnest(counts) WITH ORDINALITY AS buckets (count, n)
WHERE count <> 0 GROUP BY 1, 2, 3
"""


@may_be_old
def usage_of(
    organization_id: UUID, first: date, last: date, *, interval: Interval, zone: tzinfo, group: str | None
) -> Usage:
    """Sums of the days from `first` to `last`, both included, in the zone's buckets (see `buckets_of`). `group` is one
    of GROUPS.

    Days and months of UTC come from the daily rollups, everything else from the hourly ones.
    """
    buckets, end = buckets_of(first, last, interval, zone)
    if not buckets:
        return Usage([], Cell(Bucket(end, last), None))
    is_daily = interval != "hour" and str(zone) == "UTC"
    places: list[Any] = [each.day if is_daily else each.start.astimezone(UTC) for each in buckets]
    shape = {
        "table": "usage_daily" if is_daily else "usage_hourly",
        "moment": "day" if is_daily else "hour",
        "kind": "date" if is_daily else "timestamptz",
        "group": f"{GROUPS[group]}::text" if group else "NULL::text",
    }
    values = {
        "organization": organization_id,
        "starts": places,
        "first": places[0],
        "end": end.astimezone(UTC).date() if is_daily else end.astimezone(UTC),
    }
    cells: dict[tuple[int, str | None], Cell] = {}
    with reading().cursor() as cursor:
        cursor.execute(_SUMS_SQL.format(**shape, sums=", ".join(f"sum({name})" for name in SUMS)), values)
        for place, name, *sums in cursor.fetchall():
            cell = cells[place, name] = Cell(buckets[place - 1], name)
            cell.sums.update(zip(SUMS, map(int, sums), strict=True))
        for kind in ("latency", "ttft"):
            cursor.execute(_HISTOGRAM_SQL.format(**shape, histogram=f"{kind}_histogram"), values)
            for place, name, n, count in cursor.fetchall():
                # A request counted since the first query has no cell: the next call will have it.
                if (place, name) in cells:
                    _set_count(getattr(cells[place, name], kind), n - 1, int(count))
    ordered = [cells[key] for key in sorted(cells, key=lambda key: (key[0], key[1] or ""))]
    total = Cell(buckets[0], None)
    for cell in ordered:
        total.add(cell)
    return Usage(ordered, total)


def tag_usage_of(
    organization: Organization, first: date, last: date, *, interval: Interval, tag: str | None, is_grouped: bool
) -> Usage:
    """Requests and cost of one tag or of all, in days or months of UTC. Calls without a tag are left out.

    From the daily spend, which has no tokens and no hours: tags are made up by callers, so the rollups are not cut by
    them.
    """
    buckets, _end = buckets_of(first, last, interval, UTC)
    starts = [bucket.day for bucket in buckets]
    cells: dict[tuple[int, str | None], Cell] = {}
    for spend in spend_by_tag_and_day(organization, first, last, tag=tag, most=MAX_TAGS):
        place = bisect_right(starts, spend.day) - 1
        name = spend.tag if is_grouped else None
        cell = cells.setdefault((place, name), _tag_cell(buckets[place], name))
        cell.sums["requests"] += spend.requests
        cell.sums["cost_nanos"] += spend.cost_nanos
    ordered = [cells[key] for key in sorted(cells, key=lambda key: (key[0], key[1] or ""))]
    total = _tag_cell(buckets[0], None)
    for cell in ordered:
        total.add(cell)
    return Usage(ordered, total)


def _tag_cell(bucket: Bucket, tag: str | None) -> Cell:
    return Cell(bucket, tag, dict.fromkeys(TAG_SUMS, 0))


def _set_count(counts: list[int], place: int, count: int) -> None:
    counts.extend([0] * (place + 1 - len(counts)))
    counts[place] = count
