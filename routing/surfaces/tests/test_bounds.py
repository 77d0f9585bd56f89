"""Bounds of a request's tokens: no text, tool, image or file has more."""

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.limiter.holds import MOST_TOKENS_PER_IMAGE, Bound, CallSize
from routing.surfaces.body import parse
from routing.surfaces.bounds import MOST_BYTES_OF_A_BYTE, bounded, reserved_tokens
from routing.surfaces.requests import Chat, Completions, Embeddings, Messages, RequestSchema, Rerank, Responses

CONTEXTS = {"m": 1_000_000}
_MESSAGES = [{"role": "user", "content": "hi"}]
PIXEL = "iVBORw0KGgo" + "A" * 10_000
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**20) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=5), inner, max_size=8),
    max_leaves=30,
)


def size_of(body: bytes | dict[str, Any], schema: type[RequestSchema] = Chat, max_tokens: int = 100) -> CallSize:
    raw = body if isinstance(body, bytes) else json.dumps({"model": "m", **body}, ensure_ascii=False).encode()
    request = parse(raw, schema)
    return bounded(raw, request, request.size(max_tokens), CONTEXTS)


def bound_of(body: bytes | dict[str, Any], schema: type[RequestSchema] = Chat, max_tokens: int = 100) -> Bound:
    bound = size_of(body, schema, max_tokens).bound
    assert bound is not None
    return bound


def most_tokens(text: str) -> int:
    """Tokens of a tokenizer that knows single bytes only, after any normalization."""
    return max(len(each.encode()) for each in (text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFKC"))))


@given(
    texts=st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=5),
    is_escaped=st.booleans(),
    indent=st.sampled_from([None, 2]),
)
def test_no_tokenizer_makes_more_of_a_conversation(texts: list[str], is_escaped: bool, indent: int | None) -> None:
    messages = [{"role": "user", "content": text} for text in texts]
    raw = json.dumps({"model": "m", "messages": messages}, ensure_ascii=is_escaped, indent=indent).encode()
    # Sixteen for what a template puts around each.
    assert bound_of(raw).prompt_tokens("m") >= sum(most_tokens(text) + 16 for text in texts) + 100


@pytest.mark.parametrize("text", ["\ufdfa", "\U0001d160", "\u0344", "½", "㌀", "\ufb2c"])
@pytest.mark.parametrize("is_escaped", [False, True])
def test_characters_that_grow_are_held_as_what_they_become(text: str, is_escaped: bool) -> None:
    text *= 1_000
    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}, ensure_ascii=is_escaped).encode()
    assert most_tokens(text) <= bound_of(raw).text_tokens <= most_tokens(text) + 500


@given(characters=st.characters(codec="utf-8"))
def test_no_byte_becomes_more_than_the_most(characters: str) -> None:
    assert most_tokens(characters) <= MOST_BYTES_OF_A_BYTE * len(characters.encode())


@given(schema=values, indent=st.sampled_from([None, 0]), is_escaped=st.booleans())
def test_no_rendering_of_a_tool_has_more_tokens(schema: Any, indent: int | None, is_escaped: bool) -> None:
    """Written by Python, as LiteLLM and templates do; a run of white space is a token or two."""
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    rendered = json.dumps(tool, indent=indent, ensure_ascii=is_escaped)
    for form in ("compact", "escaped"):
        separators = (",", ":") if form == "compact" else None
        raw = json.dumps(
            {"model": "m", "messages": _MESSAGES, "tools": [tool]},
            separators=separators,
            ensure_ascii=form == "escaped",
        ).encode()
        assert bound_of(raw).text_tokens >= len(rendered.encode())


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        (Chat, {"messages": _MESSAGES, "tools": [{"type": "function", "function": {"name": "f", "description": "%"}}]}),
        (
            Chat,
            {
                "messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "%"}}]}],
                "tools": [],
            },
        ),
        (
            Messages,
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": {"a": "%"}}]}]},
        ),
        (
            Messages,
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"a": "%"}]}]}]},
        ),
        (Responses, {"input": [{"type": "function_call", "name": "f", "arguments": "%"}]}),
    ],
)
def test_characters_inside_of_objects_are_held_as_if_they_were_escaped(
    schema: type[RequestSchema], body: dict[str, Any]
) -> None:
    """LiteLLM writes some of them into texts, as Python does."""
    text = "ş" * 1_000 + "😀" * 1_000
    raw = json.dumps({"model": "m", **body}, ensure_ascii=False).replace("%", text).encode()
    assert bound_of(raw, schema).text_tokens >= len(json.dumps(text))


