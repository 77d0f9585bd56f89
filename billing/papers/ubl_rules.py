"""Rules of UBL-TR for the invoices that we write. Pure.

They restate, for sales without withholding, what the revenue administration's published rules ask (their names are
used where they have one), and add that the sums add up. Signature and envelope are the integrator's.
"""

import re
from collections.abc import Iterator
from datetime import date
from decimal import Decimal, InvalidOperation
from xml.etree.ElementTree import Element

from billing.papers.tax_ids import TCKN, VKN, normalized
from billing.papers.ubl import CAC, CBC, FOREIGN_VKN, INVOICE, NO_TCKN, PROFILES, VAT_CODE

_NAMES = {"cac": CAC, "cbc": CBC}
_ID = re.compile(r"[A-Z0-9]{3}20[0-9]{2}[0-9]{9}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_AMOUNT = re.compile(r"[0-9]{1,15}\.[0-9]{2}")
_RATE = re.compile(r"[0-9]{1,15}(\.[0-9]{1,6})?")
CENT = Decimal("0.01")


def problems_of(root: Element, *, today: date) -> list[str]:
    """Return the rules that the invoice breaks, each with what is wrong; empty: none."""
    return [
        *_head(root, today),
        *_currency(root),
        *(each for role in ("Supplier", "Customer") for each in _party(root, role)),
        *_taxes(root),
        *_sums(root),
        *_elements(root),
    ]


def _head(root: Element, today: date) -> Iterator[str]:
    if root.tag != f"{{{INVOICE}}}Invoice":
        yield "the root is no Invoice"
    for rule, name, allowed in (
        ("UBLVersionIDCheck", "UBLVersionID", ("2.1",)),
        ("CustomizationIDCheck", "CustomizationID", ("TR1.2", "TR1.2.1")),
        ("ProfileIDCheck", "ProfileID", PROFILES),
        ("CopyIndicatorCheck", "CopyIndicator", ("false",)),
        ("InvoiceTypeCodeCheck", "InvoiceTypeCode", ("SATIS",)),
    ):
        if _text(root, f"cbc:{name}") not in allowed:
            yield f"{rule}: {name} is none of {', '.join(allowed)}"
    number, issued = _text(root, "cbc:ID"), _text(root, "cbc:IssueDate")
    if not _ID.fullmatch(number):
        yield "InvoiceIDCheck: ID is not like ABC2026000000001"
    if not _UUID.fullmatch(_text(root, "cbc:UUID").lower()):
        yield "UUIDCheck: UUID is none"
    try:
        day = date.fromisoformat(issued)
    except ValueError:
        yield "TimeCheck: IssueDate is no day"
        return
    if not date(2005, 1, 1) <= day <= today:
        yield "TimeCheck: IssueDate is in the future or before 2005"
    if number[3:7] != f"{day.year}":
        yield "the year of ID is not that of IssueDate"


def _currency(root: Element) -> Iterator[str]:
    currency = _text(root, "cbc:DocumentCurrencyCode")
    if not _CURRENCY.fullmatch(currency):
        yield "CurrencyCodeCheck: DocumentCurrencyCode is none"
    if {each.get("currencyID") for each in root.iter() if each.get("currencyID")} - {currency}:
        yield "GeneralCurrencyIDCheck: an amount has another currency than the document"
    if currency == "TRY":
        return
    rate = _text(root, "cac:PricingExchangeRate/cbc:CalculationRate")
    if not _RATE.fullmatch(rate) or not Decimal(rate):
        yield "CurrencyCodeCheck: an invoice in another currency than TRY has its exchange rate"
    elif (
        _text(root, "cac:PricingExchangeRate/cbc:SourceCurrencyCode") != currency
        or _text(root, "cac:PricingExchangeRate/cbc:TargetCurrencyCode") != "TRY"
    ):
        yield "CurrencyCodeCheck: the exchange rate is not of this currency to TRY"


def _party(root: Element, role: str) -> Iterator[str]:
    party = root.find(f"cac:Accounting{role}Party/cac:Party", _NAMES)
    if party is None:
        yield f"{role}: there is none"
        return
    identity = party.find("cac:PartyIdentification/cbc:ID", _NAMES)
    scheme = "" if identity is None else identity.get("schemeID", "")
    number = _text(party, "cac:PartyIdentification/cbc:ID")
    if scheme not in ("VKN", "TCKN"):
        yield f"PartyIdentificationSchemeIDCheck: {role} has neither VKN nor TCKN"
    elif len(number) != (10 if scheme == "VKN" else 11) or not number.isdecimal():
        yield f"PartyIdentificationTCKNVKNCheck: a VKN has 10 digits and a TCKN 11, not so that of {role}"
    elif (role == "Supplier" or number not in (NO_TCKN, FOREIGN_VKN)) and not _is_right(scheme, number):
        yield f"{role}: the {scheme} has wrong check digits"
    if scheme == "VKN" and not _text(party, "cac:PartyName/cbc:Name"):
        yield f"PartyIdentificationPartyNamePersonCheck: {role} has a VKN and no name"
    if scheme == "TCKN" and not all(_text(party, f"cac:Person/cbc:{name}") for name in ("FirstName", "FamilyName")):
        yield f"PartyIdentificationPartyNamePersonCheck: {role} has a TCKN and not both first and family name"
    for name in ("cbc:CitySubdivisionName", "cbc:CityName", "cac:Country/cbc:Name"):
        if not _text(party, f"cac:PostalAddress/{name}"):
            yield f"{role}: the address has no {name.rpartition(':')[2]}"


def _is_right(scheme: str, number: str) -> bool:
    try:
        normalized(VKN if scheme == "VKN" else TCKN, number, "TR")
    except ValueError:
        return False
    return True


def _taxes(root: Element) -> Iterator[str]:
    lines = root.findall("cac:InvoiceLine", _NAMES)
    for where, tolerance in ((root, CENT), *((each, 2 * CENT) for each in lines)):
        name = "the invoice" if where is root else f"line {_text(where, 'cbc:ID')}"
        parts = where.findall("cac:TaxTotal/cac:TaxSubtotal", _NAMES)
        if not parts:
            yield f"{name} has no TaxSubtotal"
        if sum(_number(each, "cbc:TaxAmount") for each in parts) != _number(where, "cac:TaxTotal/cbc:TaxAmount"):
            yield f"the taxes of {name} do not add up to its TaxTotal"
        for part in parts:
            taxable, tax = _number(part, "cbc:TaxableAmount"), _number(part, "cbc:TaxAmount")
            if abs(taxable * _number(part, "cbc:Percent") / 100 - tax) > tolerance:
                yield f"the tax of {name} is not its Percent of the TaxableAmount"
            if _text(part, "cac:TaxCategory/cac:TaxScheme/cbc:TaxTypeCode") != VAT_CODE:
                yield f"TaxTypeCheck: {name} has another tax than {VAT_CODE}"
            reasons = [_text(part, f"cac:TaxCategory/cbc:TaxExemptionReason{end}") for end in ("", "Code")]
            if tax == 0 and not all(reasons):
                yield f"TaxExemptionReasonCheck: {name} has no tax and does not say why"


def _sums(root: Element) -> Iterator[str]:
    lines = root.findall("cac:InvoiceLine", _NAMES)
    if not lines or _text(root, "cbc:LineCountNumeric") != str(len(lines)):
        yield "LineCountNumeric is not the number of lines"
    totals, parts = "cac:LegalMonetaryTotal", root.findall("cac:TaxTotal/cac:TaxSubtotal", _NAMES)
    net, tax = _number(root, f"{totals}/cbc:LineExtensionAmount"), _number(root, "cac:TaxTotal/cbc:TaxAmount")
    if sum(_number(each, "cbc:LineExtensionAmount") for each in lines) != net:
        yield "the lines do not add up to LineExtensionAmount"
    if sum(_number(each, "cac:TaxTotal/cbc:TaxAmount") for each in lines) != tax:
        yield "the taxes of the lines do not add up to TaxTotal"
    if sum(_number(each, "cbc:TaxableAmount") for each in parts) != net:
        yield "the taxable amounts do not add up to LineExtensionAmount"
    gross = net + tax
    for name, expected in (("TaxExclusiveAmount", net), ("TaxInclusiveAmount", gross), ("PayableAmount", gross)):
        if _number(root, f"{totals}/cbc:{name}") != expected:
            yield f"{name} is not {expected}"


def _elements(root: Element) -> Iterator[str]:
    for each in root.iter():
        name = each.tag.rpartition("}")[2]
        if each.get("currencyID") is not None and not _AMOUNT.fullmatch(each.text or ""):
            yield f"decimalCheck: {name} is no amount with two decimals"
        if len(each) == 0 and not (each.text or "").strip():
            yield f"EmptyCheck: {name} is empty"
        if name == "InvoicedQuantity" and not each.get("unitCode"):
            yield "InvoicedQuantityCheck: a quantity has no unitCode"


def _text(where: Element, path: str) -> str:
    return (where.findtext(path, "", _NAMES) or "").strip()


def _number(where: Element, path: str) -> Decimal:
    """Number at a path; what is none is zero, and another rule names it."""
    try:
        found = Decimal(_text(where, path))
    except InvalidOperation:
        return Decimal(0)
    return found if found.is_finite() else Decimal(0)
