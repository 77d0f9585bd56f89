"""Merge several reports about one request into its row. Pure.

Two kinds of report meet in a row. Gateway and sweeper report the request: a report of higher rank replaces usage and
cost, an equal or lower one only fills in what is unknown. LiteLLM reports single attempts (`ReportedUsage`), kept
beside each attempt: the winning attempt's usage corrects the row when it is known better than the row's. So reports may
come in any order, any number of times, and end in the same row.
"""

from collections import Counter
from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from billing.pricing import Usage, cost_nanos
from codexflow.catalogue.entries import UNITS
from logs.pipeline.events import PLANNED, RANK_LITELLM, RANK_NONE, AttemptFact, UsageEvent


class ReportedUsage(Struct, frozen=True, kw_only=True):
    """Usage and cost that LiteLLM reported for one attempt. `ended_ms` is Unix time."""

    usage: Usage = Usage()
    cost_nanos: int | None = None
    is_success: bool = False
    ended_ms: int = 0

    @property
    def has_usage(self) -> bool:
        """True when usage is known: LiteLLM writes zeros for unknown usage."""
        return self.usage.total_tokens > 0


def better(old: ReportedUsage | None, new: ReportedUsage) -> ReportedUsage:
    """Combine two reports of one attempt: the usage of the success, else of the one that ended last.

    A report without usage never replaces one that has it, not even a success: the row may have it already, and would
    else depend on which came first. Where they differ in cost, which only happens when LiteLLM itself tried again, the
    larger one was paid at least.
    """
    if old is None:
        return new
    return replace(max(old, new, key=_order), cost_nanos=_larger(old.cost_nanos, new.cost_nanos))


def _larger(one: int | None, other: int | None) -> int | None:
    return max((each for each in (one, other) if each is not None), default=None)


def _order(reported: ReportedUsage) -> tuple[object, ...]:
    usage = reported.usage
    # To the second: the spend logs round what the webhook does not. All the rest makes the order a total one.
    return (
        reported.has_usage, reported.is_success, reported.ended_ms // 1000, usage.completion_tokens,
        usage.prompt_tokens, usage.cached_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens,
        usage.reasoning_tokens, sorted((usage.details or {}).items()), reported.ended_ms,
    )  # fmt: skip


def winner_of(attempts: tuple[AttemptFact, ...]) -> int | None:
    """Number of the attempt that responded; None when none did, or it is unknown."""
    return next((fact.n for fact in reversed(attempts) if fact.first_byte_ms is not None), None)


def merge(
    row: UsageEvent,
    report: UsageEvent,
    reported: Mapping[int, ReportedUsage] | None = None,
    winner: int | None = None,
) -> UsageEvent | None:
    """Merge a further report about the same request into its row. Returns None when the row stays as it is.

    The gateway owns what a request was (stage, model, status, price): its report replaces a sweeper's row whole, except
    for a better usage that has come in between. Any other report changes usage only, at the price frozen in the row.
    `reported` is LiteLLM's usage of the request's attempts, `winner` the attempt that responded, where it is known.
    The day of admission stays that of the row: what was counted and charged is not moved, though another clock (that
    of the gateway, while Redis was away) may have had another day.

    A planned request is the sum of many attempts, and only its own process knows which of them it charged.
    """
    if report.day != row.day:
        report = replace(report, day=row.day)
    if PLANNED in (row.planner, report.planner):
        return report if row.source == "sweeper" and report.source == "gateway" else None
    winner = winner_of(report.attempts) or winner
    merged = corrected(_merged(row, report, reported or {}, winner), reported or {}, winner)
    return None if merged == row else merged


