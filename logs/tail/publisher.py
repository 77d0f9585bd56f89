"""Publish new and corrected rows to the live tail: once a batch and organization, and only where a client watches."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
from channels.layers import get_channel_layer
from django.db import DatabaseError
from redis import Redis, RedisError

from codexflow.lib.clock import monotonic_s
from codexflow.lib.redis import shard_of, tag
from logs.models import RequestLog
from logs.pipeline.events import UsageEvent
from logs.requests.serializers import RequestRowSerializer
from logs.tail.rows import ROWS_PER_S, Row, row_of

logger = logging.getLogger(__name__)

# Rows published of one batch. A client is shown fewer, but its filter may match only the rare ones.
MAX_ROWS = ROWS_PER_S * 5
# Clients renew the key at every heartbeat (at most 30 s apart); after this a dead process is no longer published to.
WATCHED_TTL_S = 40
CHECK_INTERVAL_S = 1.0


def any_watched_key(prefix: str) -> str:
    """Redis key that exists while any organization is watched: the one look-up of a drain that has no watchers."""
    return f"{prefix}:live:anybody"


def watched_key(prefix: str, organization_id: UUID) -> str:
    """Redis key that exists while a client watches the organization."""
    return f"{prefix}:{tag(shard_of(organization_id))}:live:{organization_id}"


def group_of(organization_id: UUID) -> str:
    return f"o.{organization_id}"


def mark_watched(redis: "Redis", prefix: str, organization_id: UUID) -> None:
    """Note for WATCHED_TTL_S that a client watches the organization."""
    pipe = redis.pipeline(transaction=False)
    pipe.set(watched_key(prefix, organization_id), 1, ex=WATCHED_TTL_S)
    pipe.set(any_watched_key(prefix), 1, ex=WATCHED_TTL_S)
    pipe.execute()


class TailPublisher:
    """Publishes a worker's rows to the live tail. Best effort: a failure is logged and never fails the worker."""

    def __init__(self, redis: "Redis", prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._checked_at_s = float("-inf")
        self._is_any_watched = False

    def publish(self, new: Sequence[UsageEvent], corrected: Sequence[UsageEvent] = ()) -> int:
        """Publish committed rows. Returns for how many organizations, those without watchers left out."""
        try:
            return self._publish(new, corrected) if (new or corrected) and self._is_anything_watched() else 0
        except (RedisError, DatabaseError, OSError) as exc:
            logger.warning("live.not_published", extra={"reason": repr(exc)})
            return 0

    def _is_anything_watched(self) -> bool:
        if monotonic_s() - self._checked_at_s > CHECK_INTERVAL_S:
            self._is_any_watched = bool(self._redis.exists(any_watched_key(self._prefix)))
            self._checked_at_s = monotonic_s()
        return self._is_any_watched

    def _publish(self, new: Sequence[UsageEvent], corrected: Sequence[UsageEvent]) -> int:
        batches: dict[UUID, _Batch] = {}
        for event in new:
            batches.setdefault(event.organization_id, _Batch()).new.append(event)
        for event in corrected:
            batches.setdefault(event.organization_id, _Batch()).corrected.append(event.request_id)
        pipe = self._redis.pipeline(transaction=False)
        for organization_id in batches:
            pipe.exists(watched_key(self._prefix, organization_id))
        watched = [each for each, exists in zip(batches, pipe.execute(), strict=True) if exists]
        if watched:
            layer: Any = get_channel_layer()
            for organization_id in watched:
                message = layer.serialize(batches[organization_id].message())
                pipe.publish(_channel_of(organization_id, self._prefix), message)
            pipe.execute()
        return len(watched)


@dataclass(slots=True)
class _Batch:
    """Rows of one batch and organization."""

    new: list[UsageEvent] = field(default_factory=list)
    corrected: list[UUID] = field(default_factory=list)

    def message(self) -> dict[str, Any]:
        """Message of the channel layer: the newest of both, new rows first: a correction may be of one of them."""
        new, corrected = self.new[-MAX_ROWS:], self.corrected[-MAX_ROWS:]
        skipped = len(self.new) - len(new) + len(self.corrected) - len(corrected)
        return {"type": "tail.rows", "rows": [*map(row_of, new), *_stored(corrected)], "skipped": skipped}


def _stored(ids: Sequence[UUID]) -> list[Row]:
    """Read corrected rows as the list of requests has them: a report holds only a part of its row."""
    if not ids:
        return []
    # Bounded on both sides, so that only the partitions of these days are read.
    rows = RequestLog.objects.filter(request_id__in=ids, request_id__range=(min(ids), max(ids))).order_by("request_id")
    found: list[Row] = msgspec.json.decode(msgspec.json.encode(list(RequestRowSerializer(rows, many=True).data)))
    return found


def _channel_of(organization_id: UUID, prefix: str) -> str:
    """Redis channel of the channel layer's group_send (`_get_group_channel_name` of channels_redis.pubsub).

    Refused: group_send itself. It needs an event loop, and a loop and a connection for every batch cost a tenth of the
    drain's speed.
    """
    return f"{prefix}:live__group__{group_of(organization_id)}"
