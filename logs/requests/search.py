"""Search for the newest requests that match filters, in bounded time however rare they are.

An index serves no filter or a single one. For several together the rollups show which hours can have a match, and those
hours are searched from the newest on, a few at first and more while it is quick. When the time limit is reached the
page ends early, with the cursor of the next: short pages are honest, slow ones are not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from codexflow.lib.clock import monotonic_s
from codexflow.lib.ids import uuid7_floor
from codexflow.lib.replica import may_be_old
from logs.models import RequestLog, UsageHourly
from logs.requests.selectors import COUNTED, SELECTIVE_DIGITS, Filters, query_of, requests_before

TIME_LIMIT_S = 0.1
# A step that took less is followed by one twice as long.
QUICK_S = 0.02
# Maximum difference of the clocks of gateways and of Redis, which decides the hour that a request is counted in.
SKEW = timedelta(minutes=10)
HOUR = timedelta(hours=1)
_INDEXED = ("stage", "model", "key_id", "status", "error_code", "tag")
_OTHERS = ("user_id", "surface", "source", "is_stream")


@dataclass(frozen=True, slots=True)
class Found:
    """A page, and the cursor of the next one; None when there is nothing older."""

    rows: list[RequestLog]
    next_before: UUID | None


@may_be_old
def find_requests(
    organization_id: UUID, filters: Filters, *, before: UUID | None, limit: int, time_limit_s: float | None = None
) -> Found:
    """Return at most `limit` requests older than `before`, newest first; fewer when the time limit is reached.

    The limit is TIME_LIMIT_S unless another is given.
    """
    if _is_served_by_an_index(filters):
        rows = list(requests_before(organization_id, filters, before=before)[: limit + 1])
        return _page(rows, limit)
    ends_s = deadline_s(time_limit_s)
    hours = hours_of(organization_id, filters, before)
    matches = requests_before(organization_id, filters, before=before)
    rows = []
    for low, high in steps(hours):
        found = matches.filter(request_id__gte=uuid7_floor(low), request_id__lt=uuid7_floor(high))
        rows += found[: limit + 1 - len(rows)]
        if len(rows) > limit:
            return _page(rows, limit)
        if monotonic_s() >= ends_s and low > hours[-1]:
            return Found(rows, uuid7_floor(low))
    return Found(rows, None)


def deadline_s(time_limit_s: float | None) -> float:
    """Return when a search ends, by the monotonic clock."""
    return monotonic_s() + (TIME_LIMIT_S if time_limit_s is None else time_limit_s)


def _is_served_by_an_index(filters: Filters) -> bool:
    if filters.id_is_beginning and len(filters.id_part.replace("-", "")) >= SELECTIVE_DIGITS:
        return True
    if filters.conditions:
        return False
    given = [name for name in _INDEXED if getattr(filters, name)]
    others = [name for name in _OTHERS if getattr(filters, name) not in ("", None)]
    is_unindexed = (
        filters.status not in ("", "ok", "200") and not filters.matches_only_failures
    )  # the index has failures only
    return not others and not filters.id_part and not is_unindexed and len(given) <= 1


def _page(rows: list[RequestLog], limit: int) -> Found:
    page = rows[:limit]
    return Found(page, page[-1].request_id if len(rows) > limit else None)


def hours_of(organization_id: UUID, filters: Filters, before: UUID | None) -> list[datetime]:
    """Hours with a rollup that may match, newest first."""
    known = {name: value for name in COUNTED if (value := getattr(filters, name)) not in ("", None)}
    hours = UsageHourly.objects.filter(
        *(query_of(condition) for condition in filters.conditions if condition.column in COUNTED),
        organization_id=organization_id,
        hour__gte=filters.start - HOUR - SKEW,
        hour__lte=filters.end + SKEW,
        **known,
    )
    if filters.matches_only_failures:
        hours = hours.filter(errors__gt=0)
    return [hour for hour in hours.values_list("hour", flat=True).distinct().order_by("-hour") if _begins(hour, before)]


def _begins(hour: datetime, before: UUID | None) -> bool:
    return before is None or uuid7_floor(hour - SKEW) < before


def steps(hours: list[datetime]) -> Iterator[tuple[datetime, datetime]]:
    """Spans that cover all hours, newest first and not overlapping: one hour, then more while it is quick."""
    at, taken, reached = 0, 1, None
    while at < len(hours):
        started_s = monotonic_s()
        high, low = hours[at] + HOUR + SKEW, hours[min(at + taken, len(hours)) - 1] - SKEW
        yield low, high if reached is None else min(high, reached)
        reached, at = low, at + taken
        if monotonic_s() - started_s < QUICK_S:
            taken *= 2
