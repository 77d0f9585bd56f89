"""Read plans, accounts, ledger and daily spend."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db.models import Max, Q, QuerySet, Sum
from django.db.models.functions import Coalesce

from accounts.models import Organization
from billing.alerts import Watched, watched_budgets, watched_credit
from billing.limiter.limits import ScopeTotals, held_nanos
from billing.models import Account, CreditSource, LedgerEntry, Order, Plan, SpendDaily
from billing.sources import DEBT, Source, SourceBalance, in_order, with_holds
from codexflow.lib.clock import now
from codexflow.lib.redis import sync_client

_EPOCH = date(1970, 1, 1)
JUST_EXPIRED = timedelta(minutes=3)


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
    # What each source has, as it is spent; `expired_nanos` is left of those whose time is over.
    sources: tuple[SourceBalance, ...] = ()
    expired_nanos: int = 0

    @property
    def available_nanos(self) -> int:
        return self.credit_nanos - self.spent_nanos - self.expired_nanos - (self.held_nanos or 0)

    @property
    def debt_nanos(self) -> int:
        """Usage beyond all credit."""
        return max(0, self.spent_nanos - self.credit_nanos)


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Requests and cost of some days."""

    requests: int
    cost_nanos: int


def expired_nanos(organization_id: UUID, at: datetime) -> int:
    """Credit whose time is over but whose expiry is not booked yet: only calls admitted before are paid from it."""
    return int(
        CreditSource.objects.filter(organization_id=organization_id, expires_at__lte=at)
        .exclude(remaining_nanos=0)
        .aggregate(sum=Coalesce(Sum("remaining_nanos"), 0))["sum"]
    )


def has_just_expired(at: datetime) -> bool:
    """Return whether credit has expired within the last minutes: gateways remember what an organization may spend."""
    recent = CreditSource.objects.filter(expires_at__lte=at, expires_at__gt=at - JUST_EXPIRED)
    return recent.exclude(remaining_nanos=0).exists()


def sources_of(organization: Organization) -> list[Source]:
    """Sources of which something is left, as they are spent."""
    rows = CreditSource.objects.filter(organization=organization).exclude(remaining_nanos=0)
    return in_order(_source(row) for row in rows)


def _source(row: CreditSource) -> Source:
    return Source(
        row.pk,
        row.kind,
        row.remaining_nanos,
        row.expires_at,
        label=row.get_kind_display(),
        name=row.name,
        granted_nanos=row.granted_nanos,
    )


def watched_of(account: Account, today: date) -> list[Watched]:
    """Budgets of an organization, and its credit if calls are refused without, with what is used of them."""
    organization = account.organization
    found = watched_budgets(
        day_nanos=account.budget_day_nanos,
        month_nanos=account.budget_month_nanos,
        used_today=spend_of(organization, today, today).cost_nanos,
        used_this_month=spend_of(organization, today.replace(day=1), today).cost_nanos,
        today=today,
    )
    if account.plan.has_hard_budget:
        at = now()
        newest = CreditSource.objects.filter(organization=organization).order_by("-pk").first()
        left = [each for each in sources_of(organization) if each.is_open(at)]
        if (credit := watched_credit(left, _source(newest) if newest else None)) is not None:
            found.append(credit)
    return found


def account_of(organization: Organization) -> Account:
    """The organization's account with its plan."""
    rows = Account.objects.select_related("organization", "plan__current", "next_plan")
    return rows.get(organization=organization)


def retention_days_of(organization: Organization) -> int:
    """Days back that its plan shows requests."""
    return account_of(organization).plan.log_retention_days


def seats_of(organization: Organization) -> int:
    """Number of members that its plan allows."""
    return account_of(organization).plan.seats


def balance_of(account: Account) -> Balance:
    """Credit, spent and sources from PostgreSQL, what running calls hold from Redis."""
    redis, at = sync_client(settings.ENV.redis_url), now()
    held = held_nanos(redis, settings.ENV.redis_prefix, account.organization_id)
    sources = sources_of(account.organization)
    return Balance(
        credit_nanos=account.credit_nanos,
        spent_nanos=account.spent_nanos,
        held_nanos=held,
        sources=tuple(with_holds(sources, held or 0, at=at)),
        expired_nanos=sum(each.remaining_nanos for each in sources if not each.is_open(at)),
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
    """Entries of a request, the first one first, with what each source paid."""
    entries = list(LedgerEntry.objects.filter(organization=organization, request_id=request_id).order_by("revision"))
    ids = {int(source) for entry in entries for source in entry.parts}
    kinds = {DEBT: "debt", **dict(CreditSource.objects.filter(pk__in=ids).values_list("pk", "kind"))}
    for entry in entries:
        entry.parts_by_kind = {}
        for source, nanos in entry.parts.items():
            kind = kinds[int(source)]
            entry.parts_by_kind[kind] = entry.parts_by_kind.get(kind, 0) + nanos
    return entries


def public_plans() -> list[Plan]:
    """The plans for sale, cheapest first."""
    return list(Plan.objects.filter(is_public=True).order_by("position", "price_month_nanos"))


def plans_for_sale() -> QuerySet[Plan]:
    """Plans that customers may order, cheapest first."""
    return Plan.objects.filter(is_public=True, price_month_nanos__gt=0).order_by("position", "price_month_nanos")


def order_of(organization: Organization, code: str) -> Order | None:
    """An order of the organization; None if it has none with this code."""
    return Order.objects.select_related("plan").filter(organization=organization, code=code).first()


def open_orders(organization: Organization) -> list[Order]:
    """Open orders of the organization, newest first."""
    rows = Order.objects.select_related("plan").filter(organization=organization, state=Order.State.OPEN)
    return list(rows.order_by("-created_at", "-pk"))
