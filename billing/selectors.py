"""Read plans, accounts, ledger and daily spend."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models import Case, F, Max, Min, Q, QuerySet, Sum, TextField, Value, When
from django.db.models.functions import Coalesce

from accounts.models import Organization
from billing.alerts import DAY, MONTH, Watched, watched_budgets, watched_credit
from billing.budgets.raises import Raise, Raises
from billing.limiter.limits import ScopeTotals, held_nanos
from billing.models import (
    Account,
    BudgetRaise,
    CreditSource,
    LedgerEntry,
    ModelSpendDaily,
    Order,
    Plan,
    SavedCard,
    SpendDaily,
    TagBudget,
    TagSpendDaily,
)
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


_TAG_TOTALS = """
SELECT budget.id,
    coalesce(sum(spend.requests) FILTER (WHERE spend.usage_day = %(today)s), 0),
    coalesce(sum(spend.cost_nanos) FILTER (WHERE spend.day = %(today)s), 0),
    coalesce(sum(spend.cost_nanos) FILTER (WHERE spend.day >= %(first)s AND spend.day < %(next)s), 0),
    coalesce(sum(spend.cost_nanos), 0)
FROM billing_tagbudget AS budget JOIN billing_tag_spend_daily AS spend
    ON spend.organization_id = budget.organization_id AND spend.tag = budget.tag
WHERE budget.id = ANY(%(ids)s) GROUP BY budget.id
"""


def tag_totals(ids: Collection[UUID], day: int) -> dict[UUID, ScopeTotals]:
    """Sums of tags for the limiter by the ids of their budgets, as of a day since 1970. Without any: left out."""
    today = _EPOCH + timedelta(days=day)
    first = today.replace(day=1)
    days = {"today": today, "first": first, "next": (first + timedelta(days=31)).replace(day=1)}
    with connection.cursor() as cursor:
        cursor.execute(_TAG_TOTALS, {"ids": list(ids), **days})
        return {
            each: ScopeTotals(
                requests_today=int(requests),
                day_nanos=int(day_nanos),
                month_nanos=int(month_nanos),
                total_nanos=int(total_nanos),
            )
            for each, requests, day_nanos, month_nanos, total_nanos in cursor.fetchall()
        }


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
    return expiries_by_organization([organization_id], at).get(organization_id, Expiry()).expired_nanos


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """Credit whose time is over but whose expiry is not booked yet, and when the time of more ends."""

    expired_nanos: int = 0
    next_at: datetime | None = None


def expiries_by_organization(ids: Collection[UUID], at: datetime) -> dict[UUID, Expiry]:
    """Expiries of those of several organizations that have credit with an end."""
    rows = CreditSource.objects.filter(organization_id__in=ids, expires_at__isnull=False).exclude(remaining_nanos=0)
    found = rows.values_list("organization_id").annotate(
        expired=Sum("remaining_nanos", filter=Q(expires_at__lte=at), default=0),
        next_at=Min("expires_at", filter=Q(expires_at__gt=at)),
    )
    return {organization: Expiry(expired_nanos=int(nanos), next_at=next_at) for organization, nanos, next_at in found}


def just_expired(at: datetime) -> list[UUID]:
    """Organizations whose credit has expired within the last minutes: gateways remember what they may spend."""
    recent = CreditSource.objects.filter(expires_at__lte=at, expires_at__gt=at - JUST_EXPIRED)
    return list(recent.exclude(remaining_nanos=0).values_list("organization_id", flat=True).distinct())


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


def raises_of(organization_id: UUID, at: datetime) -> Raises:
    """Raises of the organization's budgets that are in force."""
    return raises_by_organization([organization_id], at)[organization_id]


def raises_by_organization(ids: Collection[UUID], at: datetime) -> dict[UUID, Raises]:
    """As `raises_of`, of several organizations."""
    found: dict[UUID, list[Raise]] = {each: [] for each in ids}
    for row in BudgetRaise.objects.filter(organization_id__in=found, ends_at__gt=at):
        found[row.organization_id].append(
            Raise(
                window=row.window,
                amount_nanos=row.amount_nanos,
                ends_at=row.ends_at,
                key_id=row.key_id,
                tag_budget_id=row.tag_budget_id,
            )
        )
    return {organization: Raises(tuple(raises)) for organization, raises in found.items()}


