"""Papers as CSV. Pure. Nothing depends on a language: days are ISO 8601, decimals have a point."""

from collections.abc import Iterable

from billing.papers.invoice import Line
from billing.papers.statement import Statement
from codexflow.lib.money import format_usd
from codexflow.lib.spreadsheets import csv_bytes, escape_formulas

PAPER_COLUMNS = (
    "number", "kind", "issued_on", "corrects", "buyer", "buyer_tax_id", "line", "item", "name", "currency",
    "tax_rate_percent", "net", "tax", "total",
)  # fmt: skip


def paper_csv(facts: Iterable[str], lines: Iterable[Line], *, currency: str, rate_bp: int) -> bytes:
    """One row a line. `facts` are those of the paper, in the order of the first six columns."""
    head = [escape_formulas(each) for each in facts]
    rate = decimals(rate_bp)
    rows = [
        [
            *head,
            number,
            each.kind,
            escape_formulas(each.name),
            currency,
            rate,
            decimals(each.net_cents),
            decimals(each.tax_cents),
            decimals(each.total_cents),
        ]
        for number, each in enumerate(lines, 1)
    ]
    return csv_bytes([PAPER_COLUMNS, *rows])


STATEMENT_COLUMNS = ("section", "day", "month", "kind", "model", "note", "requests", "amount_usd", "tag")


def statement_csv(shown: Statement) -> bytes:
    """A statement: one row for each balance, entry, day and model, exact to the nano.

    The rows `opening`, `entry`, `usage_day` and `usage_late` add up to `closing`; `usage_model` repeats `usage_day`,
    `usage_tag` the part of both that had a tag.
    """
    rows = [_row("opening", shown.opening_nanos)]
    rows += [_row("entry", each.amount_nanos, day=each.day, kind=each.kind, note=each.note) for each in shown.entries]
    rows += [
        _row("usage_day", -usage.cost_nanos, day=day, requests=usage.requests) for day, usage in shown.by_day.items()
    ]
    rows += [
        _row("usage_late", -usage.cost_nanos, month=f"{month:%Y-%m}", model=model, requests=usage.requests)
        for (month, model), usage in shown.late.items()
    ]
    rows += [
        _row("usage_model", -usage.cost_nanos, model=model, requests=usage.requests)
        for model, usage in shown.by_model.items()
    ]
    rows += [
        _row("usage_tag", -usage.cost_nanos, tag=tag, requests=usage.requests) for tag, usage in shown.by_tag.items()
    ]
    return csv_bytes([STATEMENT_COLUMNS, *rows, _row("closing", shown.closing_nanos)])


def _row(section: str, nanos: int, **facts: object) -> list[object]:
    cells = {"section": section, **facts, "amount_usd": format_usd(nanos, decimals=9)}
    texts = [cells.get(name, "") for name in STATEMENT_COLUMNS]
    # Amounts are numbers that may begin with a minus.
    return [
        escape_formulas(each) if isinstance(each, str) and name != "amount_usd" else each
        for name, each in zip(STATEMENT_COLUMNS, texts, strict=True)
    ]


def decimals(hundredths: int) -> str:
    """Hundredths with a decimal point: 2083 -> 20.83."""
    whole, rest = divmod(abs(hundredths), 100)
    return f"{'-' if hundredths < 0 else ''}{whole}.{rest:02}"
