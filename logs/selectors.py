"""Reading requests. Every function takes the tenant first."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from redis import Redis

from billing.limits import ShardKeys, recent_key
from codexflow.lib.redis import shard_of
from logs.events import BadEvent
from logs.models import RequestLog, UpstreamAttempt
from logs.services import intent_of


@dataclass(frozen=True, slots=True)
class RequestDetail:
    """A request's row with its attempts."""

    row: RequestLog
    attempts: list[UpstreamAttempt]


def request_of(organization_id: UUID, request_id: UUID) -> RequestDetail | None:
    """One request of the organization; None when there is none, or it is somebody else's."""
    row = RequestLog.objects.filter(request_id=request_id, organization_id=organization_id).first()
    if row is None:
        return None
    return RequestDetail(row, list(UpstreamAttempt.objects.filter(request_id=request_id).order_by("n")))


def is_on_its_way(redis: "Redis", prefix: str, organization_id: UUID, request_id: UUID) -> bool:
    """Whether the organization's request is running, or settled but not yet drained."""
    shard = ShardKeys.of(prefix, shard_of(organization_id))
    if redis.get(recent_key(shard, request_id)) == str(organization_id).encode():
        return True
    stored: Any = redis.hget(shard.intents, str(request_id))
    if stored is None:
        return False
    try:
        return intent_of(stored).organization_id == organization_id
    except BadEvent:
        return False
