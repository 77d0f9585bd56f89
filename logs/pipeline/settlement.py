"""Settle usage events through the limiter, and find requests that PostgreSQL lacks."""

from collections.abc import Iterable
from uuid import UUID

import msgspec
from django.db import connection
from redis import Redis

from billing.limiter.intents import read_intent
from billing.limiter.limits import Payer, Settlement, settle_sync
from logs.pipeline.events import UsageEvent, decode, encode


def settlement_of(event: UsageEvent, *, is_leased: bool = True) -> Settlement:
    """Arguments of the limiter for a finished event; without `is_leased` its call has had no heartbeat."""
    return Settlement(
        request_id=event.request_id,
        event=encode(event),
        cost_nanos=event.cost_nanos,
        hold_nanos=event.hold_nanos,
        tokens_used=event.usage.total_tokens,
        tokens_reserved=event.tokens_reserved,
        day=event.day,
        minute=event.minute,
        takes_slot=event.is_stream,
        is_leased=is_leased,
        tag_budget_id=event.tag_budget_id,
    )


def settle_event(redis: "Redis", prefix: str, event: UsageEvent) -> bool:
    """Settle an event again, or for its dead process. Harmless however often. Raises redis.RedisError."""
    return settle_sync(redis, Payer.of(prefix, event.organization_id, event.lineage_id), settlement_of(event))


def intent_of(stored: bytes) -> UsageEvent:
    """Decode a stored intent as an event. Raises BadEvent."""
    day, minute, payload = read_intent(stored)
    return msgspec.structs.replace(decode(payload), day=day, minute=minute)


_MISSING_SQL = """
SELECT wanted.id FROM unnest(%s::uuid[]) AS wanted (id)
WHERE NOT EXISTS (
    SELECT FROM request_log
    WHERE request_id = wanted.id AND request_id BETWEEN %s AND %s AND (source <> 'sweeper' OR %s)
) AND NOT EXISTS (SELECT FROM usage_dead_letter WHERE request_id = wanted.id)
"""


def missing_requests(ids: Iterable[UUID]) -> set[UUID]:
    """Return those of `ids` that have neither a row nor a dead letter."""
    return _missing(set(ids), counts_estimates=True)


def unreported_requests(ids: Iterable[UUID]) -> set[UUID]:
    """Return those of `ids` that the gateway has not reported: no row and no dead letter, or a sweeper's estimate."""
    return _missing(set(ids), counts_estimates=False)


def _missing(wanted: set[UUID], *, counts_estimates: bool) -> set[UUID]:
    if not wanted:
        return wanted
    # As one literal: the gateway ships thousands at a time beside its calls, and the driver takes its time with lists.
    literal = "{" + ",".join(map(str, wanted)) + "}"
    with connection.cursor() as cursor:
        # Bounded on both sides, so that only the partitions of these days are read.
        cursor.execute(_MISSING_SQL, [literal, min(wanted), max(wanted), counts_estimates])
        return {row[0] for row in cursor.fetchall()}
