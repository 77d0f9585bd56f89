"""Automatic top-ups: one at a time, within the month's limit, and never by surprise."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core import mail as outbox
from django.db import connections
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from accounts.models import AuditEntry, Organization
from billing import auto_recharge, charge_mails
from billing.auto_recharge import recharge_due
from billing.ledger import post_charges
from billing.ledger_audit import audit_ledger
from billing.models import AutoRecharge, CardCharge, LedgerEntry, Order
from billing.payments import charges
from billing.payments.booking import apply
from billing.payments.cards import remove_card
from billing.payments.orders import open_order, settle_order
from billing.payments.provider import card_provider
from billing.payments.tests.conftest import Card
from billing.payments.tests.test_cards import billing_url, save
from billing.payments.tests.test_charges import intents, states
from billing.payments.tests.test_orders import at_once
from billing.recharge import Rule, month_of
from billing.recharge_rules import RuleRefused, set_rule
from billing.selectors import account_of, paid_credit_nanos
from billing.services import book_by_hand
from billing.tests.factories import an_organization
from billing.tests.test_ledger import a_charge
from codexflow.lib.clock import now
from codexflow.lib.money import NANOS_PER_USD

pytestmark = pytest.mark.django_db
USD = NANOS_PER_USD
amounts = st.integers(1, 200)


@given(
    threshold=amounts,
    more=st.integers(0, 50),
    times=st.integers(1, 5),
    spends=st.lists(st.integers(0, 120), max_size=40),
)
def test_a_rule_never_exceeds_its_month_nor_buys_above_its_threshold(
    threshold: int, more: int, times: int, spends: list[int]
) -> None:
    amount = threshold + more
    rule = Rule(threshold_nanos=threshold, amount_nanos=amount, month_limit_nanos=amount * times + more)
    paid = ordered = 0
    for spend in spends:
        paid -= spend
        while rule.is_due(paid_nanos=paid, ordered_nanos=ordered):
            assert paid < threshold
            ordered += amount
            paid += amount
        assert ordered <= rule.month_limit_nanos
        assert paid >= threshold or ordered + amount > rule.month_limit_nanos


@given(at=st.datetimes(datetime(2025, 1, 1), datetime(2032, 1, 1)))  # noqa: DTZ001 - made aware below
def test_a_month_contains_its_moments(at: datetime) -> None:
    moment = at.replace(tzinfo=UTC)
    first, end = month_of(moment)
    assert first <= moment < end
    assert (first.day, end.day) == (1, 1)
    assert timedelta(days=28) <= end - first <= timedelta(days=31)


@pytest.fixture
def organization() -> Organization:
    return an_organization(plan="free")


def rule_of(threshold: int = 10, amount: int = 25, limit: int = 100) -> Rule:
    return Rule(threshold_nanos=threshold * USD, amount_nanos=amount * USD, month_limit_nanos=limit * USD)


def opted_in(card: Card, organization: Organization, digits: str = "4242", **rule: int) -> None:
    """Buy credit of $20, save a card, and turn automatic top-ups on."""
    order = open_order(organization, provider="stripe", amount_nanos=20 * USD)
    card.pay(order)
    card.deliver()
    save(card, organization, digits)
    set_rule(organization, rule_of(**rule), actor=organization.memberships.get().user)


def spend(organization: Organization, usd: float) -> None:
    post_charges([a_charge(organization.pk, int(usd * USD))])


def drain(organization: Organization) -> None:
    """Spend everything that there is."""
    post_charges([a_charge(organization.pk, account_of(organization).balance_nanos)])


def row() -> AutoRecharge:
    return AutoRecharge.objects.get()


def test_nothing_is_bought_unless_it_was_turned_on(card: Card, organization: Organization) -> None:
    opted_in(card, organization)
    set_rule(organization, None)
    drain(organization)
    assert (recharge_due(now()), intents(card)) == (0, [])


def test_credit_is_bought_once_when_paid_credit_falls_below_the_threshold(
    card: Card, organization: Organization
) -> None:
    opted_in(card, organization)
    assert recharge_due(now()) == 0
    spend(organization, 10.5)  # of it $0.50 is the free plan's
    assert paid_credit_nanos(organization, now()) == 10 * USD
    assert recharge_due(now()) == 0
    spend(organization, 0.01)
    assert (recharge_due(now()), recharge_due(now()), recharge_due(now())) == (1, 0, 0)
    order = Order.objects.get(is_recharge=True)
    assert (order.state, order.amount_nanos) == ("paid", 25 * USD)
    # An entry that adds, never a balance that is set.
    entry = LedgerEntry.objects.get(reference=f"order:{order.code}")
    assert (entry.kind, entry.amount_nanos) == ("top_up", 25 * USD)
    assert paid_credit_nanos(organization, now()) == 35 * USD - USD // 100
    assert len(intents(card)) == 1
    assert audit_ledger() == []


def test_what_others_gave_is_neither_paid_credit_nor_a_reason_to_buy(card: Card, organization: Organization) -> None:
    opted_in(card, organization)
    for kind in (LedgerEntry.Kind.ADJUSTMENT, LedgerEntry.Kind.PROMO):
        book_by_hand(organization, 50 * USD, kind=kind, reason="a gift")
    assert paid_credit_nanos(organization, now()) == 20 * USD
    spend(organization, 50.5)  # the promotion, and what came with the plan
    assert paid_credit_nanos(organization, now()) == 20 * USD
    assert (recharge_due(now()), intents(card)) == (0, [])
    drain(organization)
    assert recharge_due(now()) == 1
    # The operator's part of what is left is not the customer's.
    book_by_hand(organization, 50 * USD, kind=LedgerEntry.Kind.ADJUSTMENT, reason="a gift")
    assert paid_credit_nanos(organization, now()) == 25 * USD


def test_the_months_limit_holds(card: Card, organization: Organization) -> None:
    opted_in(card, organization, limit=60)
    for _ in range(5):
        drain(organization)
        recharge_due(now())
    assert [each["amount_received"] for each in intents(card)] == [2500, 2500]
    assert auto_recharge.ordered_this_month(organization.pk, now()) == 50 * USD
    assert row().is_on
    # The next month has its own.
    _, end = month_of(now())
    assert auto_recharge.ordered_this_month(organization.pk, end) == 0


def test_a_charge_without_a_response_counts_and_nothing_is_bought_beside_it(
    card: Card, organization: Organization
) -> None:
    opted_in(card, organization, limit=40)
    drain(organization)
    with card.running.loses():
        assert recharge_due(now()) == 1
    for _ in range(3):
        assert recharge_due(now()) == 0
    assert auto_recharge.ordered_this_month(organization.pk, now()) == 25 * USD
    assert charges.ask_about_started(now() + charges.ASK_AFTER) == 1
    drain(organization)
    assert recharge_due(now()) == 0
    assert (states(), len(intents(card))) == ([("paid", "")], 1)


def test_a_charge_that_was_never_made_is_made_later(card: Card, organization: Organization) -> None:
    opted_in(card, organization)
    drain(organization)
    with card.running.fails():
        recharge_due(now())
    charges.ask_about_started(now() + charges.KEY_LASTS)
    assert states() == [("failed", "never_made")]
    assert recharge_due(now()) == 1
    assert Order.objects.filter(is_recharge=True).count() == 1
    assert len(intents(card)) == 1


def test_a_replay_of_the_payment_credits_once(card: Card, organization: Organization) -> None:
    opted_in(card, organization)
    drain(organization)
    recharge_due(now())
    before = account_of(organization).balance_nanos
    provider: Any = card_provider()
    for _ in range(3):
        apply(provider.payment(intents(card)[0]["id"]), provider)
        card.heal()
    assert account_of(organization).balance_nanos == before
    assert audit_ledger() == []


@pytest.mark.parametrize(("digits", "reason"), [("0341", "declined"), ("3184", "authentication")])
def test_a_decline_turns_it_off_and_it_stays_off(
    card: Card, organization: Organization, digits: str, reason: str
) -> None:
    opted_in(card, organization, digits)
    drain(organization)
    recharge_due(now())
    assert (row().is_on, row().stopped) == (False, reason)
    for _ in range(3):
        assert recharge_due(now()) == 0
    assert len(intents(card)) == 1
    # Declined for good it is cancelled; what the bank wants to see confirmed can be paid by hand.
    assert Order.objects.get(is_recharge=True).state == ("cancelled" if reason == "declined" else "open")
    outbox.outbox.clear()
    assert (auto_recharge.tell_of_stops(), auto_recharge.tell_of_stops()) == (1, 0)
    assert charge_mails.tell_of_charges(now()) == 0
    assert "are off" in outbox.outbox[0].subject
    save(card, organization, "4444")
    assert recharge_due(now()) == 0
    set_rule(organization, rule_of())
    assert (recharge_due(now()), row().is_on) == (1, True)


def test_every_purchase_is_mailed(card: Card, organization: Organization) -> None:
    opted_in(card, organization)
    drain(organization)
    recharge_due(now())
    outbox.outbox.clear()
    assert charge_mails.tell_of_charges(now()) == 1
    assert "$25.00 was paid by card" in outbox.outbox[0].subject


@pytest.mark.parametrize("what", ["refund", "dispute", "adjustment"])
def test_credit_that_is_taken_back_is_not_bought_again(card: Card, organization: Organization, what: str) -> None:
    opted_in(card, organization)
    payment = Order.objects.get(is_recharge=False).payment_reference
    if what == "adjustment":
        book_by_hand(organization, -15 * USD, kind=LedgerEntry.Kind.ADJUSTMENT, reason="a mistake")
    else:
        if what == "refund":
            card.running.client().v1.refunds.create({"payment_intent": payment})
        else:
            card.state.open_dispute(payment)
        card.deliver()
    assert paid_credit_nanos(organization, now()) < 10 * USD
    assert (recharge_due(now()), intents(card), row().is_on) == (0, [], False)
    assert AuditEntry.objects.filter(action="recharge.stopped").count() == 1


def test_without_a_card_it_is_off(card: Card, organization: Organization) -> None:
    opted_in(card, organization)
    drain(organization)
    remove_card(organization)
    assert (recharge_due(now()), row().stopped, intents(card)) == (0, "no_card", [])


def test_a_deleted_organization_buys_nothing(card: Card, organization: Organization) -> None:
    opted_in(card, organization)
    drain(organization)
    Organization.objects.update(is_active=False)
    assert (recharge_due(now()), intents(card)) == (0, [])


def test_credit_that_came_in_meanwhile_cancels_an_order_that_was_not_charged(
    card: Card, organization: Organization
) -> None:
    opted_in(card, organization)
    drain(organization)
    with card.running.fails():
        recharge_due(now())
    charges.ask_about_started(now() + charges.KEY_LASTS)
    order = open_order(organization, provider="manual", amount_nanos=50 * USD)
    settle_order(order, payment_reference="transfer 1")
    assert recharge_due(now()) == 0
    assert Order.objects.get(is_recharge=True).state == "cancelled"


@pytest.mark.parametrize("rule", [(0, 25, 100), (30, 25, 100), (10, 25, 20)])
def test_a_rule_has_bounds(organization: Organization, rule: tuple[int, int, int]) -> None:
    with pytest.raises(RuleRefused):
        set_rule(organization, rule_of(*rule))


@pytest.mark.django_db(transaction=True)
def test_ten_workers_at_once_keep_to_one_charge_and_to_the_limit(card: Card) -> None:
    organization = an_organization(plan="free")
    opted_in(card, organization, limit=60)

    def work() -> None:
        try:
            recharge_due(now())
        finally:
            connections.close_all()

    for bought in (1, 2, 2):
        drain(organization)
        at_once([work] * 10)
        recharge_due(now())
        assert len(intents(card)) == bought
    assert CardCharge.objects.filter(state="paid").count() == 2
    assert Order.objects.filter(is_recharge=True, state="open").count() == 0
    assert audit_ledger() == []


# Pages


@pytest.fixture
def page(client: Client, organization: Organization) -> Client:
    client.force_login(organization.memberships.get().user)
    return client


def test_the_rule_is_set_on_the_billing_page(card: Card, page: Client, organization: Organization) -> None:
    url = billing_url(organization, "recharge/")
    facts = {"threshold_usd": "10", "amount_usd": "25", "month_limit_usd": "100"}
    assert "Save a card first" in page.get(url).content.decode()
    assert page.post(url, facts).status_code == 422
    save(card, organization)
    assert "is bought at once" in page.get(url).content.decode()
    for wrong in ({"threshold_usd": "30"}, {"month_limit_usd": "20"}, {"amount_usd": "1"}, {"amount_usd": "nan"}):
        assert page.post(url, facts | wrong).status_code == 422
    assert AutoRecharge.objects.count() == 0
    assert page.post(url, facts).status_code == 302
    shown = " ".join(page.get(billing_url(organization)).content.decode().split())
    assert "When paid credit is below $10.00, the card buys $25.00: at most $100.00 a month, $0.00 this month." in shown
    page.post(billing_url(organization, "recharge/off/"))
    assert not row().is_on
    assert [each.action for each in AuditEntry.objects.filter(action__startswith="recharge.")] == ["recharge.set"] * 2


def test_a_stop_is_a_banner_until_it_is_dealt_with(card: Card, page: Client, organization: Organization) -> None:
    opted_in(card, organization, "0341")
    drain(organization)
    recharge_due(now())
    shown = page.get(billing_url(organization)).content.decode()
    assert "Automatic top-ups are off: the card was declined." in shown
    page.post(billing_url(organization, "recharge/off/"))
    assert "Automatic top-ups are off:" not in page.get(billing_url(organization)).content.decode()
