"""Usage of calls whose provider reports none, or reports it in pieces."""

from typing import Any

import msgspec
import pytest

from billing.pricing import Usage
from logs.pipeline.events import RANK_COUNTED, RANK_NONE, RANK_PROVIDER
from routing.meter import Meter
from routing.surfaces.responses import Completions, Messages
from routing.surfaces.usage import ProviderUsage


def event(text: str) -> bytes:
    return b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % text.encode()


def metered(body: str) -> Meter:
    meter, summary = Meter(), Completions().summarize(body.encode())
    assert summary is not None
    meter.record_response(summary, None)
    return meter


def test_a_text_that_contains_data_is_no_further_event() -> None:
    plain, tricky = Meter(), Meter()
    for _ in range(3):
        plain.record_delivery(event("xxxxx xxxxx"))
        tricky.record_delivery(event("data: data:"))
    assert plain.delivered_tokens() == tricky.delivered_tokens() == 3


def test_several_events_in_one_piece_are_counted() -> None:
    meter = Meter()
    meter.record_delivery(event("a") * 4)
    assert meter.delivered_tokens() == 4


def test_the_envelope_of_a_response_is_not_counted_as_text() -> None:
    body = '{"id":"x","object":"chat.completion","system_fingerprint":"%s","choices":[{"message":{"content":"%s"}}]}'
    assert metered(body % ("f" * 400, "12345678")).delivered_tokens() <= 3
    assert 100 <= metered(body % ("f", "word " * 100)).delivered_tokens() <= 130


def test_input_reported_at_the_beginning_counts_until_the_end_is_reported() -> None:
    meter = Meter()
    meter.record_usage(ProviderUsage({"input_tokens": 25, "output_tokens": 1}, is_partial=True))
    assert meter.usage(999) == (Usage(), RANK_NONE)
    meter.begin()
    meter.record_delivery(event("a") * 4)
    assert meter.usage(999) == (Usage(prompt_tokens=25, completion_tokens=4), RANK_COUNTED)
    meter.record_usage(ProviderUsage({"output_tokens": 7}))
    assert meter.usage(999) == (Usage(prompt_tokens=25, completion_tokens=7), RANK_PROVIDER)


def test_counted_output_never_exceeds_the_allowed_maximum() -> None:
    """An image is many bytes, and a response repeats everything at its end."""
    meter = Meter(max_tokens=100)
    meter.begin()
    meter.record_delivery(event("picture" * 10_000))
    assert meter.usage(7) == (Usage(prompt_tokens=7, completion_tokens=1), RANK_COUNTED)
    meter.record_delivery(event("picture" * 1_000_000))
    assert meter.usage(7) == (Usage(prompt_tokens=7, completion_tokens=100), RANK_COUNTED)
    assert meter.progress == "100"
    meter.record_usage(ProviderUsage({"prompt_tokens": 7, "completion_tokens": 101}))
    assert meter.usage(7) == (Usage(prompt_tokens=7, completion_tokens=101), RANK_PROVIDER)


def test_impossible_numbers_are_ignored() -> None:
    meter = Meter()
    for prompt, completion in ((0, 0), (-1, 5), (5, -1), (2_000_000_000, 1)):
        meter.record_usage(ProviderUsage({"prompt_tokens": prompt, "completion_tokens": completion}))
    assert meter.usage(1) == (Usage(), RANK_NONE)


def test_the_cache_lifetime_reported_at_the_beginning_is_kept() -> None:
    meter = Meter()
    begun = ProviderUsage(
        {
            "input_tokens": 20,
            "cache_creation_input_tokens": 80,
            "cache_creation": {"ephemeral_1h_input_tokens": 50},
        },
        is_partial=True,
    )
    meter.record_usage(begun)
    meter.begin()
    begun_usage = Usage(prompt_tokens=100, cache_write_tokens=80, cache_write_1h_tokens=50)
    assert meter.usage(999) == (begun_usage, RANK_COUNTED)
    # Newer models repeat the input at the end, without the breakdown.
    meter.record_usage(ProviderUsage({"input_tokens": 20, "cache_creation_input_tokens": 80, "output_tokens": 7}))
    assert meter.usage(999) == (msgspec.structs.replace(begun_usage, completion_tokens=7), RANK_PROVIDER)
    meter.record_usage(ProviderUsage({"output_tokens": 9}))
    assert meter.usage(999) == (msgspec.structs.replace(begun_usage, completion_tokens=9), RANK_PROVIDER)


def test_cached_input_reported_only_at_the_beginning_stays_cheap() -> None:
    meter = Meter()
    begun = ProviderUsage({"input_tokens": 20, "cache_read_input_tokens": 80, "output_tokens": 1}, is_partial=True)
    meter.record_usage(begun)
    meter.begin()
    meter.record_delivery(event("a") * 4)
    cut = Usage(prompt_tokens=100, cached_tokens=80, completion_tokens=4)
    assert meter.usage(999) == (cut, RANK_COUNTED)
    meter.record_usage(ProviderUsage({"output_tokens": 7}))
    assert meter.usage(999) == (Usage(prompt_tokens=100, cached_tokens=80, completion_tokens=7), RANK_PROVIDER)


WORDS = "word " * 40  # fifty tokens by their bytes


def metered_stream(*reported: ProviderUsage, ends: bool = True) -> Meter:
    meter = Meter()
    meter.begin()
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
    assert (usage.prompt_tokens, usage.completion_tokens, rank) == (100, meter.delivered_tokens(), RANK_COUNTED)
    assert usage.completion_tokens > 0


def test_an_output_of_nothing_without_words_is_the_providers_count() -> None:
    body = b'{"type":"message","content":[],"stop_reason":"refusal","usage":{"input_tokens":100,"output_tokens":0}}'
    meter, summary = Meter(), Messages().summarize(body)
    assert summary is not None
    meter.record_response(summary, None)
    assert meter.usage(999) == (Usage(prompt_tokens=100), RANK_PROVIDER)


def test_an_input_of_zero_is_estimated_and_the_output_stands() -> None:
    meter = metered_stream(ProviderUsage({"prompt_tokens": 0, "completion_tokens": 54, "total_tokens": 54}))
    assert meter.usage(30) == (Usage(prompt_tokens=30, completion_tokens=54), RANK_COUNTED)


def test_usage_of_the_middle_of_a_stream_is_final_only_when_the_stream_ends() -> None:
    beginning = ProviderUsage({"prompt_tokens": 100, "completion_tokens": 1}, is_partial=True)
    usage, rank = metered_stream(beginning, ends=False).usage(999)
    assert (usage.prompt_tokens, rank) == (100, RANK_COUNTED)
    assert usage.completion_tokens > 1
    assert metered_stream(beginning).usage(999) == (Usage(prompt_tokens=100, completion_tokens=1), RANK_PROVIDER)


def test_start_and_end_of_a_message_are_merged_field_by_field() -> None:
    start = ProviderUsage({"input_tokens": 2000, "cache_read_input_tokens": 5000}, is_partial=True)
    end = ProviderUsage({"input_tokens": 0, "cache_creation_input_tokens": 1000, "output_tokens": 50})
    expected = Usage(prompt_tokens=8000, cached_tokens=5000, cache_write_tokens=1000, completion_tokens=50)
    assert metered_stream(start, end).usage(999) == (expected, RANK_PROVIDER)
