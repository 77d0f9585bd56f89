"""From workers to whoever watches: new and corrected rows of an organization, published once a batch, and only when one
listens.
"""

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

# What one batch hands on. More could not be shown, but filters may want the rare ones, so there is some room.
MAX_ROWS = ROWS_PER_S * 5
# A watcher says so at every heartbeat (at most 30 s apart); a process that dies is no longer published to after this.
LISTENING_S = 40
ASK_AGAIN_S = 1.0


def anybody_key(prefix: str) -> str:
    """There while anybody watches anything: what the drain asks for when nobody does."""
    return f"{prefix}:live:anybody"


def listening_key(prefix: str, organization_id: UUID) -> str:
    """There while somebody watches the organization."""
    return f"{prefix}:{tag(shard_of(organization_id))}:live:{organization_id}"


def group_of(organization_id: UUID) -> str:
    return f"o.{organization_id}"


def listen(redis: "Redis", prefix: str, organization_id: UUID) -> None:
    """Say for a while that somebody watches the organization."""
    pipe = redis.pipeline(transaction=False)
    pipe.set(listening_key(prefix, organization_id), 1, ex=LISTENING_S)
    pipe.set(anybody_key(prefix), 1, ex=LISTENING_S)
    pipe.execute()


class Announcer:
    """A worker's way to watchers. A watcher is never worth a failure: what goes wrong here is logged and forgotten."""

    def __init__(self, redis: "Redis", prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._asked_at_s = float("-inf")
        self._is_heard = False

    def announce(self, fresh: Sequence[UsageEvent], corrected: Sequence[UsageEvent] = ()) -> int:
        """Publish rows that were committed. Returns how many organizations heard of theirs."""
        try:
            return self._publish(fresh, corrected) if (fresh or corrected) and self._anybody_listens() else 0
        except (RedisError, DatabaseError, OSError) as exc:
            logger.warning("live.not_announced", extra={"reason": repr(exc)})
            return 0

    def _anybody_listens(self) -> bool:
        if monotonic_s() - self._asked_at_s > ASK_AGAIN_S:
            self._is_heard = bool(self._redis.exists(anybody_key(self._prefix)))
            self._asked_at_s = monotonic_s()
        return self._is_heard

    def _publish(self, fresh: Sequence[UsageEvent], corrected: Sequence[UsageEvent]) -> int:
        news: dict[UUID, _News] = {}
        for event in fresh:
            news.setdefault(event.organization_id, _News()).fresh.append(event)
        for event in corrected:
            news.setdefault(event.organization_id, _News()).corrected.append(event.request_id)
        pipe = self._redis.pipeline(transaction=False)
        for organization_id in news:
            pipe.exists(listening_key(self._prefix, organization_id))
        heard = [each for each, listens in zip(news, pipe.execute(), strict=True) if listens]
        if heard:
            layer: Any = get_channel_layer()
            for organization_id in heard:
                message = layer.serialize(news[organization_id].message())
                pipe.publish(_channel_of(organization_id, self._prefix), message)
            pipe.execute()
        return len(heard)


@dataclass(slots=True)
class _News:
    """What a batch brought one organization."""

    fresh: list[UsageEvent] = field(default_factory=list)
    corrected: list[UUID] = field(default_factory=list)

    def message(self) -> dict[str, Any]:
        """The newest of both, new rows first: a correction may be one of them."""
        fresh, corrected = self.fresh[-MAX_ROWS:], self.corrected[-MAX_ROWS:]
        skipped = len(self.fresh) - len(fresh) + len(self.corrected) - len(corrected)
        return {"type": "tail.rows", "rows": [*map(row_of, fresh), *_stored(corrected)], "skipped": skipped}


def _stored(ids: Sequence[UUID]) -> list[Row]:
    """Rows as the list of requests shows them now. A correction alone does not say what all is in its row."""
    if not ids:
        return []
    # Bounded on both sides, so that only the partitions of these days are looked into.
    rows = RequestLog.objects.filter(request_id__in=ids, request_id__range=(min(ids), max(ids))).order_by("request_id")
    found: list[Row] = msgspec.json.decode(msgspec.json.encode(list(RequestRowSerializer(rows, many=True).data)))
    return found


def _channel_of(organization_id: UUID, prefix: str) -> str:
    """Where the channel layer's group_send would publish (`_get_group_channel_name` of channels_redis.pubsub).

    Its own way in is for event loops only: a loop and a connection for every batch cost a tenth of the drain's speed.
    """
    return f"{prefix}:live__group__{group_of(organization_id)}"
