"""Usage of calls whose provider reports none, or reports it in pieces."""

import sys
import tracemalloc
from typing import Any

import msgspec
import pytest

from billing.pricing import Usage
from billing.usage import is_possible
from logs.pipeline.events import RANK_COUNTED, RANK_NONE, RANK_PROVIDER
from routing.meter import Meter
from routing.surfaces.output import MAX_HELD_BYTES, BlocksOutput, ChoicesOutput
from routing.surfaces.responses import Completions, Messages, ResponseFormat, Responses
from routing.surfaces.usage import ProviderUsage


def event(text: str) -> bytes:
    return b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % text.encode()


def begun(max_tokens: int = 10_000) -> Meter:
    meter = Meter(max_tokens)
    meter.begin(ChoicesOutput())
    return meter


def test_delivered_tokens_are_counted_by_the_characters_of_the_text() -> None:
    meter = begun()
    for text in ("word ", "data: ", "ı" * 9):
        meter.record_delivery(event(text))
    assert meter.delivered_tokens() == 5
    assert meter.progress == "5"
    meter.record_delivery(event("x"))
    assert meter.delivered_tokens() == 6


def test_a_stream_that_is_longer_than_what_may_wait_is_counted_in_between() -> None:
    meter = begun(1_000_000)
    for _ in range(5_000):
        meter.record_delivery(event("word " * 4))
    assert meter.delivered_tokens() == 25_000
    assert sys.getsizeof(meter._pending) < 1_000


def test_an_event_that_never_ends_does_not_grow_memory() -> None:
    meter = begun()
    tracemalloc.start()
    try:
        for _ in range(300):
            meter.record_delivery(b"A" * 65_536)
        assert tracemalloc.get_traced_memory()[0] < 3 * MAX_HELD_BYTES
    finally:
        tracemalloc.stop()


def test_input_reported_at_the_beginning_counts_until_the_end_is_reported() -> None:
    meter = Meter()
    meter.record_usage(ProviderUsage({"input_tokens": 25, "output_tokens": 1}, is_partial=True))
    assert meter.usage(999) == (Usage(), RANK_NONE)
    meter.begin(ChoicesOutput())
    meter.record_delivery(event("word") * 4)
    assert meter.usage(999) == (Usage(prompt_tokens=25, completion_tokens=4), RANK_COUNTED)
    meter.record_usage(ProviderUsage({"output_tokens": 7}))
    assert meter.usage(999) == (Usage(prompt_tokens=25, completion_tokens=7), RANK_PROVIDER)


def test_counted_output_never_exceeds_the_allowed_maximum() -> None:
    meter = begun(max_tokens=100)
    meter.record_delivery(event("word"))
    assert meter.usage(7) == (Usage(prompt_tokens=7, completion_tokens=1), RANK_COUNTED)
    meter.record_delivery(event("picture" * 1_000_000))
    assert meter.usage(7) == (Usage(prompt_tokens=7, completion_tokens=100), RANK_COUNTED)
    assert meter.progress == "100"
    meter.record_usage(ProviderUsage({"prompt_tokens": 7, "completion_tokens": 101}))
    assert meter.usage(7) == (Usage(prompt_tokens=7, completion_tokens=101), RANK_PROVIDER)


def test_impossible_numbers_are_ignored() -> None:
    meter = Meter()
    for prompt, completion in ((0, 0), (-1, 0), (0, -1), (2_000_000_000, -5)):
        meter.record_usage(ProviderUsage({"prompt_tokens": prompt, "completion_tokens": completion}))
    assert meter.usage(1) == (Usage(), RANK_NONE)


def test_the_cache_lifetime_reported_at_the_beginning_is_kept() -> None:
    meter = Meter()
    first = ProviderUsage(
        {
            "input_tokens": 20,
            "cache_creation_input_tokens": 80,
            "cache_creation": {"ephemeral_1h_input_tokens": 50},
        },
        is_partial=True,
    )
    meter.record_usage(first)
    meter.begin(ChoicesOutput())
    begun_usage = Usage(prompt_tokens=100, cache_write_tokens=80, cache_write_1h_tokens=50)
    assert meter.usage(999) == (begun_usage, RANK_COUNTED)
    # Newer models repeat the input at the end, without the breakdown.
    meter.record_usage(ProviderUsage({"input_tokens": 20, "cache_creation_input_tokens": 80, "output_tokens": 7}))
    assert meter.usage(999) == (msgspec.structs.replace(begun_usage, completion_tokens=7), RANK_PROVIDER)
    meter.record_usage(ProviderUsage({"output_tokens": 9}))
    assert meter.usage(999) == (msgspec.structs.replace(begun_usage, completion_tokens=9), RANK_PROVIDER)


