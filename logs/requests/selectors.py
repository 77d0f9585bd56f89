"""Selectors of requests. Every function takes the tenant first."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet, Sum, TextField, Value
from django.db.models.functions import Cast, Coalesce, Replace
from redis import Redis

from billing.limiter.intents import intent_in, is_settled_lately
from codexflow.lib.clock import now
from codexflow.lib.ids import started_at, uuid7_floor
from logs.models import RequestLog, UpstreamAttempt, UsageHourly
from logs.pipeline.events import PLANNED, BadEvent, PlannedPart
from logs.pipeline.retention import kept_since
from logs.pipeline.rows import part_of, rates_of, usage_of
from logs.pipeline.settlement import intent_of
from logs.requests.charge import Charge, charge_of, charge_of_parts
from logs.requests.conditions import MAX_STATUS, WORD, WORD_COLUMNS, Condition


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
    def parts(self) -> list[tuple[UpstreamAttempt, PlannedPart]]:
        """Attempts of a planned request with what each did, used and cost."""
        return [(each, part) for each in self.attempts if (part := part_of(each)) is not None]

    @property
    def charge(self) -> Charge:
        """Charge of the request, by class of tokens."""
        if parts := self.parts:
            return charge_of_parts([(part.usage, part.rates) for _, part in parts])
        return charge_of(usage_of(self.row), rates_of(self.row))


def request_of(organization_id: UUID, request_id: UUID, *, retention_days: int) -> RequestDetail | None:
    """One request of the organization.

    None when there is none, it is another organization's, or it began before the plan's retention, as in lists.
    """
    row = RequestLog.objects.filter(request_id=request_id, organization_id=organization_id).first()
    if row is None or row.request_id < uuid7_floor(kept_since(now(), retention_days)):
        return None
    return RequestDetail(row, list(UpstreamAttempt.objects.filter(request_id=request_id).order_by("n")))


# Columns that rollups have, too.
COUNTED = ("stage", "model", "key_id", "user_id")

# The beginning of an id in so many digits covers a quarter of an hour.
SELECTIVE_DIGITS = 7


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
    tag: str = ""
    is_planned: bool = False
    # Part of the request id: its beginning, where that can be one, else any part of it.
    id_part: str = ""
    # What a search means beyond these; all of them hold.
    conditions: tuple[Condition, ...] = ()

    @property
    def id_is_beginning(self) -> bool:
        """True when the part is the beginning of an id from these times."""
        if not self.id_part:
            return False
        first, last = id_range(self.id_part)
        return uuid7_floor(self.start) <= last and first <= uuid7_floor(max(self.end, self.start))

    def around_id(self, oldest: datetime) -> "Filters":
        """Return the filters at the times that an id's beginning names: no range hides a request that is asked for."""
        if len(self.id_part.replace("-", "")) < SELECTIVE_DIGITS:
            return self
        first, last = (started_at(each) for each in id_range(self.id_part))
        if not oldest <= last or not first <= now() + timedelta(days=1):
            return self  # of no request that is kept: some other part of an id
        return replace(self, start=max(first, oldest), end=last + timedelta(milliseconds=1))

    def between(self, start: datetime, end: datetime) -> "Filters":
        """Return the filters at other times."""
        return replace(self, start=start, end=end)

    def narrowed(self, conditions: Iterable[Condition]) -> "Filters":
        """Return the filters that also meet the conditions. A single value becomes a filter, of which indexes know."""
        found = self
        for condition in conditions:
            name, value = _filter_for(condition)
            is_free = name and getattr(found, name) in ("", None, False)
            extra = {name: value} if is_free else {"conditions": (*found.conditions, condition)}
            found = replace(found, **extra)
        return found

    @property
    def matches_only_failures(self) -> bool:
        """True when no successful request can match."""
        return (
            bool(self.error_code)
            or self.status == "errors"
            or (self.status.isdecimal() and int(self.status) >= 400)
            or any(condition.is_failure for condition in self.conditions)
        )


# Filters of one exact text, by their columns.
_EXACT = ("stage", "model", "surface", "error_code", "source", "tag")