@pytest.mark.parametrize("schema", [Chat, Messages])
def test_characters_of_plain_text_are_held_as_they_are(schema: type[RequestSchema]) -> None:
    tools = [{"type": "function", "name": "f"}]
    text = "ş" * 1_000
    contents: list[Any] = [text, [{"type": "text", "text": text}]]
    body = {"messages": [{"role": "user", "content": each} for each in contents]}
    assert bound_of({**body, "tools": tools}, schema).text_tokens < 4_000 + 3_000


def test_numbers_that_are_written_out_are_held_as_such() -> None:
    numbers = b",".join([b"1e15"] * 1_000)
    tool = b'{"type":"function","function":{"name":"f","parameters":{"enum":[%b]}}}'
    raw = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"tools":[' + tool + b"]}"
    assert bound_of(raw % numbers).text_tokens >= len(json.dumps([1e15] * 1_000))
    assert bound_of(raw % b'1e999,"\\ufdfa"').text_tokens > len(raw)  # what no decoder takes is held at the most


@pytest.mark.parametrize("ttl", ['"ttl":"1h"', '"\\u0074tl":"\\u0031h"'])
def test_an_hour_of_cache_cannot_be_hidden(ttl: str) -> None:
    part = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral", "TTL": 0}}
    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": [part]}]}).replace('"TTL": 0', ttl)
    assert size_of(raw.encode(), Messages).may_cache_for_an_hour


def chat(kind: str, **inside: Any) -> tuple[type[RequestSchema], dict[str, Any]]:
    return Chat, {"messages": [{"role": "user", "content": [{"type": kind, kind: inside}]}]}


def item(**part: Any) -> tuple[type[RequestSchema], dict[str, Any]]:
    return Responses, {"input": [{"role": "user", "content": [{"type": "input_image", **part}]}]}


def block(kind: str, **source: Any) -> tuple[type[RequestSchema], dict[str, Any]]:
    return Messages, {"messages": [{"role": "user", "content": [{"type": kind, "source": source}]}]}


# Whoever opens a URL may find a film.
ATTACHED = [
    (*chat("image_url", url=f"data:image/png;base64,{PIXEL}"), False),
    (*chat("image_url", url="https://example.org/a.png", detail="data:image/"), True),
    (*chat("image_url", url=f"data:application/pdf;base64,{PIXEL}"), True),
    (*chat("image_url", url="gs://bucket/film.mp4"), True),
    (*chat("file", file_data="JVBE", filename="image/a"), True),
    (*chat("input_audio", data="UklG"), True),
    (*item(image_url=f"data:image/png;base64,{PIXEL}"), False),
    (*item(file_id="file-1"), True),
    (*block("image", type="base64", media_type="image/png", data=PIXEL), False),
    (*block("image", type="url", url="https://example.org/a"), True),
    (*block("image", type="file", file_id="file-1", media_type="image/png", data=PIXEL), True),
    (*block("document", type="base64", media_type="application/pdf", data="JVBE"), True),
]


@pytest.mark.parametrize(("schema", "body", "fills"), ATTACHED)
def test_what_only_the_context_bounds_is_held_as_the_context(
    schema: type[RequestSchema], body: dict[str, Any], fills: bool
) -> None:
    bound = bound_of(body, schema)
    expected = CONTEXTS["m"] if fills else bound.text_tokens + MOST_TOKENS_PER_IMAGE
    assert (bound.fills_context, bound.prompt_tokens("m")) == (fills, expected)
    assert bound.text_tokens < 2_000


@pytest.mark.parametrize(
    ("schema", "body", "windows"),
    [
        (Chat, {"messages": _MESSAGES}, 1),
        (Messages, {"messages": _MESSAGES, "tools": [{"type": "web_search_20250305", "name": "w", "max_uses": 3}]}, 4),
        (Messages, {"messages": _MESSAGES, "context_management": {"edits": [{"type": "compact_20260112"}]}}, 2),
        (Embeddings, {"input": ["a", "b", "c"]}, 3),
        (Completions, {"prompt": ["a", "b"]}, 2),
        (Rerank, {"query": "q", "documents": ["a", "b"]}, 2),
    ],
)
def test_what_a_model_reads_again_is_held_again(
    schema: type[RequestSchema], body: dict[str, Any], windows: int
) -> None:
    bound = bound_of(body, schema)
    assert (bound.windows, bound.fills_context) == (windows, "tools" in body)
    assert bound.prompt_tokens("m") <= windows * CONTEXTS["m"]


def test_a_compaction_is_held_with_its_summary() -> None:
    plain = bound_of({"messages": _MESSAGES}, Messages, 1_000)
    twice = bound_of({"messages": _MESSAGES, "context_management": {}}, Messages, 1_000)
    assert twice.completion_tokens == 2 * plain.completion_tokens == 2_000
    assert twice.text_tokens >= 2 * plain.text_tokens + 1_000


def test_a_prediction_that_is_thrown_away_is_output() -> None:
    prediction = {"type": "content", "content": "x" * 5_000}
    assert bound_of({"messages": _MESSAGES, "prediction": prediction, "n": 2}).completion_tokens >= 2 * 5_100


def test_tools_that_the_provider_describes_are_held_with_its_description() -> None:
    plain = bound_of({"messages": _MESSAGES, "tools": [{"name": "bash", "input_schema": {}}]}, Messages)
    known = bound_of({"messages": _MESSAGES, "tools": [{"type": "bash_20250124", "name": "bash"}]}, Messages)
    # Anthropic documents 346 tokens for tools, and 735 for the largest tool.
    assert bound_of({"messages": _MESSAGES}, Messages).text_tokens + 346 < plain.text_tokens
    assert plain.text_tokens + 735 < known.text_tokens


@given(query=st.text(min_size=1, max_size=50), documents=st.lists(st.text(max_size=50), min_size=1, max_size=20))
def test_a_query_counts_for_each_document_in_any_form(query: str, documents: list[str]) -> None:
    bound = bound_of({"query": query, "documents": documents}, Rerank)
    assert bound.text_tokens >= sum(most_tokens(query) + most_tokens(each) for each in documents)


def test_search_units_follow_the_text_as_it_is_normalized() -> None:
    plain, grown = (size_of({"query": "q", "documents": [text * 40_000]}, Rerank) for text in ("abc", "\ufdfa"))
    assert plain.units is not None
    assert grown.units is not None
    assert grown.units["search_unit"] == 11 * plain.units["search_unit"]


@given(text=st.text(st.characters(codec="ascii")), tokens_per_minute=st.integers(-1, 100_000))
def test_a_minutes_tokens_are_reserved_by_the_byte_or_by_kinds_of_bytes(text: str, tokens_per_minute: int) -> None:
    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
    size = parse(raw, Chat).size(100)
    reserved = reserved_tokens(raw, size, tokens_per_minute)
    light = sum(each in "abcdefghijklmnopqrstuvwxyz " for each in raw.decode())
    assert len(raw) - light // 2 <= reserved - 16 - 100 <= len(raw)


@given(text=st.text(), files=st.integers(0, 30))
def test_an_estimate_is_never_above_the_hold(text: str, files: int) -> None:
    parts = [{"type": "file", "file": {"file_data": "A" * 100_000}} for _ in range(files)]
    size = size_of({"messages": [{"role": "user", "content": [{"type": "text", "text": text}, *parts]}]})
    assert size.bound is not None
    assert size.guess("m") <= size.bound.prompt_tokens("m")