def test_cached_input_reported_only_at_the_beginning_stays_cheap() -> None:
    meter = Meter()
    first = ProviderUsage({"input_tokens": 20, "cache_read_input_tokens": 80, "output_tokens": 1}, is_partial=True)
    meter.record_usage(first)
    meter.begin(ChoicesOutput())
    meter.record_delivery(event("word") * 4)
    cut = Usage(prompt_tokens=100, cached_tokens=80, completion_tokens=4)
    assert meter.usage(999) == (cut, RANK_COUNTED)
    meter.record_usage(ProviderUsage({"output_tokens": 7}))
    assert meter.usage(999) == (Usage(prompt_tokens=100, cached_tokens=80, completion_tokens=7), RANK_PROVIDER)


WORDS = "word " * 40


def metered_stream(*reported: ProviderUsage, ends: bool = True) -> Meter:
    meter = Meter()
    meter.begin(ChoicesOutput())
    for _ in range(4):
        meter.record_delivery(event(WORDS))
    for usage in reported:
        meter.record_usage(usage)
    if ends:
        meter.end()
    return meter


@pytest.mark.parametrize(
    "output", [{}, {"completion_tokens": None}, {"completion_tokens": 0}, {"completion_tokens": ""}]
)
def test_an_output_of_nothing_beside_words_is_estimated_and_the_input_stands(output: dict[str, Any]) -> None:
    meter = metered_stream(ProviderUsage({"prompt_tokens": 100, **output}))
    usage, rank = meter.usage(999)
    assert (usage, rank) == (Usage(prompt_tokens=100, completion_tokens=200), RANK_COUNTED)


def whole(body: bytes, response_format: ResponseFormat) -> Meter:
    meter, summary = Meter(), response_format.summarize(body)
    assert summary is not None
    meter.record_response(summary, None)
    return meter


def test_an_output_of_nothing_without_words_is_the_providers_count() -> None:
    body = b'{"type":"message","content":[],"stop_reason":"end_turn","usage":{"input_tokens":100,"output_tokens":0}}'
    assert whole(body, Messages()).usage(999) == (Usage(prompt_tokens=100), RANK_PROVIDER)


