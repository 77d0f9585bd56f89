"""Used parts of budgets and credit, and the thresholds that they pass. Pure. Amounts are nano-USD."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from billing.sources import Source

PERCENTS = (50, 80, 100)
# From here on pages warn, too.
WARN_PERCENT = 80
CREDIT, DAY, MONTH = "credit", "day", "month"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One budget, or the credit. `period` names its window: a day, a month, or the newest source of the credit."""

    kind: str
    limit_nanos: int
    used_nanos: int
    period: str

    @property
    def window(self) -> str:
        """Name of the window in which an alert is sent once. A budget that is changed is another one."""
        return f"{self.kind} {self.period}" if self.kind == CREDIT else f"{self.kind} {self.period} {self.limit_nanos}"

    @property
    def percent(self) -> int:
        """Used percent, rounded down; a limit of nothing is used up."""
        return self.used_nanos * 100 // self.limit_nanos if self.limit_nanos > 0 else 100

    @property
    def reached(self) -> int | None:
        """The highest of PERCENTS that is reached, or None."""
        return max((each for each in PERCENTS if self.percent >= each), default=None)


def watched_budgets(
    *, day_nanos: int | None, month_nanos: int | None, used_today: int, used_this_month: int, today: date
) -> list[Watched]:
    """Return the budgets that are set, with what is used of them."""
    found = []
    if day_nanos is not None:
        found.append(Watched(kind=DAY, limit_nanos=day_nanos, used_nanos=used_today, period=f"{today}"))
    if month_nanos is not None:
        found.append(Watched(kind=MONTH, limit_nanos=month_nanos, used_nanos=used_this_month, period=f"{today:%Y-%m}"))
    return found


def watched_credit(sources: Iterable[Source], newest: Source | None) -> Watched | None:
    """Return the credit of the sources that have something left: what was granted with them, and what of it is used.

    More credit is a new source, and begins a new window: `newest` is the organization's latest. None: it never had any.
    """
    if newest is None:
        return None
    counted = [each for each in sources if each.remaining_nanos > 0] or [newest]
    granted = sum([max(each.granted_nanos, each.remaining_nanos) for each in counted])
    used = granted - sum([each.remaining_nanos for each in counted])
    return Watched(kind=CREDIT, limit_nanos=granted, used_nanos=used, period=f"source {newest.id}")
