"""Verify the rollups against the rows of the request log."""

import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.db import connection, transaction

from codexflow.lib import clock
from codexflow.lib.ids import uuid7_floor
from logs.pipeline.partitions import first_partition_day
from logs.pipeline.rollups import NO_KEY

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupDrift:
    """Disagreement of a rollup table with the rows of a day: the number of sums that differ, and by how much in all."""

    table: str
    day: date
    sums: int
    requests: int
    cost_nanos: int


# Name of a sum -> its SQL over the rows, and over the rollups where it is not the column of that name.
_VERIFIED = {
    "requests": ("count(*)", ""),
    "errors": ("count(*) FILTER (WHERE status >= 400)", ""),
    "disconnects": ("count(*) FILTER (WHERE is_disconnected)", ""),
    **{
        name: (f"sum({name})", "")
        for name in (
            "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "cost_nanos",
            "upstream_cost_nanos",
        )
    },
    "latencies": ("count(latency_ms)", "(SELECT sum(n) FROM unnest(latency_histogram) AS n)"),
    "first_tokens": ("count(ttft_ms)", "(SELECT sum(n) FROM unnest(ttft_histogram) AS n)"),
}  # fmt: skip
_DRIFT_SQL = """
WITH rows AS (
    SELECT {row_moment} AS moment, organization_id, coalesce(key_id, %(no_key)s) AS key_id,
           coalesce(user_id, 0) AS user_id, model, stage, {counted}
    FROM request_log WHERE day = %(day)s AND request_id >= %(low)s AND request_id < %(high)s
    GROUP BY 1, 2, 3, 4, 5, 6
), sums AS (
    SELECT {moment} AS moment, organization_id, key_id, user_id, model, stage, {added}
    FROM {table} WHERE {moment} >= %(first)s AND {moment} < %(end)s
)
SELECT count(*), coalesce(sum(abs(coalesce(rows.requests, 0) - coalesce(sums.requests, 0))), 0),
       coalesce(sum(abs(coalesce(rows.cost_nanos, 0) - coalesce(sums.cost_nanos, 0))), 0)
FROM rows FULL JOIN sums USING (moment, organization_id, key_id, user_id, model, stage)
WHERE {differ}
"""
_DRIFT_PARTS = {
    "counted": ", ".join(f"{row} AS {name}" for name, (row, _) in _VERIFIED.items()),
    "added": ", ".join(f"{rollup} AS {name}" if rollup else name for name, (_, rollup) in _VERIFIED.items()),
    # A correction may leave a rollup of zeros behind.
    "differ": " OR ".join(f"coalesce(rows.{name}, 0) <> coalesce(sums.{name}, 0)" for name in _VERIFIED),
}
_ROLLUPS = (
    {"table": "usage_daily", "moment": "day", "row_moment": "day"},
    # As rollups.hour_of: the hour of the request's start, kept inside its day.
    {
        "table": "usage_hourly",
        "moment": "hour",
        "row_moment": "least(greatest(date_trunc('hour', started_at, 'UTC'), %(midnight)s),"
        " %(midnight)s + interval '23 hours')",
    },
)
# Clocks of gateways and of Redis, which decides the day, differ by less.
_SKEW = timedelta(hours=12)
HOURS_PER_DAY = 24


def verify_rollups() -> list[RollupDrift]:
    """Recompute sums from the rows and report drift. Nothing is corrected silently.

    Verifies today and yesterday every time, and one in twenty-four of the days before: called every hour, it verifies
    every day that still has rows once a day, because reports correct them and imports add to them.
    """
    now = clock.now()
    drifts = [drift for day in _days_to_verify(now) for drift in _drifts_of(day)]
    for drift in drifts:
        logger.error(
            "rollups.drift",
            extra={
                "table": drift.table, "day": str(drift.day), "sums": drift.sums, "requests": drift.requests,
                "cost_nanos": drift.cost_nanos,
            },
        )  # fmt: skip
    return drifts


def _days_to_verify(now: datetime) -> list[date]:
    today = now.date()
    # The day after a dropped partition may lack requests at its edge, so it is left out.
    older = (today - timedelta(days=each) for each in range(2, (today - first_partition_day()).days))
    return [today, today - timedelta(days=1), *(day for day in older if day.toordinal() % HOURS_PER_DAY == now.hour)]


def _drifts_of(day: date) -> list[RollupDrift]:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    next_midnight = midnight + timedelta(days=1)
    values: dict[str, Any] = {
        "day": day,
        "midnight": midnight,
        "no_key": NO_KEY,
        "low": uuid7_floor(midnight - _SKEW),
        "high": uuid7_floor(next_midnight + _SKEW),
    }
    spans: dict[str, dict[str, Any]] = {
        "usage_daily": {"first": day, "end": next_midnight.date()},
        "usage_hourly": {"first": midnight, "end": next_midnight},
    }
    drifts = []
    # One snapshot for all: a drain that commits meanwhile must be in both sides or in neither.
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for rollup in _ROLLUPS:
            table = rollup["table"]
            cursor.execute(_DRIFT_SQL.format(**rollup, **_DRIFT_PARTS), {**values, **spans[table]})
            sums, requests, cost = cursor.fetchone()
            if sums:
                drifts.append(
                    RollupDrift(table=table, day=day, sums=sums, requests=int(requests), cost_nanos=int(cost))
                )
    return drifts
