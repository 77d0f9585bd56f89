"""Parsing request bodies, and writing the upstream's."""

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.limiter.holds import CallSize
from codexflow.lib.envelope import anthropic_envelope
from routing.errors import InvalidJson, InvalidRequestBody, ThreadsUnsupported
from routing.surfaces.body import (
    CONTROL_FIELDS,
    CONTROL_PREFIXES,
    OUTPUT_FIELDS,
    ROUTER_FIELDS,
    Fit,
    ParsedRequest,
    Tails,
    parse,
    refused_fields,
    upstream_body,
    upstream_tail,
)
from routing.surfaces.requests import (
    Chat,
    Completions,
    CountTokens,
    Embeddings,
    Messages,
    Moderations,
    RequestSchema,
    Rerank,
    Responses,
)
from routing.surfaces.tools import SERVICE_FIELDS

_MESSAGES = [{"role": "user", "content": "hi"}]
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
_READ = {"messages", "model", "stream", "stream_options", "tools", "n", "max_tokens", "max_completion_tokens"}
_NOT_PASSED = CONTROL_FIELDS | ROUTER_FIELDS | SERVICE_FIELDS | OUTPUT_FIELDS | _READ | {"metadata", "temperature"}
_names = st.text(min_size=1).filter(lambda name: name not in _NOT_PASSED and not name.startswith(CONTROL_PREFIXES))


def sent(
    body: dict[str, Any], *, max_tokens: int = 10, temperature: float | None = None, schema: type[RequestSchema] = Chat
) -> dict[str, Any]:
    request = parse(json.dumps(body).encode(), schema)
    content: dict[str, Any] = json.loads(
        upstream_body("some-model", upstream_tail(request, max_tokens=max_tokens, temperature=temperature))
    )
    return content


@given(extra=st.dictionaries(_names, _values, max_size=6))
def test_fields_unknown_to_the_gateway_pass_unchanged(extra: dict[str, Any]) -> None:
    found = sent({"messages": _MESSAGES, **extra})
    assert {name: found[name] for name in extra} == extra
    assert found["messages"] == _MESSAGES


def test_unchanged_fields_pass_byte_for_byte() -> None:
    """Not even white space or the form of a number changes."""
    odd = b'{"seed" : 1.0e2,"messages":[ {"role":"user","content":"\\u00fc  \xc3\xbc"} ],"x":  [1 ,2]}'
    tail = upstream_tail(parse(odd, Chat), max_tokens=5, temperature=None)
    for piece in (b'"seed":1.0e2', b'[ {"role":"user","content":"\\u00fc  \xc3\xbc"} ]', b'"x":[1 ,2]'):
        assert piece in tail


SCHEMAS: tuple[type[RequestSchema], ...] = (
    Chat, Completions, Embeddings, Responses, Messages, CountTokens, Rerank, Moderations,
)  # fmt: skip
_NAMES = ("messages", "input", "prompt", "model", "stream", "max_tokens", "system", "instructions", "n", "thinking")
_odd_json = st.dictionaries(st.sampled_from(_NAMES), _values, max_size=6).map(lambda body: json.dumps(body).encode())


@given(body=st.binary(max_size=300) | _odd_json, schema=st.sampled_from(SCHEMAS))
def test_any_bytes_are_parsed_or_refused(body: bytes, schema: type[RequestSchema]) -> None:
    with contextlib.suppress(InvalidJson, InvalidRequestBody):
        request = parse(body, schema)
        request.size(5)
        request.prompt() if schema is not Embeddings else None
        json.loads(upstream_body("m", upstream_tail(request, max_tokens=5, temperature=0.1)))


@pytest.mark.parametrize("name", ["metadata", "stream_options", "thinking"])
@pytest.mark.parametrize("value", [b"1e400", b"9" * 5_000])
def test_a_number_too_large_to_decode_is_refused_by_its_field(name: str, value: bytes) -> None:
    """Fields pass undecoded at first: an impossible number shows only when its field is decoded."""
    body = b'{"messages":[{"role":"user","content":"x"}],"stream":true,"%b":{"a":%b}}' % (name.encode(), value)
    request = parse(body, Chat)
    with pytest.raises(InvalidRequestBody) as refused:
        upstream_tail(request, max_tokens=5, temperature=None)
    assert refused.value.param == name