def paid_credit_nanos(organization: Organization, at: datetime) -> int:
    """Rest of the credit that the organization has paid for. Credit that operators have given is not among it."""
    adjustments = LedgerEntry.objects.filter(organization=organization, kind=LedgerEntry.Kind.ADJUSTMENT)
    given = adjustments.filter(request_id=None, amount_nanos__gt=0).values_list("parts", flat=True)
    not_paid = {max(int(source) for source in parts) for parts in given if parts}
    paid = CreditSource.objects.filter(organization=organization, kind=CreditSource.Kind.PAID)
    in_force = paid.exclude(remaining_nanos=0).exclude(expires_at__lte=at).exclude(pk__in=not_paid)
    return int(in_force.aggregate(sum=Coalesce(Sum("remaining_nanos"), 0))["sum"])


def watched_of(account: Account, today: date) -> list[Watched]:
    """Budgets of an organization, and its credit if calls are refused without, with what is used of them."""
    organization = account.organization
    raises = raises_of(organization.pk, now())
    found = watched_budgets(
        day_nanos=raises.of(account.budget_day_nanos, DAY),
        month_nanos=raises.of(account.budget_month_nanos, MONTH),
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
    rows = Account.objects.select_related("organization__auto_recharge", "plan__current", "next_plan")
    return rows.get(organization=organization)


def account_shown(organization: Organization) -> Account:
    """The account as a page shows it: read once for all parts of a page, by this object of the organization.

    Only for pages that change nothing.
    """
    known: Account | None = getattr(organization, "_account_shown", None)
    if known is None:
        known = account_of(organization)
        organization._account_shown = known  # type: ignore[attr-defined]
    return known


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
class ModelSpend:
    """Spend of one model on a day; the name is empty where it was booked before models were."""

    model: str
    requests: int
    cost_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DaySpend:
    """Spend of a UTC day, by model, the dearest first."""

    day: date
    models: list[ModelSpend]

    @property
    def requests(self) -> int:
        return sum(each.requests for each in self.models)

    @property
    def cost_nanos(self) -> int:
        return sum(each.cost_nanos for each in self.models)


def spend_by_day(organization: Organization, first: date, last: date) -> list[DaySpend]:
    """Spend of each UTC day from `first` to `last` on which there was any, the newest first.

    As statements have it: by the day of booking.
    """
    rows = ModelSpendDaily.objects.filter(organization=organization, day__gte=first, day__lte=last)
    sums = rows.values_list("day", "model").annotate(Sum("requests"), Sum("cost_nanos")).order_by("-day")
    days: dict[date, list[ModelSpend]] = {}
    for day, model, requests, cost_nanos in sums:
        spent = ModelSpend(model=model, requests=int(requests), cost_nanos=int(cost_nanos))
        days.setdefault(day, []).append(spent)
    return [
        DaySpend(day=day, models=sorted(models, key=lambda each: (-each.cost_nanos, each.model)))
        for day, models in days.items()
    ]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TagSpend:
    """Requests and cost of one tag."""

    tag: str
    requests: int
    cost_nanos: int


def spend_by_tag(organization: Organization, first: date, last: date, *, limit: int | None = None) -> list[TagSpend]:
    """Spend by tag that was booked from `first` to `last`, both included, the dearest first."""
    rows = (
        TagSpendDaily.objects.filter(organization=organization, day__gte=first, day__lte=last)
        .values_list("tag")
        .annotate(requests=Sum("requests"), cost_nanos=Sum("cost_nanos"))
        .order_by("-cost_nanos", "tag")[:limit]
    )
    return [TagSpend(tag=tag, requests=int(requests), cost_nanos=int(nanos)) for tag, requests, nanos in rows]


OTHER_TAGS = "*"  # no tag has this form


@dataclass(frozen=True, slots=True, kw_only=True)
class TagDay:
    """Requests and cost of one tag on one day of use (UTC)."""

    day: date
    tag: str
    requests: int
    cost_nanos: int


def spend_by_tag_and_day(
    organization: Organization, first: date, last: date, *, tag: str | None = None, most: int
) -> list[TagDay]:
    """Spend by tag and day of use, from `first` to `last`, both included, of one tag or of all.

    The `most` dearest tags of the whole span come by name, the rest of each day together as OTHER_TAGS: callers may
    make up a tag for every call.
    """
    # Nothing is booked before the day of its use; the index has the day of booking.
    rows = TagSpendDaily.objects.filter(
        organization=organization, day__gte=first, usage_day__gte=first, usage_day__lte=last
    )
    if tag is not None:
        rows = rows.filter(tag=tag)
    dearest = rows.values_list("tag").annotate(nanos=Sum("cost_nanos")).order_by("-nanos", "tag")
    named = [name for name, _nanos in dearest[: most + 1]]
    name: Case | F = F("tag")
    if len(named) > most:
        name = Case(When(tag__in=named[:most], then=F("tag")), default=Value(OTHER_TAGS, TextField()))
    sums = (
        rows.annotate(name=name)
        .values_list("usage_day", "name")
        .annotate(requests=Sum("requests"), cost_nanos=Sum("cost_nanos"))
        .order_by("usage_day", "name")
    )
    return [TagDay(day=day, tag=name, requests=int(n), cost_nanos=int(nanos)) for day, name, n, nanos in sums]


def tag_budgets_of(organization: Organization) -> QuerySet[TagBudget]:
    """Budgets of the organization's tags, by tag."""
    return _tag_budgets().filter(organization=organization)


def hard_tag_budgets(ids: Collection[UUID]) -> QuerySet[TagBudget]:
    """Hard budgets of the tags of several organizations, by tag."""
    return _tag_budgets().filter(organization_id__in=ids, is_hard=True)


def _tag_budgets() -> QuerySet[TagBudget]:
    has_any = Q(budget_day_nanos__isnull=False) | Q(budget_month_nanos__isnull=False)
    return TagBudget.objects.filter(has_any).order_by("tag")


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedTag:
    """A tag's budget, with what is used of its windows."""

    budget: TagBudget
    used_today_nanos: int
    used_this_month_nanos: int
    windows: tuple[Watched, ...]
    # With its raises, if any.
    day_limit_nanos: int | None
    month_limit_nanos: int | None

    @property
    def percent(self) -> int:
        """Used part of the window of which most is used."""
        return max(each.percent for each in self.windows)


def watched_tags(budgets: Iterable[TagBudget], today: date) -> list[WatchedTag]:
    """Budgets of tags with what is used of them."""
    budgets = list(budgets)
    totals = tag_totals([each.pk for each in budgets], (today - _EPOCH).days) if budgets else {}
    raises = {each: raises_of(each, now()) for each in {budget.organization_id for budget in budgets}}
    found = []
    for budget in budgets:
        used, raised = totals.get(budget.pk, ScopeTotals()), raises[budget.organization_id]
        day_limit_nanos = raised.of(budget.budget_day_nanos, DAY, tag_budget_id=budget.pk)
        month_limit_nanos = raised.of(budget.budget_month_nanos, MONTH, tag_budget_id=budget.pk)
        windows = watched_budgets(
            day_nanos=day_limit_nanos,
            month_nanos=month_limit_nanos,
            used_today=used.day_nanos,
            used_this_month=used.month_nanos,
            today=today,
        )
        if windows:
            found.append(
                WatchedTag(
                    budget=budget,
                    used_today_nanos=used.day_nanos,
                    used_this_month_nanos=used.month_nanos,
                    windows=tuple(windows),
                    day_limit_nanos=day_limit_nanos,
                    month_limit_nanos=month_limit_nanos,
                )
            )
    return found


def ledger_of(
    organization: Organization, *, before: int | None, limit: int, with_usage: bool = True
) -> list[LedgerEntry]:
    """The newest entries older than entry `before`; without usage, those of credits and payments."""
    entries = LedgerEntry.objects.filter(organization=organization)
    if not with_usage:
        entries = entries.filter(request_id=None)
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


def saved_card_of(organization: Organization) -> SavedCard | None:
    """The card that the organization has saved; None: it has none."""
    return SavedCard.objects.filter(organization=organization).exclude(method_id="").first()


def order_of(organization: Organization, code: str) -> Order | None:
    """An order of the organization; None if it has none with this code."""
    return Order.objects.select_related("plan").filter(organization=organization, code=code).first()


def open_orders(organization: Organization) -> list[Order]:
    """Open orders of the organization, newest first."""
    rows = Order.objects.select_related("plan").filter(organization=organization, state=Order.State.OPEN)
    return list(rows.order_by("-created_at", "-pk"))
