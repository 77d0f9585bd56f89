"""Renewals by a saved card: charged once, on their days, and never by surprise."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core import mail as outbox
from django.db import connections
from django.test import Client

from accounts.models import AuditEntry, Organization
from billing import charge_mails
from billing.ledger_audit import audit_ledger
from billing.models import CardCharge, LedgerEntry, Order, Paper, Plan, PlanPeriod
from billing.papers.tests.scene import with_seller
from billing.payments import charges
from billing.payments.booking import PaymentRefused, stop_checkout
from billing.payments.cards import remove_card, set_renewals_by_card
from billing.payments.orders import OrderRefused, cancel_order, open_order, settle_order
from billing.payments.provider import card_provider
from billing.payments.tests.conftest import Card
from billing.payments.tests.test_cards import billing_url, save
from billing.payments.tests.test_orders import at_once
from billing.renewals import announce_ends, charge_renewals, forecast_of, past_due_of
from billing.selectors import account_of
from billing.subscriptions import advance_plans, give_plan, set_renewal
from billing.tests.factories import an_organization
from billing.tests.test_subscriptions import move_back, plan_of
from codexflow.lib.clock import now
from codexflow.lib.money import NANOS_PER_USD

pytestmark = pytest.mark.django_db
USD = NANOS_PER_USD


@pytest.fixture
def organization() -> Organization:
    return an_organization(plan="free")


def subscribe(card: Card, organization: Organization, digits: str = "4242", plan: str = "pro") -> datetime:
    """Buy a plan, save a card, and let all but two and a half days of the month pass. Returns the end."""
    order = open_order(organization, provider="stripe", plan=plan_of(plan))
    card.pay(order)
    card.deliver()
    save(card, organization, digits)
    ends_at = account_of(organization).plan_ends_at
    assert ends_at is not None
    move_back(organization, ends_at - now() - timedelta(days=2, hours=12))
    return end_of(organization)


def end_of(organization: Organization) -> datetime:
    ends_at = account_of(organization).plan_ends_at
    assert ends_at is not None
    return ends_at


def states() -> list[tuple[str, str]]:
    return [(each.state, each.code) for each in CardCharge.objects.order_by("pk")]


def intents(card: Card) -> list[dict[str, Any]]:
    """PaymentIntents of charges without the customer, the first one first."""
    found = card.state.page("payment_intent", "", {"limit": "100"})["data"]
    return [each for each in found[::-1] if "codexflow_charge" in each["metadata"]]


def renewal_of(organization: Organization) -> Order:
    return Order.objects.get(organization=organization, renews_from__isnull=False)


def test_the_next_month_is_charged_once_and_begins_when_this_one_ends(card: Card, organization: Organization) -> None:
    ends_at = subscribe(card, organization)
    before = account_of(organization).balance_nanos
    assert charge_renewals(now() - timedelta(days=1)) == 0
    assert (charge_renewals(now()), charge_renewals(now()), charge_renewals(ends_at)) == (1, 0, 0)
    order = renewal_of(organization)
    assert (order.state, order.amount_nanos, order.renews_from) == ("paid", 49 * USD, ends_at)
    assert [(each["status"], each["amount_received"]) for each in intents(card)] == [("succeeded", 4900)]
    assert account_of(organization).balance_nanos == before
    assert advance_plans(ends_at) == 1
    account = account_of(organization)
    assert (account.plan.slug, account.balance_nanos) == ("pro", before + 45 * USD)
    assert LedgerEntry.objects.filter(reference=f"order:{order.code}").count() == 1
    assert AuditEntry.objects.filter(action="order.paid", actor_label="Stripe").count() == 2
    assert audit_ledger() == []


def test_a_week_before_the_mail_says_what_is_charged_and_when(card: Card, organization: Organization) -> None:
    subscribe(card, organization)
    move_back(organization, timedelta(days=-4))
    outbox.outbox.clear()
    assert announce_ends(now()) == 1
    assert "4242" in outbox.outbox[0].body
    assert "renews on" in outbox.outbox[0].subject
    assert renewal_of(organization).provider == "stripe"


def test_the_order_that_was_made_before_is_charged_also_if_it_was_to_be_paid_by_hand(
    card: Card, organization: Organization, settings: Any
) -> None:
    settings.ENV = replace(settings.ENV, payment_providers=("manual", "stripe"))
    subscribe(card, organization)
    remove_card(organization)
    announce_ends(now())
    assert renewal_of(organization).provider == "manual"
    save(card, organization)
    assert charge_renewals(now()) == 1
    assert renewal_of(organization).state == "paid"


def test_a_charged_month_has_its_invoice(card: Card, organization: Organization, settings: Any) -> None:
    seller = with_seller()
    settings.ENV = replace(settings.ENV, seller=seller.seller, tax_rate_bp=seller.tax_rate_bp)
    subscribe(card, organization)
    charge_renewals(now())
    assert Paper.objects.filter(order=renewal_of(organization), total_cents=4900).count() == 1


def test_a_declined_card_is_tried_on_its_days_and_then_the_plan_ends(card: Card, organization: Organization) -> None:
    ends_at = subscribe(card, organization, "0341")
    at = now()
    assert charge_renewals(at) == 1
    assert states() == [("declined", "generic_decline")]
    account = account_of(organization)
    assert past_due_of(account, at) == renewal_of(organization)
    forecast = forecast_of(account, at)
    assert forecast is not None
    assert forecast.at == ends_at - timedelta(days=2)
    while (forecast := forecast_of(account, at)) is not None:
        at = max(at, forecast.at)
        assert charge_renewals(at) == 1
        assert charge_renewals(at) == 0
    assert len(states()) == 4
    assert len(intents(card)) == 4
    assert renewal_of(organization).state == "open"
    assert advance_plans(ends_at) == 1
    assert account_of(organization).plan.slug == "free"
    assert charge_renewals(ends_at + timedelta(days=1)) == 0


def test_each_decline_is_mailed_once_with_the_next_try(card: Card, organization: Organization) -> None:
    subscribe(card, organization, "0341")
    charge_renewals(now())
    outbox.outbox.clear()
    assert (charge_mails.tell_of_charges(now()), charge_mails.tell_of_charges(now())) == (1, 0)
    message = outbox.outbox[0]
    assert "was declined" in message.subject
    assert "tried again on" in message.body
    assert f"/orders/{renewal_of(organization).code}/" in message.body


def test_a_card_that_needs_its_holder_is_not_tried_again(card: Card, organization: Organization) -> None:
    ends_at = subscribe(card, organization, "3184")
    charge_renewals(now())
    for _ in range(2):
        assert charge_renewals(ends_at - timedelta(minutes=1)) == 0
    assert states() == [("declined", "authentication_required")]
    outbox.outbox.clear()
    charge_mails.tell_of_charges(now())
    assert "asks you to confirm" in outbox.outbox[0].subject
    order = renewal_of(organization)
    # The holder pays by hand.
    card.pay(order)
    card.deliver()
    assert renewal_of(organization).state == "paid"
    assert past_due_of(account_of(organization), now()) is None


def test_another_card_is_charged_at_once(card: Card, organization: Organization) -> None:
    subscribe(card, organization, "0341")
    charge_renewals(now())
    save(card, organization, "4444")
    assert charge_renewals(now()) == 1
    assert [state for state, _ in states()] == ["declined", "paid"]
    assert renewal_of(organization).state == "paid"


def test_every_charge_that_was_paid_is_mailed(card: Card, organization: Organization) -> None:
    subscribe(card, organization)
    charge_renewals(now())
    outbox.outbox.clear()
    assert charge_mails.tell_of_charges(now()) == 1
    assert "$49.00 was paid by card" in outbox.outbox[0].subject


@pytest.mark.parametrize("why", ["cancelled", "by_hand", "no_card", "paid_ahead", "not_sold", "inactive"])
def test_nothing_is_charged_that_nobody_wants(card: Card, organization: Organization, why: str) -> None:
    ends_at = subscribe(card, organization)
    if why == "cancelled":
        set_renewal(organization, renews=False)
    elif why == "by_hand":
        set_renewals_by_card(organization, pays_renewals=False)
    elif why == "no_card":
        remove_card(organization)
    elif why == "paid_ahead":
        ahead = open_order(organization, provider="manual", plan=plan_of("pro"))
        settle_order(ahead, payment_reference="transfer 9")
    elif why == "not_sold":
        Plan.objects.filter(slug="pro").update(is_public=False)
    else:
        Organization.objects.filter(pk=organization.pk).update(is_active=False)
    assert charge_renewals(now()) == 0
    assert charge_renewals(ends_at - timedelta(minutes=1)) == 0
    assert intents(card) == []
    assert forecast_of(account_of(organization), now()) is None


def test_what_an_operator_has_given_is_not_renewed_by_a_card(card: Card, organization: Organization) -> None:
    save(card, organization)
    account = account_of(organization)
    give_plan(account, plan_of("pro"), now() + timedelta(days=2), now())
    account.save()
    assert charge_renewals(now()) == 0
    assert intents(card) == []


def test_who_cancels_the_order_of_the_next_month_is_not_charged_for_another(
    card: Card, organization: Organization
) -> None:
    ends_at = subscribe(card, organization)
    announce_ends(now())
    cancel_order(renewal_of(organization), actor=organization.memberships.get().user)
    assert not account_of(organization).renews
    assert charge_renewals(ends_at - timedelta(minutes=1)) == 0
    assert intents(card) == []


def test_the_plan_that_is_to_follow_is_charged_and_not_the_one_that_was_ordered(
    card: Card, organization: Organization
) -> None:
    subscribe(card, organization)
    announce_ends(now())
    first = renewal_of(organization)
    set_renewal(organization, renews=True, next_plan=plan_of("starter"))
    assert charge_renewals(now()) == 1
    first.refresh_from_db()
    assert first.state == "cancelled"
    assert [each["amount_received"] for each in intents(card)] == [1900]
    assert account_of(organization).renews


def test_an_order_at_a_checkout_is_not_charged(card: Card, organization: Organization) -> None:
    subscribe(card, organization)
    announce_ends(now())
    order = renewal_of(organization)
    checkout = card.start(order)
    assert charge_renewals(now()) == 0
    card.state.pay(checkout)
    card.deliver()
    assert (renewal_of(organization).state, intents(card)) == ("paid", [])


def test_an_abandoned_checkout_delays_the_charge_until_it_has_expired(card: Card, organization: Organization) -> None:
    subscribe(card, organization)
    announce_ends(now())
    card.start(renewal_of(organization))
    card.state.advance(3 * 3600)
    card.deliver()
    assert charge_renewals(now()) == 1
    # One that may have been made without our knowledge is waited for as well.
    Order.objects.update(state="open", payment_reference="", checkout_key="0" * 32, checkout_at=now())
    order = renewal_of(organization)
    assert charges.charge(order, now()) is None


# Outcomes that nobody knows


def test_a_lost_response_is_asked_about_and_not_charged_again(card: Card, organization: Organization) -> None:
    ends_at = subscribe(card, organization)
    with card.running.loses():
        charge_renewals(now())
    assert states() == [("started", "")]
    assert charge_renewals(ends_at - timedelta(minutes=1)) == 0
    assert charges.ask_about_started(now()) == 0  # not yet
    assert charges.ask_about_started(now() + charges.ASK_AFTER) == 1
    assert states() == [("paid", "")]
    assert [each["status"] for each in intents(card)] == ["succeeded"]
    assert renewal_of(organization).state == "paid"


def test_a_lost_decline_is_asked_about(card: Card, organization: Organization) -> None:
    subscribe(card, organization, "0341")
    with card.running.fails():
        charge_renewals(now())
    # The request never arrived: it is made again, by the same key.
    assert charges.ask_about_started(now() + charges.ASK_AFTER) == 1
    assert states() == [("declined", "generic_decline")]
    assert len(intents(card)) == 1


def test_a_request_that_arrives_while_it_is_asked_about_charges_once(card: Card, organization: Organization) -> None:
    """The list does not know it yet, so that it is sent again: the key makes both one."""
    subscribe(card, organization)
    with card.running.loses():
        charge_renewals(now())
    provider: Any = card_provider()
    found = provider.find_charge
    provider.find_charge = lambda charge: None
    try:
        assert charges.ask_about_started(now() + charges.ASK_AFTER) == 1
    finally:
        del provider.find_charge
    assert provider.find_charge == found
    assert (states(), len(intents(card))) == ([("paid", "")], 1)


def test_after_the_keys_time_nothing_is_sent_again(card: Card, organization: Organization) -> None:
    subscribe(card, organization)
    with card.running.fails():
        charge_renewals(now())
    assert charges.ask_about_started(now() + charges.KEY_LASTS) == 1
    assert (states(), intents(card)) == ([("failed", "never_made")], [])


def test_a_card_that_was_removed_meanwhile_is_not_charged_again(card: Card, organization: Organization) -> None:
    subscribe(card, organization)
    with card.running.fails():
        charge_renewals(now())
    remove_card(organization)
    assert charges.ask_about_started(now() + charges.ASK_AFTER) == 0
    assert charges.ask_about_started(now() + 2 * charges.NEVER_ARRIVED) == 1
    assert (states(), intents(card)) == ([("failed", "never_made")], [])


def test_while_the_provider_is_away_nothing_is_concluded(card: Card, organization: Organization) -> None:
    subscribe(card, organization)
    with card.running.loses():
        charge_renewals(now())
    with card.running.fails():
        assert charges.ask_about_started(now() + timedelta(days=5)) == 0
    assert states() == [("started", "")]


def test_an_order_that_is_being_charged_is_neither_cancelled_nor_paid_otherwise(
    card: Card, organization: Organization
) -> None:
    subscribe(card, organization)
    with card.running.loses():
        charge_renewals(now())
    order, ada = renewal_of(organization), organization.memberships.get().user
    for refused in (
        lambda: cancel_order(order, actor=ada),
        lambda: stop_checkout(order),
        lambda: card.start(order),
        lambda: settle_order(order, payment_reference="transfer 7", actor=ada),
    ):
        with pytest.raises(OrderRefused):
            refused()


def test_healing_books_a_charge_that_was_taken_for_never_made(card: Card, organization: Organization) -> None:
    subscribe(card, organization)
    with card.running.loses():
        charge_renewals(now())
    CardCharge.objects.update(state="failed", code="never_made")
    card.lose()
    assert (card.heal(), card.heal()) == (1, 0)
    assert renewal_of(organization).state == "paid"


def test_a_charge_that_cannot_be_booked_is_kept_for_an_operator(
    card: Card, organization: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe(card, organization)

    def refuse(*_: Any) -> None:
        raise PaymentRefused("amount")

    monkeypatch.setattr(charges, "apply", refuse)
    charge_renewals(now())
    assert states() == [("failed", "amount")]


@pytest.mark.django_db(transaction=True)
def test_ten_workers_at_once_charge_once(card: Card) -> None:
    organization = an_organization(plan="free")
    ends_at = subscribe(card, organization)

    def work() -> None:
        try:
            charge_renewals(now())
            charges.ask_about_started(ends_at)
        finally:
            connections.close_all()

    at_once([work] * 10)
    assert len(intents(card)) == 1
    assert renewal_of(organization).state == "paid"
    assert PlanPeriod.objects.filter(organization=organization).count() == 2
    assert audit_ledger() == []


# Pages


@pytest.fixture
def page(client: Client, organization: Organization) -> Client:
    client.force_login(organization.memberships.get().user)
    return client


def test_the_billing_page_names_the_next_charge(card: Card, page: Client, organization: Organization) -> None:
    subscribe(card, organization)
    shown = " ".join(page.get(billing_url(organization)).content.decode().split())
    assert "Next charge: $49.00, tax included, on" in shown
    assert "•••• 4242, for a month of Pro" in shown
    assert "Order it again" not in shown
    page.post(billing_url(organization, "card/renewals/"), {"pays": "0"})
    shown = page.get(billing_url(organization)).content.decode()
    assert "Next charge" not in shown
    assert "Order it again" in shown


def test_a_declined_card_is_a_banner_that_leads_to_the_order(
    card: Card, page: Client, organization: Organization
) -> None:
    subscribe(card, organization, "0341")
    charge_renewals(now())
    shown = page.get(billing_url(organization)).content.decode()
    assert "The saved card was declined" in shown
    assert f"/orders/{renewal_of(organization).code}/" in shown


def test_the_page_of_an_order_that_is_being_charged_has_no_buttons(
    card: Card, page: Client, organization: Organization
) -> None:
    subscribe(card, organization)
    with card.running.loses():
        charge_renewals(now())
    url = billing_url(organization, f"orders/{renewal_of(organization).code}/")
    shown = page.get(url).content.decode()
    assert "being paid by the saved card" in shown
    assert "Cancel the order" not in shown
