"""Revenue by month and debts, for operators."""

from dataclasses import dataclass
from datetime import UTC, datetime

from django.db.models import Count, F, Sum
from django.db.models.functions import TruncMonth

from billing.models import Account, LedgerEntry, Order
from billing.payments.provider import offered
from billing.plans import months_after

MONTHS = 12
SHOWN_DEBTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Revenue:
    """Paid orders of a month (UTC) of one kind by one provider, in nano-USD. `plan` is empty for credit."""

    month: datetime
    plan: str
    provider: str
    orders: int
    amount_nanos: int

    @property
    def paid_by(self) -> str:
        """Label of the provider, as customers choose it; the name of one that is no longer configured."""
        return next((str(each.label) for each in offered() if each.name == self.provider), self.provider)


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """A month's revenue. `taken_back_nanos` is what refunds and disputes took out of credit, of whatever month."""

    month: datetime
    rows: tuple[Revenue, ...]
    taken_back_nanos: int

    @property
    def amount_nanos(self) -> int:
        return sum(each.amount_nanos for each in self.rows)

    @property
    def left_nanos(self) -> int:
        return self.amount_nanos - self.taken_back_nanos


def revenue_by_month(at: datetime) -> list[Month]:
    """Revenue of the last twelve months, the newest first; months without any are left out."""
    since = months_after(at.replace(day=1, hour=0, minute=0, second=0, microsecond=0), 1 - MONTHS)
    paid = (
        Order.objects.filter(state=Order.State.PAID, settled_at__gte=since)
        .values("provider", "plan__name", month=TruncMonth("settled_at", tzinfo=UTC))
        .annotate(orders=Count("pk"), amount=Sum("amount_nanos"))
        .order_by("-amount")
    )
    back = (
        LedgerEntry.objects.filter(
            kind__in=(LedgerEntry.Kind.REFUND, LedgerEntry.Kind.DISPUTE), request_id=None, created_at__gte=since
        )
        .values(month=TruncMonth("created_at", tzinfo=UTC))
        .annotate(amount=Sum("amount_nanos"))
        .order_by()
    )
    rows: dict[datetime, list[Revenue]] = {}
    for each in paid:
        found = Revenue(
            month=each["month"],
            plan=each["plan__name"] or "",
            provider=each["provider"],
            orders=each["orders"],
            amount_nanos=int(each["amount"]),
        )
        rows.setdefault(found.month, []).append(found)
    taken = {each["month"]: -int(each["amount"]) for each in back}
    return [
        Month(month=month, rows=tuple(rows.get(month, ())), taken_back_nanos=taken.get(month, 0))
        for month in sorted({*rows, *taken}, reverse=True)
    ]


def debts() -> list[Account]:
    """Accounts that have used more than their credit, the largest debts first."""
    owing = Account.objects.filter(spent_nanos__gt=F("credit_nanos")).select_related("organization", "plan")
    return list(owing.order_by(F("credit_nanos") - F("spent_nanos"))[:SHOWN_DEBTS])
