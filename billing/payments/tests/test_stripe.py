"""Payment by card: what settles an order, and what never does."""

import json
import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connections
from django.test import Client

from accounts.models import AuditEntry, Organization
from accounts.tests.factories import a_user
from billing.ledger_audit import audit_ledger
from billing.models import LedgerEntry, Order, PaymentEvent, Plan
from billing.payments import booking, events
from billing.payments.orders import OrderRefused, cancel_order, keep_checkout, open_order, settle_order
from billing.payments.payment import Payment, mismatch
from billing.payments.provider import ProviderUnavailable, provider_of
from billing.payments.tests.conftest import ENDPOINT, Card
from billing.payments.tests.test_orders import at_once
from billing.selectors import account_of
from billing.tests.factories import an_organization
from codexflow.lib.clock import now
from codexflow.lib.money import NANOS_PER_USD
from tests.support.local_stripe import SECRET_KEY, WEBHOOK_SECRET

pytestmark = pytest.mark.django_db
USD = NANOS_PER_USD


@pytest.fixture
def organization() -> Organization:
    return an_organization(plan="free")


def a_card_order(organization: Organization, usd: int = 25) -> Order:
    return open_order(organization, provider="stripe", amount_nanos=usd * USD, actor=a_user())


def booked(order: Order) -> int:
    return LedgerEntry.objects.filter(reference=f"order:{order.code}").count()


def state_of(order: Order) -> str:
    order.refresh_from_db()
    return order.state


def outcomes() -> set[tuple[str, str]]:
    return set(PaymentEvent.objects.values_list("state", "outcome"))


def test_a_paid_checkout_settles_its_order_once_the_event_is_handled(card: Card, organization: Organization) -> None:
    before = account_of(organization).balance_nanos
    order = a_card_order(organization)
    payment = card.pay(order)
    assert state_of(order) == "open"
    assert card.deliver() == 1
    order.refresh_from_db()
    assert (order.state, order.payment_reference) == ("paid", payment)
    assert account_of(organization).balance_nanos == before + 25 * USD
    assert outcomes() == {("done", "settled")}
    entry = AuditEntry.objects.get(action="order.paid")
    assert (entry.actor, entry.actor_label) == (None, "Stripe")
    assert audit_ledger() == []


def test_a_plan_is_bought_by_card(card: Card, organization: Organization) -> None:
    order = open_order(organization, provider="stripe", plan=Plan.objects.get(slug="pro"))
    card.pay(order)
    card.deliver()
    account = account_of(organization)
    assert (state_of(order), account.plan.slug) == ("paid", "pro")
    assert card.state.page("checkout.session", "", {})["data"][0]["amount_total"] == 4900


def test_the_checkout_asks_for_what_was_ordered(card: Card, organization: Organization) -> None:
    order = a_card_order(organization, 10)
    session = card.state.get("checkout.session", card.start(order))
    assert (session["amount_total"], session["currency"], session["mode"]) == (1000, "usd", "payment")
    assert session["client_reference_id"] == order.code
    assert session["metadata"] == {"codexflow_order": order.code}
    assert session["success_url"].endswith("/o/x/billing/orders/1/?checkout=done")
    assert session["tax_id_collection"] == {"enabled": True, "required": "never"}
    assert timedelta(hours=1) < timedelta(seconds=session["expires_at"] - session["created"]) < timedelta(hours=3)


def test_the_tax_id_is_asked_for_as_configured(card: Card, organization: Organization, settings: Any) -> None:
    settings.ENV = replace(settings.ENV, stripe_tax_ids="off")
    session = card.state.get("checkout.session", card.start(a_card_order(organization)))
    assert session["tax_id_collection"] is None


def test_starting_again_goes_on_with_the_open_checkout(card: Card, organization: Organization) -> None:
    order = a_card_order(organization)
    assert card.start(order) == card.start(order)
    assert len(card.state.page("checkout.session", "", {})["data"]) == 1


def test_a_checkout_that_was_made_but_not_stored_is_found_by_its_key(card: Card, organization: Organization) -> None:
    order = a_card_order(organization)
    first = card.start(order)
    Order.objects.update(checkout_id="")
    assert card.start(order) == first
    other = a_card_order(organization)
    assert card.start(other) != first


def test_an_expired_checkout_lets_the_customer_pay_again(card: Card, organization: Organization) -> None:
    order = a_card_order(organization)
    first = card.start(order)
    card.state.advance(3 * 3600)
    card.deliver()
    order.refresh_from_db()
    assert (order.checkout_id, outcomes()) == ("", {("done", "expired")})
    card.state._ahead_s = 0
    assert card.start(order) != first
    card.pay(order)
    card.deliver()
    assert (state_of(order), booked(order)) == ("paid", 1)


