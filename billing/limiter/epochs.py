"""Epochs of the limiter's Redis: join one, call its roll, open it. The scripts beside it say what each step does.

An epoch begins when a process finds that Redis has lost what it knows: everything (emptied, restarted without its
file) or the newest of it (a replica or a file that is behind). Scopes of an earlier epoch count as unknown. Until the
epoch is open nothing is admitted, because what was lost may not be in PostgreSQL yet.
"""

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from redis import Redis

from billing.limiter.limits import LOAD, LUA, Epochs, Payer, ScopeTotals, ShardKeys, load_args
from billing.limiter.roll import Roll, read_roll
from codexflow.lib.redis import SHARDS, Argument, GatewayRedis, RedisUnavailable, Script

JOIN = Script(LUA / "join.lua")
REGISTER = Script(LUA / "register.lua")
ROLL = Script(LUA / "roll.lua")
OPEN = Script(LUA / "open.lua")
MINUTE = Script(LUA / "minute.lua")
PRESENT = Script(LUA / "present.lua")
# A process that was only paused for so long would find its settlements missing, and recover as from a loss.
GONE_AFTER_MS = 24 * 3_600_000
# Scopes whose counts of the minute are raised by one command.
MINUTES_AT_ONCE = 500


class Epoch(NamedTuple):
    """State of a shard's epoch; `name` is empty when there is none."""

    name: bytes
    settlements: int
    is_open: bool
    own: int


class Lost(NamedTuple):
    """A call in flight that Redis may have lost."""

    request_id: UUID
    payer: Payer
    takes_slot: bool
    day: int
    minute: int
    intent: bytes


def shards_of(prefix: str) -> tuple[ShardKeys, ...]:
    return tuple(ShardKeys.of(prefix, number) for number in range(SHARDS))


async def read_epochs(redis: GatewayRedis, shards: Sequence[ShardKeys], known: Epochs) -> list[Epoch]:
    """Read the epochs of shards. Raises RedisUnavailable."""
    replies = await redis.call_all([(b"HMGET", shard.epoch, b"id", b"n", b"open", known.field) for shard in shards])
    return [
        Epoch(name or b"", int(settlements or 0), is_open is not None, int(own or 0))
        for name, settlements, is_open, own in replies
    ]


async def join(redis: GatewayRedis, shards: Sequence[ShardKeys], known: Epochs, *, day: int) -> list[Epoch]:
    """Join the epochs of shards; begin new ones where Redis lacks what is known. `day`: the latest known, or 0.

    Raises RedisUnavailable.
    """
    runs = [redis.run(JOIN, [shard.epoch, shard.roll], [*known.known(shard.number), day]) for shard in shards]
    return [
        Epoch(name, settlements, bool(is_open), own) for name, settlements, is_open, own in await asyncio.gather(*runs)
    ]


async def register(
    redis: GatewayRedis,
    shard: ShardKeys,
    epoch: bytes,
    process: str,
    calls: Iterable[Lost],
    *,
    others: Collection[bytes],
    lease_ms: int,
) -> bool:
    """Put a process on the roll of a closed epoch, with those that it knows, and write its calls' intents again.

    Returns False when the epoch is open, or another one. Raises RedisUnavailable.
    """
    keys = [shard.epoch, shard.roll, shard.alive, shard.intents]
    args: list[Argument] = [epoch, process, lease_ms, len(others), *others]
    for call in calls:
        args.append(str(call.request_id))
        for slot in call.payer.slots:
            if call.takes_slot:
                keys.append(slot)
            args.append(len(keys) if call.takes_slot else 0)
        args.append(b"%d:%d:%b" % (call.day, call.minute, call.intent))
    return bool(await redis.run(REGISTER, keys, args))


async def raise_minutes(redis: GatewayRedis, minute: int, counts: Mapping[bytes, tuple[int, int]]) -> None:
    """Raise requests and tokens of a minute, of scopes of one shard, to these at least. Raises RedisUnavailable."""
    for keys, args in _minutes(minute, counts):
        await redis.run(MINUTE, keys, args)


def raise_minutes_sync(redis: "Redis", minute: int, counts: Mapping[bytes, tuple[int, int]]) -> None:
    """As `raise_minutes`. Raises redis.RedisError."""
    for keys, args in _minutes(minute, counts):
        MINUTE.run(redis, keys, args)


def _minutes(minute: int, counts: Mapping[bytes, tuple[int, int]]) -> Iterator[tuple[list[bytes], list[Any]]]:
    """Keys and arguments of minute.lua for all scopes."""
    scopes = list(counts)
    for start in range(0, len(scopes), MINUTES_AT_ONCE):
        keys = scopes[start : start + MINUTES_AT_ONCE]
        yield keys, [minute, *(number for key in keys for number in counts[key])]


async def call_roll(
    redis: GatewayRedis, shard: ShardKeys, epoch: bytes, process: str, *, has_shipped: bool
) -> Roll | None:
    """Tell that a process is alive and whether it has shipped. Returns None when the epoch is open, or another one.

    Raises RedisUnavailable.
    """
    return read_roll(await redis.run(ROLL, [shard.epoch, shard.roll], [epoch, process, int(has_shipped)]))


async def open_epoch(redis: GatewayRedis, shard: ShardKeys, epoch: bytes, version: int) -> bool:
    """Open an epoch, unless its roll has changed since. Returns whether it is open. Raises RedisUnavailable."""
    return bool(await redis.run(OPEN, [shard.epoch, shard.roll], [epoch, version]))


async def present(
    redis: GatewayRedis, prefix: str, process: str, *, ttl_ms: int, gone_after_ms: int = GONE_AFTER_MS
) -> set[bytes]:
    """Tell that a process is alive. Returns all that are, itself included. Raises RedisUnavailable.

    Processes that were killed could not leave: their settlements are forgotten here.
    """
    alive, gone = await redis.run(PRESENT, [gateways_key(prefix)], [process, ttl_ms, gone_after_ms])
    with contextlib.suppress(RedisUnavailable):  # a part of a cluster is away: next time
        for name in gone:
            await leave(redis, prefix, name.decode())
    return set(alive)


async def leave(redis: GatewayRedis, prefix: str, process: str) -> None:
    """Tell that a process has ended. Raises RedisUnavailable."""
    field = Epochs(process).field
    forgotten = [redis.call(b"HDEL", shard.epoch, field) for shard in shards_of(prefix)]
    await asyncio.gather(*forgotten)
    await redis.call(b"ZREM", gateways_key(prefix), process)


def gateways_key(prefix: str) -> bytes:
    return f"{prefix}:gateways".encode()


def day_of(redis: "Redis", shard: ShardKeys, clock_day: int) -> int:
    """Day that calls count on: the clock's, or the next if that had begun before the epoch. Raises redis.RedisError."""
    stored: Any = redis.hget(shard.epoch.decode(), "day")
    return clock_day + 1 if int(stored or 0) == clock_day + 1 else clock_day


def scope_key(shard: ShardKeys, kind: str, owner: UUID) -> bytes:
    """Key of a scope: `kind` is "o" for an organization, "k" for a key's lineage, "t" for a tag's budget."""
    return f"{shard.prefix}scope:{kind}:{owner}".encode()


def load_scope(
    redis: "Redis", shard: ShardKeys, scope: bytes, epoch: bytes, day: int, totals: ScopeTotals, *, held_nanos: int
) -> bool:
    """Load a scope into a closed epoch. Returns False when it is there already. Raises redis.RedisError."""
    args: list[Any] = load_args(day, totals, epoch, held_nanos=held_nanos)
    return int(LOAD.run(redis, [scope, shard.epoch], args)) == 1
