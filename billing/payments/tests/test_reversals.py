"""The whole life of a payment: refunds, disputes, and what they do to the credit that it bought."""

import random
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from accounts.models import AuditEntry, Organization, User
from accounts.tests.factories import a_user
from billing import tasks
from billing.ledger import expire_credit, post_credit
from billing.ledger_audit import audit_ledger
from billing.models import Account, LedgerEntry, Order, PaymentEvent, Plan, Refund
from billing.payments.booking import apply
from billing.payments.orders import cancel_order, open_order, settle_order
from billing.payments.payment import change_of_taken, taken_nanos
from billing.payments.provider import provider_of
from billing.payments.refunds import KEY_LASTS, RefundRefused, carry_out_due, refundable_nanos, request_refund
from billing.payments.tests.conftest import Card
from billing.payments.tests.test_orders import at_once
from billing.selectors import account_of
from billing.services import limits_of
from billing.sources import SETTLES_WITHIN
from billing.tests.factories import an_organization
from codexflow.lib.clock import now
from codexflow.lib.ids import random_id
from codexflow.lib.money import NANOS_PER_USD

pytestmark = pytest.mark.django_db
USD, CENT = NANOS_PER_USD, NANOS_PER_USD // 100


@pytest.fixture
def organization() -> Organization:
    return an_organization(plan="free")


def paid_by_card(card: Card, organization: Organization, usd: int = 25) -> Order:
    order = open_order(organization, provider="stripe", amount_nanos=usd * USD)
    card.pay(order)
    card.deliver()
    order.refresh_from_db()
    assert order.state == "paid"
    return order


def paid_by_transfer(organization: Organization, usd: int = 25) -> Order:
    order = open_order(organization, provider="manual", amount_nanos=usd * USD)
    return settle_order(order, payment_reference=f"transfer {order.code}")


def refund(card: Card, order: Order, cents: int) -> str:
    """Give money back in Stripe's dashboard."""
    given = {"payment_intent": order.payment_reference, "amount": str(cents)}
    return str(card.state.create_refund(given)["id"])


