"""What waits in a stream that workers share, other than usage events (drain.py reads all shards of these at once)."""

from typing import Any

from redis import Redis, ResponseError

from logs.drain import CLAIM_IDLE_MS, streams_in


def read_waiting(
    redis: "Redis", stream: str, *, group: str, consumer: str, field: bytes, count: int
) -> list[tuple[bytes, bytes]]:
    """What a dead worker left behind, then what is new: ids and payloads, up to `count` of each.

    An entry without the field has an empty payload.
    """
    try:
        claimed: Any = redis.xautoclaim(stream, group, consumer, CLAIM_IDLE_MS, count=count)
        fresh: Any = redis.xreadgroup(group, consumer, {stream: ">"}, count=count)
    except ResponseError as exc:
        if "NOGROUP" not in str(exc):
            raise
        if not redis.exists(stream):
            return []  # nobody has ever written
        _make_group(redis, stream, group)
        return read_waiting(redis, stream, group=group, consumer=consumer, field=field, count=count)
    found = [each for each in claimed[1] if each[1]]
    found += [each for entries in streams_in(fresh) for each in entries]
    return [(stream_id, fields.get(field, b"")) for stream_id, fields in found]


def _make_group(redis: "Redis", stream: str, group: str) -> None:
    try:
        redis.xgroup_create(stream, group, id="0", mkstream=True)
    except ResponseError as exc:
        if "BUSYGROUP" not in str(exc):
            raise
