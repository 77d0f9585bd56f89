"""Forecast of a month's spend from its average so far. Pure."""

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime

DAY_S = 86_400
# A younger month has no forecast.
MIN_ELAPSED_S = 6 * 3600


@dataclass(frozen=True, slots=True)
class Forecast:
    """`month_nanos` by the end of the UTC month, None while it is too young; `days_left` of the credit at this pace."""

    month_nanos: int | None
    days_left: int | None


def forecast(*, spent_nanos: int, available_nanos: int, now: datetime) -> Forecast:
    """Forecast the present UTC month from its average pace so far."""
    now = now.astimezone(UTC)
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    elapsed_s = int((now - start).total_seconds())
    month_s = monthrange(now.year, now.month)[1] * DAY_S
    if elapsed_s < MIN_ELAPSED_S:
        return Forecast(None, None)
    is_shrinking = spent_nanos > 0 and available_nanos > 0
    days_left = available_nanos * elapsed_s // (spent_nanos * DAY_S) if is_shrinking else None
    return Forecast(spent_nanos * month_s // elapsed_s, days_left)
