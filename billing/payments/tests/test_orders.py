"""Orders: placed, cancelled, and settled once."""

from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import pytest
from django.db import connections
from hypothesis import given
from hypothesis import strategies as st

from accounts.models import AuditEntry, Organization
from accounts.signals import access_changed
from accounts.tests.factories import a_user
from billing.ledger import expire_credit
from billing.ledger_audit import audit_ledger
from billing.models import Account, CreditSource, LedgerEntry, Order, Plan
from billing.payments.orders import OrderRefused, cancel_order, open_order, settle_order
from billing.plans import months_after, period_end
from billing.selectors import account_of
from billing.services import book_by_hand, limits_of
from billing.sources import SETTLES_WITHIN
from billing.subscriptions import advance_plans
from billing.tests.factories import an_organization
from codexflow.lib.clock import now
from codexflow.lib.ids import TYPED_LETTERS
from codexflow.lib.money import NANOS_PER_USD

pytestmark = pytest.mark.django_db
USD = NANOS_PER_USD


@pytest.fixture
def organization() -> Organization:
    return an_organization(plan="free")


def a_top_up(organization: Organization, amount_nanos: int = 25 * USD) -> Order:
    return open_order(organization, provider="manual", amount_nanos=amount_nanos)


def a_plan_order(organization: Organization, slug: str = "pro") -> Order:
    return open_order(organization, provider="manual", plan=Plan.objects.get(slug=slug))


def booked(order: Order) -> int:
    return LedgerEntry.objects.filter(reference=f"order:{order.code}").count()


def test_a_placed_order_books_nothing(organization: Organization) -> None:
    before = account_of(organization)
    order = open_order(organization, provider="manual", amount_nanos=25 * USD, actor=(ada := a_user()))
    assert (order.kind, order.state, order.amount_nanos, order.credit_nanos) == ("top_up", "open", 25 * USD, 25 * USD)
    assert (order.currency, order.payment_reference, order.ledger_entry) == ("USD", "", None)
    assert len(order.code) == 8
    assert set(order.code) <= set(TYPED_LETTERS)
    assert account_of(organization).credit_nanos == before.credit_nanos
    entry = AuditEntry.objects.get(action="order.opened")
    assert (entry.actor, entry.organization, entry.facts["code"]) == (ada, organization, order.code)


def test_a_paid_top_up_is_paid_credit_that_stays(organization: Organization) -> None:
    before = account_of(organization)
    order = settle_order(a_top_up(organization), payment_reference="transfer 4711", reason="Statement 7")
    account = account_of(organization)
    assert (order.state, order.payment_reference, order.settled_at is not None) == ("paid", "transfer 4711", True)
    assert account.balance_nanos == before.balance_nanos + 25 * USD
    assert account.plan == before.plan
    assert order.ledger_entry is not None
    assert (order.ledger_entry.kind, order.ledger_entry.reference) == ("top_up", f"order:{order.code}")
    source = CreditSource.objects.order_by("-pk")[0]
    assert (source.kind, source.remaining_nanos, source.expires_at) == ("paid", 25 * USD, None)
    facts = AuditEntry.objects.get(action="order.paid").facts
    assert (facts["reason"], facts["payment_reference"]) == ("Statement 7", "transfer 4711")
    assert facts["balance_after_nanos"] - facts["balance_before_nanos"] == 25 * USD
    assert audit_ledger() == []


def test_a_paid_plan_is_in_force_and_its_credit_expires_in_a_month(organization: Organization) -> None:
    before = account_of(organization)
    order = settle_order(a_plan_order(organization), payment_reference="transfer 1")
    account = account_of(organization)
    assert account.plan.slug == "pro"
    assert (order.amount_nanos, account.balance_nanos) == (49 * USD, before.balance_nanos + 45 * USD)
    source = CreditSource.objects.order_by("-pk")[0]
    assert order.settled_at is not None
    assert (source.kind, source.expires_at) == ("plan", months_after(order.settled_at, 1))
    assert account.plan_ends_at == source.expires_at
    facts = AuditEntry.objects.get(action="order.paid").facts
    assert (facts["plan_before"], facts["plan_after"]) == ("free", "pro")
    assert audit_ledger() == []


def test_a_plan_is_sold_as_it_was_ordered(organization: Organization) -> None:
    order = a_plan_order(organization)
    Plan.objects.filter(slug="pro").update(price_month_nanos=99 * USD, included_credit_nanos=1 * USD, is_public=False)
    settle_order(order, payment_reference="transfer 1")
    assert CreditSource.objects.order_by("-pk")[0].granted_nanos == 45 * USD


