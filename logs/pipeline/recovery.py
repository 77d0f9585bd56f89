"""Recovery of a Redis that was emptied: ship what journals know at once, and load the scopes that it concerns."""

import logging
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from redis import Redis

from billing.limiter.epochs import day_of, load_scope, scope_key
from billing.limiter.limits import ShardKeys
from billing.limiter.reconcile import read_shard
from logs.pipeline import journal
from logs.pipeline.events import UsageEvent
from logs.pipeline.reconcile import TRIES, Reconciled, events_in, expected_of, intents_in, reconcile_scopes
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

    All others have in PostgreSQL what they need, so they may be loaded when they are asked for. A call that settles
    meanwhile has its intent in what is read here: its hold then counts until the scope is reconciled.
    Raises what Redis and PostgreSQL raise.
    """
    snapshot = read_shard(redis, shard, [])
    snapshot = replace(snapshot, day=day_of(redis, shard, snapshot.day))
    concerned = {scope for event in (*events_in(snapshot), *intents_in(snapshot)) for scope in _scopes_of(event)}
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


def _scopes_of(event: UsageEvent) -> tuple[tuple[str, UUID], tuple[str, UUID]]:
    return ("o", event.organization_id), ("k", event.lineage_id)
