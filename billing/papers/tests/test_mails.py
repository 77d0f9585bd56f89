"""Mails about issued papers: to those who manage billing, in their language, once."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail as outbox

from accounts.models import Membership, User
from billing.models import PaperMail
from billing.papers import mails
from billing.papers.issue import issue_credit_note
from billing.papers.tests.scene import an_invoice, with_seller
from codexflow.lib import clock
from tests.support.cast import Cast

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def issuing(settings: Any) -> None:
    settings.ENV = with_seller()


def test_billing_people_and_the_billing_address_get_one_mail_each(cast: Cast) -> None:
    User.objects.filter(pk=cast.ada.pk).update(language="tr")
    Membership.objects.filter(user=cast.vic).update(role=Membership.Role.BILLING)
    invoice = an_invoice(cast.organization)
    assert outbox.outbox == []
    assert (mails.send_waiting(), mails.send_waiting()) == (1, 0)
    sent = {mail.to[0]: mail for mail in outbox.outbox}
    assert set(sent) == {"ada@example.org", "vic@example.org", "muhasebe@example.org"}
    assert sent["ada@example.org"].subject.endswith("numaralı fatura")
    assert sent["vic@example.org"].subject == f"Invoice {invoice.number} for Analytical Engines"
    assert "25.00 USD" in str(sent["vic@example.org"].body)
    assert f"/o/{cast.slug}/billing/invoices/{invoice.number}/" in str(sent["vic@example.org"].body)


def test_a_credit_note_has_a_mail_of_its_own(cast: Cast) -> None:
    invoice = an_invoice(cast.organization)
    mails.send_waiting()
    outbox.outbox.clear()
    note = issue_credit_note(invoice, 100, reason="x")
    assert mails.send_waiting() == 1
    assert all(f"{note.number}" in mail.subject for mail in outbox.outbox)


def test_no_mail_is_sent_without_a_server_or_after_a_day(
    cast: Cast, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.ENV = replace(settings.ENV, mode="production", mail=None)
    an_invoice(cast.organization)
    assert mails.send_waiting() == 0
    settings.ENV = replace(settings.ENV, mode="development")
    an_invoice(cast.organization)
    later = clock.now() + timedelta(days=2)
    monkeypatch.setattr("billing.papers.mails.now", lambda: later)
    assert mails.send_waiting() == 0
    assert outbox.outbox == []
    assert not PaperMail.objects.exists()
