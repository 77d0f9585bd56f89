"""Payment at iyzico's checkout form: what settles an order, and what never does."""

import json
import re
from base64 import b64decode
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from accounts.models import Organization
from billing.ledger_audit import audit_ledger
from billing.models import LedgerEntry, Order, PaymentEvent
from billing.payments.booking import stop_checkout
from billing.payments.events import handle_due
from billing.payments.healing import heal_all
from billing.payments.iyzico_signing import CHECKOUT, authorization, is_genuine, price_of, signature_of, units_of
from billing.payments.orders import OrderRefused, open_order
from billing.payments.provider import ProviderRefused, ProviderUnavailable, provider_of
from billing.payments.refunds import carry_out_due, request_refund
from billing.payments.tests.conftest import details_given
from billing.selectors import account_of
from billing.tests.factories import an_organization
from codexflow.lib.clock import now
from codexflow.lib.ids import random_id
from codexflow.lib.money import NANOS_PER_USD
from tests.support.local_iyzico import API_KEY, SECRET_KEY, Server

pytestmark = pytest.mark.django_db
USD = NANOS_PER_USD
RETURN, NOTICE = "/api/webhooks/iyzico/return", "/api/webhooks/iyzico"


@pytest.fixture
def organization(iyzico: Server) -> Organization:
    made = an_organization(plan="free")
    details_given(made)
    return made


def an_order(organization: Organization, usd: int = 25) -> Order:
    return open_order(organization, provider="iyzico", amount_nanos=usd * USD)


def start(order: Order) -> str:
    """Open the form of an order; returns its token."""
    order.refresh_from_db()
    return provider_of("iyzico").start(order, order_url="/order/").rpartition("=")[2]


def come_back(token: str) -> Any:
    """Come back from the form as a browser does: by a POST of another site, without cookies or a CSRF token."""
    return Client(enforce_csrf_checks=True).post(RETURN, {"token": token}, headers={"Origin": "https://iyzico.example"})


def notify(token: str, status: str = "SUCCESS") -> int:
    body = json.dumps({"token": token, "status": status, "iyziEventTime": 1, "paymentConversationId": "x"})
    client = Client(enforce_csrf_checks=True)
    return client.post(NOTICE, body, content_type="application/json").status_code


def state_of(order: Order) -> str:
    order.refresh_from_db()
    return order.state


def booked(order: Order) -> int:
    return LedgerEntry.objects.filter(reference=f"order:{order.code}").count()


def test_a_customer_who_comes_back_has_their_credit(iyzico: Server, organization: Organization) -> None:
    before = account_of(organization).balance_nanos
    order = an_order(organization)
    token = start(order)
    form = iyzico.iyzico.forms[token]["given"]
    assert (form["price"], form["currency"], form["basketId"]) == ("25.00", "USD", order.code)
    assert form["callbackUrl"].endswith(RETURN)
    assert form["buyer"]["identityNumber"] == "10000000146"
    iyzico.iyzico.pay(token)
    response = come_back(token)
    assert response.status_code == 303
    assert response["Location"] == f"/o/{organization.slug}/billing/orders/{order.code}/?checkout=done"
    assert not response.cookies
    assert (state_of(order), booked(order)) == ("paid", 1)
    assert order.payment_reference == "10000000"
    assert come_back(token).status_code == 303
    assert (booked(order), account_of(organization).balance_nanos) == (1, before + 25 * USD)
    assert audit_ledger() == []


def test_a_notice_only_says_when_to_look(iyzico: Server, organization: Organization) -> None:
    order = an_order(organization)
    token = start(order)
    assert notify(token) == 200
    handle_due(now())
    assert (state_of(order), PaymentEvent.objects.get().outcome) == ("open", "unpaid")
    iyzico.iyzico.pay(token)
    assert [notify(token, "DONE") for _ in range(3)] == [200] * 3
    assert handle_due(now()) == 1
    assert (state_of(order), booked(order)) == ("paid", 1)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b'{"token": ""}', b'{"token": "of-somebody-else"}'])
def test_a_notice_of_no_form_of_ours_is_refused(iyzico: Server, body: bytes) -> None:
    assert Client().post(NOTICE, body, content_type="application/json").status_code == 400
    assert PaymentEvent.objects.count() == 0
    assert come_back("of-somebody-else").status_code == 404


def test_with_nobody_telling_everything_is_credited_once(iyzico: Server, organization: Organization) -> None:
    orders = [an_order(organization, 5 + n) for n in range(3)]
    for order in orders:
        iyzico.iyzico.pay(start(order))
    assert (heal_all(), heal_all()) == (3, 0)
    assert [(state_of(order), booked(order)) for order in orders] == [("paid", 1)] * 3
    assert audit_ledger() == []