FAILED: dict[str, tuple[ResponseFormat, bytes]] = {
    "refused message": (
        Messages(), b'{"content":[%b],"stop_reason":"refusal","usage":{"input_tokens":100,"output_tokens":7}}'
    ),
    "filtered chat": (
        Completions(),
        b'{"choices":[{"message":{"content":null,"x":[%b]},"finish_reason":"content_filter"}],'
        b'"usage":{"prompt_tokens":100,"completion_tokens":7}}',
    ),
    "filtered response": (
        Responses(),
        b'{"status":"incomplete","incomplete_details":{"reason":"content_filter"},"output":[%b],'
        b'"usage":{"input_tokens":100,"output_tokens":7}}',
    ),
    "failed response": (
        Responses(), b'{"status":"failed","output":[%b],"usage":{"input_tokens":100,"output_tokens":7}}'
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILED)
def test_a_refusal_or_failure_before_any_output_costs_nothing(case: str) -> None:
    response_format, body = FAILED[case]
    assert whole(body % b"", response_format).usage(999) == (Usage(), RANK_NONE)


@pytest.mark.parametrize("case", ["refused message", "filtered response", "failed response"])
def test_a_refusal_or_failure_after_output_costs_what_the_provider_reports(case: str) -> None:
    response_format, body = FAILED[case]
    text = b'{"type":"message","text":"Rain","content":[{"type":"output_text","text":"Rain"}]}'
    usage = Usage(prompt_tokens=100, completion_tokens=7)
    assert whole(body % text, response_format).usage(999) == (usage, RANK_PROVIDER)


def test_a_stream_that_was_refused_before_any_output_costs_nothing() -> None:
    meter = Meter()
    meter.begin(BlocksOutput())
    meter.record_delivery(b'data: {"type":"message_delta","delta":{"stop_reason":"refusal"}}\n\n')
    meter.record_usage(ProviderUsage({"input_tokens": 100, "output_tokens": 0}))
    meter.end()
    assert meter.usage(999) == (Usage(), RANK_NONE)


def test_an_input_of_zero_is_estimated_and_the_output_stands() -> None:
    meter = metered_stream(ProviderUsage({"prompt_tokens": 0, "completion_tokens": 54, "total_tokens": 54}))
    assert meter.usage(30) == (Usage(prompt_tokens=30, completion_tokens=54), RANK_COUNTED)


def test_usage_of_the_middle_of_a_stream_is_final_only_when_the_stream_ends() -> None:
    beginning = ProviderUsage({"prompt_tokens": 100, "completion_tokens": 1}, is_partial=True)
    usage, rank = metered_stream(beginning, ends=False).usage(999)
    assert (usage.prompt_tokens, rank) == (100, RANK_COUNTED)
    assert usage.completion_tokens > 1
    assert metered_stream(beginning).usage(999) == (Usage(prompt_tokens=100, completion_tokens=1), RANK_PROVIDER)


def test_counts_of_single_events_are_no_count_of_the_stream() -> None:
    """Some providers count each event by itself, most all events so far."""
    of_one = [ProviderUsage({"prompt_tokens": 100, "completion_tokens": n}, is_partial=True) for n in (10, 9, 11, 1)]
    assert metered_stream(*of_one).usage(999) == (Usage(prompt_tokens=100, completion_tokens=200), RANK_COUNTED)
    so_far = [ProviderUsage({"prompt_tokens": 100, "completion_tokens": n}, is_partial=True) for n in (10, 90, 180)]
    assert metered_stream(*so_far).usage(999) == (Usage(prompt_tokens=100, completion_tokens=180), RANK_PROVIDER)
    at_last = ProviderUsage({"prompt_tokens": 100, "completion_tokens": 40})
    assert metered_stream(*of_one, at_last).usage(999) == (
        Usage(prompt_tokens=100, completion_tokens=40), RANK_PROVIDER
    )  # fmt: skip


def test_start_and_end_of_a_message_are_merged_field_by_field() -> None:
    start = ProviderUsage({"input_tokens": 2000, "cache_read_input_tokens": 5000}, is_partial=True)
    end = ProviderUsage({"input_tokens": 0, "cache_creation_input_tokens": 1000, "output_tokens": 50})
    expected = Usage(prompt_tokens=8000, cached_tokens=5000, cache_write_tokens=1000, completion_tokens=50)
    assert metered_stream(start, end).usage(999) == (expected, RANK_PROVIDER)


def test_tokens_that_are_not_believed_are_estimated_and_uses_of_tools_stay() -> None:
    meter = begun()
    meter.record_delivery(event("word " * 4))
    told = {"prompt_tokens": 10**8, "completion_tokens": 5, "server_tool_use": {"web_search_requests": 2}}
    meter.record_usage(ProviderUsage(told))
    meter.end()
    assert meter.usage(7)[0].prompt_tokens == 10**8
    meter.disbelieve()
    assert meter.usage(7) == (
        Usage(prompt_tokens=7, completion_tokens=5, details={"web_search": 2}),
        RANK_COUNTED,
    )


def test_a_search_that_every_such_call_makes_counts_unless_the_provider_counts_it() -> None:
    for told, searches in (({}, 1), ({"web_search_requests": 3}, 3), ({"web_search_requests": 10**9}, 1)):
        meter = begun()
        meter.record_least({"web_search": 1})
        meter.record_usage(ProviderUsage({"prompt_tokens": 9, "completion_tokens": 5, "server_tool_use": told}))
        meter.end()
        if searches == 1 and told:
            meter.disbelieve()
        assert meter.usage(7)[0].details == {"web_search": searches}


def test_more_searches_than_can_be_are_not_believed_and_those_that_were_delivered_are_charged() -> None:
    meter = Meter(1_000)
    meter.begin(Messages().output())
    block = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    for name, field in (
        ("content_block_start", {"content_block": block}),
        ("content_block_delta", {"delta": {"text": "Rain"}}),
    ):
        meter.record_delivery(b"data: " + msgspec.json.encode({"type": name, "index": 0, **field}) + b"\n\n")
    told = {"input_tokens": 9, "output_tokens": 1, "server_tool_use": {"web_search_requests": 10**9}}
    meter.record_usage(ProviderUsage(told))
    meter.end()
    assert not is_possible(meter.usage(7)[0], prompt_tokens=10**6, completion_tokens=10**6)
    meter.disbelieve()
    usage, rank = meter.usage(7)
    assert (usage.prompt_tokens, usage.details, rank) == (7, {"web_search": 1}, RANK_COUNTED)


SEARCH = {"type": "web_search_call", "id": "w1", "status": "completed", "action": {"type": "search", "query": "rain"}}
SEARCHES: dict[str, tuple[ResponseFormat, list[dict[str, Any]]]] = {
    "responses": (
        Responses(),
        [
            {"type": "response.output_item.done", "output_index": 0, "item": SEARCH},
            {"type": "response.output_item.done", "output_index": 0, "item": SEARCH},  # said twice
            {"type": "response.output_item.done", "output_index": 1, "item": {**SEARCH, "id": "w2"}},
            {"type": "response.output_text.delta", "delta": "Rain"},
        ],
    ),
    "messages": (
        Messages(),
        [
            {"type": "content_block_start", "index": n, "content_block": {
                "type": kind, "id": f"s{n}", "name": "web_search", "input": {}}}
            for n, kind in enumerate(("server_tool_use", "server_tool_use", "tool_use"))
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("surface", SEARCHES)
def test_a_caller_who_leaves_before_the_end_pays_for_the_searches_that_were_delivered(surface: str) -> None:
    response_format, events = SEARCHES[surface]
    meter = Meter(1_000)
    meter.begin(response_format.output())
    for each in events:
        meter.record_delivery(b"data: " + msgspec.json.encode(each) + b"\n\n")
    usage, rank = meter.usage(9)
    assert (usage.prompt_tokens, usage.details, rank) == (9, {"web_search": 2}, RANK_COUNTED)
    told = {"input_tokens": 9, "output_tokens": 5, "server_tool_use": {"web_search_requests": 3}}
    meter.record_usage(ProviderUsage(told))
    assert meter.usage(9)[0].details == {"web_search": 3}
