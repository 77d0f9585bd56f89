"""Which of two reports about one request holds. Pure.

A report of higher rank replaces usage and cost; the difference goes to ledger and rollups. An equal or lower one only
fills what is unknown. So reports may come in any order, any number of times, and end in the same row.
"""

from msgspec.structs import replace

from billing.pricing import cost_nanos
from logs.events import UsageEvent


def merge(row: UsageEvent, report: UsageEvent) -> UsageEvent | None:
    """The row after a further report about the same request, or None when the row stands as it is.

    The gateway owns what a request was (stage, model, status, price): its report replaces a sweeper's row whole, but
    for a better usage that has come in between. Anybody else's report changes usage only, at the price frozen in the
    row.
    """
    upstream_cost = row.upstream_cost_nanos if row.upstream_cost_nanos is not None else report.upstream_cost_nanos
    if report.source == "gateway" and (row.source == "sweeper" or report.rank > row.rank):
        better = report if report.rank >= row.rank else row
        return _with_usage_of(better, report, upstream_cost)
    if report.rank > row.rank:
        return _with_usage_of(report, row, upstream_cost)
    if upstream_cost != row.upstream_cost_nanos:
        return replace(row, upstream_cost_nanos=upstream_cost)
    return None


def _with_usage_of(source: UsageEvent, event: UsageEvent, upstream_cost_nanos: int | None) -> UsageEvent:
    """`event` with the usage of another report, at its own price."""
    return replace(
        event,
        usage=source.usage,
        rank=source.rank,
        cost_nanos=cost_nanos(source.usage, event.rates),
        upstream_cost_nanos=upstream_cost_nanos,
    )