def test_a_plan_without_credit_books_nothing(organization: Organization) -> None:
    Plan.objects.filter(slug="pro").update(included_credit_nanos=0)
    order = settle_order(a_plan_order(organization), payment_reference="transfer 1")
    assert (order.state, order.ledger_entry, booked(order)) == ("paid", None, 0)
    assert account_of(organization).plan.slug == "pro"
    assert audit_ledger() == []


@pytest.mark.parametrize(
    "amount_nanos", [0, -25 * USD, 5 * USD - USD // 100, 10_000 * USD + USD // 100, 10 * USD + 1, 5 * USD + USD // 1000]
)
def test_amounts_are_whole_cents_within_bounds(organization: Organization, amount_nanos: int) -> None:
    with pytest.raises(OrderRefused, match=r"\$5 to \$10,000"):
        a_top_up(organization, amount_nanos)
    assert not Order.objects.exists()


@pytest.mark.parametrize("amount_nanos", [5 * USD, 5 * USD + USD // 100, 10_000 * USD])
def test_the_bounds_themselves_are_sold(organization: Organization, amount_nanos: int) -> None:
    assert a_top_up(organization, amount_nanos).amount_nanos == amount_nanos


@pytest.mark.parametrize("slug", ["free", "internal"])
def test_plans_that_are_free_or_not_public_are_not_sold(organization: Organization, slug: str) -> None:
    with pytest.raises(OrderRefused, match="not for sale"):
        a_plan_order(organization, slug)


def test_five_orders_may_be_open(organization: Organization) -> None:
    orders = [a_top_up(organization) for _ in range(5)]
    with pytest.raises(OrderRefused, match="five open orders"):
        a_top_up(organization)
    a_top_up(an_organization())
    cancel_order(orders[0])
    settle_order(orders[1], payment_reference="transfer 1")
    assert [a_top_up(organization).state, a_top_up(organization).state] == ["open", "open"]


def test_a_payment_that_is_reported_again_books_nothing_more(organization: Organization) -> None:
    order = a_top_up(organization)
    first = settle_order(order, payment_reference="pi_1")
    again = settle_order(order, payment_reference="pi_1")
    assert (again.pk, again.settled_at) == (first.pk, first.settled_at)
    assert booked(order) == 1
    assert AuditEntry.objects.filter(action="order.paid").count() == 1


def test_another_payment_of_a_paid_order_is_refused(organization: Organization) -> None:
    order = settle_order(a_top_up(organization), payment_reference="pi_1")
    with pytest.raises(OrderRefused, match="already paid by payment pi_1"):
        settle_order(order, payment_reference="pi_2")
    with pytest.raises(OrderRefused, match="is paid"):
        cancel_order(order)
    assert booked(order) == 1


def test_a_payment_settles_one_order(organization: Organization) -> None:
    settle_order(a_top_up(organization), payment_reference="pi_1")
    for other in (a_top_up(organization), a_top_up(an_organization())):
        with pytest.raises(OrderRefused, match="booked already"):
            settle_order(other, payment_reference="pi_1")
        assert booked(other) == 0


def test_a_payment_that_was_booked_by_hand_settles_no_order(organization: Organization) -> None:
    book_by_hand(organization, USD, kind=LedgerEntry.Kind.TOP_UP, reason="Transfer", reference="transfer 4711")
    with pytest.raises(OrderRefused, match="booked already"):
        settle_order(a_top_up(organization), payment_reference="transfer 4711")


def test_a_cancelled_order_is_not_settled(organization: Organization) -> None:
    order = cancel_order(a_top_up(organization))
    assert cancel_order(order).state == "cancelled"
    assert AuditEntry.objects.filter(action="order.cancelled").count() == 1
    with pytest.raises(OrderRefused, match="cancelled"):
        settle_order(order, payment_reference="pi_1")
    assert booked(order) == 0


def test_gateways_are_told_once_it_is_committed(
    organization: Organization, django_capture_on_commit_callbacks: Any
) -> None:
    told = []

    def listen(**facts: Any) -> None:
        told.append(facts["sender"])

    access_changed.connect(listen)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            settle_order(a_plan_order(organization), payment_reference="pi_1")
            assert not told
    finally:
        access_changed.disconnect(listen)
    assert told == [Account]


@pytest.mark.django_db(transaction=True)
def test_of_twenty_at_once_one_books() -> None:
    organization = an_organization(plan="free")
    order = a_top_up(organization)
    outcomes: list[str] = []

    def settle(number: int) -> None:
        try:
            outcomes.append(settle_order(order, payment_reference=f"pi_{number % 4}").state)
        except OrderRefused:
            outcomes.append("refused")
        finally:
            connections.close_all()

    at_once([lambda number=number: settle(number) for number in range(20)])
    assert (outcomes.count("paid"), outcomes.count("refused")) == (5, 15)
    assert booked(order) == 1
    assert AuditEntry.objects.filter(action="order.paid").count() == 1
    assert audit_ledger() == []


@pytest.mark.django_db(transaction=True)
def test_of_twenty_at_once_five_are_placed() -> None:
    organization = an_organization(plan="free")

    def place() -> None:
        try:
            a_top_up(organization)
        except OrderRefused:
            pass
        finally:
            connections.close_all()

    at_once([place] * 20)
    assert Order.objects.filter(organization=organization, state="open").count() == 5


def at_once(calls: list[Any]) -> None:
    threads = [Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    ("day", "month_later"),
    [
        ("2026-11-28", "2026-12-28"),
        ("2026-12-31", "2027-01-31"),
        ("2026-01-31", "2026-02-28"),
        ("2028-01-31", "2028-02-29"),
        ("2028-01-30", "2028-02-29"),
        ("2100-01-29", "2100-02-28"),
        ("2028-02-29", "2028-03-29"),
        ("2026-03-31", "2026-04-30"),
        ("2026-02-28", "2026-03-28"),
    ],
)
def test_a_month_later_is_the_same_day_or_the_last(day: str, month_later: str) -> None:
    at = datetime.fromisoformat(f"{day}T23:59:59.5+00:00")
    assert months_after(at, 1) == datetime.fromisoformat(f"{month_later}T23:59:59.5+00:00")


def test_a_month_has_28_to_31_days() -> None:
    at = datetime(2027, 1, 1, 12, tzinfo=UTC)
    for days in range(800):
        start = at + timedelta(days=days)
        assert timedelta(days=28) <= months_after(start, 1) - start <= timedelta(days=31)
        assert months_after(start + timedelta(days=1), 1) >= months_after(start, 1)


@given(after=st.timedeltas(timedelta(0), timedelta(days=30_000)), months=st.integers(0, 60))
def test_periods_begin_on_the_day_of_the_anchor_and_leave_no_gap(after: timedelta, months: int) -> None:
    """MON-22: the 31st stays the 31st after a short month, and each period ends where the next begins."""
    begins = anchor = datetime(2000, 1, 1, tzinfo=UTC) + after
    for month in range(1, months + 1):
        end = period_end(anchor, begins)
        assert end == months_after(anchor, month)
        assert timedelta(days=28) <= end - begins <= timedelta(days=31)
        begins = end


def pay_for_pro(organization: Organization, payment: str) -> Account:
    settle_order(a_plan_order(organization), payment_reference=payment)
    return account_of(organization)


def test_a_plan_that_is_over_gives_way_to_the_free_one_once(organization: Organization) -> None:
    """MON-26: nobody stays in a plan that is not paid any more."""
    account = pay_for_pro(organization, "transfer 1")
    assert account.plan_ends_at is not None
    assert advance_plans(account.plan_ends_at - timedelta(seconds=1)) == 0
    assert account_of(organization).plan.slug == "pro"
    assert (advance_plans(account.plan_ends_at), advance_plans(account.plan_ends_at)) == (1, 0)
    after = account_of(organization)
    assert (after.plan.slug, after.plan_ends_at) == ("free", None)
    assert limits_of(after).rpm == after.plan.rpm
    assert AuditEntry.objects.get(action="account.plan_ended").facts["plan"] == "pro"
    # Credit that was paid for stays; the plan's own has expired.
    assert expire_credit(account.plan_ends_at + SETTLES_WITHIN) == 1
    assert audit_ledger() == []


def test_a_plan_that_an_operator_gave_has_no_end_and_gets_none(organization: Organization) -> None:
    Account.objects.filter(pk=organization.pk).update(plan=Plan.objects.get(slug="pro"))
    account = pay_for_pro(organization, "transfer 1")
    assert (account.plan.slug, account.plan_ends_at) == ("pro", None)
    assert CreditSource.objects.order_by("-pk")[0].expires_at is not None
    assert advance_plans(now() + timedelta(days=400)) == 0
