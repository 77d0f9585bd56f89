"""Invoices and credit notes as values: parties, lines and totals. Pure.

The preview of an order and its invoice come from the same function, so they agree to the cent.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from billing.papers.tax import Taxed, tax_of_lines, tax_of_part
from billing.papers.tax_ids import EU, EU_VAT, OTHER, TCKN, VKN, normalized

# Three capitals, the year and a number: electronic invoices in Türkiye are numbered so.
INVOICE_PREFIX, CREDIT_NOTE_PREFIX = "CFX", "CFN"
# What a line is of. The texts are made when it is shown, in the reader's language.
CREDIT, PLAN, UPGRADE, TAKEN_BACK = "top_up", "plan", "upgrade", "taken_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """Seller or buyer, as an invoice says. Lines of the address are separated by newlines."""

    name: str
    address: str = ""
    district: str = ""
    city: str = ""
    postal_code: str = ""
    country: str = ""
    tax_id_kind: str = ""
    tax_id: str = ""
    tax_office: str = ""
    email: str = ""

    @classmethod
    def of(cls, stored: dict[str, Any]) -> Self:
        """Return the party of a stored paper."""
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in stored.items() if name in known})

    def stored(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line. `kind` is one of the four above; `name` is the plan's, or the number of the invoice."""

    kind: str
    name: str
    net_cents: int
    tax_cents: int
    total_cents: int

    @classmethod
    def of(cls, stored: dict[str, Any]) -> Self:
        """Return the line of a stored paper."""
        return cls(**stored)

    def stored(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Lines and their sums."""

    lines: tuple[Line, ...]
    rate_bp: int
    net_cents: int
    tax_cents: int
    total_cents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A thing that is sold, with the tax in its amount."""

    kind: str
    name: str
    total_cents: int


def sums_of(items: Sequence[Item], rate_bp: int) -> Sums:
    """Return the lines of an invoice with their tax."""
    taxed = tax_of_lines([each.total_cents for each in items], rate_bp)
    return _sums([(each.kind, each.name, amount) for each, amount in zip(items, taxed, strict=True)], rate_bp)


def sums_taken_back(number: str, invoice: Taxed, credited: Taxed, part_cents: int, rate_bp: int) -> Sums:
    """Return the line of a credit note for a part of an invoice, of which another part was credited before.

    Raises ValueError for more than is left.
    """
    return _sums([(TAKEN_BACK, number, tax_of_part(invoice, credited, part_cents))], rate_bp)


def _sums(rows: Sequence[tuple[str, str, Taxed]], rate_bp: int) -> Sums:
    lines = tuple(
        Line(
            kind=kind,
            name=name,
            net_cents=amount.net_cents,
            tax_cents=amount.tax_cents,
            total_cents=amount.total_cents,
        )
        for kind, name, amount in rows
    )
    return Sums(
        lines=lines,
        rate_bp=rate_bp,
        net_cents=sum([each.net_cents for each in lines]),
        tax_cents=sum([each.tax_cents for each in lines]),
        total_cents=sum([each.total_cents for each in lines]),
    )


def number_of(prefix: str, year: int, sequence: int) -> str:
    """Return the number of a paper: CFX-2026-000001."""
    return f"{prefix}-{year:04}-{sequence:06}"


def seller_tax_id(number: str, country: str) -> tuple[str, str]:
    """Return the kind and the normal form of a seller's tax number. Raises ValueError for a wrong one."""
    kind = EU_VAT if country in EU else OTHER
    if country == "TR":
        kind = TCKN if len("".join(number.split())) == 11 else VKN
    return kind, normalized(kind, number, country)
