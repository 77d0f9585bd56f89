"""Selectors of requests. Every function takes the tenant first."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import QuerySet, Sum
from django.db.models.functions import Coalesce
from redis import Redis

from billing.limiter.intents import intent_in, is_settled_lately
from codexflow.lib.clock import now
from codexflow.lib.ids import uuid7_floor
from logs.models import RequestLog, UpstreamAttempt, UsageHourly
from logs.pipeline.events import BadEvent
from logs.pipeline.retention import kept_since
from logs.pipeline.rows import rates_of, usage_of
from logs.pipeline.settlement import intent_of
from logs.requests.charge import Charge, charge_of


@dataclass(frozen=True, slots=True)
class NamedRequest:
    """A request with the name of its key."""

    request: RequestLog
    key_name: str


def with_key_names(rows: Iterable[RequestLog], names: Mapping[UUID, str]) -> list[NamedRequest]:
    """Join requests with the names of their keys; without a key, or with a deleted one, the name is empty."""
    return [NamedRequest(row, names.get(row.key_id, "") if row.key_id else "") for row in rows]


@dataclass(frozen=True, slots=True)
class RequestDetail:
    """A request's row with its attempts."""

    row: RequestLog
    attempts: list[UpstreamAttempt]

    @property
    def charge(self) -> Charge:
        """Charge of the request, by class of tokens."""
        return charge_of(usage_of(self.row), rates_of(self.row))


def request_of(organization_id: UUID, request_id: UUID, *, retention_days: int) -> RequestDetail | None:
    """One request of the organization.

    None when there is none, it is another organization's, or it began before the plan's retention, as in lists.
    """
    row = RequestLog.objects.filter(request_id=request_id, organization_id=organization_id).first()
    if row is None or row.request_id < uuid7_floor(kept_since(now(), retention_days)):
        return None
    return RequestDetail(row, list(UpstreamAttempt.objects.filter(request_id=request_id).order_by("n")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Filters of requests. Empty means any."""

    start: datetime
    end: datetime
    stage: str = ""
    model: str = ""
    # "ok", "errors", or one status code
    status: str = ""
    key_id: UUID | None = None
    user_id: int | None = None
    surface: str = ""
    error_code: str = ""
    source: str = ""
    is_stream: bool | None = None
    # First characters of the request id.
    id_prefix: str = ""

    @property
    def matches_only_failures(self) -> bool:
        """True when no successful request can match."""
        return bool(self.error_code) or self.status == "errors" or (self.status.isdecimal() and int(self.status) >= 400)


def requests_of(organization_id: UUID, filters: Filters, *, before: UUID | None, limit: int) -> list[RequestLog]:
    """Return the newest requests older than `before`, newest first."""
    return list(requests_before(organization_id, filters, before=before)[:limit])


def requests_before(organization_id: UUID, filters: Filters, *, before: UUID | None) -> QuerySet[RequestLog]:
    """Query all requests older than `before`, newest first. Bounded on both sides, so that few partitions are read."""
    low, high = uuid7_floor(filters.start), uuid7_floor(max(filters.end, filters.start))
    if filters.id_prefix:
        first, last = id_range(filters.id_prefix)
        low, high = max(low, first), min(high, last)
    rows = RequestLog.objects.filter(
        organization_id=organization_id, request_id__gte=low, request_id__lte=min(high, before) if before else high
    )
    if before is not None:
        rows = rows.exclude(request_id=before)
    exact = {
        name: value
        for name in ("stage", "model", "key_id", "user_id", "surface", "error_code", "source", "is_stream")
        if (value := getattr(filters, name)) not in ("", None)
    }
    rows = rows.filter(**exact)
    if filters.error_code:
        rows = rows.filter(status__gte=400)  # implied, and there is an index of failures
    if filters.status == "ok":
        rows = rows.filter(status__lt=400)
    elif filters.status == "errors":
        rows = rows.filter(status__gte=400)
    elif filters.status:
        rows = rows.filter(status=int(filters.status))
    return rows.order_by("-request_id")


def id_range(prefix: str) -> tuple[UUID, UUID]:
    """Smallest and largest id that begin with `prefix`: hexadecimal digits, with or without hyphens."""
    digits = prefix.replace("-", "")[:32]
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))


def is_pending(redis: "Redis", prefix: str, organization_id: UUID, request_id: UUID) -> bool:
    """Return whether the organization's request is running, or settled but not yet drained."""
    if is_settled_lately(redis, prefix, organization_id, request_id):
        return True
    stored = intent_in(redis, prefix, organization_id, request_id)
    if stored is None:
        return False
    try:
        return intent_of(stored).organization_id == organization_id
    except BadEvent:
        return False


@dataclass(frozen=True, slots=True)
class Estimate:
    """Number of requests that filters match, by the rollups; `is_upper` when there may be fewer."""

    rows: int
    is_upper: bool


def estimate_of(organization_id: UUID, filters: Filters) -> Estimate:
    """Estimate the number of requests from hourly rollups, whole hours at either end."""
    known = {name: value for name in ("stage", "model", "key_id", "user_id") if (value := getattr(filters, name))}
    sums = UsageHourly.objects.filter(
        organization_id=organization_id, hour__gte=filters.start, hour__lte=filters.end, **known
    ).aggregate(requests=Coalesce(Sum("requests"), 0), errors=Coalesce(Sum("errors"), 0))
    requests, errors = int(sums["requests"]), int(sums["errors"])
    rows = errors if filters.matches_only_failures else requests - errors if filters.status else requests
    others = (filters.surface, filters.error_code, filters.source, filters.id_prefix)
    is_upper = any(others) or filters.is_stream is not None or filters.status not in ("", "ok", "errors")
    return Estimate(rows, is_upper)
