"""How a month will end if it goes on as it went. Pure."""

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime

DAY_S = 86_400
# Before that a month says nothing about itself.
LEAST_S = 6 * 3600


@dataclass(frozen=True, slots=True)
class Forecast:
    """`month_nanos` by the end of the UTC month, None while it is too young; `days_left` of the credit at this pace."""

    month_nanos: int | None
    days_left: int | None


def forecast(*, spent_nanos: int, available_nanos: int, now: datetime) -> Forecast:
    """From what the present UTC month has spent so far, by its average pace."""
    here = now.astimezone(UTC)
    start = here.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    gone_s = int((here - start).total_seconds())
    whole_s = monthrange(here.year, here.month)[1] * DAY_S
    if gone_s < LEAST_S:
        return Forecast(None, None)
    days_left = available_nanos * gone_s // (spent_nanos * DAY_S) if spent_nanos > 0 and available_nanos > 0 else None
    return Forecast(spent_nanos * whole_s // gone_s, days_left)
