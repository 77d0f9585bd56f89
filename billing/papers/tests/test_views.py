"""Pages of invoices and billing details."""

import csv
import io
from dataclasses import replace
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import translation

from accounts.models import Organization, User
from billing.models import BillingDetails, Paper
from billing.papers.issue import issue_credit_note
from billing.papers.tests.scene import DETAILS, an_invoice, with_seller
from billing.payments.orders import open_order, settle_order
from codexflow.lib.money import NANOS_PER_USD
from codexflow.templatetags.show import money
from tests.support.cast import Cast


@pytest.fixture
def page(client: Client, cast: Cast, settings: Any) -> Client:
    settings.ENV = with_seller()
    client.force_login(cast.ada)
    return client


def text_of(client: Client, name: str, *args: Any) -> str:
    response = client.get(reverse(name, args=args))
    assert response.status_code == 200
    return response.content.decode()


def test_details_are_given_once_and_are_on_the_next_invoice(page: Client, cast: Cast) -> None:
    where = reverse("billing-details", args=[cast.slug])
    assert "<html" not in page.get(where, headers={"hx-request": "true"}).content.decode()
    typed = {
        **DETAILS,
        "country": "tr",
        "address": "  Çağlayan   Sokağı 12\r\n\r\nKat 2\x07 ",
        "tax_id": "172 917 16060",
    }
    assert page.post(where, typed).status_code == 302
    stored = BillingDetails.objects.get(organization=cast.organization)
    assert (stored.address, stored.country) == ("Çağlayan Sokağı 12\nKat 2", "TR")
    assert 'value="Güngören"' in page.get(where).content.decode()
    assert page.post(where, DETAILS).status_code == 302
    assert "Işık Öğrenme" in text_of(page, "papers", cast.slug)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"legal_name": ""}, "legal_name"),
        ({"country": "XX"}, "country"),
        ({"country": "ıt"}, "country"),
        ({"tax_id": "17291716061"}, "tax_id"),
        ({"tax_id": ""}, "tax_id"),
        ({"tax_id_kind": ""}, "tax_id_kind"),
        ({"tax_id_kind": "vkn"}, "tax_id"),
        ({"country": "DE"}, "tax_id"),
        ({"district": ""}, "district"),
        ({"email": "nobody"}, "email"),
        ({"legal_name": "\x07 \u200b"}, "legal_name"),
    ],
)
def test_wrong_details_are_refused_with_the_reason(
    page: Client, cast: Cast, changes: dict[str, str], field: str
) -> None:
    response = page.post(reverse("billing-details", args=[cast.slug]), {**DETAILS, **changes})
    assert response.status_code == 422
    assert list(response.context["form"].errors) == [field]
    assert not BillingDetails.objects.exists()


def test_the_order_shows_the_invoice_before_and_after_it_is_paid(page: Client, cast: Cast) -> None:
    order = open_order(cast.organization, provider="manual", amount_nanos=25 * NANOS_PER_USD)
    shown = text_of(page, "order", cast.slug, order.code)
    assert "20.83 USD" in shown
    assert "4.17 USD" in shown
    assert reverse("billing-details", args=[cast.slug]) in shown
    invoice = an_invoice(cast.organization)
    assert invoice.order is not None
    paid = text_of(page, "order", cast.slug, invoice.order.code)
    assert reverse("paper", args=[cast.slug, invoice.number]) in paid
    assert "20.83 USD" not in paid


@pytest.mark.parametrize("name", ["credit-order", "plan-order"])
def test_details_are_asked_for_before_anything_is_ordered(page: Client, cast: Cast, name: str) -> None:
    """MON-36, UX-08."""
    asked = text_of(page, name, cast.slug)
    assert "Prices include VAT 20%" in asked
    assert reverse("billing-details", args=[cast.slug]) in asked
    page.post(reverse("billing-details", args=[cast.slug]), DETAILS)
    assert reverse("billing-details", args=[cast.slug]) not in text_of(page, name, cast.slug)


def test_without_a_seller_pages_speak_of_no_invoice(page: Client, cast: Cast, settings: Any) -> None:
    settings.ENV = replace(settings.ENV, seller=None)
    order = open_order(cast.organization, provider="manual", amount_nanos=25 * NANOS_PER_USD)
    assert "On the invoice" not in text_of(page, "order", cast.slug, order.code)
    assert "issues no invoices" in text_of(page, "papers", cast.slug)
    assert reverse("billing-details", args=[cast.slug]) not in text_of(page, "credit-order", cast.slug)


