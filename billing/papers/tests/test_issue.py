"""Invoices and credit notes: issued with the order's payment, numbered without gaps, never changed."""

from dataclasses import replace
from datetime import UTC, datetime
from threading import Barrier, Thread
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connection, connections, transaction

from accounts.models import AuditEntry, Organization
from billing.checks import check_seller
from billing.models import Order, Paper, PaperSeries, Plan
from billing.papers.details import set_details
from billing.papers.issue import CreditNoteRefused, credited_of, issue_credit_note, issue_invoice, preview_of
from billing.papers.tests.scene import DETAILS, SELLER, a_paid_order, an_invoice, with_seller
from billing.payments.orders import open_order, settle_order
from billing.payments.reversals import reverse
from billing.tests.factories import an_organization
from codexflow.lib import clock, isolation
from codexflow.lib.money import NANOS_PER_USD

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def issuing(settings: Any) -> None:
    settings.ENV = with_seller()


@pytest.fixture
def organization() -> Organization:
    return an_organization(plan="free")


def test_a_paid_order_has_its_invoice_with_both_parties_of_the_day(organization: Organization, settings: Any) -> None:
    invoice = an_invoice(organization)
    assert (invoice.kind, invoice.currency, invoice.tax_rate_bp) == ("invoice", "USD", 2000)
    assert (invoice.net_cents, invoice.tax_cents, invoice.total_cents) == (2083, 417, 2500)
    year = invoice.issued_at.year
    assert invoice.number == f"CFX-{year}-000001"
    assert invoice.seller["tax_id_kind"] == "vkn"
    assert (invoice.buyer["name"], invoice.buyer["tax_id"]) == (DETAILS["legal_name"], DETAILS["tax_id"])
    facts = AuditEntry.objects.get(action="paper.issued").facts
    assert facts == {
        "number": invoice.number,
        "code": invoice.order and invoice.order.code,
        "total_cents": 2500,
        "currency": "USD",
    }
    # What changes later changes no invoice.
    set_details(organization, {**DETAILS, "legal_name": "Another Name"})
    settings.ENV = replace(settings.ENV, seller=replace(SELLER, name="Another Seller"), tax_rate_bp=100)
    invoice.refresh_from_db()
    assert (invoice.buyer["name"], invoice.seller["name"]) == (DETAILS["legal_name"], SELLER.name)
    assert invoice.tax_cents == 417


@pytest.mark.parametrize("rate_bp", [0, 100, 1000, 2000])
@pytest.mark.parametrize("usd", [5, 7, 25, 333])
def test_the_preview_is_the_invoice_to_the_cent(
    organization: Organization, settings: Any, rate_bp: int, usd: int
) -> None:
    settings.ENV = with_seller(rate_bp=rate_bp)
    order = open_order(organization, provider="manual", amount_nanos=usd * NANOS_PER_USD)
    preview = preview_of(order)
    settle_order(order, payment_reference="transfer 1")
    invoice = Paper.objects.get(order=order)
    assert (preview.net_cents, preview.tax_cents, preview.total_cents) == (
        invoice.net_cents,
        invoice.tax_cents,
        invoice.total_cents,
    )
    assert [each.stored() for each in preview.lines] == invoice.lines
    assert invoice.total_cents == usd * 100


def test_a_plan_is_named_on_its_invoice(organization: Organization) -> None:
    assert an_invoice(organization, plan="pro").lines[0]["name"] == "Pro"


@pytest.mark.parametrize(("nanos", "cents"), [(19_999_000_000, 2_000), (19_994_999_999, 1_999)])
def test_a_price_with_a_fraction_of_a_cent_is_rounded_once(organization: Organization, nanos: int, cents: int) -> None:
    Plan.objects.filter(slug="pro").update(price_month_nanos=nanos)
    assert an_invoice(organization, plan="pro").total_cents == cents


def test_an_order_of_less_than_half_a_cent_has_no_invoice(organization: Organization) -> None:
    Plan.objects.filter(slug="pro").update(price_month_nanos=4_999_999)
    assert a_paid_order(organization, plan="pro").state == "paid"
    assert not Paper.objects.exists()