def _filter_for(condition: Condition) -> tuple[str, Any]:
    """Name and value of the filter that a condition is; no name where it needs more than one."""
    column, values, ranges = condition.column, condition.values, condition.ranges
    if condition.is_excluded or len(values) + len(ranges) != 1:
        return "", None
    if column in _EXACT:
        return column, values[0]
    if column == "key_id":
        return column, UUID(values[0])
    if column == "user_id":
        return column, int(values[0])
    if column == "is_stream":
        return column, values[0] == "true"
    if column == "planner":
        return "is_planned", True
    if column == "request_id":
        return "id_part", values[0]
    if column == "status":
        low, high = ranges[0]
        word = "ok" if high == 399 and low < 100 else "errors" if (low, high) == (400, MAX_STATUS) else ""
        return ("status", word or str(low)) if word or low == high else ("", None)
    return "", None


def query_of(condition: Condition) -> Q:
    """Query of one condition on requests, or on rollups where its column is one of theirs."""
    column, values = condition.column, condition.values
    query = Q()
    if condition.ranges:
        for low, high in condition.ranges:
            query |= Q(**{f"{column}__gte": low, f"{column}__lte": high})
    elif column == WORD:
        for name in WORD_COLUMNS:
            query |= Q(**{f"{name}__icontains": values[0]})
    elif column == "request_id":
        for value in values:
            query |= Q(digits__contains=value)
    elif condition.is_part:
        for value in values:
            query |= Q(**{f"{column}__icontains": value})
    elif column == "is_stream":
        query = Q(is_stream__in=[value == "true" for value in values])
    elif column == "user_id":
        query = Q(user_id__in=[int(value) for value in values])
    else:
        query = Q(**{f"{column}__in": values})
    if condition.is_failure:
        query &= Q(status__gte=400)  # implied, and there is an index of failures
    # Where the column is NULL a value is not there, which SQL's NOT does not know.
    return ~query if condition.is_excluded else query


def requests_of(organization_id: UUID, filters: Filters, *, before: UUID | None, limit: int) -> list[RequestLog]:
    """Return the newest requests older than `before`, newest first."""
    return list(requests_before(organization_id, filters, before=before)[:limit])


def requests_before(organization_id: UUID, filters: Filters, *, before: UUID | None) -> QuerySet[RequestLog]:
    """Query all requests older than `before`, newest first. Bounded on both sides, so that few partitions are read."""
    low, high = uuid7_floor(filters.start), uuid7_floor(max(filters.end, filters.start))
    if filters.id_is_beginning:
        first, last = id_range(filters.id_part)
        low, high = max(low, first), min(high, last)
    rows = RequestLog.objects.filter(
        organization_id=organization_id, request_id__gte=low, request_id__lte=min(high, before) if before else high
    )
    if before is not None:
        rows = rows.exclude(request_id=before)
    is_part = filters.id_part and not filters.id_is_beginning
    if is_part or any(condition.column == "request_id" for condition in filters.conditions):
        text = Cast("request_id", TextField())
        digits = Replace(text, Value("-", TextField()), Value("", TextField()), output_field=TextField())
        rows = rows.alias(digits=digits)
    if is_part:
        rows = rows.filter(digits__contains=filters.id_part.replace("-", "").lower())  # type: ignore[misc] # an alias
    for condition in filters.conditions:
        rows = rows.filter(query_of(condition))
    exact = {
        name: value
        for name in ("stage", "model", "key_id", "user_id", "surface", "error_code", "source", "is_stream", "tag")
        if (value := getattr(filters, name)) not in ("", None)
    }
    rows = rows.filter(**exact)
    if filters.is_planned:
        rows = rows.filter(planner=PLANNED)
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
    known = {name: value for name in COUNTED if (value := getattr(filters, name))}
    counted = [each for each in filters.conditions if each.column in COUNTED]
    hours = UsageHourly.objects.filter(
        *map(query_of, counted),
        organization_id=organization_id,
        hour__gte=filters.start,
        hour__lt=filters.end,
        **known,
    )
    sums = hours.aggregate(requests=Coalesce(Sum("requests"), 0), errors=Coalesce(Sum("errors"), 0))
    requests, errors = int(sums["requests"]), int(sums["errors"])
    rows = errors if filters.matches_only_failures else requests - errors if filters.status else requests
    others = (filters.surface, filters.error_code, filters.source, filters.tag, filters.id_part)
    is_upper = (
        any(others)
        or filters.is_stream is not None
        or filters.is_planned
        or filters.status not in ("", "ok", "errors")
        or len(counted) < len(filters.conditions)
    )
    return Estimate(rows, is_upper)
