"""Every provider's way of counting is read into the same disjoint classes."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.pricing import FrozenRates, Usage, cost_nanos, price_lines
from billing.tests import strategies
from billing.usage import (
    MAX_TOKENS,
    UNKNOWN,
    count_of,
    is_possible,
    merged,
    read_exactly,
    read_usage,
    usage_of_call,
    with_units_of_call,
)
from codexflow.catalogue.entries import CALL_UNITS, UNITS, PriceDetails

ANTHROPIC = {"input_tokens": 2000, "cache_read_input_tokens": 5000, "cache_creation_input_tokens": 1000}

# What was reported -> prompt, cached, written, of that for an hour, completion, reasoning.
CASES: list[tuple[str, dict[str, Any], tuple[int, int, int, int, int, int]]] = [
    ("openai", {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}, (100, 0, 0, 0, 20, 0)),
    ("as floats", {"prompt_tokens": 100.0, "completion_tokens": 20.0}, (100, 0, 0, 0, 20, 0)),
    ("as text", {"prompt_tokens": "100", "completion_tokens": "20"}, (100, 0, 0, 0, 20, 0)),
    ("cached inside", {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 64}},
     (100, 64, 0, 0, 5, 0)),
    ("cached under another name", {"prompt_tokens": 2459, "completion_tokens": 23, "total_tokens": 2482,
     "prompt_tokens_details": {"cached_tokens": 0}, "cache_read_input_tokens": 2455}, (2459, 2455, 0, 0, 23, 0)),
    ("deepseek", {"prompt_tokens": 12040, "completion_tokens": 40, "total_tokens": 12080,
     "prompt_cache_hit_tokens": 11000, "prompt_cache_miss_tokens": 1040}, (12040, 11000, 0, 0, 40, 0)),
    ("cache outside of the prompt", {"prompt_tokens": 14, "completion_tokens": 40, "total_tokens": 54,
     "prompt_tokens_details": {"cached_tokens": 6081}, "cache_read_input_tokens": 6081}, (6095, 6081, 0, 0, 40, 0)),
    ("writes outside of the prompt", {"prompt_tokens": 31, "completion_tokens": 4,
     "cache_creation_input_tokens": 1253}, (1284, 0, 1253, 0, 4, 0)),
    ("reasoning outside of the completion", {"prompt_tokens": 10120, "completion_tokens": 1499, "total_tokens": 14428,
     "prompt_tokens_details": {"cached_tokens": 128}, "completion_tokens_details": {"reasoning_tokens": 2809}},
     (10120, 128, 0, 0, 4308, 2809)),
    ("a total larger than its parts", {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 1120},
     (100, 0, 0, 0, 1020, 0)),
    ("anthropic", {**ANTHROPIC, "output_tokens": 50}, (8000, 5000, 1000, 0, 50, 0)),
    ("writes by lifetime only", {"input_tokens": 100, "cache_read_input_tokens": 0, "output_tokens": 20,
     "cache_creation": {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 2000}},
     (3100, 0, 3000, 2000, 20, 0)),
    ("a sum smaller than its lifetimes", {"input_tokens": 100, "cache_creation_input_tokens": 5, "output_tokens": 20,
     "cache_creation": {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 2000}},
     (3100, 0, 3000, 2000, 20, 0)),
    ("responses", {"input_tokens": 75, "input_tokens_details": {"cached_tokens": 32}, "output_tokens": 1186,
     "output_tokens_details": {"reasoning_tokens": 1024}, "total_tokens": 1261}, (75, 32, 0, 0, 1186, 1024)),
    ("gemini", {"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 100, "totalTokenCount": 115,
     "cachedContentTokenCount": 4}, (10, 4, 0, 0, 105, 100)),
    ("compaction", {"input_tokens": 23000, "output_tokens": 1000, "iterations": [
        {"type": "compaction", "input_tokens": 180000, "output_tokens": 3500},
        {"type": "message", "input_tokens": 23000, "output_tokens": 1000},
    ]}, (203000, 0, 0, 0, 4500, 0)),
    ("bedrock", {"inputTokens": 100, "outputTokens": 20, "totalTokens": 3120, "cacheReadInputTokens": 1000,
     "cacheWriteInputTokens": 2000}, (3100, 1000, 2000, 0, 20, 0)),
    ("bedrock's metrics", {"inputTokenCount": 100, "outputTokenCount": 20, "cacheReadInputTokenCount": 50},
     (150, 50, 0, 0, 20, 0)),
    ("gemini in python", {"prompt_token_count": 100, "candidates_token_count": 20, "thoughts_token_count": 30,
     "cached_content_token_count": 40, "total_token_count": 150}, (100, 40, 0, 0, 50, 30)),
    ("gemini's own tools", {"promptTokenCount": 100, "candidatesTokenCount": 20, "toolUsePromptTokenCount": 1000,
     "thoughtsTokenCount": 30, "totalTokenCount": 1150}, (1100, 0, 0, 0, 50, 30)),
    ("ai sdk", {"inputTokens": 100, "outputTokens": 20, "totalTokens": 120, "cachedInputTokens": 40},
     (100, 40, 0, 0, 20, 0)),
    ("older ai sdk", {"promptTokens": 100, "completionTokens": 20}, (100, 0, 0, 0, 20, 0)),
    ("cohere", {"billed_units": {"input_tokens": 100, "output_tokens": 20},
     "tokens": {"input_tokens": 170, "output_tokens": 22}}, (100, 0, 0, 0, 20, 0)),
    ("mistral", {"prompt_tokens": 100, "completion_tokens": 20, "num_cached_tokens": 64}, (100, 64, 0, 0, 20, 0)),
    ("qwen", {"prompt_tokens": 4000, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 1000,
     "cache_creation_input_tokens": 2000, "cache_creation": {"ephemeral_5m_input_tokens": 2000}}},
     (4000, 1000, 2000, 0, 20, 0)),
    ("writes by lifetime in the details", {"prompt_tokens": 4000, "completion_tokens": 20,
     "prompt_tokens_details": {"cache_creation": {"ephemeral_1h_input_tokens": 2000}}}, (4000, 0, 2000, 2000, 20, 0)),
    ("details under both names", {"prompt_tokens": 100, "completion_tokens": 20,
     "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0}, "input_tokens_details": {"cached_tokens": 64}},
     (100, 64, 0, 0, 20, 0)),
    ("anthropic beside nulls", {"prompt_tokens": None, "completion_tokens": None, **ANTHROPIC, "output_tokens": 50},
     (8000, 5000, 1000, 0, 50, 0)),
    ("anthropic beside zeros", {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "input_tokens": 2000,
     "cache_read_input_tokens": 500, "output_tokens": 50}, (2500, 500, 0, 0, 50, 0)),
    ("only a total and the output", {"completion_tokens": 20, "total_tokens": 120}, (100, 0, 0, 0, 20, 0)),
]  # fmt: skip


def as_tuple(usage: Usage) -> tuple[int, ...]:
    return (
        usage.prompt_tokens, usage.cached_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens,
        usage.completion_tokens, usage.reasoning_tokens,
    )  # fmt: skip


@pytest.mark.parametrize(("reported", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_providers_counts_are_read(reported: dict[str, Any], expected: tuple[int, ...]) -> None:
    report = read_usage(reported)
    assert as_tuple(report.usage) == expected
    assert (report.is_input_known, report.is_output_known) == (True, True)


@pytest.mark.parametrize(
    "raw", [None, "", [], 7, {}, {"prompt_tokens": None}, {"prompt_tokens": "many"}, {"usage": {"prompt_tokens": 1}}]
)
def test_what_tells_no_count_is_unknown(raw: Any) -> None:
    assert read_usage(raw) == UNKNOWN


@pytest.mark.parametrize("output", [{}, {"completion_tokens": None}, {"completion_tokens": "x"}])
def test_an_output_that_cannot_be_read_is_unknown_and_the_input_stands(output: dict[str, Any]) -> None:
    report = read_usage({"prompt_tokens": 100, "total_tokens": None, **output})
    assert (report.usage.prompt_tokens, report.is_input_known, report.is_output_known) == (100, True, False)


@pytest.mark.parametrize(
    "reported",
    [{"prompt_tokens": 0, "completion_tokens": 54, "total_tokens": 54}, {"input_tokens": 0, "output_tokens": 54}],
)
def test_an_input_of_zero_is_unknown_and_the_output_stands(reported: dict[str, Any]) -> None:
    report = read_usage(reported)
    assert (report.usage.completion_tokens, report.is_input_known, report.is_output_known) == (54, False, True)


@pytest.mark.parametrize(
    "delta",
    [
        {"input_tokens": 0, "cache_read_input_tokens": 5000, "cache_creation_input_tokens": 1000, "output_tokens": 50},
        {"cache_read_input_tokens": 5000, "cache_creation_input_tokens": 1000, "output_tokens": 50},
        {"input_tokens": 2000, "output_tokens": 50},
        {"input_tokens": None, "cache_read_input_tokens": None, "output_tokens": 50},
        {"output_tokens": 50},
    ],
)
def test_start_and_delta_are_merged_field_by_field(delta: dict[str, Any]) -> None:
    report = read_usage(merged({**ANTHROPIC, "output_tokens": 1}, delta))
    assert as_tuple(report.usage) == (8000, 5000, 1000, 0, 50, 0)


@pytest.mark.parametrize("odd", ["x", "", -1, None, [], {}, True, float("nan"), 10**12])
def test_what_is_no_count_takes_no_earlier_count_away(odd: Any) -> None:
    known = {**ANTHROPIC, "output_tokens": 50}
    assert as_tuple(read_usage(merged(known, dict.fromkeys(known, odd))).usage) == (8000, 5000, 1000, 0, 50, 0)
    details = {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 64}}
    later = {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": odd}
    assert as_tuple(read_usage(merged(details, later)).usage) == (100, 64, 0, 0, 5, 0)


def test_usage_that_is_nested_without_end_takes_no_count_away() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5_000):
        deep = {"details": deep}
    known = {"prompt_tokens": 100, "completion_tokens": 5}
    report = read_usage(merged({**known, **deep}, {**known, **deep, "completion_tokens": 7}))
    assert as_tuple(report.usage) == (100, 0, 0, 0, 7, 0)


def test_an_earlier_total_is_no_sum_of_later_counts() -> None:
    earlier = {"prompt_tokens": 1000, "completion_tokens": 20, "total_tokens": 1020}
    report = read_usage(merged(earlier, {"prompt_tokens": 100, "completion_tokens": 20}))
    assert as_tuple(report.usage) == (100, 0, 0, 0, 20, 0)


# Properties over generated usage objects of every convention.

parts = st.integers(0, 2_000_000)
spellings = st.sampled_from([lambda n: n, float, str, lambda n: f"{n}.0"])


@st.composite
def true_usage(draw: st.DrawFn) -> Usage:
    fresh, cached, five_minutes, hour = draw(st.integers(1, 2_000_000)), draw(parts), draw(parts), draw(parts)
    reasoning, words = draw(parts), draw(st.integers(1, 2_000_000))
    return Usage(
        prompt_tokens=fresh + cached + five_minutes + hour,
        cached_tokens=cached,
        cache_write_tokens=five_minutes + hour,
        cache_write_1h_tokens=hour,
        completion_tokens=words + reasoning,
        reasoning_tokens=reasoning,
    )


def lifetimes(usage: Usage) -> dict[str, int]:
    hour = usage.cache_write_1h_tokens
    return {"ephemeral_5m_input_tokens": usage.cache_write_tokens - hour, "ephemeral_1h_input_tokens": hour}


def openai_form(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_creation_tokens": usage.cache_write_tokens,
            "cache_creation_token_details": lifetimes(usage),
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def anthropic_form(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation": lifetimes(usage),
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def reasoning_outside_form(usage: Usage) -> dict[str, Any]:
    form = openai_form(usage)
    return {**form, "completion_tokens": usage.completion_tokens - usage.reasoning_tokens}


def cache_outside_form(usage: Usage) -> dict[str, Any]:
    form = openai_form(usage)
    return {**form, "prompt_tokens": usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens}


def bedrock_form(usage: Usage) -> dict[str, Any]:
    return {
        "inputTokens": usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens,
        "outputTokens": usage.completion_tokens,
        "totalTokens": usage.total_tokens,
        "cacheReadInputTokens": usage.cached_tokens,
        "cache_creation": lifetimes(usage),
        "reasoning_tokens": usage.reasoning_tokens,
    }


FORMS = [openai_form, anthropic_form, reasoning_outside_form, cache_outside_form, bedrock_form]


def respelled(raw: Any, spell: Any) -> Any:
    if isinstance(raw, dict):
        return {name: respelled(value, spell) for name, value in raw.items()}
    return spell(raw)


@given(usage=true_usage(), form=st.sampled_from(FORMS), spell=spellings)
def test_every_convention_reads_as_the_same_usage(usage: Usage, form: Any, spell: Any) -> None:
    report = read_usage(respelled(form(usage), spell))
    assert report.usage == usage
    assert report.is_input_known
    assert report.is_output_known


@given(usage=true_usage(), data=st.data())
def test_a_stream_reads_the_same_however_its_fields_are_spread(usage: Usage, data: st.DataObject) -> None:
    """Start and end each know some of the fields; what one leaves out, has null or zero for, holds from the other."""
    whole = anthropic_form(usage)
    start, end = {}, {}
    for name, value in whole.items():
        where = data.draw(st.sampled_from(["start", "end", "both"]))
        if where != "end":
            start[name] = value
        elif data.draw(st.booleans()):
            start[name] = None
        if where != "start":
            end[name] = value
        elif not isinstance(value, dict):
            end |= data.draw(st.sampled_from([{}, {name: None}, {name: 0}]))
    assert read_usage(merged(start, end)).usage == usage


counts = st.integers(-2, 50) | st.none()
usual_objects = st.fixed_dictionaries(
    {"prompt_tokens": counts, "completion_tokens": counts, "total_tokens": counts | st.integers(0, 100)},
    optional={
        "cost": st.floats(0, 1),
        "prompt_tokens_details": st.none() | st.dictionaries(st.sampled_from(["cached_tokens", "audio"]), counts),
        "completion_tokens_details": st.none() | st.dictionaries(st.sampled_from(["reasoning_tokens"]), counts),
        "cache_read_input_tokens": counts,
    },
)


@given(raw=usual_objects)
def test_the_usual_object_is_read_as_any_other(raw: dict[str, Any]) -> None:
    assert read_usage(raw) == read_exactly(raw)


@pytest.mark.parametrize(
    ("raw", "details"),
    [
        ({"input_tokens": 9, "output_tokens": 2, "server_tool_use": {"web_search_requests": 5}}, {"web_search": 5}),
        ({"input_tokens": 9, "server_tool_use": {"web_search_requests": "2", "web_fetch_requests": 3.0}},
         {"web_search": 2, "web_fetch": 3}),
        ({"input_tokens": 9, "server_tool_use": {"web_search_requests": None}}, None),
        ({"input_tokens": 9, "server_tool_use": []}, None),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"web_search_requests": 1}}, {"web_search": 1}),
        ({"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10, "prompt_tokens_details": {"audio_tokens": 4}},
         {"audio_input": 4}),
        ({"prompt_tokens": 9, "completion_tokens": 8,
          "completion_tokens_details": {"audio_tokens": 5, "image_tokens": 2}},
         {"audio_output": 5, "image_output": 2}),
        ({"promptTokenCount": 9,
          "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 6}, "odd", {"modality": 1}]},
         {"audio_input": 6}),
        ({"input_tokens": 1, "server_tool_use": {"web_fetch_requests": 1}, "iterations": [
            {"input_tokens": 5, "output_tokens": 1, "server_tool_use": {"web_search_requests": 2}},
            {"input_tokens": 1, "output_tokens": 1, "server_tool_use": {"web_search_requests": 1}},
        ]}, {"web_search": 3, "web_fetch": 1}),
    ],
)  # fmt: skip
def test_what_has_a_price_of_its_own_is_counted_by_name(raw: dict[str, Any], details: dict[str, int] | None) -> None:
    assert read_usage(raw).usage.details == details


def test_units_of_a_stream_hold_from_its_beginning() -> None:
    begun = {"input_tokens": 10, "server_tool_use": {"web_search_requests": 0}}
    ended = {"output_tokens": 5, "server_tool_use": {"web_search_requests": 3}}
    assert read_usage(merged(merged(begun, ended), {"output_tokens": 6})).usage.details == {"web_search": 3}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = [
    *openai_form(Usage()),
    *anthropic_form(Usage()),
    "prompt_cache_hit_tokens",
    "iterations",
    "cache_creation",
    "server_tool_use",
    "promptTokensDetails",
]
NO_RATES = FrozenRates(input_nanos=1, cached_nanos=1, output_nanos=1)


@given(raw=st.dictionaries(st.sampled_from(NAMES), json_values, max_size=8) | json_values)
def test_whatever_comes_no_class_is_below_zero_and_parts_fit_their_whole(raw: Any) -> None:
    usage = read_usage(raw).usage
    tokens = {line.kind: line.quantity for line in price_lines(usage, NO_RATES) if not line.is_unit}
    assert min(tokens.values()) >= 0
    assert sum(tokens.values()) == usage.total_tokens
    assert usage.cache_write_1h_tokens <= usage.cache_write_tokens
    assert usage.reasoning_tokens <= usage.completion_tokens


@given(value=st.integers() | st.floats() | st.booleans() | st.none() | st.text(max_size=20))
def test_a_count_is_a_number_of_tokens_or_unknown(value: Any) -> None:
    found = count_of(value)
    assert found is None or 0 <= found <= MAX_TOKENS
    if isinstance(value, float) and not math.isfinite(value):
        assert found is None


def told(meta: Any = None, usage: Any = None) -> tuple[int, int, dict[str, int] | None]:
    found = read_usage(usage_of_call(meta, usage)).usage
    return found.prompt_tokens, found.completion_tokens, found.details


@pytest.mark.parametrize(
    ("meta", "usage", "expected"),
    [
        # Cohere, then as LiteLLM writes Cohere's, Jina's and Voyage's.
        ({"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}, None, (0, 0, {"search_unit": 1})),
        ({"billed_units": {"search_units": 2.0}, "tokens": {"input_tokens": 9}}, None, (9, 0, {"search_unit": 2})),
        ({"billed_units": {"total_tokens": 12}, "tokens": {"total_tokens": 12}}, None, (12, 0, None)),
        ({"billed_units": {"total_tokens": 7}, "tokens": {"input_tokens": 7, "output_tokens": 0}}, None, (7, 0, None)),
        # In `usage`, as Jina, OpenRouter and others.
        (None, {"total_tokens": 15}, (15, 0, None)),
        (None, {"prompt_tokens": 15, "total_tokens": 15}, (15, 0, None)),
        (None, {"search_units": 1, "total_tokens": 150, "cost": 0.002}, (150, 0, {"search_unit": 1})),
        (None, {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}, (5, 2, None)),
        (None, {"completion_tokens": 2, "total_tokens": 7}, (5, 2, None)),
        # What cannot be read is not told.
        ({"billed_units": {"search_units": None}, "tokens": None}, None, (0, 0, None)),
        ({"billed_units": {"search_units": -1, "total_tokens": "many"}}, {"total_tokens": True}, (0, 0, None)),
        ({"billed_units": [1], "tokens": "x"}, [1], (0, 0, None)),
        ("meta", "usage", (0, 0, None)),
        (None, None, (0, 0, None)),
    ],
)
def test_usage_of_calls_without_words_is_read_from_wherever_it_is(meta: Any, usage: Any, expected: Any) -> None:
    assert told(meta, usage) == expected


BY_UNIT = FrozenRates(
    input_nanos=0, cached_nanos=0, output_nanos=0, details=PriceDetails(unit_nanos={"search_unit": 2_000_000})
)
BY_TOKEN = FrozenRates(input_nanos=50_000_000, cached_nanos=50_000_000, output_nanos=0)
BY_REQUEST = FrozenRates(input_nanos=0, cached_nanos=0, output_nanos=0, details=PriceDetails(unit_nanos={"request": 0}))
FREE = FrozenRates(input_nanos=0, cached_nanos=0, output_nanos=0)
EXPECTED = {"request": 1, "search_unit": 3}


@pytest.mark.parametrize(
    ("rates", "given_usage", "details", "is_told"),
    [
        (BY_UNIT, Usage(details={"search_unit": 2}), {"search_unit": 2}, True),
        (BY_UNIT, Usage(prompt_tokens=9), {"search_unit": 3}, False),
        (BY_UNIT, Usage(), {"search_unit": 3}, False),
        (BY_TOKEN, Usage(prompt_tokens=9), None, True),
        (BY_TOKEN, Usage(details={"search_unit": 2}), {"search_unit": 2}, False),
        (BY_TOKEN, Usage(), None, False),
        (BY_REQUEST, Usage(), {"request": 1}, True),
        (FREE, Usage(), None, False),
    ],
)
def test_what_the_price_counts_is_told_or_estimated(
    rates: FrozenRates, given_usage: Usage, details: Any, *, is_told: bool
) -> None:
    found, told_all = with_units_of_call(given_usage, EXPECTED, rates)
    assert (found.details, told_all) == (details, is_told)
    assert found.prompt_tokens == given_usage.prompt_tokens


@given(rates=strategies.rates, details=strategies.usage_details, prompt=strategies.tokens, units=st.integers(1, 500))
def test_a_unit_with_a_price_is_never_free(
    rates: FrozenRates, details: dict[str, int] | None, prompt: int, units: int
) -> None:
    given_usage = Usage(prompt_tokens=prompt, details=details)
    found, is_told = with_units_of_call(given_usage, {"request": 1, "search_unit": units}, rates)
    prices = rates.details.unit_nanos if rates.details else {}
    assert all((found.details or {}).get(name, 0) > 0 for name in CALL_UNITS if name in prices)
    assert cost_nanos(found, rates) >= cost_nanos(given_usage, rates)
    if is_told and "search_unit" in prices:
        assert found.details is not None
        assert found.details["search_unit"] == (details or {})["search_unit"]


@given(prompt=st.integers(0, 10**9), completion=st.integers(0, 10**9), reads=st.integers(1, 10**7))
def test_only_usage_well_beyond_what_a_model_reads_or_writes_is_impossible(
    prompt: int, completion: int, reads: int
) -> None:
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion)
    found = is_possible(usage, prompt_tokens=reads, completion_tokens=128_000)
    if prompt <= reads and completion <= 128_000:
        assert found
    if prompt > 1.1 * reads + 2_000 or completion > 1.1 * 128_000 + 2_000:
        assert not found
    # What is possible stays so in a larger model.
    assert not found or is_possible(usage, prompt_tokens=reads + 1, completion_tokens=128_001)


@given(units=st.dictionaries(st.sampled_from(UNITS), st.integers(1, 2_000)), audio=st.integers(0, 10**6))
def test_only_a_thousand_units_of_a_kind_are_possible(units: dict[str, int], audio: int) -> None:
    usage = Usage(prompt_tokens=1, details={**units, "audio_input": audio})
    assert is_possible(usage, prompt_tokens=1, completion_tokens=1) is (max(units.values(), default=0) <= 1_000)
