"""Management API of money: what organizations read and order, and what operators book, each once."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.urls import reverse

from accounts.models import AuditEntry, Organization, User
from accounts.tests.factories import a_user
from billing.ledger_audit import audit_ledger
from billing.models import Account, BookingApproval, LedgerEntry, Order
from billing.payments.orders import open_order, settle_order
from billing.tests.factories import an_organization
from codexflow.lib.money import NANOS_PER_USD
from keys.models import IdempotentCall
from keys.money.idempotency import KEPT, forget_calls
from keys.operators import issue_operator_key, revoke_operator_key
from keys.tests.factories import a_key
from tests.support.cast import Cast

pytestmark = pytest.mark.django_db


class Caller:
    """A client with a bearer."""

    def __init__(self, key: str) -> None:
        self.client, self.headers = Client(), {"authorization": f"Bearer {key}"}

    def get(self, path: str, **query: Any) -> Any:
        return self.client.get(path, query, headers=self.headers)

    def post(self, path: str, body: dict[str, Any], *, key: str = "") -> Any:
        headers = self.headers | ({"idempotency-key": key} if key else {})
        return self.client.post(path, json.dumps(body), content_type="application/json", headers=headers)

    def delete(self, path: str) -> Any:
        return self.client.delete(path, headers=self.headers)


def an_operator() -> tuple[Caller, User]:
    root = User.objects.create_superuser(f"{a_user().pk}-root@example.org")
    return Caller(issue_operator_key(root, name="job")[1]), root


def test_a_key_reads_its_organization_s_money_and_nobody_else_s(cast: Cast) -> None:
    organization = an_organization(plan="pro")
    ada, eve = Caller(a_key(organization).plain), Caller(a_key().plain)
    balance = ada.get(reverse("api-balance")).json()
    account = Account.objects.get(pk=organization.pk)
    assert balance["credit_nanos"] == account.credit_nanos == balance["available_nanos"]
    assert [each["granted_nanos"] for each in balance["sources"]] == [account.credit_nanos]
    entries = ada.get(reverse("api-ledger"), limit=1).json()
    assert (entries["data"][0]["kind"], entries["next"]) == ("grant", None)
    order = open_order(organization, provider="manual", amount_nanos=25 * NANOS_PER_USD)
    assert ada.get(reverse("api-order", args=[order.code])).json()["amount_usd"] == "25.00"
    assert eve.get(reverse("api-order", args=[order.code])).status_code == 404
    assert eve.delete(reverse("api-order", args=[order.code])).status_code == 404
    assert eve.get(reverse("api-orders")).json() == {"data": []}
    assert ada.get(reverse("api-invoices")).json() == {"data": [], "next": None}
    assert ada.delete(reverse("api-order", args=[order.code])).json()["state"] == "cancelled"
    paid = open_order(organization, provider="manual", amount_nanos=25 * NANOS_PER_USD)
    settle_order(paid, payment_reference="bank-1")
    assert ada.delete(reverse("api-order", args=[paid.code])).json()["error"]["code"] == "money_rule"


def test_an_order_is_placed_once_for_its_key() -> None:
    organization = an_organization()
    ada = Caller(a_key(organization).plain)
    first = ada.post(reverse("api-orders"), {"amount_usd": "25"}, key="one")
    again = ada.post(reverse("api-orders"), {"amount_usd": "25"}, key="one")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert first.json()["pay_url"].endswith(f"/billing/orders/{first.json()['code']}/")
    assert (first.headers.get("Idempotent-Replayed"), again.headers["Idempotent-Replayed"]) == (None, "true")
    other = ada.post(reverse("api-orders"), {"amount_usd": "26"}, key="one")
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    # Another organization's key of the same name is another one.
    assert Caller(a_key().plain).post(reverse("api-orders"), {"amount_usd": "9"}, key="one").status_code == 201
    assert Order.objects.filter(organization=organization).count() == 1
    for wrong in ({}, {"amount_usd": "1"}, {"amount_usd": "x"}, {"plan": "none"}, {"amount_usd": "9", "provider": "x"}):
        assert ada.post(reverse("api-orders"), wrong).status_code in (400, 409), wrong


def test_half_a_surrogate_in_a_field_that_nobody_reads_refuses_nothing() -> None:
    ada = Caller(a_key().plain)
    bodies = [{"amount_usd": "25", "note": note} for note in ("\ud83d", "\ud83d", "\ude00")]
    answers = [ada.post(reverse("api-orders"), body, key="half") for body in bodies]
    assert [each.status_code for each in answers] == [201, 201, 409]
    assert answers[0].json() == answers[1].json()


def test_operators_book_once_and_under_their_name() -> None:
    organization = an_organization()
    operator, root = an_operator()
    before = Account.objects.get(pk=organization.pk).credit_nanos
    grant = {"organization": organization.slug, "amount_usd": "20", "reason": "ticket"}
    answers = [operator.post(reverse("api-operator-grants"), grant, key="t1") for _ in range(3)]
    assert [each.status_code for each in answers] == [201] * 3
    assert len({each.content for each in answers}) == 1
    down = {**grant, "amount_usd": "-5"}
    assert operator.post(reverse("api-operator-adjustments"), down, key="t2").status_code == 201
    assert Account.objects.get(pk=organization.pk).credit_nanos == before + 15 * NANOS_PER_USD
    # The same key for another endpoint, another body, none at all, or one without a form.
    assert operator.post(reverse("api-operator-adjustments"), grant, key="t1").status_code == 409
    assert operator.post(reverse("api-operator-grants"), {**grant, "amount_usd": "21"}, key="t1").status_code == 409
    assert operator.post(reverse("api-operator-grants"), grant).status_code == 400
    assert operator.post(reverse("api-operator-grants"), grant, key="x" * 256).status_code == 400
    for wrong in ({"amount_usd": "-1"}, {"amount_usd": "0"}, {"amount_usd": "9e99"}, {"organization": "none"}):
        assert operator.post(reverse("api-operator-grants"), grant | wrong, key="t3").status_code == 400, wrong
    entry = AuditEntry.objects.filter(action="credit.booked").latest("pk")
    assert (entry.actor, entry.organization) == (root, organization)
    assert audit_ledger() == []


def test_operators_record_and_refund_payments() -> None:
    organization = an_organization()
    operator, _root = an_operator()
    order = open_order(organization, provider="manual", amount_nanos=25 * NANOS_PER_USD)
    paid = {"order": order.code, "payment_reference": "bank-1"}
    for _ in range(2):
        answer = operator.post(reverse("api-operator-payments"), paid, key="p1")
        assert (answer.status_code, answer.json()["state"]) == (201, "paid")
    assert (
        operator.post(reverse("api-operator-payments"), {**paid, "payment_reference": "b"}, key="p2").status_code == 409
    )
    refund = {"order": order.code, "amount_usd": "10", "reason": "too much", "reference": "back-1"}
    for _ in range(2):
        assert operator.post(reverse("api-operator-refunds"), refund, key="r1").status_code == 201
    order.refresh_from_db()
    assert order.refunded_nanos == 10 * NANOS_PER_USD
    too_much = operator.post(reverse("api-operator-refunds"), {**refund, "amount_usd": "16"}, key="r2")
    assert (too_much.status_code, too_much.json()["error"]["code"]) == (409, "money_rule")
    assert operator.post(reverse("api-operator-payments"), {**paid, "order": "NONE"}, key="p3").status_code == 404
    assert audit_ledger() == []


def test_nobody_but_a_working_operator_gets_in(client: Client, cast: Cast) -> None:
    operator, root = an_operator()
    row, plain = issue_operator_key(root, name="other")
    body = {"organization": cast.slug, "amount_usd": "1", "reason": "x"}
    grants = reverse("api-operator-grants")
    client.force_login(root)
    assert client.post(grants, body, content_type="application/json").status_code == 401
    assert Caller(a_key(cast.organization).plain).post(grants, body, key="a").status_code == 401
    for wrong in (plain[:-1] + ("A" if plain[-1] != "A" else "B"), plain[:-1], "cfxo_x", ""):
        assert Caller(wrong).post(grants, body, key="a").status_code == 401
    # Nor does an operator's key open anything else.
    assert Caller(plain).get(reverse("api-balance")).status_code == 401
    revoke_operator_key(row)
    assert Caller(plain).post(grants, body, key="a").status_code == 401
    assert operator.post(grants, body, key="a").status_code == 201
    User.objects.filter(pk=root.pk).update(role=User.Role.USER)
    assert operator.post(grants, body, key="b").status_code == 401


def test_operators_keys_are_made_for_super_administrators(capsys: pytest.CaptureFixture[str]) -> None:
    root = User.objects.create_superuser("root@example.org")
    call_command("create_operator_key", user=root.email)
    plain = capsys.readouterr().out.strip()
    body = {"organization": an_organization().slug, "amount_usd": "1", "reason": "x"}
    assert Caller(plain).post(reverse("api-operator-grants"), body, key="a").status_code == 201
    call_command("create_operator_key", revoke=plain[5:13])
    assert Caller(plain).post(reverse("api-operator-grants"), body, key="a").status_code == 401
    with pytest.raises(CommandError):
        call_command("create_operator_key", user=a_user().email)


def test_answers_are_kept_for_two_days() -> None:
    operator, _root = an_operator()
    body = {"organization": an_organization().slug, "amount_usd": "1", "reason": "x"}
    operator.post(reverse("api-operator-grants"), body, key="a")
    made = IdempotentCall.objects.get().created_at
    assert forget_calls(made + KEPT) == 0
    assert forget_calls(made + KEPT * 1.001) == 1


def test_a_key_that_is_used_anew_refunds_anew_and_the_same_refund_is_made_once() -> None:
    """A job that names its calls by tickets may come back to one after the answer was forgotten."""
    organization = an_organization()
    operator, _root = an_operator()
    orders = [open_order(organization, provider="manual", amount_nanos=25 * NANOS_PER_USD) for _ in range(2)]
    for order in orders:
        settle_order(order, payment_reference=f"bank {order.code}")
    for order, amount in ((orders[0], 10), (orders[0], 10), (orders[0], 5), (orders[1], 10)):
        body = {"order": order.code, "amount_usd": str(amount), "reason": "ticket"}
        answer = operator.post(reverse("api-operator-refunds"), body, key="ticket-4711")
        assert (answer.status_code, answer.json()["state"]) == (201, "done")
        forget_calls(IdempotentCall.objects.get().created_at + KEPT * 1.001)
    for order in orders:
        order.refresh_from_db()
    assert [order.refunded_nanos // NANOS_PER_USD for order in orders] == [15, 10]


@pytest.mark.django_db(transaction=True)
def test_of_ten_at_once_one_is_booked() -> None:
    organization: Organization = an_organization()
    operator, _root = an_operator()
    body = {"organization": organization.slug, "amount_usd": "20", "reason": "ticket"}

    def post(_number: int) -> bytes:
        try:
            return bytes(operator.post(reverse("api-operator-grants"), body, key="same").content)
        finally:
            connection.close()

    with ThreadPoolExecutor(10) as threads:
        answers = set(threads.map(post, range(10)))
    assert len(answers) == 1
    assert LedgerEntry.objects.filter(organization=organization, kind="promo").count() == 1


def test_a_paid_order_has_no_address_to_pay_at() -> None:
    organization = an_organization()
    order = open_order(organization, provider="manual", amount_nanos=25 * NANOS_PER_USD)
    settle_order(order, payment_reference="bank-1")
    shown = Caller(a_key(organization).plain).get(reverse("api-order", args=[order.code])).json()
    assert (shown["state"], shown["pay_url"]) == ("paid", None)


def test_a_large_booking_waits_for_another_operator(settings: Any) -> None:
    settings.ENV = replace(settings.ENV, four_eyes_above_nanos=NANOS_PER_USD)
    organization, (operator, _root) = an_organization(), an_operator()
    body = {"organization": organization.slug, "amount_usd": "20", "reason": "x"}
    answers = [operator.post(reverse("api-operator-grants"), body, key="a") for _ in range(2)]
    assert [each.status_code for each in answers] == [202, 202]
    assert answers[0].content == answers[1].content
    assert answers[0].json()["approval_id"] == BookingApproval.objects.get().pk
    assert not LedgerEntry.objects.filter(organization=organization, kind="promo").exists()
