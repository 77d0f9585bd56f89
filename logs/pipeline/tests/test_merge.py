"""Reports of one request in any order and any number end in the same row."""

from functools import reduce
from itertools import permutations
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from billing.pricing import Usage, cost_nanos
from codexflow.catalogue.entries import PriceDetails
from logs.pipeline.events import (
    PLANNED,
    RANK_COUNTED,
    RANK_DISBELIEVED,
    RANK_LITELLM,
    RANK_PROVIDER,
    UsageEvent,
    orphaned,
)
from logs.pipeline.merge import ReportedUsage, better, merge
from logs.tests.factories import RATES, an_event

IDS = UUID(int=1), UUID(int=2)
gateways = st.sampled_from([RANK_COUNTED, RANK_DISBELIEVED, RANK_PROVIDER])


def reports(gateway_rank: int) -> list[UsageEvent]:
    """Reports of gateway, sweeper and LiteLLM's log on one request."""
    gateway = an_event(*IDS, rank=gateway_rank)
    sweeper = orphaned(gateway, progress=3, now_ms=gateway.started_ms + 1)
    usage = Usage(prompt_tokens=101, completion_tokens=51)
    log = replace(sweeper, source="sync", rank=RANK_LITELLM, usage=usage, cost_nanos=cost_nanos(usage, RATES))
    return [gateway, sweeper, replace(log, upstream_cost_nanos=7)]


def merged(row: UsageEvent, report: UsageEvent) -> UsageEvent:
    return merge(row, report) or row


@given(rank=gateways, repeats=st.lists(st.integers(0, 2), max_size=4))
def test_any_order_of_reports_ends_in_the_same_row(rank: int, repeats: list[int]) -> None:
    distinct = reports(rank)
    more = [distinct[i] for i in repeats]
    # LiteLLM's word alone makes no row of a gateway's request.
    ends = {repr(reduce(merged, [*order, *more])) for order in permutations(distinct) if order[0].source != "sync"}
    assert len(ends) == 1


@given(
    rank=gateways,
    days=st.lists(st.integers(20_000, 20_002), min_size=3, max_size=3),
    planner=st.sampled_from(["", PLANNED]),
)
def test_no_report_moves_a_request_to_another_day(rank: int, days: list[int], planner: str) -> None:
    """The day of the first report, on which it was counted and charged, is the one that is corrected."""
    distinct = [replace(each, day=day, planner=planner) for each, day in zip(reports(rank), days, strict=True)]
    for order in permutations(distinct):
        assert reduce(merged, order).day == order[0].day


def test_the_better_usage_is_charged_at_the_gateways_price() -> None:
    gateway, sweeper, log = reports(RANK_COUNTED)
    row = merged(merged(sweeper, log), gateway)
    assert (row.status, row.source, row.rank) == (200, "gateway", RANK_LITELLM)
    assert row.usage == log.usage
    assert row.cost_nanos == cost_nanos(log.usage, gateway.rates)


def test_usage_that_cannot_be_is_not_charged_when_litellm_repeats_it() -> None:
    gateway, sweeper, log = reports(RANK_DISBELIEVED)
    told = ReportedUsage(usage=log.usage, is_success=True, ended_ms=1)
    for row, report in ((sweeper, gateway), (merged(sweeper, log), gateway), (gateway, log), (gateway, gateway)):
        found = merge(row, report, {1: told}, winner=1) or row
        assert (found.usage, found.cost_nanos, found.rank) == (gateway.usage, gateway.cost_nanos, RANK_DISBELIEVED)


def test_a_success_without_usage_replaces_no_report_with_usage() -> None:
    telling = ReportedUsage(usage=Usage(completion_tokens=1), ended_ms=1)
    mute = ReportedUsage(is_success=True, cost_nanos=5, ended_ms=9)
    assert better(telling, mute) == better(mute, telling) == replace(telling, cost_nanos=5)


BY_UNIT = replace(RATES, input_nanos=0, output_nanos=0, details=PriceDetails(unit_nanos={"search_unit": 2_000_000}))


def test_a_call_sold_by_units_is_charged_for_them_whoever_reports_it() -> None:
    """A dead process leaves its estimate, and LiteLLM's report, which has tokens only, takes no units away."""
    intent = an_event(*IDS, rates=BY_UNIT, usage=Usage(), rank=0, units_guess={"search_unit": 3})
    sweeper = orphaned(intent, progress=0, now_ms=intent.started_ms + 1)
    assert (sweeper.usage.details, sweeper.cost_nanos) == ({"search_unit": 3}, 6_000_000)
    assert orphaned(intent, progress=None, now_ms=1).cost_nanos == 0
    usage = Usage(prompt_tokens=10, details={"search_unit": 1})
    won = ReportedUsage(usage=usage, is_success=True, ended_ms=1)
    found = merge(sweeper, sweeper, {1: won}, winner=1)
    assert found is not None
    assert (found.usage.prompt_tokens, found.usage.details, found.cost_nanos) == (10, {"search_unit": 3}, 6_000_000)
    told = replace(sweeper, source="gateway", rank=RANK_PROVIDER, usage=Usage(details={"search_unit": 2}))
    told = replace(told, cost_nanos=cost_nanos(told.usage, BY_UNIT))
    assert merged(found, told).usage == told.usage


def test_a_search_that_the_gateway_knows_of_is_charged_whoever_reports_the_tokens() -> None:
    """A caller who chose `web_search_options` has left: LiteLLM tells the tokens, and no provider counts the search."""
    rates = replace(RATES, details=PriceDetails(unit_nanos={"web_search": 10_000_000}))
    usage = Usage(prompt_tokens=100, completion_tokens=5, details={"web_search": 1})
    row = an_event(*IDS, rates=rates, usage=usage, rank=RANK_COUNTED)
    row = replace(row, cost_nanos=cost_nanos(usage, rates))
    told = Usage(prompt_tokens=101, completion_tokens=51)
    for reported, searches in ((told, 1), (replace(told, details={"web_search": 3}), 3)):
        won = ReportedUsage(usage=reported, is_success=True, ended_ms=1)
        found = merge(row, row, {1: won}, winner=1)
        assert found is not None
        assert (found.usage.prompt_tokens, found.usage.details) == (101, {"web_search": searches})
        assert found.cost_nanos == cost_nanos(told, RATES) + searches * 10_000_000


def test_a_search_that_every_such_call_makes_is_charged_where_its_process_died() -> None:
    rates = replace(RATES, details=PriceDetails(unit_nanos={"web_search": 10_000_000}))
    intent = an_event(*IDS, rates=rates, usage=Usage(), rank=0, least_units={"web_search": 1})
    found = orphaned(intent, progress=3, now_ms=intent.started_ms + 1)
    tokens = replace(found.usage, details=None)
    assert (found.usage.details, found.cost_nanos) == ({"web_search": 1}, cost_nanos(tokens, RATES) + 10_000_000)
    assert orphaned(intent, progress=None, now_ms=1).cost_nanos == 0