def test_a_checkout_that_expired_unheard_is_let_go_of(card: Card, organization: Organization) -> None:
    orders = [a_card_order(organization) for _ in range(2)]
    for order in orders:
        card.start(order)
    card.state.advance(3 * 3600)
    card.lose()
    card.state._objects.pop(orders[1].checkout_id, None)
    Order.objects.update(checkout_at=now() - timedelta(hours=3))
    assert card.heal() == 2
    assert set(Order.objects.values_list("checkout_id", flat=True)) == {""}


def test_a_declined_card_can_be_followed_by_another(card: Card, organization: Organization) -> None:
    order = a_card_order(organization)
    checkout = card.start(order)
    card.state.pay(checkout, "declined")
    card.deliver()
    assert state_of(order) == "open"
    card.state.pay(checkout)
    card.deliver()
    assert (state_of(order), booked(order)) == ("paid", 1)


@pytest.mark.parametrize("is_paid", [True, False])
def test_a_payment_that_is_under_way_grants_nothing_before_it_has_arrived(
    card: Card, organization: Organization, is_paid: bool
) -> None:
    order = a_card_order(organization)
    checkout = card.start(order)
    card.state.pay(checkout, "pending")
    card.deliver()
    assert (state_of(order), outcomes()) == ("open", {("done", "unpaid")})
    card.state.finish(checkout, is_paid=is_paid)
    card.deliver()
    assert state_of(order) == ("paid" if is_paid else "open")
    if not is_paid:
        assert card.start(order) != checkout


# Webhooks


@pytest.mark.parametrize("how", ["unsigned", "wrong_secret", "changed_body", "stale", "garbage"])
def test_a_forged_event_grants_nothing(card: Card, organization: Organization, how: Any) -> None:
    order = a_card_order(organization)
    card.pay(order)
    card.running.server.settle()
    event = next(each for each in card.deliveries.waiting if each["type"] == "checkout.session.completed")
    assert card.deliveries.forge(event, how) == 400
    assert (PaymentEvent.objects.count(), events.handle_due(now()), state_of(order)) == (0, 0, "open")


def test_what_a_signed_event_says_is_not_believed(card: Card, organization: Organization) -> None:
    """Its object is read again: a checkout that is not paid at the provider settles nothing."""
    order = a_card_order(organization)
    session = card.state.get("checkout.session", card.start(order))
    card.state._emit("checkout.session.completed", {**session, "status": "complete", "payment_status": "paid"})
    card.state._emit("checkout.session.completed", {**session, "id": "cs_test_unknown", "payment_status": "paid"})
    card.deliver()
    assert (state_of(order), outcomes()) == ("open", {("done", "unpaid"), ("done", "gone")})


@pytest.mark.parametrize("method", ["get", "put", "delete"])
def test_the_webhook_takes_posts_only(card: Card, method: str) -> None:
    assert getattr(Client(), method)(ENDPOINT).status_code == 405


def test_without_configured_secrets_there_is_no_webhook(client: Client, settings: Any) -> None:
    assert client.post(ENDPOINT, b"{}", content_type="application/json").status_code == 404
    settings.ENV = replace(settings.ENV, payment_providers=("stripe",), stripe_webhook_secrets=("",))
    signed = {"Stripe-Signature": "t=1,v1=0"}
    assert client.post(ENDPOINT, b"{}", content_type="application/json", headers=signed).status_code == 400


def test_an_event_that_is_too_large_is_refused(card: Card) -> None:
    assert card.post(b" " * (512 * 1024 + 1), "t=1,v1=0") == 413
    assert card.post(b"", "") == 400


def test_a_rotated_secret_works_beside_the_new_one(card: Card, organization: Organization, settings: Any) -> None:
    settings.ENV = replace(settings.ENV, stripe_webhook_secrets=("whsec_new_0123456789", WEBHOOK_SECRET))
    order = a_card_order(organization)
    card.pay(order)
    card.deliver()
    assert state_of(order) == "paid"


def test_events_that_do_not_matter_are_not_stored(card: Card, organization: Organization) -> None:
    card.pay(a_card_order(organization))
    names = card.running.happened()
    card.deliver()
    assert card.statuses == [200] * len(names)
    assert list(PaymentEvent.objects.values_list("type", flat=True)) == ["checkout.session.completed"]