def test_a_payment_is_found_by_the_order_whatever_became_of_its_form(
    iyzico: Server, organization: Organization
) -> None:
    order = an_order(organization)
    iyzico.iyzico.pay(start(order))
    Order.objects.update(checkout_id="", checkout_key=None)
    assert heal_all() == 1
    assert state_of(order) == "paid"


def test_an_open_form_is_gone_on_with_and_ends_by_itself(iyzico: Server, organization: Organization) -> None:
    order = an_order(organization)
    first = start(order)
    assert start(order) == first
    with pytest.raises(OrderRefused):
        stop_checkout(order)
    Order.objects.update(checkout_at=now() - timedelta(minutes=41))
    assert start(order) != first
    Order.objects.update(checkout_at=now() - timedelta(minutes=41))
    order.refresh_from_db()
    stop_checkout(order)


def test_a_declined_card_can_be_followed_by_another(iyzico: Server, organization: Organization) -> None:
    order = an_order(organization)
    first = start(order)
    iyzico.iyzico.pay(first, "declined")
    come_back(first)
    assert state_of(order) == "open"
    second = start(order)
    assert second != first
    iyzico.iyzico.pay(second)
    come_back(second)
    assert (state_of(order), booked(order)) == ("paid", 1)


@pytest.mark.parametrize("is_cleared", [True, False])
def test_a_payment_under_review_grants_nothing_before_it_is_cleared(
    iyzico: Server, organization: Organization, is_cleared: bool
) -> None:
    order = an_order(organization)
    token = start(order)
    payment = iyzico.iyzico.pay(token, "review")["payment"]
    come_back(token)
    assert (state_of(order), heal_all()) == ("open", 0)
    assert start(order) == token
    iyzico.iyzico.decide(payment, is_cleared=is_cleared)
    come_back(token)
    assert state_of(order) == ("paid" if is_cleared else "open")


@pytest.mark.parametrize("change", [{"paidPrice": 1.0}, {"currency": "TRY"}, {"basketId": "XXXXXXXX"}])
def test_a_payment_that_is_not_the_orders_settles_nothing(
    iyzico: Server, organization: Organization, change: dict[str, Any]
) -> None:
    order = an_order(organization)
    token = start(order)
    payment = iyzico.iyzico.pay(token)["payment"]
    iyzico.iyzico.payments[payment] |= change
    iyzico.iyzico.forms[token]["given"] |= {key: change[key] for key in change if key == "basketId"}
    come_back(token)
    heal_all()
    assert state_of(order) == "open"
    assert not LedgerEntry.objects.filter(kind="top_up").exists()


def test_a_response_of_somebody_else_is_not_believed(iyzico: Server, organization: Organization) -> None:
    order = an_order(organization)
    token = start(order)
    iyzico.iyzico.pay(token)
    iyzico.is_forged = True
    come_back(token)
    assert state_of(order) == "open"
    with pytest.raises(ProviderRefused, match="signature"):
        start(an_order(organization))


def test_with_wrong_keys_nothing_is_concluded(iyzico: Server, organization: Organization, settings: Any) -> None:
    order = an_order(organization)
    token = start(order)
    iyzico.iyzico.pay(token)
    settings.ENV = replace(settings.ENV, iyzico_secret_key="another-secret-key")
    Order.objects.update(checkout_at=now() - timedelta(hours=3))
    with pytest.raises(ProviderUnavailable):
        start(order)
    assert heal_all() == 0
    order.refresh_from_db()
    assert (order.state, order.checkout_id) == ("open", token)


def test_while_iyzico_is_away_the_customer_still_comes_back(iyzico: Server, organization: Organization) -> None:
    order = an_order(organization)
    token = start(order)
    iyzico.iyzico.pay(token)
    iyzico.is_failing = True
    assert (come_back(token).status_code, heal_all()) == (303, 0)
    iyzico.is_failing = False
    assert (heal_all(), state_of(order)) == (1, "paid")


def test_billing_details_are_asked_for_before(iyzico: Server) -> None:
    order = an_order(an_organization(plan="free"))
    with pytest.raises(OrderRefused, match="billing details"):
        start(order)
    assert iyzico.iyzico.forms == {}


