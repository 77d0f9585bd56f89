"""Reading requests. Every function takes the tenant first."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from django.db.models import Sum
from redis import Redis

from billing.limits import ShardKeys, recent_key
from codexflow.lib.ids import uuid7_floor
from codexflow.lib.redis import shard_of
from logs.events import BadEvent
from logs.models import RequestLog, UpstreamAttempt, UsageDaily
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which requests are meant. Empty means any."""

    start: datetime
    end: datetime
    stage: str = ""
    model: str = ""
    # "ok", "errors", or one status code
    status: str = ""
    key_id: UUID | None = None
    # The first characters of a request id.
    id_prefix: str = ""


def requests_of(organization_id: UUID, filters: Filters, *, before: UUID | None, limit: int) -> list[RequestLog]:
    """The newest requests older than `before`, newest first. Bounded on both sides, so that few partitions are read."""
    low, high = uuid7_floor(filters.start), uuid7_floor(filters.end)
    if filters.id_prefix:
        first, last = id_range(filters.id_prefix)
        low, high = max(low, first), min(high, last)
    rows = RequestLog.objects.filter(
        organization_id=organization_id, request_id__gte=low, request_id__lte=min(high, before) if before else high
    )
    if before is not None:
        rows = rows.exclude(request_id=before)
    if filters.stage:
        rows = rows.filter(stage=filters.stage)
    if filters.model:
        rows = rows.filter(model=filters.model)
    if filters.key_id:
        rows = rows.filter(key_id=filters.key_id)
    if filters.status == "ok":
        rows = rows.filter(status__lt=400)
    elif filters.status == "errors":
        rows = rows.filter(status__gte=400)
    elif filters.status:
        rows = rows.filter(status=int(filters.status))
    return list(rows.order_by("-request_id")[:limit])


_GROUPS = {"stage": "stage", "model": "model", "key": "key_id"}
_SUMS = ("requests", "errors", "prompt_tokens", "completion_tokens", "cost_nanos")


def usage_by_day(organization_id: UUID, start: date, end: date, *, group: str | None) -> list[dict[str, Any]]:
    """Sums by day (UTC) of both days and those between, oldest first; by stage, model or key when asked for."""
    column = _GROUPS[group] if group else None
    rows = (
        UsageDaily.objects.filter(organization_id=organization_id, day__gte=start, day__lte=end)
        .values("day", *([column] if column else []))
        .annotate(**{f"sum_{name}": Sum(name) for name in _SUMS})
        .order_by("day", *([column] if column else []))
    )
    return [
        {"day": row["day"], "group": str(row[column]) if column else None}
        | {name: int(row[f"sum_{name}"]) for name in _SUMS}
        for row in rows
    ]


def id_range(prefix: str) -> tuple[UUID, UUID]:
    """The smallest and the largest id that begin with `prefix`: hexadecimal digits, with or without hyphens."""
    digits = prefix.replace("-", "")[:32]
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))


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