def reversals(order: Order) -> list[tuple[str, int]]:
    entries = LedgerEntry.objects.filter(reference__startswith=f"order:{order.code}:").order_by("pk")
    return [(entry.kind, entry.amount_nanos // CENT) for entry in entries]


def balance(organization: Organization) -> int:
    return account_of(organization).balance_nanos


def spend(organization: Organization, usd: int) -> None:
    post_credit(organization, -usd * USD, kind=LedgerEntry.Kind.ADJUSTMENT, reference=str(random_id()))


def test_the_whole_life_of_a_payment(card: Card, organization: Organization) -> None:
    before = balance(organization)
    order = paid_by_card(card, organization)
    assert balance(organization) == before + 25 * USD
    for cents in (300, 200):
        refund(card, order, cents)
        card.deliver()
    assert (balance(organization), reversals(order)) == (before + 20 * USD, [("refund", -300), ("refund", -200)])
    dispute = card.state.open_dispute(order.payment_reference, 1500)
    card.deliver()
    assert (balance(organization), reversals(order)[2:]) == (before + 5 * USD, [("dispute", -1500)])
    card.state.close_dispute(dispute["id"], is_won=True)
    card.deliver()
    assert (balance(organization), reversals(order)[3:]) == (before + 20 * USD, [("dispute", 1500)])
    lost = card.state.open_dispute(order.payment_reference, 2000)
    card.state.close_dispute(lost["id"], is_won=False)
    card.deliver(times=2)
    assert (balance(organization), reversals(order)[4:]) == (before, [("dispute", -2000)])
    order.refresh_from_db()
    assert (order.refunded_nanos, order.disputed_nanos, refundable_nanos(order)) == (5 * USD, 20 * USD, 0)
    assert set(PaymentEvent.objects.values_list("state", flat=True)) == {"done"}
    assert audit_ledger() == []


def test_a_refund_on_top_of_a_dispute_takes_nothing_twice(card: Card, organization: Organization) -> None:
    before = balance(organization)
    order = paid_by_card(card, organization)
    dispute = card.state.open_dispute(order.payment_reference, 2400)
    refund(card, order, 500)
    card.deliver()
    assert balance(organization) == before
    assert sum(cents for _, cents in reversals(order)) == -2500
    card.state.close_dispute(dispute["id"], is_won=True)
    card.deliver()
    assert balance(organization) == before + 20 * USD
    assert audit_ledger() == []


def test_an_inquiry_takes_nothing_before_it_becomes_a_chargeback(card: Card, organization: Organization) -> None:
    before = balance(organization)
    order = paid_by_card(card, organization)
    inquiry = card.state.open_dispute(order.payment_reference, is_inquiry=True)
    card.deliver()
    assert (balance(organization), reversals(order)) == (before + 25 * USD, [])
    card.state.close_dispute(inquiry["id"], is_won=False)
    card.deliver()
    assert balance(organization) == before


def test_a_refund_that_fails_gives_the_credit_again(card: Card, organization: Organization) -> None:
    order = paid_by_card(card, organization)
    failed = refund(card, order, 1000)
    card.deliver()
    card.state.fail_refund(failed)
    card.deliver()
    assert reversals(order) == [("refund", -1000), ("refund", 1000)]
    order.refresh_from_db()
    assert refundable_nanos(order) == 25 * USD
    assert audit_ledger() == []


@pytest.mark.parametrize("seed", range(4))
def test_events_of_a_payment_in_any_order_end_the_same(card: Card, organization: Organization, seed: int) -> None:
    before = balance(organization)
    order = open_order(organization, provider="stripe", amount_nanos=25 * USD)
    payment = card.pay(order)
    order.payment_reference = payment
    refund(card, order, 300)
    dispute = card.state.open_dispute(payment, 700)
    card.state.close_dispute(dispute["id"], is_won=bool(seed % 2))
    refund(card, order, 200)
    card.running.server.settle()
    everything = list(card.deliveries.waiting)
    for event in random.Random(seed).sample(everything, len(everything)):  # noqa: S311
        card.deliveries.waiting = [event]
        card.deliver(times=2)
    assert balance(organization) == before + (20 if seed % 2 else 13) * USD
    assert audit_ledger() == []


def test_a_reading_that_is_older_than_the_last_one_is_passed_over(card: Card, organization: Organization) -> None:
    before = balance(organization)
    order = paid_by_card(card, organization)
    provider: Any = provider_of("stripe")
    old = provider.payment(order.payment_reference)
    refund(card, order, 1000)
    card.deliver()
    apply(old, provider)
    assert (balance(organization), reversals(order)) == (before + 15 * USD, [("refund", -1000)])


def test_a_payment_that_was_given_back_before_it_was_booked_buys_nothing(
    card: Card, organization: Organization
) -> None:
    order = open_order(organization, provider="stripe", plan=Plan.objects.get(slug="pro"))
    order.payment_reference = card.pay(order)
    refund(card, order, 4900)
    card.deliver()
    order.refresh_from_db()
    assert (order.state, account_of(organization).plan.slug, order.checkout_id) == ("open", "free", "")
    card.pay(order)
    card.deliver()
    assert (account_of(organization).plan.slug, card.heal()) == ("pro", 0)


def test_lost_events_of_refunds_and_disputes_are_healed(card: Card, organization: Organization) -> None:
    before = balance(organization)
    orders = [paid_by_card(card, organization, 10) for _ in range(2)]
    refund(card, orders[0], 400)
    card.state.open_dispute(orders[1].payment_reference)
    assert card.lose() > 2
    for _ in range(2):
        card.heal()
        card.deliver()
    assert balance(organization) == before + 6 * USD
    assert audit_ledger() == []


def test_credit_that_is_spent_becomes_debt_which_stops_the_next_request(
    card: Card, client: Client, organization: Organization
) -> None:
    order = paid_by_card(card, organization)
    spend(organization, 20)
    card.state.open_dispute(order.payment_reference)
    card.deliver()
    account = account_of(organization)
    assert account.balance_nanos < 0
    assert limits_of(account).total_budget_nanos == 0
    client.force_login(organization.memberships.get().user)
    shown = client.get(f"/o/{organization.slug}/billing/").content.decode()
    assert "Debt" in shown
    assert "Disputed" in client.get(f"/o/{organization.slug}/billing/orders/{order.code}/").content.decode()
    paid_by_card(card, organization, 30)
    assert balance(organization) > 0
    assert audit_ledger() == []


def test_credit_that_paid_off_debt_is_debt_again_when_it_is_taken_back(card: Card, organization: Organization) -> None:
    spend(organization, 40)
    before = balance(organization)
    order = paid_by_card(card, organization)
    refund(card, order, 2500)
    card.deliver()
    assert balance(organization) == before
    assert audit_ledger() == []


def test_a_won_dispute_revives_no_credit_that_has_expired(card: Card, organization: Organization) -> None:
    order = open_order(organization, provider="stripe", plan=Plan.objects.get(slug="pro"))
    card.pay(order)
    card.deliver()
    order.refresh_from_db()
    dispute = card.state.open_dispute(order.payment_reference)
    card.deliver()
    ends_at = account_of(organization).plan_ends_at
    assert ends_at is not None
    over = ends_at + SETTLES_WITHIN + timedelta(minutes=1)
    expire_credit(over)
    before = balance(organization)
    card.state.close_dispute(dispute["id"], is_won=True)
    card.deliver()
    assert balance(organization) == before + 45 * USD
    expire_credit(over)
    assert balance(organization) == before
    assert audit_ledger() == []


def test_credit_that_has_expired_is_not_taken_a_second_time(card: Card, organization: Organization) -> None:
    order = open_order(organization, provider="stripe", plan=Plan.objects.get(slug="pro"))
    card.pay(order)
    card.deliver()
    order.refresh_from_db()
    before = balance(organization)
    spend(organization, 10)
    ends_at = account_of(organization).plan_ends_at
    assert ends_at is not None
    over = ends_at + SETTLES_WITHIN + timedelta(minutes=1)
    expire_credit(over)
    expired = before - 10 * USD - balance(organization)
    assert expired == 35 * USD
    dispute = card.state.open_dispute(order.payment_reference)
    card.deliver()
    assert balance(organization) == before - 45 * USD - 10 * USD  # what was spent, and nothing more
    card.state.close_dispute(dispute["id"], is_won=True)
    card.deliver()
    expire_credit(over)
    assert balance(organization) == before - 45 * USD
    assert audit_ledger() == []


def test_half_of_a_plans_price_takes_half_of_its_credit(card: Card, organization: Organization) -> None:
    before = balance(organization)
    order = open_order(organization, provider="stripe", plan=Plan.objects.get(slug="pro"))
    card.pay(order)
    card.deliver()
    order.refresh_from_db()
    refund(card, order, 2450)
    card.deliver()
    assert balance(organization) == before + 45 * USD // 2


@given(
    credit=st.integers(0, 10**13),
    paid=st.integers(1, 10**6),
    steps=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=6),
)
def test_what_is_taken_depends_on_the_sums_only(credit: int, paid: int, steps: list[tuple[int, int]]) -> None:
    known: dict[str, Any] = {"credit_nanos": credit, "paid_nanos": paid}
    taken = 0
    for refunded, disputed in steps:
        after = taken_nanos(**known, refunded_nanos=refunded, disputed_nanos=disputed)
        assert 0 <= after <= credit
        assert (after == credit) or refunded + disputed < paid
        taken += after - taken
    refunded, disputed = steps[-1] if steps else (0, 0)
    assert taken == taken_nanos(**known, refunded_nanos=refunded, disputed_nanos=disputed)
    assert taken_nanos(**known, refunded_nanos=0, disputed_nanos=0) == 0


@given(steps=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=8))
def test_nothing_is_taken_or_given_twice(steps: list[tuple[int, int]]) -> None:
    """Each step: what refunds and disputes take from then on, and how much of the rest expires before that."""
    before = booked = expired = 0
    for after, expires in steps:
        expired += min(expires, 100 - booked - expired)
        booked += change_of_taken(before, after, booked_nanos=booked, expired_nanos=expired)
        before = after
        assert 0 <= booked <= 100
        assert booked + expired >= min(after, 100)
        assert booked <= max(after, 0)


