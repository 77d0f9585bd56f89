"""Which of several reports about one request holds. Pure.

Two kinds of word meet in a row. Gateway and sweeper tell of the request; a report of higher rank replaces usage and
cost, an equal or lower one only fills what is unknown. LiteLLM tells of single attempts (`Told`), kept beside each
attempt: the winning attempt's usage corrects the row when it is known better than the row's. So reports may come in any
order, any number of times, and end in the same row.
"""

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from billing.pricing import Usage, cost_nanos
from logs.pipeline.events import RANK_LITELLM, RANK_NONE, AttemptFact, UsageEvent


class Told(Struct, frozen=True, kw_only=True):
    """What LiteLLM told of one attempt."""

    usage: Usage = Usage()
    cost_nanos: int | None = None
    is_success: bool = False
    ended_ms: int = 0

    @property
    def says_usage(self) -> bool:
        """LiteLLM writes zeros when it does not know."""
        return self.usage.total_tokens > 0


def better(old: Told | None, new: Told) -> Told:
    """What two reports about one attempt tell together: the usage of the success, else of the one that ended last.

    One that says no usage never takes the place of one that does, not even a success: the row may have it already, and
    would else depend on which came first. Where they differ in cost, which only happens when LiteLLM itself tried
    again, the larger one was paid at least.
    """
    if old is None:
        return new
    return replace(max(old, new, key=_order), cost_nanos=_larger(old.cost_nanos, new.cost_nanos))


def _larger(one: int | None, other: int | None) -> int | None:
    return max((each for each in (one, other) if each is not None), default=None)


def _order(told: Told) -> tuple[bool | int, ...]:
    usage = told.usage
    # To the second: the spend logs round what the webhook does not. All the rest makes the order a total one.
    return (
        told.says_usage, told.is_success, told.ended_ms // 1000, usage.completion_tokens, usage.prompt_tokens,
        usage.cached_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens, usage.reasoning_tokens,
        told.ended_ms,
    )  # fmt: skip


def winner_of(attempts: tuple[AttemptFact, ...]) -> int | None:
    """The attempt that answered; None when none did, or nobody knows."""
    return next((fact.n for fact in reversed(attempts) if fact.first_byte_ms is not None), None)


def merge(
    row: UsageEvent, report: UsageEvent, told: Mapping[int, Told] | None = None, winner: int | None = None
) -> UsageEvent | None:
    """The row after a further report about the same request, or None when the row stands as it is.

    The gateway owns what a request was (stage, model, status, price): its report replaces a sweeper's row whole, but
    for a better usage that has come in between. Anybody else's report changes usage only, at the price frozen in the
    row. `told` is what LiteLLM told of the request's attempts, `winner` the attempt that answered, where it is known.
    """
    winner = winner_of(report.attempts) or winner
    merged = corrected(_merged(row, report, told or {}, winner), told or {}, winner)
    return None if merged == row else merged


def _merged(row: UsageEvent, report: UsageEvent, told: Mapping[int, Told], winner: int | None) -> UsageEvent:
    upstream_cost = row.upstream_cost_nanos if row.upstream_cost_nanos is not None else report.upstream_cost_nanos
    if report.source == "gateway" and (row.source == "sweeper" or report.rank > row.rank):
        # Before the gateway named the winner, another attempt's usage may have stood in the row.
        is_borrowed = row.rank == RANK_LITELLM and winner is not None and bool(told)
        if is_borrowed:
            return report
        return _with_usage_of(report if report.rank >= row.rank else row, report, upstream_cost)
    if report.rank > row.rank:
        return _with_usage_of(report, row, upstream_cost)
    return replace(row, upstream_cost_nanos=upstream_cost)


def corrected(row: UsageEvent, told: Mapping[int, Told], winner: int | None) -> UsageEvent:
    """The row with what LiteLLM told of the attempt that won.

    A row that charges nothing, because nothing reached the caller, is never made to charge: LiteLLM's word corrects a
    charge and cannot create one. Failed attempts are our cost and stay beside the attempt.
    """
    if winner is None and row.rank > RANK_NONE:
        # The process died and knew of no attempts: the last one that used something is the one that was delivered.
        winner = max((n for n, each in told.items() if each.says_usage), default=None)
    heard = told.get(winner) if winner is not None else None
    if heard is None:
        return row
    # A sweeper knows no cost: what its row has of one was told of an attempt, perhaps of another.
    if heard.cost_nanos is not None or row.source == "sweeper":
        row = replace(row, upstream_cost_nanos=heard.cost_nanos)
    if heard.says_usage and RANK_NONE < row.rank <= RANK_LITELLM:
        return _with_usage_of(replace(row, usage=heard.usage, rank=RANK_LITELLM), row, row.upstream_cost_nanos)
    return row


def _with_usage_of(source: UsageEvent, event: UsageEvent, upstream_cost_nanos: int | None) -> UsageEvent:
    """`event` with the usage of another report, at its own price."""
    return replace(
        event,
        usage=source.usage,
        rank=source.rank,
        cost_nanos=cost_nanos(source.usage, event.rates),
        upstream_cost_nanos=upstream_cost_nanos,
    )


# Calls that the gateway never saw, known from LiteLLM alone.
DIRECT = ("webhook", "sync")


def merge_direct(row: UsageEvent, report: UsageEvent) -> UsageEvent | None:
    """The row of a call past the gateway after a further report of it, or None when the row stands as it is.

    Whose it is, its day and its price stay as the first report found them.
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
    """The earlier start holds: a report that tells no time of its own is dated anew whenever it comes."""
    usage = event.usage
    return (
        event.status < 400, usage.total_tokens > 0, event.source == "webhook", event.latency_ms,
        usage.completion_tokens, usage.prompt_tokens, usage.cached_tokens, usage.cache_write_tokens,
        usage.cache_write_1h_tokens, usage.reasoning_tokens, -event.started_ms, event.status, event.model,
        event.ttft_ms or -1, event.endpoint, event.surface, event.is_stream, event.client_address or "",
        event.user_agent,
    )  # fmt: skip
