"""Revenue by month and debts, as operators see them."""

from datetime import UTC, datetime

import pytest
from django.test import Client

from accounts.models import Organization
from accounts.tests.factories import a_user
from billing.ledger import post_credit
from billing.models import Account, LedgerEntry, Order, Plan
from billing.payments.orders import open_order, settle_order
from billing.revenue import debts, revenue_by_month
from billing.tests.factories import an_organization
from codexflow.lib.money import NANOS_PER_USD

pytestmark = pytest.mark.django_db
USD = NANOS_PER_USD
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.fixture
def organization() -> Organization:
    return an_organization(plan="free")


def paid(organization: Organization, settled_at: datetime, *, usd: int = 0, provider: str = "manual") -> Order:
    plan = None if usd else Plan.objects.get(slug="pro")
    order = open_order(organization, provider=provider, amount_nanos=usd * USD, plan=plan, is_renewal=True)
    settle_order(order, payment_reference=f"transfer {order.code}")
    Order.objects.filter(pk=order.pk).update(settled_at=settled_at)
    return order


def test_paid_orders_are_summed_by_month_plan_and_provider(organization: Organization) -> None:
    paid(organization, NOW, usd=25)
    paid(organization, NOW, usd=10)
    paid(organization, NOW, usd=7, provider="stripe")
    paid(organization, datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC))
    paid(organization, datetime(2025, 11, 30, 23, 59, 59, tzinfo=UTC), usd=99)  # over a year ago
    open_order(organization, provider="manual", amount_nanos=50 * USD)
    november, october = revenue_by_month(NOW)
    assert [(each.plan, each.provider, each.orders, each.amount_nanos) for each in november.rows] == [
        ("", "manual", 2, 35 * USD),
        ("", "stripe", 1, 7 * USD),
    ]
    assert [(each.plan, each.amount_nanos) for each in october.rows] == [("Pro", 49 * USD)]
    assert (november.month, november.amount_nanos) == (datetime(2026, 11, 1, tzinfo=UTC), 42 * USD)


def test_what_is_taken_back_lowers_its_month(organization: Organization) -> None:
    at = datetime.now(UTC)
    paid(organization, at, usd=25)
    post_credit(organization, -5 * USD, kind=LedgerEntry.Kind.REFUND, reference="refund 1")
    post_credit(organization, -20 * USD, kind=LedgerEntry.Kind.DISPUTE, reference="dispute 1")
    post_credit(organization, 20 * USD, kind=LedgerEntry.Kind.DISPUTE, reference="dispute 1 won")
    (month,) = revenue_by_month(at)
    assert (month.taken_back_nanos, month.left_nanos) == (5 * USD, 20 * USD)


def test_debts_are_listed_the_largest_first(organization: Organization) -> None:
    other = an_organization(plan="free")
    for owing, nanos in ((organization, 3 * USD), (other, 7 * USD)):
        post_credit(owing, -nanos - Account.objects.get(pk=owing.pk).balance_nanos,
                    kind=LedgerEntry.Kind.ADJUSTMENT, reference="owes")  # fmt: skip
    an_organization(plan="free")
    assert [(each.pk, each.debt_nanos) for each in debts()] == [(other.pk, 7 * USD), (organization.pk, 3 * USD)]


def test_the_operators_page_shows_revenue_and_debts(organization: Organization, client: Client) -> None:
    paid(organization, datetime.now(UTC), usd=25)
    balance = Account.objects.get(pk=organization.pk).balance_nanos
    post_credit(organization, -balance - 3 * USD, kind=LedgerEntry.Kind.ADJUSTMENT, reference="owes")
    client.force_login(a_user(role="SUPER_ADMIN"))
    text = client.get("/ops/billing/order/").content.decode()
    assert "$25.00" in text
    assert "$3.00" in text
    assert organization.name in text
