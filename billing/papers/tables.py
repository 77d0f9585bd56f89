"""Papers as CSV. Pure. Nothing depends on a language: days are ISO 8601, decimals have a point."""

from collections.abc import Iterable

from billing.papers.invoice import Line
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


def decimals(hundredths: int) -> str:
    """Hundredths with a decimal point: 2083 -> 20.83."""
    whole, rest = divmod(abs(hundredths), 100)
    return f"{'-' if hundredths < 0 else ''}{whole}.{rest:02}"
