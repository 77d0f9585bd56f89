"""Recovery of a Redis that was emptied: ship what journals know at once, and load the scopes that it concerns."""

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from django.db import connection
from redis import Redis

from billing.limiter.admission import SECONDS_PER_MINUTE
from billing.limiter.epochs import day_of, load_scope, raise_minutes_sync, scope_key
from billing.limiter.limits import ShardKeys
from billing.limiter.reconcile import Snapshot, read_shard
from codexflow.lib.ids import uuid7_floor
from codexflow.lib.redis import shard_of
from keys.selectors import lineages_of
from logs.pipeline import journal
from logs.pipeline.reconcile import (
    TRIES,
    Reconciled,
    events_in,
    expected_of,
    intents_in,
    reconcile_scopes,
    scope_ids_of,
)
from logs.pipeline.settlement import missing_requests
from logs.pipeline.shipper import settle_lacking

logger = logging.getLogger(__name__)


def ship_at_once(redis: "Redis", prefix: str, folder: Path, own: str) -> int:
    """Settle again what PostgreSQL lacks of a process's own segments, the open one included, and of dead processes'.

    Segments of living siblings are theirs to ship. Deletes nothing: that is the shipper's, once PostgreSQL has it.
    Returns how many events were settled. Raises what Redis and PostgreSQL raise.
    """
    journal.adopt_orphans(folder)
    settled = 0
    for segment in journal.segments(folder):
        is_own = segment.name.startswith(own)
        if is_own or not journal.is_owner_alive(segment):
            settled += settle_lacking(redis, prefix, segment, is_alive=is_own)
    return settled


def rebuild(redis: "Redis", shard: ShardKeys, epoch: bytes) -> int:
    """Load every scope that events waiting in the stream or calls in flight belong to. Returns how many.

    The running minute goes on from what was stored of it: a gateway that died within it can tell nobody its counts.
    All others have in PostgreSQL what they need, so they may be loaded when they are asked for. A call that settles
    meanwhile has its intent in what is read here: its hold then counts until the scope is reconciled.
    Raises what Redis and PostgreSQL raise.
    """
    snapshot = read_shard(redis, shard, [])
    snapshot = replace(snapshot, day=day_of(redis, shard, snapshot.day))
    raise_minutes_sync(redis, snapshot.minute, _minute_counts(snapshot, shard))
    concerned = {scope for event in (*events_in(snapshot), *intents_in(snapshot)) for scope in scope_ids_of(event)}
    if not concerned:
        return 0
    loaded = []
    for (kind, owner), expected in expected_of(snapshot, concerned).items():
        key = scope_key(shard, kind, owner)
        is_new = load_scope(
            redis, shard, key, epoch, snapshot.day, expected.totals, held_nanos=expected.held_nanos
        )  # fmt: skip
        if not is_new:
            loaded.append(key)
    for _ in range(TRIES):
        if not loaded:
            break
        loaded = reconcile_scopes(redis, shard, loaded, Reconciled())
    return len(concerned)


_OF_MINUTE = """
SELECT organization_id, key_id, count(*), sum(prompt_tokens::bigint + completion_tokens) FROM request_log
WHERE request_id BETWEEN %s AND %s GROUP BY organization_id, key_id
"""


def _minute_counts(snapshot: Snapshot, shard: ShardKeys) -> dict[bytes, tuple[int, int]]:
    """Requests and tokens of the running minute by scope: stored rows, waiting events, calls in flight."""
    begins = datetime.fromtimestamp(snapshot.minute * SECONDS_PER_MINUTE, UTC)
    # Waiting events first: one that is stored in between counts twice, not never.
    found = {event.request_id: event for event in (*intents_in(snapshot), *events_in(snapshot))}
    missing = missing_requests(found)
    with connection.cursor() as cursor:
        # Bounded on both sides, so that only partitions of these days are read.
        cursor.execute(_OF_MINUTE, [uuid7_floor(begins), uuid7_floor(begins + timedelta(minutes=5))])
        rows = [row for row in cursor.fetchall() if shard_of(row[0]) == shard.number]
    lineages = lineages_of({key_id for _, key_id, _, _ in rows})
    calls = [
        (organization_id, lineages.get(key_id, key_id), requests, tokens)
        for organization_id, key_id, requests, tokens in rows
    ]
    for event in found.values():
        if event.minute == snapshot.minute and event.request_id in missing:
            tokens = event.usage.total_tokens if event.status else event.tokens_reserved
            calls.append((event.organization_id, event.lineage_id, 1, tokens))
    counts: dict[bytes, tuple[int, int]] = {}
    for organization_id, lineage_id, requests, tokens in calls:
        for key in (scope_key(shard, "o", organization_id), scope_key(shard, "k", lineage_id)):
            before = counts.get(key, (0, 0))
            counts[key] = (before[0] + requests, before[1] + int(tokens))
    return counts
