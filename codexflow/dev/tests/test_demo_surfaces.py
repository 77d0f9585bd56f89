"""Surfaces other than chat, as SDKs and LiteLLM have them. Chat and faults: test_demo_upstream.py."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest
from openai import APIError, OpenAI

from codexflow.dev.demo_upstream.bridge import from_messages, from_responses
from codexflow.dev.demo_upstream.generation import last_user_text
from codexflow.dev.demo_upstream.tools import calls_asked_for, example, result_in
from tests.support.upstream import Upstream, running_upstream

MODEL = "gpt-6-luna"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "unit": {"type": "string", "enum": ["celsius", "kelvin"]},
        "days": {"type": "integer"},
    },
    "required": ["city", "unit"],
}
RESPONSES_TOOL = {"type": "function", "name": "get_weather", "parameters": SCHEMA}
MESSAGES_TOOL = {"name": "get_weather", "input_schema": SCHEMA}
TEXTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "/v1/chat/completions": lambda text: {"messages": [{"role": "user", "content": text}]},
    "/v1/completions": lambda text: {"prompt": text},
    "/v1/responses": lambda text: {"input": text},
    "/v1/messages": lambda text: {"max_tokens": 4000, "messages": [{"role": "user", "content": text}]},
}


@pytest.fixture
def openai(upstream: Upstream) -> Iterator[Any]:
    with OpenAI(base_url=f"{upstream.url}/v1", api_key=upstream.api_key, max_retries=0) as client:
        yield client


@pytest.fixture
def claude(upstream: Upstream) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=upstream.url, auth_token=upstream.api_key, max_retries=0) as client:
        yield client


def post(upstream: Upstream, path: str, text: str, **more: Any) -> httpx.Response:
    return upstream.control.post(path, json={"model": MODEL, **TEXTS[path](text), **more})


def events(body: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def told(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 4000, **more}


# Text completions.


def test_completions_have_the_text_of_chat(openai: Any) -> None:
    chat = openai.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hello"}])
    whole = openai.completions.create(model=MODEL, prompt="hello", suffix="ignored, as over any chat model")
    assert whole.choices[0].text == chat.choices[0].message.content
    assert whole.usage.total_tokens == chat.usage.total_tokens
    with openai.completions.create(model=MODEL, prompt="hello", stream=True) as stream:
        parts = list(stream)
    assert "".join(part.choices[0].text or "" for part in parts) == whole.choices[0].text
    assert parts[-1].choices[0].finish_reason == "stop"
    several = openai.completions.create(model=MODEL, prompt=["a", "b"], n=2, max_tokens=3)
    assert [choice.finish_reason for choice in several.choices] == ["length", "length"]


def test_a_completions_stream_claims_nothing_until_it_is_asked(upstream: Upstream) -> None:
    """LiteLLM puts zeros beside each piece; asked for, the usage comes last beside an empty choice."""
    unasked = events(post(upstream, "/v1/completions", "hi", stream=True).text)
    assert {chunk["usage"]["total_tokens"] for chunk in unasked} == {0}
    options = {"stream_options": {"include_usage": True}}
    asked = events(post(upstream, "/v1/completions", "hi", stream=True, **options).text)
    assert [chunk for chunk in asked[:-1] if "usage" in chunk] == []
    assert asked[-1]["choices"] == [{"index": 0}]
    assert asked[-1]["usage"]["cost"] > 0


def test_words_can_be_dictated(openai: Any) -> None:
    dictated = "one\n\n  two"
    assert openai.completions.create(model=MODEL, prompt=f"x [[say:{dictated}]] y").choices[0].text == dictated


# Responses.


def test_responses_have_the_text_of_chat(openai: Any) -> None:
    whole = openai.responses.create(model=MODEL, input="hello", instructions="be kind", metadata={"a": "b"})
    assert whole.output_text.endswith("hello")
    assert (whole.status, whole.instructions, whole.metadata) == ("completed", "be kind", {"a": "b"})
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    cut = openai.responses.create(model=MODEL, input="hello", max_output_tokens=3)
    assert (cut.status, cut.incomplete_details.reason, cut.usage.output_tokens) == (
        "incomplete",
        "max_output_tokens",
        3,
    )


def test_a_responses_stream_is_litellms(upstream: Upstream) -> None:
    body = post(upstream, "/v1/responses", "hello", stream=True).text
    found = events(body)
    kinds = [event["type"].removeprefix("response.") for event in found]
    words = kinds.count("output_text.delta")
    assert kinds == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *["output_text.delta"] * words,
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    assert "event:" not in body
    assert body.endswith("data: [DONE]\n\n")
    assert ["sequence_number" in event for event in found].count(True) == 1
    assert {event["model"] for event in found} == {MODEL}
    usage = found[-1]["response"]["usage"]
    assert usage["output_tokens"] == words
    assert usage["cost"] == pytest.approx((usage["input_tokens"] * 10 + words * 50) / 1e8)
    assert re.fullmatch(r"resp_[\w=-]{300,}", found[0]["response"]["id"])


def test_the_sdk_reads_a_responses_stream(openai: Any) -> None:
    with openai.responses.stream(model=MODEL, input="hello") as stream:
        seen = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert final.output_text == seen
    with openai.responses.stream(model=MODEL, input="use get_weather", tools=[RESPONSES_TOOL]) as stream:
        deltas = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        call = stream.get_final_response().output[0]
    assert json.loads("".join(deltas)) == json.loads(call.arguments) == {"city": "demo", "unit": "celsius"}
    assert call.call_id


@pytest.mark.parametrize("output", ["rain", [{"type": "input_text", "text": "rain"}]])
def test_a_responses_tool_loop_ends_in_words(openai: Any, output: Any) -> None:
    asked = [{"role": "user", "content": [{"type": "input_text", "text": "use get_weather"}]}]
    call = openai.responses.create(model=MODEL, input=asked, tools=[RESPONSES_TOOL]).output[0]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": output}
    told = openai.responses.create(model=MODEL, input=[*asked, call.model_dump(), result], tools=[RESPONSES_TOOL])
    assert told.output_text.endswith("The tool's result ended with: rain")


# Messages.


def test_messages_have_the_text_of_chat(claude: Any) -> None:
    words = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    for system in ("be kind", [{"type": "text", "text": "be kind"}]):
        whole = claude.messages.create(**told(messages=words, system=system))
        assert whole.content[0].text.endswith("hello")
        assert (whole.stop_reason, whole.usage.input_tokens > 0) == ("end_turn", True)
    thinking = {"type": "enabled", "budget_tokens": 1024}
    cut = claude.messages.create(model=MODEL, max_tokens=3, messages=words, thinking=thinking)
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 3)


def test_a_messages_stream_is_litellms(upstream: Upstream) -> None:
    body = post(upstream, "/v1/messages", "hello", stream=True).text
    found = events(body)
    words = len(found) - 5
    assert [event["type"] for event in found] == [
        *("message_start", "content_block_start", *["content_block_delta"] * words),
        *("content_block_stop", "message_delta", "message_stop"),
    ]
    assert [line[7:] for line in body.splitlines() if line.startswith("event: ")] == [e["type"] for e in found]
    assert found[0]["message"]["usage"]["input_tokens"] == 0
    usage = found[-2]["usage"]
    assert (usage["output_tokens"], usage["input_tokens"] > 0, usage["cost"] > 0) == (words, True, True)
    assert "[DONE]" not in body


def test_the_sdk_runs_a_messages_tool_loop(claude: Any) -> None:
    asked = [{"role": "user", "content": "use get_weather"}]
    with claude.messages.stream(**told(messages=asked, tools=[MESSAGES_TOOL])) as stream:
        deltas = [e.delta.partial_json for e in stream if e.type == "content_block_delta"]
        message = stream.get_final_message()
    use = message.content[0]
    assert message.stop_reason == "tool_use"
    assert use.input == json.loads("".join(deltas)) == {"city": "demo", "unit": "celsius"}
    result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "rain"}]}
    with_result = [
        *asked,
        {"role": "assistant", "content": [block.model_dump() for block in message.content]},
        # An agent's note beside a result asks for nothing.
        {
            "role": "user",
            "content": [result, {"type": "text", "text": "<system-reminder>call a tool</system-reminder>"}],
        },
    ]
    final = claude.messages.create(**told(messages=with_result, tools=[MESSAGES_TOOL]))
    assert final.content[0].text.endswith("The tool's result ended with: rain")
    forced = claude.messages.create(
        **told(messages=[{"role": "user", "content": "hi"}], tools=[MESSAGES_TOOL], tool_choice={"type": "any"})
    )
    assert forced.stop_reason == "tool_use"


def test_tokens_are_counted_only_where_litellm_counts_them(upstream: Upstream) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello there"}]}
    missing = upstream.control.post("/v1/messages/count_tokens", json=body)
    assert missing.status_code == 404
    assert missing.json() == {"type": "error", "error": {"type": "not_found_error", "message": "404: Not Found"}}
    with running_upstream(counts_tokens="estimate") as older:
        counted = older.control.post("/v1/messages/count_tokens", json=body)
        assert counted.json() == {"input_tokens": 7, "litellm_count_source": "local_estimate"}
        assert older.control.post("/v1/messages/count_tokens", json={"model": MODEL}).status_code == 400


def test_counts_say_whose_they_are(upstream: Upstream) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello there"}]}
    path = "/utils/token_counter?call_endpoint=true"
    with running_upstream(counts_tokens="provider") as counting, running_upstream(as_provider=True) as provider:
        for each, source in ((upstream, "local_estimate"), (counting, "provider")):
            found = each.control.post(path, json=body).json()
            assert (found["total_tokens"], found["count_source"]) == (7, source)
        assert counting.control.post("/utils/token_counter", json=body).json()["count_source"] == "local_estimate"
        assert counting.control.post(path, json={"model": MODEL}).status_code == 400
        found = counting.control.post("/v1/messages/count_tokens", json=body).json()
        assert found == {"input_tokens": 7, "litellm_count_source": "provider"}
        assert provider.control.post("/v1/messages/count_tokens", json=body).json() == {"input_tokens": 7}
        told = {"model": MODEL, "input": "[[fault:usage prompt=9000 completion=1]] hello"}
        counted = provider.control.post("/v1/responses/input_tokens", json=told).json()
        assert counted == {"object": "response.input_tokens", "input_tokens": 9_000}


# Errors and drills.


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/completions", {}, "/completions: Missing required parameter: 'prompt'."),
        ("/v1/responses", {}, "/responses: Missing required parameter: 'input'."),
        ("/v1/messages", {"messages": [1]}, "anthropic_messages: Missing required parameter: 'max_tokens'."),
    ],
)
def test_missing_fields_are_reported_in_litellms_format(
    upstream: Upstream, path: str, body: dict[str, Any], says: str
) -> None:
    response = upstream.control.post(path, json={"model": MODEL, **body})
    assert (response.status_code, response.json()["error"]["message"]) == (400, says)


def test_failures_wear_the_envelope_of_their_surface(upstream: Upstream) -> None:
    for path in TEXTS:
        response = post(upstream, path, "[[fault:429]]")
        assert response.status_code == 429
        kind = response.json()["error"]["type"]
        assert (response.json().get("type"), kind) == (
            ("error", "rate_limit_error") if path == "/v1/messages" else (None, "throttling_error")
        )
    unknown = upstream.control.post("/v1/messages", json=told(model="nope", messages=[]))
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("path", TEXTS)
def test_every_surface_knows_the_drills(upstream: Upstream, path: str) -> None:
    whole = post(upstream, path, "[[fault:chunks n=20]]", stream=True)
    closing = whole.text.strip().rpartition("\n\n")[2]
    assert closing == (
        "data: [DONE]" if path != "/v1/messages" else 'event: message_stop\ndata: {"type": "message_stop"}'
    )
    assert upstream.ledger(wait=1)[0]["completion_tokens"] == 20
    assert closing not in post(upstream, path, "[[fault:no_done]]", stream=True).text
    for words in ("cut after=3", "eof after=3"):
        with pytest.raises(httpx.TransportError):
            post(upstream, path, f"[[fault:{words}]]", stream=True)
    with pytest.raises(json.JSONDecodeError):
        events(post(upstream, path, "[[fault:malformed after=3]]", stream=True).text)
    huge = post(upstream, path, "[[fault:huge_line bytes=100000 after=4]]", stream=True).text
    assert len(events(huge)) > 5
    assert max(map(len, huge.split("\n\n"))) > 99_000
    wrong = post(upstream, path, "[[fault:usage prompt=5 completion=7]]").json()["usage"]
    assert {5, 7} <= {value for value in wrong.values() if isinstance(value, int)}
    assert "usage" not in post(upstream, path, "[[fault:no_usage]]").json()
    assert post(upstream, path, "[[fault:503]]").status_code == 503
    assert post(upstream, path, "[[fault:nonsense]]").status_code == 400


@pytest.mark.parametrize("path", TEXTS)
def test_an_event_may_carry_several_tokens(upstream: Upstream, path: str) -> None:
    one_each = post(upstream, path, "[[fault:chunks n=20]]", stream=True).text
    together = post(upstream, path, "[[fault:chunks n=20 together=8]]", stream=True).text
    assert len(events(one_each)) - len(events(together)) == 20 - 3
    *_, first, second = upstream.ledger(wait=2)
    assert first["completion_tokens"] == second["completion_tokens"] == 20
    assert first["characters"] == second["characters"] > 4 * 20
    assert first["reported"] == [first["prompt_tokens"], 20]
    post(upstream, path, "[[fault:no_usage]]", stream=True)
    assert upstream.ledger(wait=3)[-1]["reported"] is None


def test_a_failure_inside_a_stream_is_told_as_litellm_tells_it(upstream: Upstream, openai: Any, claude: Any) -> None:
    words = "[[fault:error_event after=6]]"
    failed = post(upstream, "/v1/responses", words, stream=True).text.split("\n\n")[6:]
    assert failed[0].startswith('event: response.failed\ndata: {"type":"response.failed"')
    assert json.loads(failed[0].partition("data: ")[2])["sequence_number"] == 6
    assert failed[1:] == ["data: [DONE]", ""]
    error = post(upstream, "/v1/messages", words, stream=True).text.strip().split("\n\n")[-1]
    assert error.startswith('event: error\ndata: {"type": "error", "error": {"type": "api_error"')
    with pytest.raises(APIError), openai.completions.create(model=MODEL, prompt=words, stream=True) as stream:
        list(stream)
    with pytest.raises(anthropic.APIStatusError):
        list(claude.messages.create(**told(messages=[{"role": "user", "content": words}]), stream=True))


def test_a_provider_behind_litellm_knows_chat_only() -> None:
    with running_upstream(as_provider=True) as provider:
        for path in ("/v1/completions", "/v1/responses", "/v1/messages", "/utils/token_counter"):
            assert provider.control.post(path, json={"model": MODEL}).status_code == 405


# Tools.


def chat(text: str, *tools: str, schema: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    functions = [{"type": "function", "function": {"name": name, "parameters": schema or {}}} for name in tools]
    return {"messages": [{"role": "user", "content": text}], "tools": functions, **more}


def called(body: dict[str, Any]) -> list[tuple[str, Any]]:
    calls = calls_asked_for(body, last_user_text(body["messages"]))
    return [(call.name, json.loads(call.arguments)) for call in calls]


def test_calls_can_be_dictated() -> None:
    both = 'call tool a with {"x": {"y": "}"}} and call the tool `b` with {} and call tool nobody with {}'
    assert called(chat(both, "a", "b")) == [("a", {"x": {"y": "}"}}), ("b", {})]
    assert called(chat("call tool a with {broken", "b", "a")) == [("a", {})]


@pytest.mark.parametrize(
    "note",
    [
        {"role": "system", "content": "# Environment"},
        {"role": "user", "content": [{"type": "text", "text": "Operator note (not from the user): …"}]},
    ],
)
def test_a_note_behind_the_users_message_changes_nothing(note: dict[str, Any]) -> None:
    """Claude Code's request, and LiteLLM's translation of it."""
    body = chat("use a tool", "other")
    body["messages"].append(note)
    assert called(body) == [("other", {})]


def test_ordinary_words_call_no_tool_by_themselves() -> None:
    tools = ("task", "read", "get_weather")
    assert called(chat("read me a poem", *tools)) == []
    assert called(chat("read it with the tool", *tools)) == [("read", {})]
    assert called(chat("get_weather", *tools)) == [("get_weather", {})]
    assert called(chat("get_weathers", *tools)) == []
    assert called(chat("a tool", *tools, tool_choice="none")) == []
    named = {"type": "function", "function": {"name": "read"}}
    assert called(chat("hi", *tools, tool_choice=named)) == [("read", {})]


def test_the_tool_that_runs_commands_is_preferred_and_harmless() -> None:
    body = chat("use a tool", "other")
    shell = {"type": "object", "properties": {"command": {"type": "array", "items": {"type": "string"}}}}
    body["tools"].append({"type": "function", "function": {"name": "shell", "parameters": shell}})
    assert called(body) == [("shell", {"command": ["echo", "demo"]})]


def test_a_result_is_newer_than_the_models_last_words_or_it_is_over() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "use a tool"},
        {"role": "assistant", "tool_calls": []},
        {"role": "tool", "content": "rain"},
    ]
    assert result_in(messages) == "rain"
    assert result_in([*messages, {"role": "user", "content": "a note"}]) == "rain"
    assert result_in([*messages, {"role": "assistant", "content": "It rains"}, messages[0]]) is None


@pytest.mark.parametrize(
    "schema",
    [
        SCHEMA,
        {"type": "object", "properties": {"a": {"type": ["string", "null"]}}, "required": ["a"]},
        {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/A"}},
            "$defs": {"A": {"type": "integer", "minimum": 7}},
        },
        {"type": "object", "properties": {"a": {"anyOf": [{"type": "number", "maximum": -1}, {"type": "null"}]}}},
        {"type": "object", "properties": {"a": {"type": "array", "minItems": 2, "items": {"const": "x"}}}},
        {"type": "object", "properties": {"a": {"type": "string", "minLength": 30}, "b": {"type": "boolean"}}},
        {"type": "object", "properties": {"a": {"type": "string", "maxLength": 2}, "b": {"type": "null"}}},
        {"type": "object", "allOf": [{"properties": {"a": {"type": "string"}}}, {"required": ["a"]}]},
        {"type": "object", "properties": {"a": {"multipleOf": 5, "exclusiveMinimum": 10, "type": "integer"}}},
        {"type": "object", "properties": {"at": {"type": "string", "format": "date-time"}, "n": {"default": 3}}},
        {"type": "object", "properties": {"a": {"type": "object", "additionalProperties": {"type": "string"}}}},
    ],
)
def test_arguments_satisfy_the_schema(schema: dict[str, Any]) -> None:
    made = example(schema)
    jsonschema.validate(made, schema)
    assert set(made) == set(schema.get("required") or schema.get("properties", {"a": None}))


def test_bodies_of_agents_become_chat() -> None:
    responses = from_responses(
        {
            "instructions": "be kind",
            "input": [
                {"role": "developer", "content": "x"},
                {"type": "reasoning", "summary": []},
                {"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": "***"},
                {"type": "custom_tool_call_output", "call_id": "c", "output": "done"},
            ],
            "tools": [RESPONSES_TOOL, {"type": "web_search"}],
        }
    )
    assert [message["role"] for message in responses["messages"]] == ["system", "developer", "assistant", "tool"]
    assert [tool["function"]["name"] for tool in responses["tools"]] == ["get_weather"]
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
    thought = {"type": "thinking", "thinking": "hm", "signature": ""}
    messages = from_messages(
        {
            "max_tokens": 1,
            "messages": [{"role": "user", "content": [image]}, {"role": "assistant", "content": [thought]}],
        }
    )
    assert [message["role"] for message in messages["messages"]] == ["user"]
