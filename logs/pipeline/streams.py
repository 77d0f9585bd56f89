"""Consumer groups of Redis streams. The drain reads all shards at once; the other consumers read theirs here."""

from collections.abc import Iterator
from typing import Any

from redis import Redis, ResponseError

# A worker that read a batch this long ago without acknowledging it is dead.
CLAIM_IDLE_MS = 30_000


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