def test_a_refund_goes_back_once(iyzico: Server, organization: Organization) -> None:
    order = an_order(organization)
    token = start(order)
    payment = iyzico.iyzico.pay(token)["payment"]
    come_back(token)
    order.refresh_from_db()
    before = account_of(organization).balance_nanos
    request_refund(order, 10 * USD, key=random_id(), reason="unused")
    # The response is lost, and the refund asked for again.
    iyzico.loses_responses = True
    carry_out_due(now())
    iyzico.loses_responses = False
    carry_out_due(now() + timedelta(minutes=1))
    assert [each["refundPrice"] for each in iyzico.iyzico.payments[payment]["refunds"]] in ([10.0], [])
    carry_out_due(now() + timedelta(minutes=2))
    assert [each["refundPrice"] for each in iyzico.iyzico.payments[payment]["refunds"]] == [10.0]
    order.refresh_from_db()
    assert order.refunded_nanos == 10 * USD
    assert account_of(organization).balance_nanos == before - 10 * USD
    provider: Any = provider_of("iyzico")
    with pytest.raises(ProviderRefused):
        provider.refund(payment, 2_000, key="another")
    assert audit_ledger() == []


def test_a_refund_at_iyzicos_own_pages_is_found_by_asking(iyzico: Server, organization: Organization) -> None:
    order = an_order(organization)
    payment = iyzico.iyzico.pay(start(order))["payment"]
    other = an_order(organization)
    token = start(other)
    iyzico.iyzico.pay(token)
    heal_all()
    before = account_of(organization).balance_nanos
    iyzico.iyzico.refund({"paymentId": payment, "price": "10.00"})
    for _ in range(3):
        heal_all()
        handle_due(now())
    order.refresh_from_db()
    other.refresh_from_db()
    assert (order.refunded_nanos, other.refunded_nanos) == (10 * USD, 0)
    assert account_of(organization).balance_nanos == before - 10 * USD
    assert PaymentEvent.objects.count() == 1
    assert audit_ledger() == []


def test_payments_are_read_in_turn(iyzico: Server, organization: Organization, monkeypatch: Any) -> None:
    monkeypatch.setattr("billing.payments.iyzico.READ_AT_ONCE", 1)
    orders = [an_order(organization) for _ in range(3)]
    payments = [iyzico.iyzico.pay(start(order))["payment"] for order in orders]
    heal_all()
    for payment in payments:
        iyzico.iyzico.refund({"paymentId": payment, "price": "1.00"})
    for _ in orders:
        heal_all()
        handle_due(now())
    assert sorted(Order.objects.values_list("refunded_nanos", flat=True)) == [USD] * 3


def test_without_iyzico_there_is_no_way_back(client: Client) -> None:
    assert client.post(RETURN, {"token": "x"}).status_code == 404
    assert client.post(NOTICE, b"{}", content_type="application/json").status_code == 404
    assert client.get(RETURN).status_code == 405


# Signatures


def test_a_request_is_signed_as_documented() -> None:
    """The form of the documentation's example, whose secret is not published, and a signature over all that is sent."""
    example = (
        "YXBpS2V5OnNhbmRib3gtbDlNZDFHajNJWWNtdTROZGFXeGFTVW9Db1g3REM1UkEmcmFuZG9tS2V5OjEyMzQ1Njc4OSZzaWduYXR1cmU6MDc5ZG"
        "Y0YjI0MjZmYzdmNDIwOGQ4ZjIyZmJjMDM0OTc5NDAxOWY4Y2UyYjA3MTFkZTc4MDhiNDg3NGY0ZTc5Ng=="
    )
    known = r"apiKey:([a-zA-Z0-9-]+)&randomKey:([0-9]+)&signature:[0-9a-f]{64}"
    facts = {"random_key": "123456789", "path": "/payment/bin/check", "body": '{"a":1}'}
    scheme, _, header = authorization(API_KEY, SECRET_KEY, **facts).partition(" ")
    assert scheme == "IYZWSv2"
    assert re.fullmatch(known, b64decode(example).decode())
    assert re.fullmatch(known, b64decode(header).decode())
    for other in ({"random_key": "1"}, {"path": "/x"}, {"body": "{}"}):
        assert not authorization(API_KEY, SECRET_KEY, **facts | other).endswith(header)


@given(units=st.integers(1, 10**9), decimals=st.sampled_from(["", "0", "00000"]))
def test_amounts_are_signed_without_trailing_zeros(units: int, decimals: str) -> None:
    price = price_of(units, "USD")
    assert units_of(price, "USD") == units
    response = {"paidPrice": float(price), "price": float(price), "paymentId": "1"}
    signature = signature_of(response, CHECKOUT, SECRET_KEY)
    assert is_genuine({**response, "signature": signature}, CHECKOUT, SECRET_KEY)
    assert not is_genuine({**response, "paidPrice": float(price) + 1, "signature": signature}, CHECKOUT, SECRET_KEY)
    assert not is_genuine(response, CHECKOUT, SECRET_KEY)
    assert units_of("0.001", "USD") == -1
