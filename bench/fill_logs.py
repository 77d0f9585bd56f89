"""A log of many requests, made by the database itself: `fill(organization, keys, rows=…)`.

Like real traffic in what queries depend on: a few busy keys and many quiet ones, a handful of models of which some are
rare, two failures in a hundred. Rows, attempts of none, hourly and daily rollups with histograms; no ledger.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection

from logs.models import UsageDaily, UsageHourly
from logs.pipeline import histogram
from logs.pipeline.partitions import make_ahead

DAYS = 30
# stage, model, share of a thousand requests
_MIX = (
    ("code", "deepseek-v4.1-flash", 600), ("plan", "claude-sonnet-5.5", 200), ("review", "gpt-6-luna", 150),
    ("direct", "gpt-6.1-sol", 40), ("direct", "gemini-3.8-flash", 9), ("direct", "claude-haiku-5.5", 1),
)  # fmt: skip

_FILL_SQL = """
WITH drawn AS (
    SELECT g, random() AS r_key, random() AS r_mix, random() AS r_status, random() AS r_size,
           (extract(epoch FROM %(day)s::date) * 1000 + 86400000.0 * g / %(rows)s)::bigint AS ms
    FROM generate_series(0, %(rows)s - 1) AS g
), mixed AS (
    SELECT *, (%(keys)s::uuid[])[1 + floor(cardinality(%(keys)s::uuid[]) * r_key * r_key)::int] AS key_id,
           (%(mix)s::int[])[1 + floor(1000 * r_mix)::int] AS kind,
           (100 + 4000 * r_size * r_size)::int AS prompt, (20 + 900 * r_size)::int AS completion
    FROM drawn
)
INSERT INTO request_log (
    request_id, organization_id, key_id, user_id, day, started_at, surface, endpoint, stage, stage_reason,
    requested_model, model, status, error_code, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens,
    cost_nanos, upstream_cost_nanos, usage_rank, held_nanos, rate_input_nanos, rate_cached_nanos, rate_output_nanos,
    margin_bp, catalogue_version, latency_ms, ttft_ms, is_stream, is_disconnected, is_degraded, attempts, source,
    client_address, user_agent, revision
)
SELECT
    (lpad(to_hex(ms), 12, '0') || '7' || substr(h, 1, 3) || '8' || substr(h, 4, 15))::uuid, %(organization)s, key_id,
    %(user)s, %(day)s, to_timestamp(ms / 1000.0), 'chat', '/v1/chat/completions', (%(stages)s::text[])[kind], 'header',
    'cfx-auto', (%(models)s::text[])[kind], status, CASE WHEN status < 400 THEN '' ELSE 'upstream_unavailable' END,
    prompt, 0, completion, 0, prompt * 270 + completion * 1100, prompt * 270 + completion * 1100, 40, 20000000,
    270000000, 270000000, 1100000000, 0, 'bench', (200 + 6000 * r_size)::int, (100 + 900 * r_size)::int, true, false,
    false, 1, 'gateway', '192.0.2.1', 'bench', 1
FROM (
    SELECT *, md5(g::text || %(day)s::text) AS h,
           CASE WHEN r_status < 0.98 THEN 200 WHEN r_status < 0.995 THEN 503
                WHEN r_status < 0.9999 THEN 504 ELSE 499 END AS status
    FROM mixed
) AS made
"""

_SUMS_SQL = """
SELECT date_trunc('hour', started_at, 'UTC'), key_id, user_id, model, stage, latency_ms, ttft_ms, count(*),
       count(*) FILTER (WHERE status >= 400), sum(prompt_tokens), sum(completion_tokens), sum(cost_nanos),
       sum(upstream_cost_nanos)
FROM (
    SELECT started_at, key_id, user_id, model, stage, status, prompt_tokens, completion_tokens, cost_nanos,
           upstream_cost_nanos, latency_ms / 200 * 200 AS latency_ms, ttft_ms / 50 * 50 AS ttft_ms
    FROM request_log
    WHERE organization_id = %s AND request_id >= cfx_uuid7_floor(%s) AND request_id < cfx_uuid7_floor(%s)
) AS rounded
GROUP BY 1, 2, 3, 4, 5, 6, 7
"""


def fill(
    organization_id: UUID, key_ids: Sequence[UUID], user_id: int, *, rows: int, report: Callable[[str], None]
) -> None:
    """Write `rows` requests of the last 30 days, evenly, and what the drain would have added up from them."""
    make_ahead()
    today = datetime.now(UTC).date()
    for number in range(DAYS):
        day = today - timedelta(days=DAYS - 1 - number)
        count = rows * (number + 1) // DAYS - rows * number // DAYS
        _fill_day(organization_id, key_ids, user_id, day, count)
        _sum_day(organization_id, day)
        report(f"{day}: {rows * (number + 1) // DAYS:,} rows")
    with connection.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE) request_log")
        cursor.execute("VACUUM (ANALYZE) usage_hourly")
        cursor.execute("VACUUM (ANALYZE) usage_daily")


def _fill_day(organization_id: UUID, key_ids: Sequence[UUID], user_id: int, day: date, count: int) -> None:
    kinds = [number for number, (_, _, share) in enumerate(_MIX, start=1) for _ in range(share)]
    with connection.cursor() as cursor:
        cursor.execute(
            _FILL_SQL,
            {
                "day": day,
                "rows": count,
                "keys": list(key_ids),
                "mix": kinds,
                "stages": [stage for stage, _, _ in _MIX],
                "models": [model for _, model, _ in _MIX],
                "organization": organization_id,
                "user": user_id,
            },
        )


def _sum_day(organization_id: UUID, day: date) -> None:
    """Rollups of a day, from its rows. Durations are rounded, so that few groups need a bucket looked up."""
    hours: dict[Any, dict[str, Any]] = {}
    with connection.cursor() as cursor:
        cursor.execute(_SUMS_SQL, [organization_id, day, day + timedelta(days=1)])
        for hour, key_id, user_id, model, stage, latency_ms, ttft_ms, *sums in cursor.fetchall():
            found = hours.setdefault(
                (hour, key_id, user_id, model, stage),
                {"requests": 0, "errors": 0, "prompt_tokens": 0, "completion_tokens": 0, "cost_nanos": 0,
                 "upstream_cost_nanos": 0, "latency_histogram": [], "ttft_histogram": []},
            )  # fmt: skip
            for name, value in zip(list(found)[:6], sums, strict=True):
                found[name] += int(value)
            histogram.add(found["latency_histogram"], latency_ms, int(sums[0]))
            histogram.add(found["ttft_histogram"], ttft_ms, int(sums[0]))
    names = ("key_id", "user_id", "model", "stage")
    UsageHourly.objects.bulk_create(
        [
            UsageHourly(organization_id=organization_id, hour=hour, **dict(zip(names, rest, strict=True)), **found)
            for (hour, *rest), found in hours.items()
        ],
        batch_size=2_000,
    )
    days: dict[Any, dict[str, Any]] = {}
    for (_, *rest), found in hours.items():
        total = days.setdefault(tuple(rest), {name: [] if isinstance(v, list) else 0 for name, v in found.items()})
        for name, value in found.items():
            total[name] = histogram.merged(total[name], value) if isinstance(value, list) else total[name] + value
    UsageDaily.objects.bulk_create(
        [
            UsageDaily(organization_id=organization_id, day=day, **dict(zip(names, rest, strict=True)), **found)
            for rest, found in days.items()
        ]
    )