@pytest.mark.parametrize("seed", range(6))
def test_duplicates_in_any_order_book_once(card: Card, organization: Organization, seed: int) -> None:
    orders = [a_card_order(organization, usd) for usd in (5, 10, 20)]
    for order in orders:
        card.state.pay(card.start(order), "declined")
        card.pay(order)
    before = account_of(organization).balance_nanos
    card.running.server.settle()
    everything = list(card.deliveries.waiting)
    for _ in range(2):
        card.deliveries.waiting = [*everything]
        card.deliver(times=2, order="shuffled", seed=seed)
    assert [state_of(order) for order in orders] == ["paid"] * 3
    assert [booked(order) for order in orders] == [1] * 3
    assert account_of(organization).balance_nanos == before + 35 * USD
    assert audit_ledger() == []


def test_an_event_whose_handling_failed_is_no_duplicate(
    card: Card, organization: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = a_card_order(organization)
    card.pay(order)
    card.running.server.settle()
    again = list(card.deliveries.waiting)
    with monkeypatch.context() as broken:
        broken.setattr(events, "apply", lambda *_: 1 / 0)
        assert card.deliver() == 0
        assert outcomes() == {("received", "error")}
    card.deliveries.waiting = again
    card.deliver()
    assert PaymentEvent.objects.count() == 1
    assert events.handle_due(now() + timedelta(seconds=31)) == 1
    assert (state_of(order), outcomes()) == ("paid", {("done", "settled")})


def test_an_event_waits_while_the_provider_does_not_respond(
    card: Card, organization: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        card.pay(a_card_order(organization))
    asked = []

    def away(*_: Any) -> None:
        asked.append(1)
        raise ProviderUnavailable

    at = now()
    with monkeypatch.context() as broken:
        broken.setattr(provider_of("stripe"), "look_up", away)
        assert card.deliver() == 0
        assert len(asked) == 1
        for n in range(200):
            at += timedelta(hours=1, seconds=n)
            events.handle_due(at)
    assert (events.count_waiting(now()), events.count_failed(now())) == (0, 2)
    assert {(each.state, each.attempts) for each in PaymentEvent.objects.all()} >= {("failed", events.MAX_ATTEMPTS)}
    event = PaymentEvent.objects.filter(state="failed")[0]
    assert events.retry(event, actor=(ada := a_user()))
    assert not events.retry(event, actor=ada)
    entry = AuditEntry.objects.get(action="payment_event.retried")
    assert (entry.actor, entry.facts["reason"]) == (ada, "provider_unavailable")
    assert events.handle_due(now() + timedelta(days=9)) >= 1


def test_retries_are_spread_over_three_days() -> None:
    waits = [events.retry_after(attempt) for attempt in range(1, events.MAX_ATTEMPTS)]
    assert waits == sorted(waits)
    assert timedelta(days=2.5) < sum(waits, timedelta()) < timedelta(days=3.5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"provider": "manual"}, "other_provider"),
        ({"amount_nanos": 26 * USD}, "amount"),
        ({"amount_nanos": 24 * USD}, "amount"),
        ({"currency": "EUR"}, "currency"),
        ({"code": "XXXXXXXX"}, "unknown_order"),
        ({"state": "cancelled"}, "order_cancelled"),
        ({"state": "paid", "payment_reference": "pi_other"}, "order_paid_already"),
    ],
)
def test_a_payment_that_is_not_the_orders_is_refused(
    card: Card, organization: Organization, change: dict[str, Any], reason: str
) -> None:
    order = a_card_order(organization)
    card.pay(order)
    Order.objects.filter(pk=order.pk).update(**change)
    before = account_of(organization).balance_nanos
    card.deliver()
    assert outcomes() == {("failed", reason)}
    assert account_of(organization).balance_nanos == before
    assert not LedgerEntry.objects.filter(kind="top_up").exists()


def test_a_payment_in_test_mode_settles_nothing_in_live_mode(
    card: Card, organization: Organization, settings: Any
) -> None:
    order = a_card_order(organization)
    card.pay(order)
    settings.ENV = replace(settings.ENV, stripe_secret_key=SECRET_KEY.replace("_test_", "_live_"))
    card.deliver()
    assert (outcomes(), state_of(order)) == ({("failed", "livemode")}, "open")


def test_an_event_of_a_connected_account_settles_nothing(card: Card, organization: Organization) -> None:
    order = a_card_order(organization)
    card.pay(order)
    card.running.server.settle()
    card.deliveries.waiting = [{**each, "account": "acct_1"} for each in card.deliveries.waiting]
    card.deliver()
    assert (outcomes(), state_of(order)) == ({("failed", "foreign_account")}, "open")


