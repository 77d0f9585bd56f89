"""Bookings above an amount need a second operator."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse

from accounts.models import AuditEntry, User
from billing.approvals import ApprovalRefused, approve, book_or_ask, refund_or_ask, reject
from billing.ledger_audit import audit_ledger
from billing.models import Account, BookingApproval, LedgerEntry
from billing.payments.orders import open_order, settle_order
from billing.payments.refunds import RefundRefused
from billing.tests.factories import an_organization
from codexflow.lib.clock import now
from codexflow.lib.ids import random_id
from codexflow.lib.money import NANOS_PER_USD

pytestmark = pytest.mark.django_db
USD = NANOS_PER_USD


@pytest.fixture(autouse=True)
def four_eyes(settings: Any) -> None:
    settings.ENV = replace(settings.ENV, four_eyes_above_nanos=100 * USD)


def operators() -> tuple[User, User]:
    return User.objects.create_superuser("one@example.org"), User.objects.create_superuser("two@example.org")


@pytest.mark.parametrize(
    ("kind", "usd", "waits"),
    [("promo", 100, False), ("promo", 101, True), ("adjustment", -101, True), ("adjustment", -100, False),
     ("top_up", 5_000, False)],
)  # fmt: skip
def test_above_the_amount_another_operator_must_agree(kind: str, usd: int, waits: bool) -> None:
    organization, (one, two) = an_organization(), operators()
    before = Account.objects.get(pk=organization.pk).credit_nanos
    booked = book_or_ask(organization, usd * USD, kind=LedgerEntry.Kind(kind), reason="ticket", actor=one)
    assert isinstance(booked, BookingApproval) is waits
    if isinstance(booked, BookingApproval):
        assert Account.objects.get(pk=organization.pk).credit_nanos == before
        for wrong in (one, User.objects.create_user("nobody@example.org")):
            with pytest.raises(ApprovalRefused):
                approve(booked, actor=wrong)
        approve(booked, actor=two)
        with pytest.raises(ApprovalRefused):
            approve(booked, actor=two)
    assert Account.objects.get(pk=organization.pk).credit_nanos == before + usd * USD
    assert audit_ledger() == []


def test_a_rejected_booking_is_never_booked() -> None:
    organization, (one, two) = an_organization(), operators()
    asked = book_or_ask(organization, 500 * USD, kind=LedgerEntry.Kind.PROMO, reason="x", actor=one)
    assert isinstance(asked, BookingApproval)
    reject(asked, actor=one)  # withdrawn
    with pytest.raises(ApprovalRefused):
        approve(asked, actor=two)
    assert not LedgerEntry.objects.filter(organization=organization, kind="promo").exists()
    assert list(AuditEntry.objects.filter(action__startswith="approval.").values_list("action", flat=True)) == [
        "approval.asked",
        "approval.rejected",
    ]
    with pytest.raises(IntegrityError), transaction.atomic():
        BookingApproval.objects.update(state="approved", decided_by=one)


def test_what_was_booked_or_has_expired_meanwhile_is_not_booked() -> None:
    organization, (one, two) = an_organization(), operators()
    facts: dict[str, Any] = {"kind": LedgerEntry.Kind.PROMO, "reason": "ticket", "actor": one}
    twice = [book_or_ask(organization, 500 * USD, reference="ticket 7", **facts) for _ in range(2)]
    late = book_or_ask(organization, 500 * USD, expires_at=now() - timedelta(seconds=1), **facts)
    first, second = twice
    approve(cast(BookingApproval, first), actor=two)
    for refused in (second, late):
        with pytest.raises(ApprovalRefused):
            approve(cast(BookingApproval, refused), actor=two)
    assert LedgerEntry.objects.filter(organization=organization, kind="promo").count() == 1
    assert audit_ledger() == []


def test_refunds_wait_too_and_only_once() -> None:
    organization, (one, two) = an_organization(), operators()
    order = open_order(organization, provider="manual", amount_nanos=400 * USD)
    settle_order(order, payment_reference="bank-1")
    assert refund_or_ask(order, 50 * USD, key=random_id(), reason="x", actor=one) is None
    asked = refund_or_ask(order, 300 * USD, key=random_id(), reason="x", actor=one)
    assert asked is not None
    order.refresh_from_db()
    assert order.refunded_nanos == 50 * USD
    with pytest.raises(RefundRefused):
        refund_or_ask(order, 351 * USD, key=random_id(), reason="x", actor=one)
    approve(asked, actor=two)
    order.refresh_from_db()
    assert order.refunded_nanos == 350 * USD
    assert audit_ledger() == []


def test_the_second_operator_approves_on_a_page(client: Client) -> None:
    organization, (one, two) = an_organization(), operators()
    client.force_login(one)
    facts = {
        "organization": organization.pk, "kind": "promo", "amount_usd": "500", "reference": "", "note": "launch",
        "expires_at_0": "", "expires_at_1": "", "is_confirmed": "on",
    }  # fmt: skip
    assert client.post(reverse("admin:billing_ledgerentry_add"), facts).status_code == 302
    asked = BookingApproval.objects.get()
    page = reverse("admin:billing_bookingapproval_changelist")
    chosen = {"action": "approve_chosen", "_selected_action": [asked.pk]}
    client.post(page, chosen)
    asked.refresh_from_db()
    assert asked.state == "pending"
    client.force_login(two)
    assert "launch" in client.get(page).content.decode()
    client.post(page, chosen)
    asked.refresh_from_db()
    assert (asked.state, asked.decided_by) == ("approved", two)
    entry = LedgerEntry.objects.get(organization=organization, kind="promo")
    assert entry.amount_nanos == 500 * USD
