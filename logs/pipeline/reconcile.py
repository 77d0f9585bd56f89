"""Reconciling Redis's counters with PostgreSQL.

A scope's truth is what PostgreSQL has, plus events still in the stream, plus live calls. Redis and PostgreSQL cannot
be read in one step; so a scope is looked at, worked out, and corrected only if nothing moved it meanwhile. A scope
that is busy is met at rest on another try.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from redis import Redis

from billing import limiter
from billing.limiter.limits import ScopeTruth, ShardKeys, month_of
from billing.selectors import key_truths, organization_truths
from codexflow.lib.redis import SHARDS, Script
from logs.pipeline.events import BadEvent, UsageEvent, decode
from logs.pipeline.sweeper import intent_of, missing_requests

logger = logging.getLogger(__name__)

CORRECT = Script(Path(limiter.__file__).parent / "lua" / "correct.lua")
TRIES = 5
# A longer backlog is drained first: every event in it would have to be looked up.
MAX_BACKLOG = 20_000
SECONDS_PER_DAY = 86_400
_FIELDS = ("d", "n", "ds", "mo", "ms", "spent", "held")
_TRUTHS = {"o": organization_truths, "k": key_truths}


@dataclass(slots=True)
class Reconciled:
    """What a run did."""

    scopes: int = 0
    corrected: int = 0
    busy: int = 0
    drift_nanos: int = 0


@dataclass(frozen=True, slots=True)
class Scope:
    """A scope as Redis has it. `values` are the raw texts of _FIELDS, for the comparison on writing."""

    key: bytes
    kind: str
    id: UUID
    values: tuple[bytes, ...]

    def number(self, name: str) -> int:
        return int(self.values[_FIELDS.index(name)])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A shard at one moment."""

    day: int
    scopes: list[Scope]
    live: list[UsageEvent]
    waiting: list[UsageEvent]


def reconcile(redis: "Redis", prefix: str) -> Reconciled:
    """Put every loaded scope right. Raises what Redis and PostgreSQL raise."""
    result = Reconciled()
    for number in range(SHARDS):
        shard = ShardKeys.of(prefix, number)
        if redis.xlen(shard.usage) > MAX_BACKLOG:
            logger.warning("reconcile.backlog", extra={"shard": number})
            continue
        keys = list(redis.scan_iter(match=f"{shard.prefix}scope:*", count=500))
        result.scopes += len(keys)
        for _ in range(TRIES):
            if not keys:
                break
            keys = _reconcile_scopes(redis, shard, keys, result)
        result.busy += len(keys)
    if result.corrected:
        logger.warning("reconcile.corrected", extra={"count": result.corrected, "drift_nanos": result.drift_nanos})
    return result


def _reconcile_scopes(redis: "Redis", shard: ShardKeys, keys: list[bytes], result: Reconciled) -> list[bytes]:
    """One try at some scopes of a shard. Returns those that moved meanwhile."""
    snapshot = _look(redis, shard, keys)
    busy = []
    for scope, truth in _truths(snapshot):
        changes = _changes(scope, truth, snapshot.day)
        if not changes:
            continue
        command: list[Any] = [len(_FIELDS)]
        for name, value in zip(_FIELDS, scope.values, strict=True):
            command += [name, value]
        for name, number in changes.items():
            command += [name, number]
        if CORRECT.run(redis, [scope.key], command):
            result.corrected += 1
            result.drift_nanos += abs(changes.get("spent", scope.number("spent")) - scope.number("spent"))
        else:
            busy.append(scope.key)
    return busy


def _look(redis: "Redis", shard: ShardKeys, keys: Sequence[bytes]) -> Snapshot:
    """Scopes, live calls and waiting events in one step (MULTI)."""
    pipe = redis.pipeline(transaction=True)
    pipe.time()
    pipe.hgetall(shard.intents)
    pipe.xrange(shard.usage)
    for key in keys:
        pipe.hmget(key, *_FIELDS)
    (seconds, _), intents, entries, *hashes = pipe.execute()
    scopes = []
    for key, values in zip(keys, hashes, strict=True):
        kind, _, text = key.decode().rpartition("scope:")[2].partition(":")
        if None not in values:
            scopes.append(Scope(key, kind, UUID(text), tuple(values)))
    return Snapshot(
        day=seconds // SECONDS_PER_DAY,
        scopes=scopes,
        live=list(_events(intent_of, intents.values())),
        waiting=list(_events(decode, (fields[b"e"] for _, fields in entries))),
    )


def _events(read: Any, payloads: Iterable[bytes]) -> Iterable[UsageEvent]:
    """Those that can be read: the others are the drain's and the sweeper's to report."""
    for payload in payloads:
        try:
            yield read(payload)
        except BadEvent:
            continue


@dataclass(slots=True)
class _Flight:
    """What is on its way for one scope."""

    truth: ScopeTruth
    held_nanos: int = 0


def _truths(snapshot: Snapshot) -> list[tuple[Scope, _Flight]]:
    """Every scope with its truth: PostgreSQL's sums, plus what waits in the stream, plus live calls."""
    today, month = snapshot.day, month_of(snapshot.day)
    flights: dict[tuple[str, UUID], _Flight] = {}
    # One snapshot of PostgreSQL: an event is either in its sums or missing from its rows, never both or neither.
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for kind, load in _TRUTHS.items():
            ids = [scope.id for scope in snapshot.scopes if scope.kind == kind]
            known = load(ids, today)
            flights.update({(kind, each): _Flight(known.get(each, ScopeTruth())) for each in ids})
        missing = missing_requests(event.request_id for event in (*snapshot.waiting, *snapshot.live))
    waiting = {event.request_id: event for event in snapshot.waiting}
    for event in waiting.values():
        if event.request_id in missing:
            for flight in _flights_of(event, flights):
                old = flight.truth
                flight.truth = replace(
                    old,
                    requests_today=old.requests_today + (event.day == today),
                    day_nanos=old.day_nanos + event.cost_nanos * (event.day == today),
                    month_nanos=old.month_nanos + event.cost_nanos * (month_of(event.day) == month),
                    total_nanos=old.total_nanos + event.cost_nanos,
                )
    for event in snapshot.live:
        for flight in _flights_of(event, flights):
            flight.held_nanos += event.hold_nanos
            # A Redis that lost its last second may still hold the intent of a call that has been settled since.
            is_uncounted = event.request_id in missing and event.request_id not in waiting
            flight.truth = replace(
                flight.truth,
                requests_today=flight.truth.requests_today + (is_uncounted and event.day == today),
            )
    return [(scope, flights[scope.kind, scope.id]) for scope in snapshot.scopes]


def _flights_of(event: UsageEvent, flights: dict[tuple[str, UUID], _Flight]) -> list[_Flight]:
    both = (flights.get(("o", event.organization_id)), flights.get(("k", event.key_id)))
    return [flight for flight in both if flight is not None]


def _changes(scope: Scope, flight: _Flight, today: int) -> dict[str, int]:
    """The fields that are wrong, with what they should be. Sums of a day or month that is over do not matter."""
    truth = flight.truth
    wanted = {"spent": truth.total_nanos, "held": flight.held_nanos}
    if scope.number("d") == today:
        wanted |= {"n": truth.requests_today, "ds": truth.day_nanos}
    if scope.number("mo") == month_of(today):
        wanted |= {"ms": truth.month_nanos}
    return {name: value for name, value in wanted.items() if scope.number(name) != value}