@pytest.mark.parametrize("name", ["metadata", "stream_options", "thinking"])
@pytest.mark.parametrize("depth", [900, 2_000])
def test_deep_nesting_is_parsed_or_refused_and_never_a_recursion_error(name: str, depth: int) -> None:
    value = b"[" * depth + b"]" * depth
    body = b'{"messages":[{"role":"user","content":"x"}],"stream":true,"%b":{"a":%b}}' % (name.encode(), value)
    with contextlib.suppress(InvalidJson, InvalidRequestBody):
        upstream_tail(parse(body, Chat), max_tokens=5, temperature=None)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_body_that_is_not_utf_8_is_refused_wherever_the_fault_is(schema: type[RequestSchema]) -> None:
    text = {"messages": _MESSAGES, "input": "x", "prompt": "x", "query": "x", "documents": ["x"]}
    if schema is Responses:
        del text["prompt"]
    sound = json.dumps({**text, "metadata": {"a": "HERE"}, "user": "HERE"}).encode()
    parse(sound, schema)
    for place in (b'"a": "HERE"', b'"user": "HERE"'):
        with pytest.raises(InvalidJson):
            parse(sound.replace(place, place.replace(b"HERE", b"\xed\xa0\x80")), schema)


def test_the_cap_and_the_default_hold() -> None:
    def most(**fields: Any) -> int:
        return parse(json.dumps({"messages": _MESSAGES, **fields}).encode(), Chat).max_tokens(default=100, cap=1000)

    assert most() == 100
    assert most(max_tokens=7) == 7
    assert most(max_tokens=5_000) == 1_000
    assert most(max_completion_tokens=6, max_tokens=9) == 6
    assert most(max_tokens=None) == 100


def test_usage_is_always_requested_in_streams() -> None:
    options = {"include_usage": False, "x": 1}
    assert sent({"messages": _MESSAGES, "stream": True})["stream_options"] == {"include_usage": True}
    found = sent({"messages": _MESSAGES, "stream": True, "stream_options": options})
    assert found["stream_options"] == {"include_usage": True, "x": 1}
    assert "stream_options" not in sent({"messages": _MESSAGES})


@pytest.mark.parametrize("name", ["models", "route", "provider", "preset", *sorted(SERVICE_FIELDS)])
@pytest.mark.parametrize("schema", [Chat, Responses, Messages])
def test_fields_that_choose_another_model_or_dearer_service_are_dropped(schema: type[RequestSchema], name: str) -> None:
    words = {"input": "hi"} if schema is Responses else {"messages": _MESSAGES}
    assert name not in sent({**words, name: ["openai/o1-pro"]}, schema=schema)


@pytest.mark.parametrize("name", sorted(CONTROL_FIELDS))
def test_control_fields_of_litellm_are_dropped(name: str) -> None:
    assert name not in sent({"messages": _MESSAGES, name: "x"})


def test_images_are_counted_and_their_bytes_are_not_text() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    request = parse(json.dumps({"messages": [{"role": "user", "content": [picture]}]}).encode(), Chat)
    size = request.size(10)
    assert size.images == 1
    assert 2_000 <= size.prompt_tokens < 2_200


def test_the_prompt_is_the_last_user_message() -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": [{"type": "text", "text": "second"}]},
    ]
    prompt = parse(json.dumps({"messages": messages}).encode(), Chat).prompt()
    assert (prompt.last_user_text, prompt.system_text) == ("second", "be brief")


def parsed(schema: type[RequestSchema], **body: Any) -> ParsedRequest:
    return parse(json.dumps(body).encode(), schema)


def test_each_surface_bounds_its_output_by_its_own_field() -> None:
    """A cap that the upstream does not understand would not be one."""
    assert sent({"prompt": "x", "max_tokens": 99}, schema=Completions)["max_tokens"] == 10
    assert sent({"input": "x"}, schema=Responses)["max_output_tokens"] == 10
    assert "max_tokens" not in sent({"input": "x", "max_output_tokens": 99}, schema=Responses)
    assert sent({"messages": _MESSAGES, "max_tokens": 99}, schema=Messages)["max_tokens"] == 10
    for schema, body in ((Embeddings, {"input": "x"}), (CountTokens, {"messages": _MESSAGES})):
        assert sent(body, schema=schema, temperature=0.1) == {"model": "some-model", **body}


