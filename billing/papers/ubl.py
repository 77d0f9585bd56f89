"""Invoices as UBL-TR, the XML of electronic invoices in Türkiye, to be signed and sent by an integrator. Pure.

Profiles: EARSIVFATURA for buyers who are not registered for electronic invoices, TEMELFATURA for those who are.
`billing.papers.ubl_rules` checks the result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import NAMESPACE_URL, uuid5
from xml.etree import ElementTree as ET

from billing.papers.invoice import Party, Sums
from billing.papers.tables import decimals
from billing.papers.tax_ids import TCKN, VKN

INVOICE = "urn:oasis:names:specification:ubl:schema:xsd:Invoice-2"
CAC = "urn:oasis:names:specification:ubl:schema:xsd:CommonAggregateComponents-2"
CBC = "urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2"
PROFILES = ("EARSIVFATURA", "TEMELFATURA")
# VAT; pieces; "not exempt, other": the reason that a sale without VAT states.
VAT_CODE, PIECES = "0015", "C62"
NO_VAT_CODE, NO_VAT_REASON = "351", "KDV - İstisna Olmayan Diğer"
# Numbers that stand for buyers without one: a person, and a company abroad.
NO_TCKN, FOREIGN_VKN = "11111111111", "2222222222"
TURKEY = "Türkiye"

for _prefix, _namespace in (("", INVOICE), ("cac", CAC), ("cbc", CBC)):
    ET.register_namespace(_prefix, _namespace)


@dataclass(frozen=True, slots=True, kw_only=True)
class UblInvoice:
    """Content of the XML. `descriptions` are the texts of the lines; `try_rate` is the price of one unit in lira."""

    number: str
    issued_at: datetime
    profile: str
    currency: str
    seller: Party
    buyer: Party
    sums: Sums
    descriptions: Sequence[str]
    try_rate: str = ""


def ubl_number(number: str) -> str:
    """Return a paper's number as UBL-TR writes it: CFX-2026-000001 is CFX2026000000001."""
    prefix, year, sequence = number.split("-")
    return f"{prefix}{year}{int(sequence):09}"


def ubl_of(paper: UblInvoice) -> ET.Element:
    """Return the root of the XML. The same invoice gives the same XML, its UUID included."""
    at = paper.issued_at.astimezone(UTC)
    root = ET.Element(f"{{{INVOICE}}}Invoice")
    for name, text in (
        ("UBLVersionID", "2.1"),
        ("CustomizationID", "TR1.2"),
        ("ProfileID", paper.profile),
        ("ID", ubl_number(paper.number)),
        ("CopyIndicator", "false"),
        ("UUID", str(uuid5(NAMESPACE_URL, f"{paper.seller.tax_id}:{paper.number}"))),
        ("IssueDate", f"{at:%Y-%m-%d}"),
        ("IssueTime", f"{at:%H:%M:%S}"),
        ("InvoiceTypeCode", "SATIS"),
        ("Note", paper.number),
        ("DocumentCurrencyCode", paper.currency),
        ("LineCountNumeric", str(len(paper.sums.lines))),
    ):
        _text(root, name, text)
    _party(_group(root, "AccountingSupplierParty", "Party"), paper.seller)
    _party(_group(root, "AccountingCustomerParty", "Party"), paper.buyer)
    if paper.currency != "TRY" and paper.try_rate:
        rate = _group(root, "PricingExchangeRate")
        _text(rate, "SourceCurrencyCode", paper.currency)
        _text(rate, "TargetCurrencyCode", "TRY")
        _text(rate, "CalculationRate", paper.try_rate)
        _text(rate, "Date", f"{at:%Y-%m-%d}")
    _tax(root, paper, paper.sums.net_cents, paper.sums.tax_cents)
    totals = _group(root, "LegalMonetaryTotal")
    for name, cents in (
        ("LineExtensionAmount", paper.sums.net_cents),
        ("TaxExclusiveAmount", paper.sums.net_cents),
        ("TaxInclusiveAmount", paper.sums.total_cents),
        ("PayableAmount", paper.sums.total_cents),
    ):
        _amount(totals, name, cents, paper.currency)
    for number, (line, description) in enumerate(zip(paper.sums.lines, paper.descriptions, strict=True), 1):
        row = _group(root, "InvoiceLine")
        _text(row, "ID", str(number))
        _text(row, "InvoicedQuantity", "1", unitCode=PIECES)
        _amount(row, "LineExtensionAmount", line.net_cents, paper.currency)
        _tax(row, paper, line.net_cents, line.tax_cents)
        _text(_group(row, "Item"), "Name", description)
        _amount(_group(row, "Price"), "PriceAmount", line.net_cents, paper.currency)
    return root


def ubl_bytes(root: ET.Element) -> bytes:
    """Return the XML as a file."""
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _party(above: ET.Element, party: Party) -> None:
    scheme, number = _identity(party)
    _text(_group(above, "PartyIdentification"), "ID", number, schemeID=scheme)
    if scheme == "VKN":
        _text(_group(above, "PartyName"), "Name", party.name)
    address = _group(above, "PostalAddress")
    _text(address, "StreetName", ", ".join(party.address.splitlines()))
    _text(address, "CitySubdivisionName", party.district or party.city)
    _text(address, "CityName", party.city)
    _text(address, "PostalZone", party.postal_code)
    country = _group(address, "Country")
    _text(country, "IdentificationCode", party.country)
    _text(country, "Name", TURKEY if party.country in ("TR", "") else party.country)
    if party.tax_office:
        _text(_group(above, "PartyTaxScheme", "TaxScheme"), "Name", party.tax_office)
    if party.email:
        _text(_group(above, "Contact"), "ElectronicMail", party.email)
    if scheme == "TCKN":
        first, _, family = party.name.rpartition(" ")
        person = _group(above, "Person")
        _text(person, "FirstName", first or family)
        _text(person, "FamilyName", family)


def _identity(party: Party) -> tuple[str, str]:
    """Scheme and number of a party."""
    if party.tax_id_kind in (VKN, TCKN):
        return party.tax_id_kind.upper(), party.tax_id
    return ("TCKN", NO_TCKN) if party.country in ("TR", "") else ("VKN", FOREIGN_VKN)


def _tax(above: ET.Element, paper: UblInvoice, net_cents: int, tax_cents: int) -> None:
    total = _group(above, "TaxTotal")
    _amount(total, "TaxAmount", tax_cents, paper.currency)
    part = _group(total, "TaxSubtotal")
    _amount(part, "TaxableAmount", net_cents, paper.currency)
    _amount(part, "TaxAmount", tax_cents, paper.currency)
    _text(part, "Percent", decimals(paper.sums.rate_bp))
    category = _group(part, "TaxCategory")
    if tax_cents == 0:
        _text(category, "TaxExemptionReasonCode", NO_VAT_CODE)
        _text(category, "TaxExemptionReason", NO_VAT_REASON)
    scheme = _group(category, "TaxScheme")
    _text(scheme, "Name", "KDV")
    _text(scheme, "TaxTypeCode", VAT_CODE)


def _group(above: ET.Element, *names: str) -> ET.Element:
    for name in names:
        above = ET.SubElement(above, f"{{{CAC}}}{name}")
    return above


def _text(above: ET.Element, name: str, text: str, **attributes: str) -> None:
    """Add an element, unless there is nothing to say: empty ones are refused."""
    if text:
        ET.SubElement(above, f"{{{CBC}}}{name}", attributes).text = text


def _amount(above: ET.Element, name: str, cents: int, currency: str) -> None:
    _text(above, name, decimals(cents), currencyID=currency)
