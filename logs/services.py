"""Keeping the usage pipeline whole: shipping journals, finishing orphans, reconciling counters, checking rollups."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from django.db import connection, transaction
from redis import Redis

from billing.limits import Payer, Settlement, ShardKeys, read_intent, settle_sync
from codexflow.lib import clock
from codexflow.lib.redis import SHARDS
from logs import intake
from logs.events import BadEvent, UsageEvent, decode, encode, orphaned, request_id_of

logger = logging.getLogger(__name__)

# After its lease has ended, a call's own process may still hand its event in (a paused process, a journal that a
# sibling adopts). What it says is better than what a sweeper can know, so it gets this much more time.
ORPHAN_PATIENCE_S = 20


def settlement_of(event: UsageEvent) -> Settlement:
    """What the limiter needs of a finished event."""
    return Settlement(
        request_id=event.request_id,
        event=encode(event),
        cost_nanos=event.cost_nanos,
        hold_nanos=event.hold_nanos,
        tokens_used=event.usage.total_tokens,
        tokens_reserved=event.tokens_reserved,
        day=event.day,
        minute=event.minute,
    )


def settle_event(redis: "Redis", prefix: str, event: UsageEvent) -> bool:
    """Settle an event again, or for its dead process. Harmless however often. Raises redis.RedisError."""
    return settle_sync(redis, Payer.of(prefix, event.organization_id, event.key_id), settlement_of(event))


def intent_of(stored: bytes) -> UsageEvent:
    """A stored intent as the event it would become. Raises BadEvent."""
    day, minute, payload = read_intent(stored)
    return msgspec.structs.replace(decode(payload), day=day, minute=minute)


_MISSING_SQL = """
SELECT wanted.id FROM unnest(%s::uuid[]) AS wanted (id)
WHERE NOT EXISTS (
    SELECT FROM request_log
    WHERE request_id = wanted.id AND request_id BETWEEN %s AND %s AND (source <> 'sweeper' OR %s)
)
"""


def missing_requests(ids: Iterable[UUID]) -> set[UUID]:
    """Those of `ids` that have no row yet."""
    return _missing(set(ids), counts_estimates=True)


def unreported_requests(ids: Iterable[UUID]) -> set[UUID]:
    """Those of `ids` of which PostgreSQL does not have the gateway's own word: no row, or a sweeper's estimate."""
    return _missing(set(ids), counts_estimates=False)


def _missing(wanted: set[UUID], *, counts_estimates: bool) -> set[UUID]:
    if not wanted:
        return wanted
    # As one literal: the gateway ships thousands at a time beside its calls, and the driver takes its time with lists.
    literal = "{" + ",".join(map(str, wanted)) + "}"
    with connection.cursor() as cursor:
        # Bounded on both sides, so that only the partitions of these days are looked into.
        cursor.execute(_MISSING_SQL, [literal, min(wanted), max(wanted), counts_estimates])
        return {row[0] for row in cursor.fetchall()}


def ship_journals(redis: "Redis", prefix: str, folder: Path) -> int:
    """Adopt what dead processes left and ship every closed segment. Returns how many are done."""
    intake.adopt_orphans(folder)
    done = 0
    for path in intake.closed_segments(folder):
        done += intake.ship_segment(
            path,
            id_of=request_id_of,
            missing=unreported_requests,
            settle=lambda payload: settle_event(redis, prefix, decode(payload)),
        )
    return done


def sweep_orphans(redis: "Redis", prefix: str) -> int:
    """Finish calls whose process died: their lease has ended and nobody settled them. Returns how many."""
    swept = 0
    for number in range(SHARDS):
        shard = ShardKeys.of(prefix, number)
        latest_ms = clock.now_ms() - ORPHAN_PATIENCE_S * 1000
        ended: list[Any] = redis.zrangebyscore(shard.alive, "-inf", latest_ms, start=0, num=1000)
        for raw_id in ended:
            stored: Any = redis.hget(shard.intents, raw_id)
            progress = redis.hget(shard.progress, raw_id)
            if stored is None:
                redis.zrem(shard.alive, raw_id)  # settled, or lost with Redis and then settled from a journal
                continue
            try:
                event = intent_of(stored)
            except BadEvent:
                logger.exception("sweep.bad_intent", extra={"request_id": raw_id.decode(errors="replace")})
                continue
            delivered = int(progress) if progress else None
            swept += settle_event(redis, prefix, orphaned(event, delivered_tokens=delivered, now_ms=clock.now_ms()))
    if swept:
        logger.warning("sweep.orphans_settled", extra={"count": swept})
    return swept


@dataclass(frozen=True, slots=True)
class RollupDrift:
    """A rollup table that disagrees with the rows."""

    table: str
    days: int
    requests: int
    cost_nanos: int


_DRIFT_SQL = """
WITH rows AS (
    SELECT organization_id, day, count(*) AS requests, sum(cost_nanos) AS cost_nanos,
           sum(prompt_tokens + completion_tokens) AS tokens
    FROM request_log WHERE day >= %(since)s AND request_id >= cfx_uuid7_floor(%(since)s - 1)
    GROUP BY 1, 2
), sums AS (
    SELECT organization_id, {day} AS day, sum(requests) AS requests, sum(cost_nanos) AS cost_nanos,
           sum(prompt_tokens + completion_tokens) AS tokens
    FROM {table} WHERE {day} >= %(since)s
    GROUP BY 1, 2
)
SELECT count(*), coalesce(sum(abs(coalesce(rows.requests, 0) - coalesce(sums.requests, 0))), 0),
       coalesce(sum(abs(coalesce(rows.cost_nanos, 0) - coalesce(sums.cost_nanos, 0))), 0)
FROM rows FULL JOIN sums USING (organization_id, day)
WHERE (rows.requests, rows.cost_nanos, rows.tokens) IS DISTINCT FROM (sums.requests, sums.cost_nanos, sums.tokens)
"""
_ROLLUPS = (("usage_daily", "day"), ("usage_hourly", "(hour AT TIME ZONE 'UTC')::date"))


def verify_rollups(*, days: int = 2) -> list[RollupDrift]:
    """Recompute the last days from the rows; what differs is reported, never silently mended."""
    since = clock.now().date() - timedelta(days=days - 1)
    drifts = []
    # One snapshot for all: a drain that commits meanwhile must be seen by both sides or by neither.
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for table, day in _ROLLUPS:
            cursor.execute(_DRIFT_SQL.format(table=table, day=day), {"since": since})
            count, requests, cost = cursor.fetchone()
            if count:
                drifts.append(RollupDrift(table, count, int(requests), int(cost)))
    for drift in drifts:
        logger.error("rollups.drift", extra={"table": drift.table, "days": drift.days, "cost_nanos": drift.cost_nanos})
    return drifts
