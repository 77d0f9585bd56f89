"""Which of two reports about one request holds. Pure.

A report of higher rank replaces usage and cost; the difference goes to ledger and rollups. An equal or lower one only
fills what is unknown. So reports may come in any order, any number of times, and end in the same row.
"""

from msgspec.structs import replace

from billing.pricing import cost_nanos
from logs.events import UsageEvent


def merge(row: UsageEvent, report: UsageEvent) -> UsageEvent | None:
    """The row after a further report about the same request, or None when the row stands as it is.

    The gateway owns what a request was (stage, model, status, price): its report replaces a sweeper's row whole.
    Anybody else's report changes usage only, at the price frozen in the row.
    """
    upstream_cost = row.upstream_cost_nanos if row.upstream_cost_nanos is not None else report.upstream_cost_nanos
    if report.rank > row.rank or (report.source == "gateway" and row.source == "sweeper"):
        if report.source == "gateway":
            return replace(report, upstream_cost_nanos=upstream_cost)
        return replace(
            row,
            usage=report.usage,
            rank=report.rank,
            cost_nanos=cost_nanos(report.usage, row.rates),
            upstream_cost_nanos=upstream_cost,
        )
    if upstream_cost != row.upstream_cost_nanos:
        return replace(row, upstream_cost_nanos=upstream_cost)
    return None
