"""Papers as finished texts in the reader's language. The page and the PDF show the same ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from django.utils import formats
from django.utils.translation import gettext as _

from billing.models import LedgerEntry, Paper
from billing.papers.invoice import PLAN, TAKEN_BACK, UPGRADE, Line, Party, Sums
from billing.papers.statement import Statement, month_after
from billing.papers.tax_ids import EU_VAT, TCKN, VKN
from codexflow.templatetags.show import count, margin, money, usd_price


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


def day(moment: datetime) -> str:
    """Day in UTC, in full."""
    return _date(moment.astimezone(UTC).date())


def description(line: Line) -> str:
    """Text of a line."""
    if line.kind == PLAN:
        return _("Plan %(name)s for a month") % {"name": line.name}
    if line.kind == UPGRADE:
        return _("Plan %(name)s for the rest of a month") % {"name": line.name}
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


def statement_document(shown: Statement, organization: str, *, is_final: bool, at: datetime) -> Document:
    """A month's statement in the active language. Amounts are exact; the closing balance is rounded at the end."""
    last = month_after(shown.month) - timedelta(days=1)
    state = _("Final") if is_final else _("Preliminary, as of %(time)s UTC") % {"time": _minute(at)}
    return Document(
        title=_("Statement"),
        number=f"{shown.month:%Y-%m}",
        facts=(
            (_("Organization"), organization),
            (_("Period"), f"{_date(shown.month)} \N{EN DASH} {_date(last)} (UTC)"),
            (_("State"), state),
        ),
        parties=(),
        tables=[
            each
            for each in (_balance(shown), _entries(shown), _days(shown), _models(shown), _late(shown), _tags(shown))
            if each
        ],
        notes=(_("Usage is booked in the month of the request until a day after that month's end."),),
    )


def _balance(shown: Statement) -> Table:
    rows = [(_("Opening balance"), usd_price(shown.opening_nanos))]
    rows += [(str(LedgerEntry.Kind(kind).label), usd_price(nanos)) for kind, nanos in shown.by_kind.items()]
    rows.append((_("Usage"), usd_price(-shown.usage_nanos)))
    if shown.late:
        rows.append((_("Usage of earlier months"), usd_price(-shown.late_nanos)))
    return Table(
        title=_("Balance"),
        columns=(Column(label=_("Item")), Column(label=_("Amount"), is_number=True)),
        rows=rows,
        sums=(
            (_("Closing balance, exact"), usd_price(shown.closing_nanos)),
            (_("Closing balance"), money(shown.closing_cents, "USD")),
        ),
    )


def _entries(shown: Statement) -> Table | None:
    if not shown.entries:
        return None
    return Table(
        title=_("Credit and other entries"),
        columns=(
            Column(label=_("Date")),
            Column(label=_("Kind")),
            Column(label=_("For")),
            Column(label=_("Amount"), is_number=True),
        ),
        rows=[
            (_date(each.day), str(LedgerEntry.Kind(each.kind).label), each.note, usd_price(each.amount_nanos))
            for each in shown.entries
        ],
    )


def _days(shown: Statement) -> Table | None:
    rows = [(_date(each), count(usage.requests), usd_price(usage.cost_nanos)) for each, usage in shown.by_day.items()]
    return _usage(_("Usage by day"), (_("Day (UTC)"),), rows, shown.usage_nanos)


def _models(shown: Statement) -> Table | None:
    rows = [
        (name or _("Not recorded"), count(usage.requests), usd_price(usage.cost_nanos))
        for name, usage in shown.by_model.items()
    ]
    return _usage(_("Usage by model"), (_("Model"),), rows, shown.usage_nanos)


def _late(shown: Statement) -> Table | None:
    """Usage that became known after its month was closed."""
    rows = [
        (
            formats.date_format(month, "F Y"),
            model or _("Not recorded"),
            count(usage.requests),
            usd_price(usage.cost_nanos),
        )
        for (month, model), usage in shown.late.items()
    ]
    title = _("Usage of earlier months, known after they were closed")
    return _usage(title, (_("Month"), _("Model")), rows, shown.late_nanos)


# Tags that a document lists; the CSV has all.
SHOWN_TAGS = 100


def _tags(shown: Statement) -> Table | None:
    """Usage by the caller's tag, the dearest first, late usage included; the sum is that of all calls."""
    if not shown.by_tag:
        return None
    named = list(shown.by_tag.items())
    rows = [(tag, count(usage.requests), usd_price(usage.cost_nanos)) for tag, usage in named[:SHOWN_TAGS]]
    others = [usage for _tag, usage in named[SHOWN_TAGS:]]
    for label, usages in ((_("Other tags"), others), (_("Without a tag"), [shown.untagged])):
        requests, nanos = sum([each.requests for each in usages]), sum([each.cost_nanos for each in usages])
        if requests or nanos:
            rows.append((label, count(requests), usd_price(nanos)))
    return _usage(_("Usage by tag"), (_("Tag"),), rows, shown.usage_nanos + shown.late_nanos)


def _usage(title: str, names: Sequence[str], rows: Sequence[Sequence[str]], sum_nanos: int) -> Table | None:
    if not rows:
        return None
    return Table(
        title=title,
        columns=(
            *[Column(label=each) for each in names],
            Column(label=_("Requests"), is_number=True),
            Column(label=_("Cost"), is_number=True),
        ),
        rows=rows,
        sums=((_("Total"), usd_price(sum_nanos)),),
    )


def _date(day: date) -> str:
    return formats.date_format(day, "j F Y")


def _minute(at: datetime) -> str:
    return formats.date_format(at.astimezone(UTC), "j F Y H:i")


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