def test_only_surfaces_that_know_stream_options_are_sent_them() -> None:
    assert sent({"prompt": "x", "stream": True}, schema=Completions)["stream_options"] == {"include_usage": True}
    for schema, body in ((Responses, {"input": "x"}), (Messages, {"messages": _MESSAGES})):
        assert "stream_options" not in sent({**body, "stream": True}, schema=schema)
        assert parsed(schema, **body).schema.wants_usage


def test_thinking_fits_below_the_clamped_output() -> None:
    """Otherwise a coding agent's default of 32,000 tokens would be refused by every stage."""

    def thinking(budget: Any, max_tokens: int, **more: Any) -> Any:
        body = {"messages": _MESSAGES, "max_tokens": 32_000, "thinking": {"type": "enabled", "budget_tokens": budget}}
        return sent({**body, **more}, schema=Messages, max_tokens=max_tokens, temperature=0.1)

    assert thinking(31_999, 8_192)["thinking"] == {"type": "enabled", "budget_tokens": 4_096}
    assert thinking(31_999, 1_500)["thinking"]["budget_tokens"] == 1_024
    assert thinking(1_024, 8_192)["thinking"]["budget_tokens"] == 1_024
    assert "thinking" not in thinking(31_999, 1_024)
    # With thinking no temperature may be sent; without it the stage's is.
    assert "temperature" not in thinking(2_000, 8_192)
    assert thinking(31_999, 1_024)["temperature"] == 0.1
    assert thinking(0, 8_192, thinking={"type": "disabled"})["temperature"] == 0.1
    with pytest.raises(InvalidRequestBody):
        thinking(1, 1, thinking=["x"])


def test_nothing_is_stored_in_the_providers_account_that_all_callers_share() -> None:
    assert sent({"input": "x", "store": True}, schema=Responses)["store"] is False
    assert sent({"input": "x"}, schema=Responses)["store"] is False
    assert sent({"messages": _MESSAGES, "store": True})["store"] is False
    assert "store" not in sent({"messages": _MESSAGES})
    for field in ({"previous_response_id": "r"}, {"conversation": "c"}, {"prompt": {"id": "p"}}, {"background": True}):
        with pytest.raises(InvalidRequestBody) as refused:
            parsed(Responses, input="x", **field)
        assert refused.value.param == next(iter(field))


def test_a_message_that_names_a_stored_thread_is_refused() -> None:
    parsed(Messages, messages=_MESSAGES, thread=None)
    with pytest.raises(ThreadsUnsupported) as refused:
        parsed(Messages, messages=_MESSAGES, thread={"type": "create"})
    assert anthropic_envelope(refused.value)["error"]["details"] == {
        "error_code": "thread_unsupported_request",
        "unsupported": ("thread",),
    }


@pytest.mark.parametrize(
    ("schema", "body", "parts", "choices"),
    [
        (Completions, {"prompt": "abc"}, 1, 1),
        (Completions, {"prompt": ["a", "b"], "n": 2, "best_of": 3}, 2, 6),
        (Completions, {"prompt": [1, 2, 3]}, 1, 1),
        (Completions, {"prompt": [[1, 2], [3]]}, 2, 2),
        (Embeddings, {"input": ["a", "b", "c"]}, 3, 1),
        (Embeddings, {"input": [1, 2, 3]}, 1, 1),
        (Responses, {"input": [{"type": "reasoning"}, {"role": "user", "content": "x"}]}, 2, 1),
        (Chat, {"messages": _MESSAGES, "n": 4}, 1, 4),
    ],
)
def test_the_size_of_a_call_counts_all_its_parts_and_choices(
    schema: type[RequestSchema], body: dict[str, Any], parts: int, choices: int
) -> None:
    size = parsed(schema, **body).size(10)
    assert (size.messages, size.choices) == (parts, choices)