def _merged(
    row: UsageEvent, report: UsageEvent, reported: Mapping[int, ReportedUsage], winner: int | None
) -> UsageEvent:
    upstream_cost = row.upstream_cost_nanos if row.upstream_cost_nanos is not None else report.upstream_cost_nanos
    if report.source == "gateway" and (row.source == "sweeper" or report.rank > row.rank):
        # Before the gateway named the winner, another attempt's usage may have stood in the row.
        is_borrowed = row.rank == RANK_LITELLM and winner is not None and bool(reported)
        if is_borrowed:
            return report
        return _with_usage_of(report if report.rank >= row.rank else row, report, upstream_cost)
    if report.rank > row.rank:
        return _with_usage_of(report, row, upstream_cost)
    return replace(row, upstream_cost_nanos=upstream_cost)


def corrected(row: UsageEvent, reported: Mapping[int, ReportedUsage], winner: int | None) -> UsageEvent:
    """Correct the row by what LiteLLM reported of the attempt that won.

    A row that charges nothing, because nothing reached the caller, is never made to charge: LiteLLM's report corrects a
    charge and cannot create one. Failed attempts are our cost and stay beside the attempt.
    """
    if row.planner == PLANNED:
        return row
    if winner is None and row.rank > RANK_NONE:
        # The process died and knew of no attempts: the last one that used something is the one that was delivered.
        winner = max((n for n, each in reported.items() if each.has_usage), default=None)
    won = reported.get(winner) if winner is not None else None
    if won is None:
        return row
    # A sweeper knows no cost: the one in its row was reported for an attempt, perhaps another one.
    if won.cost_nanos is not None or row.source == "sweeper":
        row = replace(row, upstream_cost_nanos=won.cost_nanos)
    if won.has_usage and RANK_NONE < row.rank <= RANK_LITELLM:
        return _with_usage_of(replace(row, usage=won.usage, rank=RANK_LITELLM), row, row.upstream_cost_nanos)
    return row


def _with_units(reported: Usage, counted: Usage) -> Usage:
    """Add the units that the gateway knows of, such as searches, which LiteLLM's report may leave out."""
    units = {name: (counted.details or {}).get(name, 0) for name in UNITS}
    if not any(units.values()):
        return reported
    return replace(reported, details=dict(Counter(reported.details or {}) | Counter(units)))


def _with_usage_of(source: UsageEvent, event: UsageEvent, upstream_cost_nanos: int | None) -> UsageEvent:
    """Return `event` with the usage of another report, at its own price."""
    usage = _with_units(source.usage, event.usage)
    return replace(
        event,
        usage=usage,
        rank=source.rank,
        cost_nanos=cost_nanos(usage, event.rates),
        upstream_cost_nanos=upstream_cost_nanos,
    )


# Sources of calls past the gateway, which only LiteLLM reports.
DIRECT = ("webhook", "sync")


def merge_direct(row: UsageEvent, report: UsageEvent) -> UsageEvent | None:
    """Merge a further report into the row of a call past the gateway. Returns None when the row stays as it is.

    Owner, day and price stay as the first report found them.
    """
    upstream_cost = _larger(row.upstream_cost_nanos, report.upstream_cost_nanos)
    if _direct_order(row) >= _direct_order(report):
        return replace(row, upstream_cost_nanos=upstream_cost) if upstream_cost != row.upstream_cost_nanos else None
    return replace(
        report,
        upstream_cost_nanos=upstream_cost,
        request_id=row.request_id,
        organization_id=row.organization_id,
        key_id=row.key_id,
        user_id=row.user_id,
        day=row.day,
        rates=row.rates,
        cost_nanos=cost_nanos(report.usage, row.rates),
    )


def _direct_order(event: UsageEvent) -> tuple[object, ...]:
    """Order of the reports of one call. The earlier start wins: a report without a time is dated anew each time."""
    usage = event.usage
    return (
        event.status < 400, usage.total_tokens > 0, event.source == "webhook", event.latency_ms,
        usage.completion_tokens, usage.prompt_tokens, usage.cached_tokens, usage.cache_write_tokens,
        usage.cache_write_1h_tokens, usage.reasoning_tokens, sorted((usage.details or {}).items()),
        -event.started_ms, event.status, event.model,
        event.ttft_ms or -1, event.endpoint, event.surface, event.is_stream, event.client_address or "",
        event.user_agent,
    )  # fmt: skip
