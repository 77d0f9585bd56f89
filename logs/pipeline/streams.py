"""Consumer groups of Redis streams. The drain reads all shards at once; the other consumers read theirs here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redis import Redis, ResponseError

from codexflow.lib.redis import Script, time_ms

# A worker that read a batch this long ago without acknowledging it is dead.
CLAIM_IDLE_MS = 30_000


FORGET_CONSUMERS = Script(Path(__file__).parent / "lua" / "forget_consumers.lua")
# A worker's process reads every few seconds. Each new one is another consumer, which Redis would keep for good.
CONSUMER_TTL_MS = 24 * 3_600_000

# Within so much the clock has not gone back: it is set right all the time.
CLOCK_SLACK_MS = 2_000


def claim_after_ms(redis: "Redis", key: str) -> int:
    """Return after which time a batch that nobody acknowledged is claimed; `key` is the reader's own.

    Redis counts that time by its clock. When that was set back, batches that were read before lie in its future, and
    would not be claimed until then: all are claimed once. A living worker's batch is then stored twice, harmlessly.
    """
    now_ms = time_ms(redis, key)
    known: Any = redis.set(key, now_ms, get=True)
    return 0 if known is not None and int(known) > now_ms + CLOCK_SLACK_MS else CLAIM_IDLE_MS


def read_waiting(
    redis: "Redis", stream: str, *, group: str, consumer: str, field: bytes, count: int
) -> list[tuple[bytes, bytes]]:
    """Claim entries of dead workers and read new ones: ids and payloads, up to `count` of each.

    An entry without the field has an empty payload.
    """
    try:
        claimed: Any = redis.xautoclaim(stream, group, consumer, CLAIM_IDLE_MS, count=count)
        fresh: Any = redis.xreadgroup(group, consumer, {stream: ">"}, count=count)
    except ResponseError as exc:
        if "NOGROUP" not in str(exc):
            raise
        if not redis.exists(stream):
            return []  # nothing was ever written
        make_group(redis, stream, group)
        return read_waiting(redis, stream, group=group, consumer=consumer, field=field, count=count)
    found = [each for each in claimed[1] if each[1]]
    found += [each for entries in streams_in(fresh) for each in entries]
    return [(stream_id, fields.get(field, b"")) for stream_id, fields in found]


def streams_in(reply: Any) -> Iterator[list[Any]]:
    """Entries in XREADGROUP's reply, which is a list of pairs in RESP2 and a mapping in RESP3."""
    if not reply:
        return
    if isinstance(reply, dict):
        for batches in reply.values():
            yield from batches
    else:
        for _, entries in reply:
            yield entries


def make_group(redis: "Redis", stream: bytes | str, group: bytes | str) -> None:
    """Create the workers' group, which begins with the first entry. Another worker may have created it meanwhile."""
    try:
        redis.xgroup_create(stream, group, id="0", mkstream=True)
    except ResponseError as exc:
        if "BUSYGROUP" not in str(exc):
            raise


def forget_consumers(redis: "Redis", stream: bytes | str, group: bytes | str, *, idle_ms: int = CONSUMER_TTL_MS) -> int:
    """Forget consumers that have been silent for so long and hold no entry. Returns how many there were."""
    return int(FORGET_CONSUMERS.run(redis, [_bytes(stream)], [_bytes(group), idle_ms]))


def _bytes(name: bytes | str) -> bytes:
    return name.encode() if isinstance(name, str) else name