def test_a_text_document_counts_as_text() -> None:
    text = "word " * 20_000
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 100_000}}
    plain = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}}
    mixed = {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": text}, image]}}
    found = {"type": "search_result", "source": "https://example.org", "title": "x", "content": []}
    for part, images in ((plain, 0), (mixed, 1), (found, 0)):
        request = parsed(Messages, messages=[{"role": "user", "content": [part]}])
        assert request.images == images
        assert (request.text_bytes > len(text)) is (part is not found)
        assert request.text_bytes < len(text) + 500


@pytest.mark.parametrize(
    ("schema", "part"),
    [
        (Chat, {"type": "file", "file": {"file_data": "data:application/pdf;base64,%s"}}),
        (Responses, {"type": "input_file", "file_data": "%s"}),
        (Messages, {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "%s"}}),
        (
            Messages,
            {"type": "tool_result", "content": [{"type": "document", "source": {"type": "base64", "data": "%s"}}]},
        ),
    ],
)
def test_the_longer_a_document_the_more_is_held_for_it(schema: type[RequestSchema], part: dict[str, Any]) -> None:
    def held_for(length: int) -> int:
        filled = json.loads(json.dumps(part).replace("%s", "A" * length))
        messages = [{"role": "user", "content": [filled]}]
        size = parsed(schema, **{"input" if schema is Responses else "messages": messages}).size(10)
        assert size.images == 0
        assert size.expected_prompt_tokens < size.prompt_tokens < size.file_tokens + 300
        return size.file_tokens

    assert held_for(1_000) == 2_000
    assert 50_000 <= held_for(800_000) <= 50_100
    assert held_for(8_000_000) == 200_000  # more than a model reads


def test_audio_counts_less_than_its_bytes_as_text() -> None:
    part = {"type": "input_audio", "input_audio": {"format": "mp3", "data": "A" * 1_000_000}}
    assert 3_900 <= parsed(Chat, messages=[{"role": "user", "content": [part]}]).size(10).audio_tokens <= 4_000


@pytest.mark.parametrize("part", [{"video_url": {"url": "https://x"}}, {"file_url": "https://x"}])
def test_a_file_given_by_url_is_held_for(part: dict[str, Any]) -> None:
    assert parsed(Chat, messages=[{"role": "user", "content": [part]}]).size(10).file_tokens == 2_000


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        (Completions, {}), (Completions, {"prompt": ""}), (Completions, {"prompt": "x", "best_of": 1_000}),
        (Completions, {"prompt": ["x"] * 200}), (Embeddings, {"input": []}),
        (Embeddings, {"input": "x", "stream": True}),
        (Rerank, {"query": "q", "documents": []}), (Rerank, {"query": "", "documents": ["d"]}),
        (Rerank, {"query": "q", "documents": "d"}), (Rerank, {"query": "q", "documents": [1]}),
        (Rerank, {"query": "q"}),
        (Rerank, {"query": "q", "documents": ["d"], "stream": True}),
        (Rerank, {"query": "q", "documents": ["d"], "top_n": 0}), (Rerank, {"query": ["q"], "documents": ["d"]}),
        (Moderations, {}), (Moderations, {"input": ""}), (Moderations, {"input": []}), (Moderations, {"input": [1]}),
        (Moderations, {"input": "x", "stream": True}),
        (Responses, {"input": []}), (Responses, {"input": "x", "max_output_tokens": 0}), (Messages, {"messages": []}),
        (Messages, {"messages": _MESSAGES, "max_tokens": -1}), (Messages, {"messages": "x"}),
    ],
)  # fmt: skip
def test_missing_and_excessive_fields_are_refused(schema: type[RequestSchema], body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestBody):
        parsed(schema, **body)


