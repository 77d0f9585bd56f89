"""Papers as finished texts in the reader's language. The page and the PDF show the same ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from django.utils import formats
from django.utils.translation import gettext as _

from billing.models import Paper
from billing.papers.invoice import PLAN, TAKEN_BACK, Line, Party, Sums
from billing.papers.tax_ids import EU_VAT, TCKN, VKN
from codexflow.templatetags.show import margin


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table; numbers stand on the right."""

    label: str
    is_number: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of finished texts. `sums` are rows below it: label and amount, the last one emphasized."""

    title: str = ""
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    sums: Sequence[tuple[str, str]] = ()

    @property
    def cells(self) -> list[list[tuple[str, bool]]]:
        """Rows as pairs: text, and whether it is a number."""
        return [[(text, at.is_number) for text, at in zip(row, self.columns, strict=True)] for row in self.rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A paper: facts at its head, parties beside each other, tables, notes."""

    title: str
    number: str
    facts: Sequence[tuple[str, str]]
    parties: Sequence[tuple[str, Sequence[str]]]
    tables: Sequence[Table]
    notes: Sequence[str] = field(default_factory=tuple)


def money(cents: int, currency: str) -> str:
    """Amount with its currency: 1,234.56 USD, or 1.234,56 USD."""
    whole, rest = divmod(abs(cents), 100)
    sign = "\N{MINUS SIGN}" if cents < 0 else ""
    shown = formats.number_format(f"{whole}.{rest:02}", decimal_pos=2, use_l10n=True, force_grouping=True)
    return f"{sign}{shown} {currency}"


def day(moment: datetime) -> str:
    """Day in UTC, in full."""
    return formats.date_format(moment.astimezone(UTC), "j F Y")


def description(line: Line) -> str:
    """Text of a line."""
    if line.kind == PLAN:
        return _("Plan %(name)s for a month") % {"name": line.name}
    if line.kind == TAKEN_BACK:
        return _("Taken back from invoice %(number)s") % {"number": line.name}
    return _("Credit for the API")


def tax_label(rate_bp: int) -> str:
    """Name of the tax with its rate."""
    return _("VAT %(rate)s") % {"rate": margin(rate_bp)}


def lines_table(sums: Sums, currency: str) -> Table:
    """Lines, tax and total of an invoice, or of its preview."""
    return Table(
        columns=(
            Column(label=_("Description")),
            Column(label=_("Net"), is_number=True),
            Column(label=_("VAT"), is_number=True),
            Column(label=_("Total"), is_number=True),
        ),
        rows=[
            (
                description(each),
                money(each.net_cents, currency),
                money(each.tax_cents, currency),
                money(each.total_cents, currency),
            )
            for each in sums.lines
        ],
        sums=(
            (_("Net"), money(sums.net_cents, currency)),
            (tax_label(sums.rate_bp), money(sums.tax_cents, currency)),
            (_("Total"), money(sums.total_cents, currency)),
        ),
    )


def sums_of_paper(paper: Paper) -> Sums:
    """Stored lines and sums of a paper."""
    return Sums(
        lines=tuple(Line.of(each) for each in paper.lines),
        rate_bp=paper.tax_rate_bp,
        net_cents=paper.net_cents,
        tax_cents=paper.tax_cents,
        total_cents=paper.total_cents,
    )


def document_of(paper: Paper) -> Document:
    """An invoice or a credit note in the active language. `corrects` and `order` should be loaded."""
    facts = [(_("No."), paper.number), (_("Date"), day(paper.issued_at))]
    if paper.corrects is not None:
        facts.append((_("For invoice"), f"{paper.corrects.number}, {day(paper.corrects.issued_at)}"))
    if paper.order is not None:
        facts.append((_("Order code"), paper.order.code))
    if paper.reason:
        facts.append((_("Reason"), paper.reason))
    notes = [_("All amounts contain the tax that is shown.") if paper.tax_rate_bp else _("No tax is charged.")]
    if paper.is_invoice:
        notes.insert(0, _("This invoice is paid."))
    return Document(
        title=_("Invoice") if paper.is_invoice else _("Credit note"),
        number=paper.number,
        facts=facts,
        parties=(
            (_("Seller"), party_lines(Party.of(paper.seller))),
            (_("Buyer"), party_lines(Party.of(paper.buyer))),
        ),
        tables=(lines_table(sums_of_paper(paper), paper.currency),),
        notes=notes,
    )


def party_lines(party: Party) -> list[str]:
    """Name, address and tax number, a line each."""
    place = " ".join(filter(None, (party.postal_code, _joined((party.district, party.city), ", "))))
    lines = [party.name, *party.address.splitlines(), _joined((place, party.country), ", ")]
    if party.tax_id:
        lines.append(f"{_tax_id_label(party.tax_id_kind)}: {party.tax_id}")
    if party.tax_office:
        lines.append(_("Tax office: %(office)s") % {"office": party.tax_office})
    if party.email:
        lines.append(party.email)
    return [each for each in lines if each]


def _tax_id_label(kind: str) -> str:
    if kind in (VKN, TCKN):
        return "VKN" if kind == VKN else "TCKN"
    return _("VAT number") if kind == EU_VAT else _("Tax number")


def _joined(parts: Iterable[str], between: str) -> str:
    return between.join([each for each in parts if each])
