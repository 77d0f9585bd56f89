"""Read the intents of admitted calls: the write-ahead records that admit.lua makes and settle.lua removes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from redis import Redis

from billing.limiter.admission import SECONDS_PER_MINUTE
from billing.limiter.limits import LUA, SETTLED_MINUTES, ShardKeys, old_settled_key, settled_key
from codexflow.lib import clock
from codexflow.lib.ids import parse_id
from codexflow.lib.redis import SHARDS, Script, shard_of, time_ms

SETTLED = Script(LUA / "settled.lua")
# So many expired leases of a shard are looked at in one run.
MAX_EXPIRED = 1_000
# No lease is longer (CFX_LEASE_MS).
MOST_LEASE_MS = 300_000


@dataclass(frozen=True, slots=True)
class ExpiredLease:
    """A call whose lease ended: its stored intent, and how far its last heartbeat said it had come."""

    request_id: str
    intent: bytes
    progress: str


def read_intent(stored: bytes) -> tuple[int, int, bytes]:
    """Split a stored intent into day and minute of admission, and the event as the caller wrote it."""
    day, minute, intent = stored.split(b":", 2)
    return int(day), int(minute), intent


def intent_in(redis: "Redis", prefix: str, organization_id: UUID, request_id: UUID) -> bytes | None:
    """Return the stored intent of an organization's call, or None when it is not running. Raises redis.RedisError."""
    shard = ShardKeys.of(prefix, shard_of(organization_id))
    stored: Any = redis.hget(shard.intents.decode(), str(request_id))
    return stored if stored is None else bytes(stored)


def is_settled_lately(redis: "Redis", prefix: str, organization_id: UUID, request_id: UUID) -> bool:
    """Return whether an organization's call was settled in the last ten minutes. Raises redis.RedisError."""
    shard = ShardKeys.of(prefix, shard_of(organization_id))
    minute = int(clock.now_s()) // SECONDS_PER_MINUTE
    minutes = range(minute - SETTLED_MINUTES, minute + 2)  # the gateway's clock may be a little ahead
    pipe = redis.pipeline(transaction=False)
    for each in minutes:
        pipe.hget(old_settled_key(shard, each), str(request_id))
    if str(organization_id).encode() in pipe.execute():
        return True
    wanted = request_id.bytes + organization_id.bytes
    return any(SETTLED.run(redis, [settled_key(shard, each, request_id)], [wanted]) for each in reversed(minutes))


def running(redis: "Redis", prefix: str, ids: Iterable[UUID]) -> set[UUID]:
    """Return those of the requests that still have an intent, whichever shard they are in. Raises redis.RedisError."""
    ordered = sorted(ids)
    if not ordered:
        return set()
    pipe = redis.pipeline(transaction=False)
    for shard in range(SHARDS):
        pipe.hmget(ShardKeys.of(prefix, shard).intents.decode(), [str(each) for each in ordered])
    replies: list[Any] = pipe.execute()
    return {each for reply in replies for each, intent in zip(ordered, reply, strict=True) if intent is not None}


def give_leases(redis: "Redis", shard: ShardKeys, *, lease_ms: int) -> None:
    """Give calls without a lease one that ends now, if they are older than `lease_ms`. Raises redis.RedisError.

    Heartbeats give leases, and most calls end before one: what is that old has no living process. How old a call is its
    id tells by its process's clock; that may be ahead, so Redis's minute in front of the intent counts as well.
    """
    ids: list[Any] = redis.hkeys(shard.intents.decode())
    leases: list[Any] = redis.zmscore(shard.alive.decode(), ids) if ids else []
    without = [each for each, lease in zip(ids, leases, strict=True) if lease is None]
    if not without:
        return
    intents: list[Any] = redis.hmget(shard.intents.decode(), without)
    now_ms = time_ms(redis, shard.alive)
    overdue = [
        raw_id
        for raw_id, stored in zip(without, intents, strict=True)
        if stored is not None and _began_by_ms(raw_id, stored) + lease_ms < now_ms
    ]
    if overdue:
        redis.zadd(shard.alive.decode(), dict.fromkeys(overdue, now_ms), nx=True)


def _began_by_ms(raw_id: bytes, stored: bytes) -> int:
    """When a call was admitted, or later."""
    minute_ends_ms = (read_intent(stored)[1] + 1) * SECONDS_PER_MINUTE * 1000
    request_id = parse_id(raw_id.decode(errors="replace"))
    return minute_ends_ms if request_id is None else min(minute_ends_ms, request_id.int >> 80)


def expired_leases(redis: "Redis", shard: ShardKeys, *, patience_s: int) -> list[ExpiredLease]:
    """Return calls of a shard whose lease ended at least `patience_s` ago and that are not settled.

    Goes by Redis's clock, which leases are written by: one that runs ahead would find living calls dead. A lease that
    a clock has written which has gone back since ends now, unless its call's process renews it.
    """
    now_ms = time_ms(redis, shard.alive)
    ahead: list[Any] = redis.zrangebyscore(shard.alive, now_ms + MOST_LEASE_MS, "+inf", start=0, num=MAX_EXPIRED)
    if ahead:
        redis.zadd(shard.alive, dict.fromkeys(ahead, now_ms), xx=True)
    latest_ms = now_ms - patience_s * 1000
    ended: list[Any] = redis.zrangebyscore(shard.alive, "-inf", latest_ms, start=0, num=MAX_EXPIRED)
    found = []
    for raw_id in ended:
        stored: Any = redis.hget(shard.intents, raw_id)
        progress: Any = redis.hget(shard.progress, raw_id)
        if stored is None:
            redis.zrem(shard.alive, raw_id)  # settled, or lost with Redis and then settled from a journal
            continue
        found.append(ExpiredLease(raw_id.decode(errors="replace"), bytes(stored), (progress or b"").decode()))
    return found
