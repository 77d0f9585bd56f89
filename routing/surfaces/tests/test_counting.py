"""Counts of prompts: nothing of a request escapes both the count and the bytes, and holds stay upper bounds."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.limiter.holds import CallSize
from routing.surfaces.body import ParsedRequest, parse
from routing.surfaces.bounds import COUNT_MARGIN, bounded, counted, is_bound_by_text
from routing.surfaces.counting import CHAT_PATH, MESSAGES_PATH, countable
from routing.surfaces.requests import Chat, Completions, Embeddings, Messages, RequestSchema, Responses
from routing.surfaces.tests.test_bounds import most_tokens, values

CONTEXTS = {"m": 10**9}
Form = type[RequestSchema]
SCHEMAS: tuple[tuple[Form, str], ...] = (
    (Chat, "messages"),
    (Responses, "input"),
    (Messages, "messages"),
)
MARK = "word " * 40
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": MARK}}
OTHER_PART = {"type": "b", "text": MARK}
# Forms that clients write, and such that resemble them.
FORMS: list[dict[str, Any]] = [
    {"role": "user", "content": MARK},
    {"role": "user", "content": MARK, "name": MARK},
    {"role": "assistant", "content": MARK, "refusal": None, "annotations": []},
    {"role": "assistant", "content": MARK, "reasoning_content": MARK},
    {"role": "assistant", "content": MARK, "annotations": [MARK]},
    {"role": "function", "name": "f", "content": MARK},
    {"role": "tool", "tool_call_id": "c", "content": MARK},
    {"role": "tool", "tool_call_id": MARK, "content": MARK},
    {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": MARK}]},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "f", "input": MARK}}]},
    {"role": "user", "content": [{"type": "text", "text": MARK, "cache_control": {"type": "ephemeral"}}]},
    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "other", "text": MARK}]},
    {"role": "user", "content": [{"type": "input_text", "text": MARK}]},
    {"role": "assistant", "content": [{"type": "output_text", "text": MARK, "annotations": [], "logprobs": []}]},
    {"role": "assistant", "content": [{"type": "output_text", "text": "a", "annotations": [{"title": MARK}]}]},
    {"role": "assistant", "content": [{"type": "thinking", "thinking": MARK, "signature": MARK}]},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {"a": MARK}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": MARK, "is_error": False}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": [OTHER_PART]}]},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": MARK, "id": "i", "status": "completed"},
    {"type": "function_call_output", "call_id": "c", "output": MARK},
    {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": MARK}]},
    {"type": "reasoning", "summary": [], "encrypted_content": MARK},
    {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": MARK},
]  # fmt: skip
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "f", "description": MARK, "parameters": {"a": MARK}}},
    {"type": "function", "function": {"name": "f", "description": MARK, "examples": [MARK]}},
    {"type": "function", "name": "f", "description": MARK, "parameters": {"a": MARK}, "strict": True},
    {"name": "f", "description": MARK, "input_schema": {"a": MARK}},
    {"name": "f", "description": MARK, "input_schema": {"a": MARK}, "input_examples": [MARK]},
    {"type": "custom", "name": "f", "format": {"definition": MARK}},
]
others = st.dictionaries(st.sampled_from(["metadata_", "response_format", "text", "x", "thinking"]), values, max_size=2)


def sized(raw: bytes, schema: type[RequestSchema]) -> tuple[ParsedRequest, CallSize]:
    request = parse(raw, schema)
    return request, bounded(raw, request, request.size(100), CONTEXTS)


def strings_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from strings_of(each)


@given(
    schema=st.sampled_from(SCHEMAS),
    said=st.lists(st.sampled_from(FORMS), max_size=4),
    tools=st.lists(st.sampled_from(TOOLS), max_size=3),
    other=others,
    told=st.none() | st.text() | st.just(MARK),
)
def test_every_text_is_either_counted_or_held_by_its_bytes(
    schema: tuple[type[RequestSchema], str],
    said: list[dict[str, Any]],
    tools: list[dict[str, Any]],
    other: dict[str, Any],
    told: str | None,
) -> None:
    """Nothing but short ids, states and empty lists is left out of both."""
    form, name = schema
    said = [each for each in said if form is Responses or "role" in each]
    first = {"role": "user", "content": "Hello"}
    body = {"model": "m", name: [first, *said], "tools": tools, "system": told, "instructions": told, **other}
    raw = json.dumps(body).encode()
    request, size = sized(raw, form)
    part = countable(request)
    if part is None:  # a form that resembles an attachment
        assert request.attachments
        return
    body_of_count = json.loads(part.body("m"))
    texts = sorted(each for each in strings_of(body) if len(each) > 128)
    seen = [*strings_of(body_of_count), *strings_of(json.loads(part.rest))]
    assert sorted(each for each in seen if len(each) > 128) == texts
    assert body_of_count[("messages")]
    # A counter that knows single bytes only; what it counts and what is held cover all of them.
    count = sum([most_tokens(each) for each in strings_of(body_of_count)])
    exact = counted(size, request, rest=part.rest, count=count)
    assert size.bound is not None
    assert exact.bound is not None
    assert exact.bound.text_tokens >= sum([most_tokens(each) for each in texts])
    assert min(size.prompt_tokens, size.bound.text_tokens) <= exact.bound.text_tokens <= size.bound.text_tokens


@given(
    text=st.text(min_size=1),
    counts=st.lists(st.integers(1, 10**6), min_size=2, max_size=2),
    is_compacted=st.booleans(),
)
def test_a_hold_by_a_count_is_no_less_than_the_count_and_grows_with_it(
    text: str, counts: list[int], is_compacted: bool
) -> None:
    more: dict[str, Any] = {"context_management": {"edits": []}} if is_compacted else {}
    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}], **more}).encode()
    request, size = sized(raw, Chat)
    part = countable(request)
    assert part is not None
    less, most = sorted(counts)
    held = [counted(size, request, rest=part.rest, count=count).bound for count in (less, most)]
    assert held[0] is not None
    assert held[1] is not None
    assert held[0].text_tokens <= held[1].text_tokens
    assert size.bound is not None
    for bound, count in zip(held, (less, most), strict=True):
        assert bound is not None
        expected = (count + count // COUNT_MARGIN) * (1 + is_compacted)
        assert bound.text_tokens == size.bound.text_tokens or bound.text_tokens >= expected
        assert bound.text_tokens >= min(size.prompt_tokens, size.bound.text_tokens)


def test_a_usual_text_is_held_by_the_estimate_and_counted_once() -> None:
    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": "word " * 20_000}]}).encode()
    request, size = sized(raw, Chat)
    part = countable(request)
    assert part is not None
    exact = counted(size, request, rest=part.rest, count=20_000)
    assert size.bound is not None
    assert exact.bound is not None
    assert (exact.bound.text_tokens, exact.guess("m")) == (size.prompt_tokens, 20_000)
    assert exact.bound.text_tokens < 0.51 * size.bound.text_tokens
    assert (is_bound_by_text(size), is_bound_by_text(exact)) == (True, False)


def test_each_surface_is_counted_where_litellm_reads_its_form() -> None:
    hello = {"role": "user", "content": "Hello"}
    for form, body, path in (
        (Chat, {"messages": [hello]}, CHAT_PATH),
        (Responses, {"input": "Hello", "instructions": "Be kind."}, CHAT_PATH),
        (Messages, {"messages": [hello], "system": "Be kind."}, MESSAGES_PATH),
    ):
        part = countable(parse(json.dumps({"model": "m", **body}).encode(), form))
        assert part is not None
        assert part.path == path
        asked = json.loads(part.body("n"))
        assert asked["messages"][-1] == hello
        assert asked["model"] == "n"
        assert ("Be kind." in json.dumps(asked)) is (form is not Chat)


@pytest.mark.parametrize(
    ("form", "body"),
    [
        (Completions, {"prompt": "Hello"}),
        (Embeddings, {"input": "Hello"}),
        (Chat, {"messages": [{"role": "user", "content": "Hello", "name": "Ada"}]}),
        (Chat, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}]}),
    ],
)
def test_what_no_counter_takes_is_not_counted(form: type[RequestSchema], body: dict[str, Any]) -> None:
    assert countable(parse(json.dumps({"model": "m", **body}).encode(), form)) is None


def test_images_and_hosted_tools_are_bound_by_more_than_text() -> None:
    pixel = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBOR"}}
    for content in ([pixel], [{"type": "image_url", "image_url": {"url": "https://x"}}]):
        raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()
        assert not is_bound_by_text(sized(raw, Chat)[1])