def test_images_are_not_counted_as_text_on_any_surface() -> None:
    blob = "A" * 100_000
    source = {"type": "base64", "media_type": "image/png", "data": blob}
    calls = [
        parsed(Messages, messages=[{"role": "user", "content": [{"type": "image", "source": source}]}]),
        parsed(Messages, messages=[{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": source}]}]}]),
        parsed(Responses, input=[{"role": "user", "content": [{"type": "input_image", "image_url": blob}]}]),
    ]  # fmt: skip
    assert [(request.images, request.text_bytes < 300) for request in calls] == [(1, True)] * 3


_OTHER_FIELDS = ("max_output_tokens", "maxOutputTokens", "max_completion_tokens", "max_tokens", "candidate_count", "n")


@pytest.mark.parametrize(
    ("schema", "body", "own"),
    [
        (Chat, {"messages": _MESSAGES}, {"max_tokens": 100, "max_completion_tokens": 100, "n": 7}),
        (Completions, {"prompt": "x"}, {"max_tokens": 100, "n": 7}),
        (Responses, {"input": "x"}, {"max_output_tokens": 100}),
        (Messages, {"messages": _MESSAGES}, {"max_tokens": 100}),
        (Embeddings, {"input": "x"}, {}),
    ],
)
def test_output_bounds_of_other_surfaces_are_dropped(
    schema: type[RequestSchema], body: dict[str, Any], own: dict[str, int]
) -> None:
    request = parsed(schema, **body, **dict.fromkeys(_OTHER_FIELDS, 7), service_tier="priority", speed="fast")
    sent = json.loads(upstream_body("m", upstream_tail(request, max_tokens=100, temperature=None)))
    assert {name: sent[name] for name in (*_OTHER_FIELDS, "service_tier", "speed") if name in sent} == own


def test_caching_for_an_hour_is_recognized() -> None:
    def size(**control: str) -> CallSize:
        text = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral", **control}}
        return parsed(Messages, messages=[{"role": "user", "content": [text]}]).size(10)

    assert not size().may_cache_for_an_hour
    assert not size(ttl="5m").may_cache_for_an_hour
    assert size(ttl="1h").may_cache_for_an_hour


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        (Responses, {"instructions": "be brief", "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "fix it"}]},
            {"type": "function_call", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "output": "review me"},
        ]}),
        (Messages, {"system": [{"type": "text", "text": "be brief"}], "messages": [
            {"role": "user", "content": "fix it"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "review me"}]},
        ]}),
        (Messages, {"system": "be brief", "messages": [{"role": "user", "content": "fix it"}]}),
        (Completions, {"prompt": ["first", "fix it"]}),
        (Responses, {"input": "fix it", "instructions": "be brief"}),
    ],
)  # fmt: skip
def test_the_last_user_message_is_found_on_every_surface(schema: type[RequestSchema], body: dict[str, Any]) -> None:
    """On some surfaces tool results have the user's role; they are no request of the user."""
    prompt = parsed(schema, **body).prompt()
    assert prompt.last_user_text == "fix it"
    assert prompt.system_text == ("" if schema is Completions else "be brief")


def test_tools_are_named_on_every_surface() -> None:
    function = {"name": "Edit", "description": "…", "parameters": {}}
    calls = [
        parsed(Chat, messages=_MESSAGES, tools=[{"type": "function", "function": function}]),
        parsed(Responses, input="x", tools=[{"type": "function", **function}, {"type": "web_search"}]),
        parsed(Messages, messages=_MESSAGES, tools=[{"name": "Edit", "input_schema": {}}]),
    ]
    assert [request.prompt().tool_names[0] for request in calls] == ["Edit"] * 3
    assert calls[1].prompt().tool_names[1] == "web_search"
    assert parsed(Chat, messages=_MESSAGES, tools="nonsense").prompt().tool_names == ()


def test_fields_that_a_model_refuses_are_left_out() -> None:
    body = {"messages": _MESSAGES, "temperature": 0.1, "top_p": 1, "top_k": 2, "reasoning_effort": "low", "seed": 1,
            "thinking": {"type": "enabled", "budget_tokens": 2_000}}  # fmt: skip
    request = parse(json.dumps(body).encode(), Chat)
    for takes, kept in (
        ((), {"seed"}),
        (("temperature",), {"seed", "temperature", "top_p", "top_k"}),
        (("reasoning", "tools"), {"seed", "reasoning_effort", "thinking"}),
        (("reasoning", "temperature"), body.keys() - {"messages"}),
    ):
        left_out = refused_fields(frozenset(takes))
        tail = upstream_tail(request, max_tokens=5_000, temperature=None, left_out=left_out)
        assert json.loads(upstream_body("m", tail)).keys() == {"model", "messages", "max_tokens", *kept}


