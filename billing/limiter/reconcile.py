"""Correct scopes in Redis that disagree with PostgreSQL.

Redis and PostgreSQL cannot be read in one step. So a scope is read, its totals are worked out by the caller, and it is
corrected only if nothing has moved it meanwhile; a scope that is busy gets another try.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from redis import Redis

from billing.limiter.admission import SECONDS_PER_DAY, SECONDS_PER_MINUTE
from billing.limiter.limits import ScopeTotals, ShardKeys, month_of
from codexflow.lib.cluster_client import keys_beside
from codexflow.lib.redis import Script, ms_of, queue_time

CORRECT = Script(Path(__file__).parent / "lua" / "correct.lua")
# Fields of a scope that PostgreSQL knows; admit.lua describes them.
_FIELDS = ("d", "n", "ds", "mo", "ms", "spent", "held")


@dataclass(frozen=True, slots=True)
class Scope:
    """A scope as Redis has it: `kind` is "o" for an organization, "k" for a key, "t" for a tag's budget."""

    key: bytes
    kind: str
    id: UUID
    values: tuple[bytes, ...]  # raw texts of _FIELDS, for the comparison on writing

    def number(self, name: str) -> int:
        return int(self.values[_FIELDS.index(name)])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A shard at one moment: its scopes, the intents of running calls, and the events waiting in its stream."""

    day: int
    minute: int
    scopes: list[Scope]
    intents: list[bytes]
    events: list[bytes]


@dataclass(frozen=True, slots=True)
class Correction:
    """Result for one scope. `is_busy`: it moved meanwhile and was left as it is."""

    is_corrected: bool = False
    is_busy: bool = False
    drift_nanos: int = 0


def scopes_of(redis: "Redis", shard: ShardKeys) -> list[bytes]:
    """Keys of all scopes that are loaded in a shard."""
    return keys_beside(redis, shard.usage, f"{shard.prefix}scope:*")


def read_shard(redis: "Redis", shard: ShardKeys, keys: Sequence[bytes]) -> Snapshot:
    """Read scopes, running calls and waiting events in one step (MULTI)."""
    pipe = redis.pipeline(transaction=True)
    queue_time(pipe, shard.epoch)
    pipe.hgetall(shard.intents)
    pipe.xrange(shard.usage)
    for key in keys:
        pipe.hmget(key, *_FIELDS)
    time, intents, entries, *hashes = pipe.execute()
    scopes = []
    for key, values in zip(keys, hashes, strict=True):
        kind, _, text = key.decode().rpartition("scope:")[2].partition(":")
        if None not in values:
            scopes.append(Scope(key, kind, UUID(text), tuple(values)))
    return Snapshot(
        day=ms_of(time) // 1000 // SECONDS_PER_DAY,
        minute=ms_of(time) // 1000 // SECONDS_PER_MINUTE,
        scopes=scopes,
        intents=list(_mapping(intents).values()),
        events=[fields[b"e"] for fields in (_mapping(each) for _, each in entries) if b"e" in fields],
    )


def _mapping(reply: Any) -> dict[bytes, bytes]:
    """Read fields and values: what redis-py has made of them, or, in a cluster's transaction, as Redis sends them."""
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))


def correct(redis: "Redis", scope: Scope, totals: ScopeTotals, *, held_nanos: int, today: int) -> Correction:
    """Write the fields of a scope that differ, unless it has moved since it was read."""
    changes = _changes(scope, totals, held_nanos, today)
    if not changes:
        return Correction()
    command: list[Any] = [len(_FIELDS)]
    for name, value in zip(_FIELDS, scope.values, strict=True):
        command += [name, value]
    for name, number in changes.items():
        command += [name, number]
    if not CORRECT.run(redis, [scope.key], command):
        return Correction(is_busy=True)
    spent_nanos = scope.number("spent")
    return Correction(is_corrected=True, drift_nanos=abs(changes.get("spent", spent_nanos) - spent_nanos))


def _changes(scope: Scope, totals: ScopeTotals, held_nanos: int, today: int) -> dict[str, int]:
    """Fields that differ, with their expected values. Sums of a past day or month do not matter."""
    expected = {"spent": totals.total_nanos, "held": held_nanos}
    if scope.number("d") == today:
        expected |= {"n": totals.requests_today, "ds": totals.day_nanos}
    if scope.number("mo") == month_of(today):
        expected |= {"ms": totals.month_nanos}
    return {name: value for name, value in expected.items() if scope.number(name) != value}