def test_payments_of_other_applications_are_passed_over(card: Card, organization: Organization) -> None:
    order = a_card_order(organization)
    card.start(order)
    with card.state.lock:
        for session in card.state._of_kind("checkout.session"):
            card.state._intent_data[session["id"]] = {"metadata": {"order": order.code}}
            session |= {"metadata": {}, "client_reference_id": order.code}
    card.pay(order)
    card.deliver()
    assert (outcomes(), state_of(order), card.heal()) == ({("done", "foreign")}, "open", 0)


@pytest.mark.parametrize(
    ("differs", "reason"),
    [
        ({}, ""),
        ({"is_paid": False}, "unpaid"),
        ({"is_live": True}, "livemode"),
        ({"currency": "try"}, "currency"),
        ({"amount": 2499}, "amount"),
        ({"amount": 250_000}, "amount"),
    ],
)
def test_a_payment_must_match_in_everything(differs: dict[str, Any], reason: str) -> None:
    given: dict[str, Any] = {
        "reference": "pi_1",
        "order_code": "ABCD2346",
        "amount": 2500,
        "currency": "usd",
        "is_live": False,
        "is_paid": True,
        "read_at": now(),
    }
    assert mismatch(Payment(**given | differs), amount=2500, currency="USD", is_live=False) == reason


# Healing


def test_with_all_events_lost_everything_is_credited_once(card: Card, organization: Organization) -> None:
    before = account_of(organization).balance_nanos
    orders = [a_card_order(an_organization(plan="free"), 5 + n) for n in range(4)] + [a_card_order(organization)]
    for order in orders[::-1]:
        card.pay(order)
    assert card.lose() > len(orders)
    assert (card.heal(), card.heal()) == (len(orders), 0)
    assert [(state_of(order), booked(order)) for order in orders] == [("paid", 1)] * len(orders)
    assert account_of(organization).balance_nanos == before + 25 * USD
    assert audit_ledger() == []


def test_healing_and_a_late_event_book_once(card: Card, organization: Organization) -> None:
    order = a_card_order(organization)
    card.pay(order)
    assert card.heal() == 1
    card.deliver(times=3)
    assert (booked(order), outcomes()) == (1, {("done", "settled")})


def test_healing_goes_on_past_what_cannot_be_booked(card: Card, organization: Organization) -> None:
    orders = [a_card_order(organization) for _ in range(3)]
    for order in orders:
        card.pay(order)
    card.lose()
    Order.objects.filter(pk=orders[1].pk).update(amount_nanos=9 * USD)
    assert card.heal() == 2
    assert [state_of(order) for order in orders] == ["paid", "open", "paid"]


def test_a_provider_that_is_away_is_left_for_the_next_time(card: Card, organization: Organization) -> None:
    order = a_card_order(organization)
    card.pay(order)
    with card.running.fails():
        assert card.heal() == 0
        booking.confirm(order)
    assert state_of(order) == "open"
    assert card.heal() == 1


@pytest.mark.django_db(transaction=True)
def test_webhook_healing_and_page_at_once_book_once(card: Card) -> None:
    organization = an_organization(plan="free")
    order = a_card_order(organization)
    card.pay(order)
    card.running.server.settle()
    checkout_id = Order.objects.get().checkout_id

    def look() -> None:
        try:
            provider: Any = provider_of("stripe")
            booking.apply(provider.checkout(checkout_id), provider)
        finally:
            connections.close_all()

    at_once([look] * 12)
    assert (state_of(order), booked(order)) == ("paid", 1)
    assert audit_ledger() == []


# Pages


@pytest.fixture
def page(client: Client, organization: Organization) -> Client:
    client.force_login(organization.memberships.get().user)
    return client


def orders_url(order: Order) -> str:
    return f"/o/{order.organization.slug}/billing/orders/{order.code}/"


def test_ordering_leads_to_the_checkout_and_back_to_the_credit(
    card: Card, page: Client, organization: Organization
) -> None:
    url = f"/o/{organization.slug}/billing/credit/"
    response = page.post(url, {"amount": "25", "provider": "stripe"})
    assert response.status_code == 302
    assert response["Location"].startswith(card.running.url)
    order = Order.objects.get()
    shown = page.get(orders_url(order)).content.decode()
    assert "Pay by card" in shown
    assert "Reference code" not in shown
    session = card.state.pay(response["Location"].rpartition("/")[2])
    back = urlsplit(session["success_url"])
    assert f"{back.path}?{back.query}" == f"{orders_url(order)}?checkout=done"
    assert "The payment has arrived" in page.get(f"{back.path}?{back.query}").content.decode()
    assert (state_of(order), booked(order)) == ("paid", 1)
    card.deliver()
    assert booked(order) == 1