def test_a_wrong_tax_number_in_the_settings_stops_no_payment(organization: Organization, settings: Any) -> None:
    settings.ENV = replace(settings.ENV, seller=replace(SELLER, tax_id="4540536921"))
    invoice = an_invoice(organization)
    assert (invoice.seller["tax_id_kind"], invoice.seller["tax_id"]) == ("other", "4540536921")


def test_an_order_may_be_settled_from_a_page_of_its_organization(organization: Organization) -> None:
    order = open_order(organization, provider="manual", amount_nanos=25 * NANOS_PER_USD)
    with isolation.within(organization.pk, person_id=1):
        settle_order(order, payment_reference="transfer 1")
    assert Paper.objects.get(order=order).number.endswith("000001")


def test_without_a_seller_no_invoice_is_issued(organization: Organization, settings: Any) -> None:
    settings.ENV = replace(settings.ENV, seller=None)
    assert a_paid_order(organization).state == "paid"
    assert not Paper.objects.exists()
    assert not PaperSeries.objects.exists()


def test_without_details_the_organization_is_the_buyer(organization: Organization) -> None:
    order = a_paid_order(organization)
    assert Paper.objects.get(order=order).buyer["name"] == organization.name


def test_a_payment_that_is_reported_again_issues_no_second_invoice(organization: Organization) -> None:
    order = a_paid_order(organization)
    settle_order(order, payment_reference=order.payment_reference)
    assert Paper.objects.count() == 1
    with pytest.raises(IntegrityError, match="paper_one_invoice"):
        issue_invoice(order)


def numbers() -> list[int]:
    return [int(number[-6:]) for number in Paper.objects.order_by("pk").values_list("number", flat=True)]


@pytest.mark.django_db(transaction=True)
def test_fifty_at_once_are_numbered_without_a_gap_and_a_rolled_back_one_leaves_none() -> None:
    """MON-33."""
    organizations = [an_organization(plan="free") for _ in range(10)]
    orders = [
        open_order(organizations[n % 10], provider="manual", amount_nanos=(5 + n) * NANOS_PER_USD) for n in range(50)
    ]
    undone = open_order(an_organization(plan="free"), provider="manual", amount_nanos=5 * NANOS_PER_USD)
    together = Barrier(51)

    def settle(order: Order) -> None:
        try:
            together.wait(30)
            with transaction.atomic():
                settle_order(order, payment_reference=f"transfer {order.pk}")
                if order.pk == undone.pk:
                    transaction.set_rollback(True)
        finally:
            connections.close_all()

    threads = [Thread(target=settle, args=[order]) for order in [*orders, undone]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers()) == list(range(1, 51))
    assert Order.objects.get(pk=undone.pk).state == "open"
    in_order = Paper.objects.order_by("number").values_list("issued_at", flat=True)
    assert list(in_order) == sorted(in_order)