def test_an_invoice_shows_both_parties_lines_and_sums(page: Client, cast: Cast) -> None:
    invoice = an_invoice(cast.organization, plan="pro")
    note = issue_credit_note(invoice, 1_000, reason="Too <much>")
    shown = text_of(page, "paper", cast.slug, invoice.number)
    for text in ("Örnek Yazılım A.Ş.", "VKN: 4540536920", "TCKN: 17291716060", "Plan Pro for a month", "49.00 USD"):
        assert text in shown
    assert note.number in shown
    assert "Too &lt;much&gt;" in text_of(page, "paper", cast.slug, note.number)
    listed = text_of(page, "papers", cast.slug)
    assert f"\N{MINUS SIGN}{money(note.total_cents, 'USD')}" in listed
    assert invoice.number in listed


def test_an_invoice_in_turkish(page: Client, cast: Cast) -> None:
    User.objects.filter(pk=cast.ada.pk).update(language="tr")
    invoice = an_invoice(cast.organization)
    shown = text_of(page, "paper", cast.slug, invoice.number)
    for text in ("Fatura", "Satıcı", "Alıcı", "KDV %20", "25,00 USD"):
        assert text in shown


def test_an_invoice_as_csv_adds_up(page: Client, cast: Cast) -> None:
    Organization.objects.filter(pk=cast.organization.pk).update(name="=1+1")
    invoice = an_invoice(cast.organization)
    response = page.get(reverse("paper-csv", args=[cast.slug, invoice.number]))
    assert response["Content-Disposition"] == f'attachment; filename="{invoice.number}.csv"'
    assert "no-store" in response["Cache-Control"]
    (row,) = csv.DictReader(io.StringIO(response.content.decode()))
    assert (row["net"], row["tax"], row["total"], row["tax_rate_percent"]) == ("20.83", "4.17", "25.00", "20.00")
    assert (row["number"], row["buyer_tax_id"], row["item"]) == (invoice.number, "17291716060", "top_up")


def test_a_cell_of_csv_is_no_formula(page: Client, cast: Cast) -> None:
    page.post(reverse("billing-details", args=[cast.slug]), {**DETAILS, "legal_name": "=1+1"})
    order = open_order(cast.organization, provider="manual", amount_nanos=25 * NANOS_PER_USD)
    settle_order(order, payment_reference="transfer 1")
    number = Paper.objects.get(order=order).number
    assert ",'=1+1," in page.get(reverse("paper-csv", args=[cast.slug, number])).content.decode()


@pytest.mark.parametrize("name", ["paper", "paper-csv"])
def test_papers_of_another_organization_are_not_found(page: Client, cast: Cast, name: str) -> None:
    invoice = an_invoice(cast.organization)
    page.force_login(cast.eve)
    own = cast.eve.organizations.get()
    assert page.get(reverse(name, args=[own.slug, invoice.number])).status_code == 404
    assert page.get(reverse(name, args=[cast.slug, invoice.number])).status_code == 404
    assert page.get(reverse(name, args=[own.slug, "CFX-2026-999999"])).status_code == 404


def test_older_papers_are_on_further_pages(page: Client, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("billing.papers.views.PAGE", 2)
    numbers = [an_invoice(cast.organization).number for _ in range(3)]
    first = page.get(reverse("papers", args=[cast.slug]))
    assert numbers[0] not in first.content.decode()
    older = page.get(reverse("papers", args=[cast.slug]), {"before": first.context["older"]}).content.decode()
    assert numbers[0] in older
    assert numbers[2] not in older


def test_amounts_are_written_as_the_language_does() -> None:
    with translation.override("tr"):
        assert money(123_456, "USD") == "1.234,56 USD"
    with translation.override("en"):
        assert (money(123_456, "USD"), money(-5, "USD"), money(0, "USD")) == (
            "1,234.56 USD",
            "\N{MINUS SIGN}0.05 USD",
            "0.00 USD",
        )


def test_operators_read_the_lines_of_an_invoice_in_words(client: Client, cast: Cast, settings: Any) -> None:
    settings.ENV = with_seller()
    client.force_login(User.objects.create_superuser("one@example.org"))
    invoice = an_invoice(cast.organization)
    with translation.override("en"):
        text = text_of(client, "admin:billing_paper_change", invoice.pk)
    assert "Description: Credit for the API · Net: 20.83 USD · VAT: 4.17 USD · Total: 25.00 USD" in text
    assert "net_cents" not in text
