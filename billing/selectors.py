"""Read plans, accounts, ledger and daily spend."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from uuid import UUID

from django.conf import settings
from django.db.models import Max, Q, QuerySet, Sum
from django.db.models.functions import Coalesce

from accounts.models import Organization
from billing.limiter.limits import ScopeTotals, held_nanos
from billing.models import Account, LedgerEntry, Plan, SpendDaily
from codexflow.lib.redis import sync_client

_EPOCH = date(1970, 1, 1)


def organization_totals(ids: Collection[UUID], day: int) -> dict[UUID, ScopeTotals]:
    """Sums of organizations for the limiter, as of a day since 1970. Organizations without any are left out."""
    spent = dict(Account.objects.filter(organization_id__in=ids).values_list("organization_id", "spent_nanos"))
    return _totals("organization_id", ids, day, spent)


def key_totals(ids: Collection[UUID], day: int) -> dict[UUID, ScopeTotals]:
    """Sums of keys for the limiter, as of a day since 1970. Keys without any are left out."""
    rows = SpendDaily.objects.filter(key_id__in=ids).values_list("key_id").annotate(total=Sum("cost_nanos"))
    return _totals("key_id", ids, day, {key: int(total) for key, total in rows})


def _totals(column: str, ids: Collection[UUID], day: int, spent: dict[UUID, int]) -> dict[UUID, ScopeTotals]:
    today = _EPOCH + timedelta(days=day)
    is_today = Q(day=today)
    # The whole month: after Redis's clock has gone back over midnight, calls count on the day that had begun.
    first = today.replace(day=1)
    next_month = (first + timedelta(days=31)).replace(day=1)
    rows: QuerySet[SpendDaily, tuple[UUID, int, int, int]] = (
        SpendDaily.objects.filter(**{f"{column}__in": ids}, day__gte=first, day__lt=next_month)
        .values_list(column)
        .annotate(
            requests=Coalesce(Sum("requests", filter=is_today), 0),
            day_nanos=Coalesce(Sum("cost_nanos", filter=is_today), 0),
            month_nanos=Sum("cost_nanos"),
        )
    )
    totals = {each: ScopeTotals(total_nanos=total_nanos) for each, total_nanos in spent.items()}
    for each, requests, day_nanos, month_nanos in rows:
        totals[each] = ScopeTotals(
            requests_today=int(requests),
            day_nanos=int(day_nanos),
            month_nanos=int(month_nanos),
            total_nanos=spent.get(each, 0),
        )
    return totals


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """An organization's money in nano-USD. `held` is set aside for running calls; None while Redis is away."""

    credit_nanos: int
    spent_nanos: int
    held_nanos: int | None

    @property
    def available_nanos(self) -> int:
        return self.credit_nanos - self.spent_nanos - (self.held_nanos or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Requests and cost of some days."""

    requests: int
    cost_nanos: int


def account_of(organization: Organization) -> Account:
    """The organization's account with its plan."""
    return Account.objects.select_related("plan").get(organization=organization)


def retention_days_of(organization: Organization) -> int:
    """Days back that its plan shows requests."""
    return account_of(organization).plan.log_retention_days


def seats_of(organization: Organization) -> int:
    """Number of members that its plan allows."""
    return account_of(organization).plan.seats


def balance_of(account: Account) -> Balance:
    """Credit and spent from PostgreSQL, what running calls hold from Redis."""
    return Balance(
        credit_nanos=account.credit_nanos,
        spent_nanos=account.spent_nanos,
        held_nanos=held_nanos(sync_client(settings.ENV.redis_url), settings.ENV.redis_prefix, account.organization_id),
    )


def spend_of(organization: Organization, first: date, last: date) -> Period:
    """Sums of the UTC days from `first` to `last`, both included."""
    sums = SpendDaily.objects.filter(organization=organization, day__gte=first, day__lte=last).aggregate(
        requests=Coalesce(Sum("requests"), 0), cost_nanos=Coalesce(Sum("cost_nanos"), 0)
    )
    return Period(requests=int(sums["requests"]), cost_nanos=int(sums["cost_nanos"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySpend:
    """Spend of one key this month, and the last day (UTC) of its use."""

    month_nanos: int
    last_day: date

    def __add__(self, other: "KeySpend") -> "KeySpend":
        return KeySpend(month_nanos=self.month_nanos + other.month_nanos, last_day=max(self.last_day, other.last_day))


def spend_by_key(organization: Organization, month: date) -> dict[UUID, KeySpend]:
    """Spend by key, of the organization's keys that were ever used."""
    rows = (
        SpendDaily.objects.filter(organization=organization)
        .values_list("key_id")
        .annotate(month_nanos=Coalesce(Sum("cost_nanos", filter=Q(day__gte=month.replace(day=1))), 0), last=Max("day"))
    )
    return {key: KeySpend(month_nanos=int(nanos), last_day=last) for key, nanos, last in rows}


def ledger_of(organization: Organization, *, before: int | None, limit: int) -> list[LedgerEntry]:
    """The newest entries older than entry `before`."""
    entries = LedgerEntry.objects.filter(organization=organization)
    if before is not None:
        entries = entries.filter(pk__lt=before)
    return list(entries.order_by("-pk")[:limit])


def ledger_of_request(organization: Organization, request_id: UUID) -> list[LedgerEntry]:
    """Entries of a request, the first one first."""
    return list(LedgerEntry.objects.filter(organization=organization, request_id=request_id).order_by("revision"))


def public_plans() -> list[Plan]:
    """The plans for sale, cheapest first."""
    return list(Plan.objects.filter(is_public=True).order_by("position", "price_month_nanos"))