def test_numbers_begin_anew_each_year(organization: Organization, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in ("2026-12-31T23:59:59", "2027-01-01T00:00:00", "2027-01-01T00:00:01"):
        moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
        monkeypatch.setattr(clock, "now", lambda moment=moment: moment)
        a_paid_order(organization)
    shown = list(Paper.objects.order_by("pk").values_list("number", flat=True))
    assert shown == ["CFX-2026-000001", "CFX-2027-000001", "CFX-2027-000002"]


def test_a_later_number_never_has_an_earlier_time(organization: Organization, monkeypatch: pytest.MonkeyPatch) -> None:
    for second in (30, 10):
        moment = datetime(2026, 12, 1, 12, 0, second, tzinfo=UTC)
        monkeypatch.setattr(clock, "now", lambda moment=moment: moment)
        a_paid_order(organization)
    assert [each.issued_at.second for each in Paper.objects.order_by("number")] == [30, 30]


@pytest.mark.parametrize(
    "change", ["UPDATE billing_paper SET total_cents = 1, net_cents = 1, tax_cents = 0", "DELETE FROM billing_paper"]
)
def test_an_issued_paper_never_changes(organization: Organization, change: str) -> None:
    an_invoice(organization)
    with pytest.raises(DatabaseError, match="never changes"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(change)


def test_credit_notes_take_an_invoice_back_in_parts(organization: Organization) -> None:
    invoice = an_invoice(organization)
    first = issue_credit_note(invoice, 999, reason="Unused", actor_label="test")
    assert (first.kind, first.corrects, first.number[:4]) == ("credit_note", invoice, "CFN-")
    assert (first.buyer, first.seller, first.order) == (invoice.buyer, invoice.seller, invoice.order)
    second = issue_credit_note(invoice, 1501, reason="The rest")
    assert credited_of(invoice).tax_cents == invoice.tax_cents
    assert first.net_cents + second.net_cents == invoice.net_cents
    assert [int(each.number[-6:]) for each in (first, second)] == [1, 2]
    with pytest.raises(CreditNoteRefused):
        issue_credit_note(invoice, 1, reason="More")
    assert AuditEntry.objects.filter(action="paper.credited").count() == 2


@pytest.mark.parametrize("cents", [0, -1, 2501])
def test_more_than_the_invoice_is_not_credited(organization: Organization, cents: int) -> None:
    with pytest.raises(CreditNoteRefused):
        issue_credit_note(an_invoice(organization), cents, reason="x")
    assert not PaperSeries.objects.filter(prefix="CFN").exists()


@pytest.mark.django_db(transaction=True)
def test_of_credit_notes_at_once_no_more_than_the_invoice_is_issued(organization: Organization) -> None:
    invoice = an_invoice(organization)
    refused = []

    def credit() -> None:
        try:
            issue_credit_note(invoice, 1000, reason="x")
        except CreditNoteRefused as exc:
            refused.append(exc)
        finally:
            connections.close_all()

    threads = [Thread(target=credit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (credited_of(invoice).total_cents, len(refused)) == (2000, 6)
    assert sorted(Paper.objects.filter(kind="credit_note").values_list("number", flat=True))[-1].endswith("000002")


def test_changed_details_are_audited_by_field_and_not_by_value(organization: Organization) -> None:
    set_details(organization, DETAILS)
    set_details(organization, {**DETAILS, "city": "Ankara"})
    set_details(organization, {**DETAILS, "city": "Ankara"})
    entries = AuditEntry.objects.filter(action="paper.details_set").order_by("pk")
    assert [each.facts["fields"] for each in entries][1:] == [["city"]]
    assert DETAILS["legal_name"] not in str(entries[0].facts)


def test_a_wrong_tax_number_of_the_seller_is_an_error(settings: Any) -> None:
    assert check_seller(None) == []
    settings.ENV = replace(settings.ENV, seller=replace(SELLER, tax_id="4540536921"))
    assert [each.id for each in check_seller(None)] == ["billing.E001"]
    settings.ENV = replace(settings.ENV, seller=None)
    assert check_seller(None) == []
    settings.ENV = replace(settings.ENV, mode="production")
    assert [each.id for each in check_seller(None)] == ["billing.W001"]


def test_a_refund_has_its_credit_note_of_what_operators_have_left(organization: Organization) -> None:
    invoice = an_invoice(organization)
    order = invoice.order
    assert order is not None
    with transaction.atomic():
        reverse(order, refunded_nanos=10 * NANOS_PER_USD, disputed_nanos=0, reason="Too much")
        reverse(order, refunded_nanos=10 * NANOS_PER_USD, disputed_nanos=0, reason="Told twice")
    (note,) = Paper.objects.filter(corrects=invoice)
    assert (note.kind, note.total_cents, note.reason) == ("credit_note", 1000, "Too much")
    issue_credit_note(invoice, 500, reason="By hand")
    with transaction.atomic():
        reverse(order, refunded_nanos=25 * NANOS_PER_USD, disputed_nanos=0)
    assert credited_of(invoice).total_cents == invoice.total_cents


def test_a_refund_without_an_invoice_has_no_credit_note(organization: Organization, settings: Any) -> None:
    settings.ENV = replace(settings.ENV, seller=None)
    order = a_paid_order(organization)
    with transaction.atomic():
        reverse(order, refunded_nanos=order.amount_nanos, disputed_nanos=0)
    assert not Paper.objects.exists()
