"""UBL-TR: the XML says what the invoice says, and its rules find what is wrong."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from django.test import Client
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from billing.papers.invoice import Item, Party, sums_of
from billing.papers.issue import issue_credit_note
from billing.papers.tests.scene import an_invoice, with_seller
from billing.papers.ubl import CAC, CBC, UblInvoice, ubl_bytes, ubl_number, ubl_of
from billing.papers.ubl_rules import problems_of
from tests.support.cast import Cast

TODAY = date(2026, 11, 28)
NAMES = {"cac": CAC, "cbc": CBC}
SELLER = Party(
    name="Örnek Yazılım A.Ş.", address="Büyükdere Caddesi 1\nKat 3", district="Şişli", city="İstanbul", country="TR",
    tax_id_kind="vkn", tax_id="4540536920", tax_office="Zincirlikuyu",
)  # fmt: skip
COMPANY = replace(SELLER, name="Işık & Oğulları <Ltd.>")
PERSON = replace(SELLER, name="Ayşe Nur Çağlayan", tax_id_kind="tckn", tax_id="17291716060", tax_office="")
ABROAD = Party(name="Analytical Engines GmbH", address="Allee 1", city="Berlin", country="DE")
BUYERS = {
    "company": COMPANY,
    "person": PERSON,
    "abroad": replace(ABROAD, tax_id_kind="eu_vat", tax_id="DE136695976"),
    "without a number": Party(name="Ayşe Çağlayan", address="Sokak 1", district="Çankaya", city="Ankara", country="TR"),
}


def an_xml(items: tuple[int, ...] = (2_500,), *, rate_bp: int = 2_000, **facts: Any) -> ET.Element:
    sums = sums_of([Item(kind="top_up", name="", total_cents=each) for each in items], rate_bp)
    known: dict[str, Any] = {
        "number": "CFX-2026-000001",
        "issued_at": datetime(2026, 11, 28, 9, 30, 5, tzinfo=UTC),
        "profile": "EARSIVFATURA",
        "currency": "USD",
        "seller": SELLER,
        "buyer": COMPANY,
        "descriptions": ["API kredisi"] * len(items),
        "try_rate": "34.123400",
    }
    return ubl_of(UblInvoice(sums=sums, **{**known, **facts}))


def text(root: ET.Element, path: str) -> str | None:
    return root.findtext(path, None, NAMES)


@pytest.mark.parametrize("buyer", BUYERS)
@pytest.mark.parametrize("profile", ["EARSIVFATURA", "TEMELFATURA"])
def test_an_invoice_breaks_no_rule(buyer: str, profile: str) -> None:
    assert problems_of(an_xml(buyer=BUYERS[buyer], profile=profile), today=TODAY) == []


@given(
    items=st.lists(st.integers(1, 10_000_000), min_size=1, max_size=8).map(tuple),
    rate_bp=st.sampled_from([0, 100, 1_000, 2_000]),
    currency=st.sampled_from(["USD", "TRY"]),
)
def test_any_amounts_break_no_rule(items: tuple[int, ...], rate_bp: int, currency: str) -> None:
    assert problems_of(an_xml(items, rate_bp=rate_bp, currency=currency), today=TODAY) == []


def test_the_file_is_read_back_with_every_letter() -> None:
    content = ubl_bytes(an_xml(buyer=PERSON))
    assert content.startswith(b"<?xml version='1.0' encoding='utf-8'?>")
    root = ET.fromstring(content)  # noqa: S314 - our own
    assert problems_of(root, today=TODAY) == []
    supplier, customer = ("cac:AccountingSupplierParty/cac:Party", "cac:AccountingCustomerParty/cac:Party")
    assert text(root, f"{supplier}/cac:PartyName/cbc:Name") == "Örnek Yazılım A.Ş."
    assert text(root, f"{supplier}/cac:PostalAddress/cbc:StreetName") == "Büyükdere Caddesi 1, Kat 3"
    assert text(root, f"{customer}/cac:Person/cbc:FirstName") == "Ayşe Nur"
    assert text(root, f"{customer}/cac:Person/cbc:FamilyName") == "Çağlayan"
    assert text(root, "cbc:ID") == "CFX2026000000001"
    assert text(root, "cac:LegalMonetaryTotal/cbc:PayableAmount") == "25.00"
    assert text(root, "cac:TaxTotal/cbc:TaxAmount") == "4.17"
    assert text(root, "cac:PricingExchangeRate/cbc:CalculationRate") == "34.123400"
    # The schema fixes the order of elements.
    order = [each.tag.rpartition("}")[2] for each in root]
    assert order == [
        "UBLVersionID", "CustomizationID", "ProfileID", "ID", "CopyIndicator", "UUID", "IssueDate", "IssueTime",
        "InvoiceTypeCode", "Note", "DocumentCurrencyCode", "LineCountNumeric", "AccountingSupplierParty",
        "AccountingCustomerParty", "PricingExchangeRate", "TaxTotal", "LegalMonetaryTotal", "InvoiceLine",
    ]  # fmt: skip


def test_the_same_invoice_has_the_same_uuid() -> None:
    assert ubl_bytes(an_xml()) == ubl_bytes(an_xml())
    assert text(an_xml(), "cbc:UUID") != text(an_xml(number="CFX-2026-000002"), "cbc:UUID")


def test_numbers_have_sixteen_places() -> None:
    assert ubl_number("CFX-2026-1234567") == "CFX2026001234567"


def setting(path: str, value: str, **attributes: str) -> Callable[[ET.Element], None]:
    def change(root: ET.Element) -> None:
        found = root.find(path, NAMES)
        assert found is not None, path
        found.text = value
        found.attrib.update(attributes)

    return change


def removing(above: str, path: str) -> Callable[[ET.Element], None]:
    def change(root: ET.Element) -> None:
        place = root if not above else root.find(above, NAMES)
        assert place is not None
        found = place.find(path, NAMES)
        assert found is not None, path
        place.remove(found)

    return change


SUPPLIER, CUSTOMER = "cac:AccountingSupplierParty/cac:Party", "cac:AccountingCustomerParty/cac:Party"
TOTALS, SUBTOTAL = "cac:LegalMonetaryTotal", "cac:TaxTotal/cac:TaxSubtotal"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (setting("cbc:UBLVersionID", "2.0"), "UBLVersionIDCheck"),
        (setting("cbc:CustomizationID", "TR9"), "CustomizationIDCheck"),
        (setting("cbc:ProfileID", "TICARIFATURA"), "ProfileIDCheck"),
        (setting("cbc:ID", "CFX-2026-000001"), "InvoiceIDCheck"),
        (setting("cbc:ID", "CFX2025000000001"), "the year of ID"),
        (setting("cbc:CopyIndicator", "true"), "CopyIndicatorCheck"),
        (setting("cbc:UUID", "x"), "UUIDCheck"),
        (setting("cbc:IssueDate", "2026-11-29"), "TimeCheck"),
        (setting("cbc:IssueDate", "2004-12-31"), "TimeCheck"),
        (setting("cbc:IssueDate", "28.11.2026"), "TimeCheck"),
        (setting("cbc:InvoiceTypeCode", "IADE"), "InvoiceTypeCodeCheck"),
        (setting("cbc:DocumentCurrencyCode", "EUR"), "GeneralCurrencyIDCheck"),
        (removing("", "cac:PricingExchangeRate"), "CurrencyCodeCheck"),
        (setting("cac:PricingExchangeRate/cbc:CalculationRate", "0"), "CurrencyCodeCheck"),
        (setting("cac:PricingExchangeRate/cbc:CalculationRate", "34.1234567"), "CurrencyCodeCheck"),
        (setting("cac:PricingExchangeRate/cbc:SourceCurrencyCode", "EUR"), "CurrencyCodeCheck"),
        (setting(f"{SUPPLIER}/cac:PartyIdentification/cbc:ID", "454053692"), "PartyIdentificationTCKNVKNCheck"),
        (setting(f"{SUPPLIER}/cac:PartyIdentification/cbc:ID", "4540536921"), "wrong check digits"),
        (setting(f"{SUPPLIER}/cac:PartyIdentification/cbc:ID", "2222222222"), "wrong check digits"),
        (setting(f"{CUSTOMER}/cac:PartyIdentification/cbc:ID", "4540536920", schemeID="VAT"), "SchemeIDCheck"),
        (setting(f"{CUSTOMER}/cac:PartyIdentification/cbc:ID", "17291716060", schemeID="TCKN"), "PartyNamePersonCheck"),
        (removing(CUSTOMER, "cac:PartyName"), "PartyNamePersonCheck"),
        (removing(f"{CUSTOMER}/cac:PostalAddress", "cbc:CityName"), "no CityName"),
        (removing(f"{SUPPLIER}/cac:PostalAddress", "cbc:CitySubdivisionName"), "no CitySubdivisionName"),
        (removing("", "cac:AccountingCustomerParty"), "Customer: there is none"),
        (setting("cac:TaxTotal/cbc:TaxAmount", "4.18"), "do not add up to its TaxTotal"),
        (setting(f"{SUBTOTAL}/cbc:Percent", "10.00"), "is not its Percent"),
        (setting(f"{SUBTOTAL}/cbc:TaxableAmount", "20.82"), "taxable amounts do not add up"),
        (setting(f"{SUBTOTAL}/cac:TaxCategory/cac:TaxScheme/cbc:TaxTypeCode", "0003"), "TaxTypeCheck"),
        (setting(f"{TOTALS}/cbc:LineExtensionAmount", "20.82"), "lines do not add up"),
        (setting(f"{TOTALS}/cbc:TaxExclusiveAmount", "20.84"), "TaxExclusiveAmount"),
        (setting(f"{TOTALS}/cbc:TaxInclusiveAmount", "25.01"), "TaxInclusiveAmount"),
        (setting(f"{TOTALS}/cbc:PayableAmount", "24.99"), "PayableAmount"),
        (setting(f"{TOTALS}/cbc:PayableAmount", "25.0"), "decimalCheck"),
        (setting(f"{TOTALS}/cbc:PayableAmount", "NaN"), "decimalCheck"),
        (setting("cac:InvoiceLine/cac:TaxTotal/cbc:TaxAmount", "4.16"), "taxes of the lines"),
        (setting("cbc:LineCountNumeric", "2"), "LineCountNumeric"),
        (removing("", "cac:InvoiceLine"), "LineCountNumeric"),
        (setting("cac:InvoiceLine/cac:Item/cbc:Name", " "), "EmptyCheck"),
        (setting("cac:InvoiceLine/cbc:InvoicedQuantity", "1", unitCode=""), "InvoicedQuantityCheck"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_named(change: Callable[[ET.Element], None], problem: str) -> None:
    root = an_xml()
    change(root)
    found = problems_of(root, today=TODAY)
    assert any(problem in each for each in found), found


def test_a_sale_without_tax_says_why() -> None:
    root = an_xml(rate_bp=0)
    assert text(root, f"{SUBTOTAL}/cac:TaxCategory/cbc:TaxExemptionReasonCode") == "351"
    removing(f"{SUBTOTAL}/cac:TaxCategory", "cbc:TaxExemptionReason")(root)
    assert any("TaxExemptionReasonCheck" in each for each in problems_of(root, today=TODAY))


def test_the_page_downloads_the_file_or_says_what_is_missing(client: Client, cast: Cast, settings: Any) -> None:
    settings.ENV = with_seller()
    client.force_login(cast.ada)
    invoice = an_invoice(cast.organization)
    where = reverse("paper-ubl", args=[cast.slug, invoice.number])
    assert where in client.get(reverse("paper", args=[cast.slug, invoice.number])).content.decode()
    assert client.get(where).status_code == 200
    refused = client.get(where, {"profile": "EARSIVFATURA"})
    assert refused.status_code == 422
    assert "exchange rate" in refused.content.decode()
    for wrong in ("0", "-1", "x", "1e3", "NaN"):
        assert client.get(where, {"profile": "EARSIVFATURA", "rate": wrong}).status_code in (200, 422)
    response = client.get(where, {"profile": "TEMELFATURA", "rate": "34.5"})
    assert response["Content-Type"] == "application/xml"
    root = ET.fromstring(response.content)  # noqa: S314 - our own
    assert text(root, "cbc:ProfileID") == "TEMELFATURA"
    assert text(root, "cac:InvoiceLine/cac:Item/cbc:Name") == "API kredisi"
    note = issue_credit_note(invoice, 100, reason="x")
    assert client.get(reverse("paper-ubl", args=[cast.slug, note.number])).status_code == 404
    settings.ENV = replace(settings.ENV, seller=replace(settings.ENV.seller, country="DE", tax_id="DE136695976"))
    elsewhere = an_invoice(cast.organization)
    assert client.get(reverse("paper-ubl", args=[cast.slug, elsewhere.number])).status_code == 404
    client.force_login(cast.eve)
    own = cast.eve.organizations.get()
    assert client.get(reverse("paper-ubl", args=[own.slug, invoice.number])).status_code == 404
