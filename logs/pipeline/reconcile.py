"""Reconcile the limiter's counters in Redis with PostgreSQL.

A scope should hold PostgreSQL's sums, plus events still in the stream, plus running calls.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

from django.db import connection, transaction
from redis import Redis

from billing.limiter.epochs import shards_of
from billing.limiter.limits import ScopeTotals, ShardKeys, month_of
from billing.limiter.reconcile import Snapshot, correct, read_shard, scopes_of
from billing.selectors import organization_totals, tag_totals
from keys.selectors import lineage_totals
from logs.pipeline.events import BadEvent, UsageEvent, decode
from logs.pipeline.nodes import at_each, nodes_of
from logs.pipeline.settlement import intent_of, missing_requests

logger = logging.getLogger(__name__)

TRIES = 5
# A longer backlog is drained first: each of its events would be looked up.
MAX_BACKLOG = 20_000
# Kind and id of a scope.
ScopeId = tuple[str, UUID]
_TOTALS = {"o": organization_totals, "k": lineage_totals, "t": tag_totals}


@dataclass(slots=True)
class Reconciled:
    """Counts of a run."""

    scopes: int = 0
    corrected: int = 0
    busy: int = 0
    drift_nanos: int = 0


def reconcile(redis: "Redis", prefix: str) -> Reconciled:
    """Correct every loaded scope of the shards whose server responds. Raises what Redis and PostgreSQL raise."""
    result = Reconciled()
    at_each(nodes_of(redis, shards_of(prefix)), partial(_reconcile_shards, redis, result))
    if result.corrected:
        logger.warning("reconcile.corrected", extra={"count": result.corrected, "drift_nanos": result.drift_nanos})
    return result


def _reconcile_shards(redis: "Redis", result: Reconciled, shards: Sequence[ShardKeys]) -> None:
    for shard in shards:
        if redis.xlen(shard.usage) > MAX_BACKLOG:
            logger.warning("reconcile.backlog", extra={"shard": shard.number})
            continue
        keys = scopes_of(redis, shard)
        result.scopes += len(keys)
        for _ in range(TRIES):
            if not keys:
                break
            keys = reconcile_scopes(redis, shard, keys, result)
        result.busy += len(keys)


def reconcile_scopes(redis: "Redis", shard: ShardKeys, keys: list[bytes], result: Reconciled) -> list[bytes]:
    """Try some scopes of a shard once. Returns those that moved meanwhile."""
    snapshot = read_shard(redis, shard, keys)
    busy = []
    all_expected = expected_of(snapshot, {(scope.kind, scope.id) for scope in snapshot.scopes})
    for scope in snapshot.scopes:
        expected = all_expected[scope.kind, scope.id]
        done = correct(redis, scope, expected.totals, held_nanos=expected.held_nanos, today=snapshot.day)
        result.corrected += done.is_corrected
        result.drift_nanos += done.drift_nanos
        if done.is_busy:
            busy.append(scope.key)
    return busy


def _events(read: Callable[[bytes], UsageEvent], payloads: Iterable[bytes]) -> list[UsageEvent]:
    """Events that can be read; the others are the drain's and the sweeper's to report."""
    found = []
    for payload in payloads:
        try:
            found.append(read(payload))
        except BadEvent:
            continue
    return found


@dataclass(slots=True)
class Expected:
    """Expected values of one scope."""

    totals: ScopeTotals
    held_nanos: int = 0


def events_in(snapshot: Snapshot) -> list[UsageEvent]:
    """Events that wait in the stream."""
    return _events(decode, snapshot.events)


def intents_in(snapshot: Snapshot) -> list[UsageEvent]:
    """Intents of running calls."""
    return _events(intent_of, snapshot.intents)


def expected_of(snapshot: Snapshot, wanted: Collection[ScopeId]) -> dict[ScopeId, Expected]:
    """Expected values of scopes: PostgreSQL's sums, plus waiting events, plus running calls."""
    today, month = snapshot.day, month_of(snapshot.day)
    running = intents_in(snapshot)
    waiting = {event.request_id: event for event in events_in(snapshot)}
    scopes: dict[ScopeId, Expected] = {}
    # One snapshot of PostgreSQL: an event is either in its sums or missing from its rows, never both or neither.
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for kind, totals_of in _TOTALS.items():
            ids = [owner for each, owner in wanted if each == kind]
            known = totals_of(ids, today)
            scopes.update({(kind, each): Expected(known.get(each, ScopeTotals())) for each in ids})
        missing = missing_requests(event.request_id for event in (*waiting.values(), *running))
    for event in waiting.values():
        if event.request_id in missing:
            for scope in _scopes_of(event, scopes):
                old = scope.totals
                scope.totals = replace(
                    old,
                    requests_today=old.requests_today + (event.day == today),
                    day_nanos=old.day_nanos + event.cost_nanos * (event.day == today),
                    month_nanos=old.month_nanos + event.cost_nanos * (month_of(event.day) == month),
                    total_nanos=old.total_nanos + event.cost_nanos,
                )
    for event in running:
        for scope in _scopes_of(event, scopes):
            scope.held_nanos += event.hold_nanos
            # A Redis that lost its last second may still hold the intent of a call that has been settled since.
            is_uncounted = event.request_id in missing and event.request_id not in waiting
            scope.totals = replace(
                scope.totals,
                requests_today=scope.totals.requests_today + (is_uncounted and event.day == today),
            )
    return scopes


def _scopes_of(event: UsageEvent, scopes: dict[ScopeId, Expected]) -> list[Expected]:
    return [scope for each in scope_ids_of(event) if (scope := scopes.get(each)) is not None]


def scope_ids_of(event: UsageEvent) -> list[ScopeId]:
    """Scopes that a call counts in."""
    ids = [("o", event.organization_id), ("k", event.lineage_id)]
    return ids if event.tag_budget_id is None else [*ids, ("t", event.tag_budget_id)]
