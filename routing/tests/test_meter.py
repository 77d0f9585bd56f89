"""What a call is taken to have used when its provider does not say."""

import msgspec

from billing.pricing import Usage
from logs.pipeline.events import RANK_COUNTED, RANK_NONE, RANK_PROVIDER
from routing.meter import Meter
from routing.surfaces.responses import Completions
from routing.surfaces.usage import ProviderUsage


def event(text: str) -> bytes:
    return b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % text.encode()


def answered(body: str) -> Meter:
    meter, answer = Meter(), Completions().answer(body.encode())
    assert answer is not None
    meter.answered(answer, None)
    return meter


def test_a_text_that_speaks_of_data_is_no_further_event() -> None:
    plain, tricky = Meter(), Meter()
    for _ in range(3):
        plain.delivered(event("xxxxx xxxxx"))
        tricky.delivered(event("data: data:"))
    assert plain.delivered_tokens() == tricky.delivered_tokens() == 3


def test_several_events_in_one_piece_are_counted() -> None:
    meter = Meter()
    meter.delivered(event("a") * 4)
    assert meter.delivered_tokens() == 4


def test_the_envelope_of_an_answer_is_not_taken_for_text() -> None:
    body = '{"id":"x","object":"chat.completion","system_fingerprint":"%s","choices":[{"message":{"content":"%s"}}]}'
    assert answered(body % ("f" * 400, "12345678")).delivered_tokens() <= 3
    assert 100 <= answered(body % ("f", "word " * 100)).delivered_tokens() <= 130


def test_input_told_at_the_beginning_is_kept_and_never_taken_for_the_end() -> None:
    meter = Meter()
    meter.reported(ProviderUsage(input_tokens=25, output_tokens=1, is_only_input=True))
    assert meter.usage(999) == (Usage(), RANK_NONE)
    meter.begin()
    meter.delivered(event("a") * 4)
    assert meter.usage(999) == (Usage(prompt_tokens=25, completion_tokens=4), RANK_COUNTED)
    meter.reported(ProviderUsage(output_tokens=7))
    assert meter.usage(999) == (Usage(prompt_tokens=25, completion_tokens=7), RANK_PROVIDER)


def test_nothing_that_is_counted_here_is_more_than_was_allowed() -> None:
    """A picture is many bytes, and a response says everything again at its end."""
    meter = Meter(most_tokens=100)
    meter.begin()
    meter.delivered(event("picture" * 10_000))
    assert meter.usage(7) == (Usage(prompt_tokens=7, completion_tokens=1), RANK_COUNTED)
    meter.delivered(event("picture" * 1_000_000))
    assert meter.usage(7) == (Usage(prompt_tokens=7, completion_tokens=100), RANK_COUNTED)
    assert meter.progress == "100"
    meter.reported(ProviderUsage(prompt_tokens=7, completion_tokens=101))
    assert meter.usage(7) == (Usage(prompt_tokens=7, completion_tokens=101), RANK_PROVIDER)


def test_numbers_that_cannot_be_are_no_report() -> None:
    meter = Meter()
    for prompt, completion in ((0, 0), (-1, 5), (5, -1), (2_000_000_000, 1)):
        meter.reported(ProviderUsage(prompt_tokens=prompt, completion_tokens=completion))
    assert meter.usage(1) == (Usage(), RANK_NONE)


def test_how_long_a_cache_keeps_what_it_took_in_is_told_at_the_beginning_only() -> None:
    meter = Meter()
    begun = ProviderUsage(
        input_tokens=20,
        cache_creation_input_tokens=80,
        cache_creation={"ephemeral_1h_input_tokens": 50},
        output_tokens=1,
        is_only_input=True,
    )
    meter.reported(begun)
    meter.begin()
    told = Usage(prompt_tokens=100, cache_write_tokens=80, cache_write_1h_tokens=50)
    assert meter.usage(999) == (told, RANK_COUNTED)
    # Newer models repeat the input at the end, without the breakdown.
    meter.reported(ProviderUsage(input_tokens=20, cache_creation_input_tokens=80, output_tokens=7))
    assert meter.usage(999) == (msgspec.structs.replace(told, completion_tokens=7), RANK_PROVIDER)
    meter.reported(ProviderUsage(output_tokens=9))
    assert meter.usage(999) == (msgspec.structs.replace(told, completion_tokens=9), RANK_PROVIDER)


def test_what_the_cache_served_stays_cheap_when_only_the_beginning_told_of_it() -> None:
    meter = Meter()
    begun = ProviderUsage(input_tokens=20, cache_read_input_tokens=80, output_tokens=1, is_only_input=True)
    meter.reported(begun)
    meter.begin()
    meter.delivered(event("a") * 4)
    cut = Usage(prompt_tokens=100, cached_tokens=80, completion_tokens=4)
    assert meter.usage(999) == (cut, RANK_COUNTED)
    meter.reported(ProviderUsage(output_tokens=7))
    assert meter.usage(999) == (Usage(prompt_tokens=100, cached_tokens=80, completion_tokens=7), RANK_PROVIDER)
