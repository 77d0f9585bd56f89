"""Usage, errors and revenue of the whole installation, for the operators' first page."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Sum
from django.db.models.functions import TruncHour

from accounts.models import Organization, User
from billing.models import Account, Order
from billing.revenue import debts, revenue_by_month
from codexflow.lib.cache import cached
from logs.models import RefusalCount, UsageDaily, UsageHourly

HOURS = 24
TOP_DAYS = 7
SHOWN = 8
# The sums go over all customers, so that several operators with the page open share them.
CACHED_S = 20
CACHE_KEY = "ops:overview"


@dataclass(frozen=True, slots=True)
class Bar:
    """An hour of the chart: heights out of 100, as text for SVG, of all requests and of those that failed."""

    hour: datetime
    requests: int
    errors: int
    most: int

    @property
    def rects(self) -> list[tuple[str, str, str]]:
        """Class, top and height of each rectangle."""
        heights = {"fill-primary": 100 * self.requests / self.most, "fill-error": 100 * self.errors / self.most}
        return [(css, f"{100 - height:.1f}", f"{height:.1f}") for css, height in heights.items()]


def overview(at: datetime) -> dict[str, Any]:
    """Sums of the last day and month, at most CACHED_S old, and the accounts in debt."""
    return {**cached(CACHE_KEY, lambda: _sums(at), seconds=CACHED_S), "debts": debts()[:SHOWN]}


def _sums(at: datetime) -> dict[str, Any]:
    since = at.replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS - 1)
    hourly = UsageHourly.objects.filter(hour__gte=since)
    sums = hourly.aggregate(requests=Sum("requests"), errors=Sum("errors"), charged=Sum("cost_nanos"))
    months = revenue_by_month(at)
    this_month = next((each for each in months if (each.month.year, each.month.month) == (at.year, at.month)), None)
    return {
        "requests": sums["requests"] or 0,
        "errors": sums["errors"] or 0,
        "charged_nanos": sums["charged"] or 0,
        "active": hourly.values("organization_id").distinct().count(),
        "refused": int(RefusalCount.objects.filter(minute__gte=since).aggregate(all=Sum("count"))["all"] or 0),
        "revenue_nanos": 0 if this_month is None else this_month.left_nanos,
        "open_orders": Order.objects.filter(state=Order.State.OPEN).count(),
        "organizations": Organization.objects.filter(is_active=True).count(),
        "new_users": User.objects.filter(created_at__gte=at - timedelta(days=7)).count(),
        "bars": _bars(since),
        "models": list(
            hourly.values("model")
            .annotate(calls=Sum("requests"), failed=Sum("errors"), charged=Sum("cost_nanos"))
            .order_by("-calls", "model")[:SHOWN]
        ),
        "refusals": list(
            RefusalCount.objects.filter(minute__gte=since)
            .values("code")
            .annotate(calls=Sum("count"), organizations=Count("organization_id", distinct=True))
            .order_by("-calls", "code")[:SHOWN]
        ),
        "top": _top(at),
    }


def _bars(since: datetime) -> list[Bar]:
    rows = (
        UsageHourly.objects.filter(hour__gte=since)
        .values(at=TruncHour("hour"))
        .annotate(calls=Sum("requests"), failed=Sum("errors"))
        .order_by()
    )
    by_hour = {row["at"]: (int(row["calls"]), int(row["failed"])) for row in rows}
    hours = [since + timedelta(hours=number) for number in range(HOURS)]
    most = max([calls for calls, _failed in by_hour.values()], default=0) or 1
    return [Bar(hour, calls, failed, most) for hour in hours for calls, failed in [by_hour.get(hour, (0, 0))]]


def _top(at: datetime) -> list[dict[str, Any]]:
    """Customers with the highest charges of the last days, with their accounts."""
    sums = (
        UsageDaily.objects.filter(day__gt=at.date() - timedelta(days=TOP_DAYS))
        .values("organization_id")
        .annotate(calls=Sum("requests"), failed=Sum("errors"), charged=Sum("cost_nanos"))
        .order_by("-charged", "-calls")[:SHOWN]
    )
    rows = list(sums)
    accounts = {
        each.organization_id: each
        for each in Account.objects.select_related("organization", "plan").filter(
            organization_id__in=[row["organization_id"] for row in rows]
        )
    }
    return [{**row, "account": accounts[row["organization_id"]]} for row in rows if row["organization_id"] in accounts]