def test_a_default_replaces_a_field_only_where_the_model_takes_it() -> None:
    request = parse(json.dumps({"messages": _MESSAGES, "temperature": 1}).encode(), Chat)
    refused = refused_fields(frozenset())
    assert b"temperature" not in upstream_tail(request, max_tokens=5, temperature=None, left_out=refused)


def test_a_body_is_written_once_for_models_that_fit_alike() -> None:
    asked: list[str] = []

    def fit_of(model: str) -> Fit:
        asked.append(model)
        return Fit(5 if model == "small" else 10, 0.2)

    tails = Tails(parse(json.dumps({"messages": _MESSAGES}).encode(), Chat), fit_of)
    assert tails.of("large") is tails.of("large") is tails.of("another")
    assert b'"max_tokens":5,' in tails.of("small") + b","
    assert asked == ["large", "another", "small"]


@pytest.mark.parametrize(
    ("extra", "needs"),
    [
        ({}, ()),
        ({"tools": []}, ()),
        ({"tools": None}, ()),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, ("tools",)),
        ({"functions": [{"name": "f"}]}, ("tools",)),
    ],
)
def test_tools_are_needed_when_there_are_some(extra: dict[str, Any], needs: tuple[str, ...]) -> None:
    assert parse(json.dumps({"messages": _MESSAGES, **extra}).encode(), Chat).needs == needs


def test_images_are_needed_when_there_are_some() -> None:
    content = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    body = {"messages": [{"role": "user", "content": content}]}
    assert parse(json.dumps(body).encode(), Chat).needs == ("images",)


@given(query=st.text(min_size=1, max_size=300), lengths=st.lists(st.integers(0, 3_000), min_size=1, max_size=250))
def test_a_rerank_holds_every_search_unit_and_the_query_once_for_each_document(query: str, lengths: list[int]) -> None:
    size = parsed(Rerank, query=query, documents=["d" * length for length in lengths]).size(0)
    assert size.units is not None
    assert size.expected_units is not None
    assert (size.units["request"], size.completion_tokens) == (1, 0)
    # A token has a byte at least.
    chunks = sum(max(1, math.ceil((length + len(query.encode())) / 500)) for length in lengths)
    assert size.units["search_unit"] >= math.ceil(chunks / 100) or len(query.encode()) > 250
    assert size.units["search_unit"] >= size.expected_units["search_unit"] >= math.ceil(len(lengths) / 100)
    assert size.text_bytes >= sum(lengths) + len(lengths) * len(query.encode())


@pytest.mark.parametrize(
    ("documents", "units"),
    [
        (["short"] * 100, 1),
        (["short"] * 101, 2),
        ([{"text": "short", "title": "A"}] * 250, 3),
        (["x" * 49_000], 1),  # held as 49,000 tokens, or 99 chunks beside the query
        (["x" * 50_000], 2),
    ],
)
def test_search_units_follow_number_and_size_of_the_documents(documents: list[Any], units: int) -> None:
    assert parsed(Rerank, query="ask", documents=documents).size(0).units == {"request": 1, "search_unit": units}


def test_moderations_hold_images_as_images() -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{'A' * 100_000}"}}
    size = parsed(Moderations, input=[{"type": "text", "text": "hi"}, picture]).size(0)
    assert (size.images, size.units, size.completion_tokens) == (1, {"request": 1}, 0)
    assert size.text_bytes < 300


def test_the_tag_stays_here() -> None:
    def sent(metadata: object) -> object:
        raw = json.dumps({"messages": [{"role": "user", "content": "x"}], "metadata": metadata}).encode()
        return json.loads(b"{" + upstream_tail(parse(raw, Chat), max_tokens=5, temperature=None)).get("metadata")

    assert sent({"tag": "team", "user_id": "u"}) == {"user_id": "u"}
    assert sent({"tag": "team"}) is None
