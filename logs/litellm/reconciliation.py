"""Reconcile our rows with LiteLLM's reports, by day and model: matches, gaps on either side, and drift.

A report is stored beside its attempt (`reported_*`), as a row of its own (a call past the gateway), or as unmatched.
So the comparison reads PostgreSQL only, and costs LiteLLM nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from django.db import connection


@dataclass(frozen=True, slots=True, kw_only=True)
class DayModel:
    """One day (UTC) and one model. Drifts are LiteLLM's sum less ours, over what both have."""

    day: date
    model: str
    # Attempts with a response that LiteLLM reported.
    matched: int = 0
    # Reports of unknown calls: unmatched, or waiting for their request.
    missing_here: int = 0
    # Attempts with a response that LiteLLM did not report.
    missing_there: int = 0
    # Calls past the gateway: known from LiteLLM alone.
    past_gateway: int = 0
    # Matched attempts whose tokens differ, and by how much in all.
    differing: int = 0
    token_drift: int = 0
    # Cost by our price list, and as LiteLLM reported it for the same attempts.
    expected_cost_nanos: int = 0
    reported_cost_nanos: int = 0
    cost_drift_nanos: int = 0
    missing_cost_nanos: int = 0  # of `missing_here`

    @property
    def is_clean(self) -> bool:
        return not (self.missing_here or self.missing_there or self.differing or self.cost_drift_nanos)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over days and models, for the metrics."""

    matched: int
    missing_here: int
    missing_there: int
    past_gateway: int
    differing: int
    token_drift: int
    cost_drift_nanos: int


# An upstream cost that the gateway saw is LiteLLM's own number again. So cost is compared with the row's, which is our
# price list times its tokens, without the plan's margin.
_COMPARED_SQL = """
WITH bounds AS (SELECT cfx_uuid7_floor(%(day)s) AS low, cfx_uuid7_floor(%(day)s + 1) AS high),
attempts AS (
    SELECT a.*, r.prompt_tokens, r.completion_tokens, r.usage_rank, r.cost_nanos, r.margin_bp
    FROM upstream_attempt a JOIN request_log r USING (request_id)
    WHERE a.request_id >= (SELECT low FROM bounds) AND a.request_id < (SELECT high FROM bounds)
      AND r.request_id >= (SELECT low FROM bounds) AND r.request_id < (SELECT high FROM bounds)
      AND r.source IN ('gateway', 'sweeper')
), compared AS (
    SELECT model,
           reported_ended_ms IS NOT NULL AS is_reported,
           status > 0 AS has_response,
           reported_ended_ms IS NOT NULL AND first_byte_ms IS NOT NULL AND usage_rank > 0
               AND reported_prompt_tokens + reported_completion_tokens > 0 AS is_compared,
           reported_prompt_tokens + reported_completion_tokens - prompt_tokens - completion_tokens AS drift,
           reported_cost_nanos,
           round(cost_nanos * 10000::numeric / (10000 + margin_bp))::bigint AS expected_nanos
    FROM attempts
)
SELECT model,
       count(*) FILTER (WHERE is_reported) AS matched,
       count(*) FILTER (WHERE NOT is_reported AND has_response) AS missing_there,
       count(*) FILTER (WHERE is_compared AND drift <> 0) AS differing,
       coalesce(sum(drift) FILTER (WHERE is_compared), 0)::bigint AS token_drift,
       coalesce(sum(expected_nanos) FILTER (WHERE is_compared AND reported_cost_nanos IS NOT NULL), 0)::bigint
           AS expected_cost_nanos,
       coalesce(sum(reported_cost_nanos) FILTER (WHERE is_compared), 0)::bigint AS reported_cost_nanos
FROM compared GROUP BY model
"""
_PAST_SQL = """
SELECT model, count(*) FROM request_log
WHERE request_id >= cfx_uuid7_floor(%(day)s) AND request_id < cfx_uuid7_floor(%(day)s + 1)
  AND source IN ('webhook', 'sync')
GROUP BY model
"""
_UNMATCHED_SQL = """
SELECT model, count(*), coalesce(sum(upstream_cost_nanos), 0)::bigint FROM litellm_unmatched
WHERE started_at >= %(day)s AND started_at < %(next)s
GROUP BY model
"""


def compare(day: date) -> list[DayModel]:
    """Reconcile one day (UTC), by model in alphabetical order."""
    numbers_of: dict[str, dict[str, Any]] = {}
    values = {"day": day, "next": day + timedelta(days=1)}
    with connection.cursor() as cursor:
        cursor.execute(_COMPARED_SQL, values)
        for model, matched, missing_there, differing, drift, expected, reported in cursor.fetchall():
            numbers_of[model] = {
                "matched": matched, "missing_there": missing_there, "differing": differing, "token_drift": drift,
                "expected_cost_nanos": expected, "reported_cost_nanos": reported,
                "cost_drift_nanos": reported - expected,
            }  # fmt: skip
        cursor.execute(_PAST_SQL, values)
        for model, count in cursor.fetchall():
            numbers_of.setdefault(model, {})["past_gateway"] = count
        cursor.execute(_UNMATCHED_SQL, values)
        for model, count, cost in cursor.fetchall():
            numbers_of.setdefault(model, {}).update(missing_here=count, missing_cost_nanos=cost)
    return [DayModel(day=day, model=model, **numbers) for model, numbers in sorted(numbers_of.items())]


def totals(days: Iterable[date]) -> Totals:
    """Sum over days and models. Drifts of opposite signs do not cancel."""
    rows = [row for day in days for row in compare(day)]
    return Totals(
        matched=sum(row.matched for row in rows),
        missing_here=sum(row.missing_here for row in rows),
        missing_there=sum(row.missing_there for row in rows),
        past_gateway=sum(row.past_gateway for row in rows),
        differing=sum(row.differing for row in rows),
        token_drift=sum(abs(row.token_drift) for row in rows),
        cost_drift_nanos=sum(abs(row.cost_drift_nanos) for row in rows),
    )
