"""Rollups: sums of events by hour and day. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from logs.pipeline import histogram
from logs.pipeline.events import UsageEvent

EPOCH = date(1970, 1, 1)
# Key of calls without one, in events and rollups: NULL could not be part of a rollup's primary key.
NO_KEY = UUID(int=0)


@dataclass(frozen=True, slots=True, order=True)
class RollupKey:
    """Key of a rollup without its bucket of time."""

    organization_id: UUID
    key_id: UUID
    user_id: int
    model: str
    stage: str


@dataclass(slots=True)
class Sums:
    """Sums of one rollup row."""

    requests: int = 0
    errors: int = 0
    disconnects: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nanos: int = 0
    upstream_cost_nanos: int = 0
    latency_histogram: list[int] = field(default_factory=list)
    ttft_histogram: list[int] = field(default_factory=list)

    def count(self, event: UsageEvent, times: int = 1) -> None:
        """Count a request; with times=-1, subtract one that was counted before."""
        self.requests += times
        self.errors += times * (event.status >= 400)
        self.disconnects += times * event.is_disconnected
        self.prompt_tokens += times * event.usage.prompt_tokens
        self.cached_tokens += times * event.usage.cached_tokens
        self.completion_tokens += times * event.usage.completion_tokens
        self.reasoning_tokens += times * event.usage.reasoning_tokens
        self.cost_nanos += times * event.cost_nanos
        self.upstream_cost_nanos += times * (event.upstream_cost_nanos or 0)
        histogram.add(self.latency_histogram, event.latency_ms, times)
        if event.ttft_ms is not None:
            histogram.add(self.ttft_histogram, event.ttft_ms, times)


def day_of(event: UsageEvent) -> date:
    """Day of admission, by Redis's clock."""
    return EPOCH + timedelta(days=event.day)


def hour_of(event: UsageEvent) -> datetime:
    """Hour of the request's start, clamped to its day of admission: the hours of a day add up to the day."""
    started = datetime.fromtimestamp(event.started_ms / 1000, UTC).replace(minute=0, second=0, microsecond=0)
    midnight = datetime.combine(day_of(event), datetime.min.time(), UTC)
    return min(max(started, midnight), midnight + timedelta(hours=23))


def key_of(event: UsageEvent) -> RollupKey:
    return RollupKey(event.organization_id, event.key_id, event.user_id or 0, event.model, event.stage)


@dataclass(slots=True)
class Folded:
    """Sums by hour and by day."""

    hours: dict[tuple[datetime, RollupKey], Sums] = field(default_factory=dict)
    days: dict[tuple[date, RollupKey], Sums] = field(default_factory=dict)

    def count(self, event: UsageEvent, times: int = 1) -> None:
        key = key_of(event)
        self.hours.setdefault((hour_of(event), key), Sums()).count(event, times)
        self.days.setdefault((day_of(event), key), Sums()).count(event, times)


def fold(events: Iterable[UsageEvent]) -> Folded:
    """Sum all events. Any order, and any split into parts, gives the same."""
    folded = Folded()
    for event in events:
        folded.count(event)
    return folded