def test_coming_back_without_having_paid_grants_nothing(card: Card, page: Client, organization: Organization) -> None:
    order = a_card_order(organization)
    card.start(order)
    shown = page.get(f"{orders_url(order)}?checkout=done").content.decode()
    assert "being confirmed" in shown
    assert state_of(order) == "open"
    with card.running.fails():
        assert page.get(f"{orders_url(order)}?checkout=done").status_code == 200


def test_the_button_of_an_open_order_leads_to_its_checkout(
    card: Card, page: Client, organization: Organization
) -> None:
    order = a_card_order(organization)
    first = page.post(f"{orders_url(order)}pay/")["Location"]
    assert first == page.post(f"{orders_url(order)}pay/")["Location"]
    with card.running.fails():
        response = page.post(f"{orders_url(order)}pay/", follow=True)
    assert "cannot be opened right now" in response.content.decode()
    card.pay(order)
    assert page.post(f"{orders_url(order)}pay/")["Location"] == orders_url(order)


def test_a_transfer_has_no_checkout(card: Card, page: Client, organization: Organization) -> None:
    order = open_order(organization, provider="manual", amount_nanos=25 * USD)
    assert page.post(f"{orders_url(order)}pay/").status_code == 404
    assert order.code in page.get(orders_url(order)).content.decode()


def test_a_cancelled_order_cannot_be_paid_any_more(card: Card, page: Client, organization: Organization) -> None:
    order = a_card_order(organization)
    checkout = card.start(order)
    page.post(f"{orders_url(order)}cancel/")
    assert state_of(order) == "cancelled"
    assert card.state.get("checkout.session", checkout)["status"] == "expired"
    page.post(f"{orders_url(order)}pay/")
    assert len(card.state.page("checkout.session", "", {})["data"]) == 1


def test_a_checkout_of_an_order_that_is_cancelled_meanwhile_is_ended(
    card: Card, organization: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = a_card_order(organization)

    def cancelled_meanwhile(begun: Order, checkout_id: str) -> bool:
        cancel_order(begun)
        return keep_checkout(begun, checkout_id)

    monkeypatch.setattr("billing.payments.stripe.keep_checkout", cancelled_meanwhile)
    assert provider_of("stripe").start(order, order_url="/order/") == "/order/"
    assert card.state.page("checkout.session", "", {})["data"][0]["status"] == "expired"


def test_an_order_that_was_just_paid_is_not_cancelled(card: Card, page: Client, organization: Organization) -> None:
    order, under_way, unknown = (a_card_order(organization) for _ in range(3))
    card.pay(order)
    card.state.pay(card.start(under_way), "pending")
    for each in (order, under_way):
        page.post(f"{orders_url(each)}cancel/")
    assert (state_of(order), booked(order), state_of(under_way)) == ("paid", 1, "open")
    card.start(unknown)
    with card.running.fails():
        page.post(f"{orders_url(unknown)}cancel/")
    assert state_of(unknown) == "open"


def test_a_strangers_order_is_not_started(card: Card, page: Client) -> None:
    order = a_card_order(an_organization())
    assert page.post(f"{orders_url(order)}pay/").status_code == 404


def test_no_page_and_no_log_shows_a_secret(
    card: Card, page: Client, organization: Organization, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    order = a_card_order(organization)
    card.pay(order)
    order.refresh_from_db()
    card.state.get("checkout.session", order.checkout_id)["customer_details"]["name"] = "CANARY-NAME"
    card.deliver()
    with card.running.fails():
        card.heal()
    card.post(json.dumps({"id": "evt_1", "card": "CANARY-4242"}).encode(), "t=1,v1=CANARY-SIGNATURE")
    texts = [page.get(orders_url(order)).content.decode(), str(list(PaymentEvent.objects.values()))]
    texts += [f"{record.getMessage()} {vars(record)}" for record in caplog.records if record.name != "faker"]
    for secret in (SECRET_KEY, WEBHOOK_SECRET, "CANARY"):
        assert not [text for text in texts if secret in text]


def test_orders_of_a_provider_that_is_gone_can_be_cancelled(
    card: Card, organization: Organization, settings: Any
) -> None:
    order = a_card_order(organization)
    card.start(order)
    settings.ENV = replace(settings.ENV, payment_providers=("manual",))
    order.refresh_from_db()
    booking.stop_checkout(order)
    assert cancel_order(order).state == "cancelled"
    with pytest.raises(OrderRefused):
        settle_order(order, payment_reference="pi_1")
