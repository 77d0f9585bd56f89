"""The margin by day and model: what customers were charged against what the upstream reports that it cost.

Whatever the upstream reports counts, also for attempts that failed and for callers who left before the first word, who
are not charged. So the margin is what is left of the charges, and a call that nobody charges shows up as a loss. Calls
past the gateway are left out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from django.db import connection

from logs.pipeline.events import RANK_DISBELIEVED

# A key that leaves this often in a day, and with this share of its calls, does it habitually.
HABIT_CALLS = 10
HABIT_SHARE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMargin:
    """One day (UTC) and one model. Amounts are nano-USD."""

    day: date
    model: str
    calls: int = 0
    charged_nanos: int = 0
    upstream_nanos: int = 0
    # Calls with usage whose cost the upstream did not report, and what they were charged.
    unreported: int = 0
    unreported_nanos: int = 0
    # Calls whose caller left before the first word: charged nothing, and what the upstream reports for them.
    left_early: int = 0
    left_early_nanos: int = 0
    # Calls whose tokens were counted here, because the provider did not tell them.
    estimated: int = 0
    # Those of them for which the provider told more tokens than can be.
    impossible: int = 0

    @property
    def margin_nanos(self) -> int:
        """Charges less cost, of the calls whose cost is known."""
        return self.charged_nanos - self.unreported_nanos - self.upstream_nanos


@dataclass(frozen=True, slots=True)
class EarlyLeaver:
    """A key that habitually left before the first word on a day."""

    key_id: UUID
    calls: int
    left_early: int
    upstream_nanos: int


# Attempts that LiteLLM reported, or else the cost that the gateway saw in the response.
_CALLS_SQL = """
WITH bounds AS (SELECT cfx_uuid7_floor(%(day)s) AS low, cfx_uuid7_floor(%(day)s + 1) AS high),
reported AS (
    SELECT request_id, sum(reported_cost_nanos) AS nanos FROM upstream_attempt
    WHERE request_id >= (SELECT low FROM bounds) AND request_id < (SELECT high FROM bounds)
      AND reported_cost_nanos IS NOT NULL
    GROUP BY request_id
), calls AS (
    SELECT r.model, r.key_id, r.cost_nanos, r.usage_rank,
           coalesce(reported.nanos, r.upstream_cost_nanos) AS upstream_nanos,
           r.usage_rank > 0 AND coalesce(reported.nanos, r.upstream_cost_nanos) IS NULL AS is_unreported,
           r.is_disconnected AND r.usage_rank = 0 AS has_left_early
    FROM request_log r LEFT JOIN reported USING (request_id)
    WHERE r.request_id >= (SELECT low FROM bounds) AND r.request_id < (SELECT high FROM bounds)
      AND r.source IN ('gateway', 'sweeper')
)
"""
_BY_MODEL_SQL = f"""{_CALLS_SQL}
SELECT model, count(*) AS calls, sum(cost_nanos)::bigint AS charged_nanos,
       coalesce(sum(upstream_nanos), 0)::bigint AS upstream_nanos,
       count(*) FILTER (WHERE is_unreported) AS unreported,
       coalesce(sum(cost_nanos) FILTER (WHERE is_unreported), 0)::bigint AS unreported_nanos,
       count(*) FILTER (WHERE has_left_early) AS left_early,
       coalesce(sum(upstream_nanos) FILTER (WHERE has_left_early), 0)::bigint AS left_early_nanos,
       count(*) FILTER (WHERE usage_rank BETWEEN 1 AND 29 OR usage_rank = {RANK_DISBELIEVED}) AS estimated,
       count(*) FILTER (WHERE usage_rank = {RANK_DISBELIEVED}) AS impossible
FROM calls GROUP BY model ORDER BY model
"""  # noqa: S608 - constants
_LEAVERS_SQL = f"""{_CALLS_SQL}
SELECT key_id, count(*), count(*) FILTER (WHERE has_left_early),
       coalesce(sum(upstream_nanos) FILTER (WHERE has_left_early), 0)::bigint
FROM calls WHERE key_id IS NOT NULL GROUP BY key_id
HAVING count(*) FILTER (WHERE has_left_early) >= greatest(%(calls)s, %(share)s * count(*))
ORDER BY 3 DESC, key_id LIMIT 100
"""  # noqa: S608 - constants


def margins_of(day: date) -> list[ModelMargin]:
    """Return the margin of one day (UTC), by model in alphabetical order."""
    with connection.cursor() as cursor:
        cursor.execute(_BY_MODEL_SQL, {"day": day})
        names = [column.name for column in cursor.description]
        return [ModelMargin(day=day, **dict(zip(names, row, strict=True))) for row in cursor.fetchall()]


def early_leavers_of(day: date) -> list[EarlyLeaver]:
    """Return the keys that habitually left before the first word on that day (UTC), the most frequent first."""
    with connection.cursor() as cursor:
        cursor.execute(_LEAVERS_SQL, {"day": day, "calls": HABIT_CALLS, "share": HABIT_SHARE})
        return [EarlyLeaver(*row) for row in cursor.fetchall()]


def sums_of(margins: Iterable[Any]) -> dict[str, int]:
    """Return the sum of every number over days and models; they are ModelMargins or stored ones."""
    rows = list(margins)
    names = [name for name in ModelMargin.__dataclass_fields__ if name not in ("day", "model")]
    return {name: sum(getattr(row, name) for row in rows) for name in (*names, "margin_nanos")}