# Refunds by operators


def ask(order: Order, usd: float, key: UUID | None = None) -> Refund:
    nanos = round(usd * 100) * CENT
    return request_refund(order, nanos, key=key or random_id(), reason="Asked for", actor=a_user())


def test_a_refund_by_an_operator_goes_back_to_the_card(card: Card, organization: Organization) -> None:
    before = balance(organization)
    order = paid_by_card(card, organization)
    asked = ask(order, 7.5)
    assert (asked.state, balance(organization)) == ("requested", before + 25 * USD)
    assert tasks.handle_payment_events() == "handled 0, refunded 1"
    asked.refresh_from_db()
    assert (asked.state, asked.reference[:3]) == ("done", "re_")
    assert (balance(organization), reversals(order)) == (before + USD * 35 // 2, [("refund", -750)])
    card.deliver()
    assert reversals(order) == [("refund", -750)]
    assert AuditEntry.objects.get(action="order.refund_requested").facts["reason"] == "Asked for"
    assert AuditEntry.objects.get(action="order.refunded").facts["credit_nanos"] == -750 * CENT
    assert audit_ledger() == []


def test_refunds_never_exceed_the_payment(card: Card, organization: Organization) -> None:
    order = paid_by_card(card, organization)
    ask(order, 20)
    for usd in (5.01, 0, -1):
        with pytest.raises(RefundRefused, match="At most"):
            ask(order, usd)
    with pytest.raises(RefundRefused, match="whole cents"):
        request_refund(order, 1, key=random_id(), reason="Asked for")
    ask(order, 5)
    carry_out_due(now())
    order.refresh_from_db()
    assert (order.refunded_nanos, refundable_nanos(order)) == (25 * USD, 0)
    for other in (open_order(organization, provider="stripe", amount_nanos=25 * USD), order):
        with pytest.raises(RefundRefused):
            ask(other, 1)


def test_a_refund_that_is_asked_for_twice_is_one(card: Card, organization: Organization) -> None:
    order, key = paid_by_card(card, organization), random_id()
    assert ask(order, 5, key).pk == ask(order, 5, key).pk
    carry_out_due(now())
    # As after a worker that died before it could store what came of it.
    Refund.objects.update(state="requested", due_at=now())
    carry_out_due(now())
    card.deliver()
    assert reversals(order) == [("refund", -500)]


def test_a_refund_waits_for_its_provider_but_not_until_its_key_is_forgotten(
    card: Card, organization: Organization
) -> None:
    order = paid_by_card(card, organization)
    waiting = ask(order, 5)
    with card.running.fails():
        assert carry_out_due(now()) == 0
    assert carry_out_due(now()) == 0
    assert carry_out_due(now() + timedelta(seconds=31)) == 1
    late = ask(order, 5)
    Refund.objects.filter(pk=late.pk).update(created_at=now() - KEY_LASTS - timedelta(minutes=1))
    carry_out_due(now())
    assert [(each.state, each.error) for each in Refund.objects.order_by("pk")] == [
        ("done", ""),
        ("failed", "too_late"),
    ]
    assert (waiting.pk, reversals(order)) == (Refund.objects.order_by("pk")[0].pk, [("refund", -500)])


def test_what_the_provider_refuses_is_free_again(card: Card, organization: Organization) -> None:
    order = paid_by_card(card, organization)
    refund(card, order, 2000)
    card.lose()
    ask(order, 10)
    carry_out_due(now())
    refused = Refund.objects.get()
    assert (refused.state, refused.error) == ("failed", "amount_too_large")
    card.heal()
    card.deliver()
    order.refresh_from_db()
    assert refundable_nanos(order) == 5 * USD


def test_a_transfer_that_was_sent_back_is_recorded_at_once(organization: Organization) -> None:
    before = balance(organization)
    order = paid_by_transfer(organization)
    sent = request_refund(order, 10 * USD, key=random_id(), reason="Asked for", reference="transfer 9", actor=a_user())
    assert (sent.state, sent.reference, carry_out_due(now())) == ("done", "transfer 9", 0)
    assert (balance(organization), reversals(order)) == (before + 15 * USD, [("refund", -1000)])
    with pytest.raises(RefundRefused, match=r"At most \$15\.00"):
        ask(order, 15.01)
    assert audit_ledger() == []


@pytest.mark.django_db(transaction=True)
def test_of_many_refunds_at_once_none_exceeds_the_payment() -> None:
    from django.db import connections

    organization = an_organization(plan="free")
    order = paid_by_transfer(organization, 10)
    outcomes: list[Literal["asked", "refused"]] = []

    def ask_for_three() -> None:
        try:
            request_refund(order, 3 * USD, key=random_id(), reason="Asked for")
            outcomes.append("asked")
        except RefundRefused:
            outcomes.append("refused")
        finally:
            connections.close_all()

    at_once([ask_for_three] * 10)
    assert (outcomes.count("asked"), outcomes.count("refused")) == (3, 7)
    assert sum(cents for _, cents in reversals(order)) == -900
    assert audit_ledger() == []


def test_a_cancelled_order_has_nothing_to_give_back(organization: Organization) -> None:
    order = cancel_order(open_order(organization, provider="manual", amount_nanos=10 * USD))
    assert refundable_nanos(order) == 0


@pytest.fixture
def root(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root@example.org"))
    return client


def test_an_operator_sees_what_a_refund_does_before_it_is_made(root: Client, organization: Organization) -> None:
    order = paid_by_transfer(organization)
    where = f"/ops/billing/order/{order.pk}/change/"
    assert 'name="amount_usd"' in root.get(where).content.decode()
    form = {"amount_usd": "10", "reason": "Asked for", "reference": "transfer 9", "key": str(random_id())}
    said = root.post(where, form).content.decode()
    assert "$10.00 of $25.00 are given back, $0.00 were before." in said
    assert "The balance is $25.500000 and will be $15.500000. Tick to confirm." in said
    assert not Refund.objects.exists()
    for _ in range(2):
        root.post(where, form | {"is_confirmed": "on"})
    assert [each.amount_nanos for each in Refund.objects.all()] == [10 * USD]
    assert (
        "At most $15.00" in root.post(where, form | {"amount_usd": "15.01", "key": str(random_id())}).content.decode()
    )
    assert Account.objects.get(pk=organization.pk).balance_nanos == 25 * USD + USD // 2 - 10 * USD


def test_failed_events_are_in_the_inbox_and_can_be_handled_again(
    card: Card, root: Client, organization: Organization
) -> None:
    order = open_order(organization, provider="stripe", amount_nanos=25 * USD)
    card.pay(order)
    Order.objects.filter(pk=order.pk).update(amount_nanos=26 * USD)
    card.deliver()
    inbox = "/ops/billing/paymentevent/"
    assert "amount" in root.get(f"{inbox}?state__exact=failed").content.decode()
    Order.objects.filter(pk=order.pk).update(amount_nanos=25 * USD)
    event = PaymentEvent.objects.get()
    root.post(inbox, {"action": "handle_again", "_selected_action": [str(event.pk)]})
    assert AuditEntry.objects.filter(action="payment_event.retried").count() == 1
    assert tasks.handle_payment_events() == "handled 1, refunded 0"
    order.refresh_from_db()
    assert order.state == "paid"


def test_a_transfer_that_an_operator_records_ends_the_checkout(
    card: Card, root: Client, organization: Organization
) -> None:
    order = open_order(organization, provider="stripe", amount_nanos=25 * USD)
    checkout = card.start(order)
    where = f"/ops/billing/order/{order.pk}/change/"
    form = {"payment_reference": "transfer 7", "reason": "Statement 7"}
    root.post(where, form)
    assert card.state.get("checkout.session", checkout)["status"] == "open"
    root.post(where, form | {"is_confirmed": "on"})
    assert card.state.get("checkout.session", checkout)["status"] == "expired"
    order.refresh_from_db()
    assert (order.state, order.payment_reference) == ("paid", "transfer 7")


def test_a_transfer_is_not_recorded_for_what_was_paid_by_card_meanwhile(
    card: Card, root: Client, organization: Organization
) -> None:
    order = open_order(organization, provider="stripe", amount_nanos=25 * USD)
    payment = card.pay(order)
    form = {"payment_reference": "transfer 7", "reason": "Statement 7", "is_confirmed": "on"}
    root.post(f"/ops/billing/order/{order.pk}/change/", form)
    order.refresh_from_db()
    assert (order.state, order.payment_reference) == ("paid", payment)
