"""The newest requests that match filters, in bounded time however rare they are.

An index serves no filter or a single one at once. For several together the rollups tell in which hours there can be a
match at all, and those are looked through from the newest on, a few at first and more while it is quick. When patience
runs out the page ends early and says where to go on: short pages are honest, slow ones are not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from codexflow.lib.clock import monotonic_s
from codexflow.lib.ids import uuid7_floor
from logs.models import RequestLog, UsageHourly
from logs.requests.selectors import Filters, requests_before

PATIENCE_S = 0.1
# A step that took less may be followed by one twice as long.
QUICK_S = 0.02
# Clocks of gateways and of Redis, which decides the hour that a request is counted in, may differ by so much.
SKEW = timedelta(minutes=10)
HOUR = timedelta(hours=1)
_INDEXED = ("stage", "model", "key_id", "status", "error_code")
_COUNTED = ("stage", "model", "key_id", "user_id")
_OTHERS = ("user_id", "surface", "source", "is_stream")
# So many digits of an id name a quarter of an hour.
_FEW_MINUTES_DIGITS = 7


@dataclass(frozen=True, slots=True)
class Found:
    """A page, and where the next one begins; None when there is nothing older."""

    rows: list[RequestLog]
    next_before: UUID | None


def find_requests(
    organization_id: UUID, filters: Filters, *, before: UUID | None, limit: int, patience_s: float = PATIENCE_S
) -> Found:
    """At most `limit` requests older than `before`, newest first; fewer when looking further would take too long."""
    if _is_served_by_an_index(filters):
        rows = list(requests_before(organization_id, filters, before=before)[: limit + 1])
        return _page(rows, limit)
    ends_s = monotonic_s() + patience_s
    hours = _hours(organization_id, filters, before)
    matches = requests_before(organization_id, filters, before=before)
    rows = []
    for low, high in _steps(hours):
        found = matches.filter(request_id__gte=uuid7_floor(low), request_id__lt=uuid7_floor(high))
        rows += found[: limit + 1 - len(rows)]
        if len(rows) > limit:
            return _page(rows, limit)
        if monotonic_s() >= ends_s and low > hours[-1]:
            return Found(rows, uuid7_floor(low))
    return Found(rows, None)


def _is_served_by_an_index(filters: Filters) -> bool:
    if len(filters.id_prefix.replace("-", "")) >= _FEW_MINUTES_DIGITS:
        return True
    given = [name for name in _INDEXED if getattr(filters, name)]
    others = [name for name in _OTHERS if getattr(filters, name) not in ("", None)]
    is_odd = filters.status not in ("", "ok", "200") and not filters.is_of_failures  # the index has failures only
    return not others and not filters.id_prefix and not is_odd and len(given) <= 1


def _page(rows: list[RequestLog], limit: int) -> Found:
    page = rows[:limit]
    return Found(page, page[-1].request_id if len(rows) > limit else None)


def _hours(organization_id: UUID, filters: Filters, before: UUID | None) -> list[datetime]:
    """The hours in which something was counted that may match, newest first."""
    known = {name: value for name in _COUNTED if (value := getattr(filters, name)) not in ("", None)}
    hours = UsageHourly.objects.filter(
        organization_id=organization_id,
        hour__gte=filters.start - HOUR - SKEW,
        hour__lte=filters.end + SKEW,
        **known,
    )
    if filters.is_of_failures:
        hours = hours.filter(errors__gt=0)
    return [hour for hour in hours.values_list("hour", flat=True).distinct().order_by("-hour") if _begins(hour, before)]


def _begins(hour: datetime, before: UUID | None) -> bool:
    return before is None or uuid7_floor(hour - SKEW) < before


def _steps(hours: list[datetime]) -> Iterator[tuple[datetime, datetime]]:
    """Spans that cover all hours, newest first and never overlapping: one hour, then more while it goes quickly."""
    at, taken, reached = 0, 1, None
    while at < len(hours):
        started_s = monotonic_s()
        high, low = hours[at] + HOUR + SKEW, hours[min(at + taken, len(hours)) - 1] - SKEW
        yield low, high if reached is None else min(high, reached)
        reached, at = low, at + taken
        if monotonic_s() - started_s < QUICK_S:
            taken *= 2
