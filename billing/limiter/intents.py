"""Read the intents of admitted calls: the write-ahead records that admit.lua makes and settle.lua removes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from redis import Redis

from billing.limiter.limits import ShardKeys, recent_key
from codexflow.lib.redis import SHARDS, shard_of

# So many expired leases of a shard are looked at in one run.
MAX_EXPIRED = 1_000


@dataclass(frozen=True, slots=True)
class ExpiredLease:
    """A call whose lease ended: its stored intent, and how far its last heartbeat said it had come (tokens)."""

    request_id: str
    intent: bytes
    delivered_tokens: int | None


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
    owner: Any = redis.get(recent_key(shard, request_id))
    return bool(owner == str(organization_id).encode())


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


def expired_leases(redis: "Redis", shard: ShardKeys, *, patience_s: int) -> list[ExpiredLease]:
    """Return calls of a shard whose lease ended at least `patience_s` ago and that are not settled.

    Goes by Redis's clock, which leases are written by: one that runs ahead would find living calls dead.
    """
    time: Any = redis.time()
    latest_ms = time[0] * 1000 + time[1] // 1000 - patience_s * 1000
    ended: list[Any] = redis.zrangebyscore(shard.alive, "-inf", latest_ms, start=0, num=MAX_EXPIRED)
    found = []
    for raw_id in ended:
        stored: Any = redis.hget(shard.intents, raw_id)
        progress: Any = redis.hget(shard.progress, raw_id)
        if stored is None:
            redis.zrem(shard.alive, raw_id)  # settled, or lost with Redis and then settled from a journal
            continue
        found.append(ExpiredLease(raw_id.decode(errors="replace"), bytes(stored), int(progress) if progress else None))
    return found
