"""Response formats: reading responses and writing errors, by surface."""

import json
from typing import Any

import msgspec
import pytest

from billing.pricing import Usage
from billing.usage import merged, read_usage
from codexflow.lib.errors import AppError
from routing.meter import Meter
from routing.surfaces.responses import (
    Completions,
    Embeddings,
    Identity,
    Messages,
    Rerank,
    ResponseFormat,
    Responses,
    TextCompletions,
)
from routing.surfaces.tests.test_sse import CHAT, MESSAGES, RESPONSES


def event(payload: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n"


def usage_of(response_format: ResponseFormat, raw: bytes) -> Usage | None:
    found = response_format.classify(raw).usage
    return read_usage(found.fields).usage if found else None


def test_usage_is_read_from_each_surfaces_fields() -> None:
    assert usage_of(Completions(), CHAT[1]) == Usage(prompt_tokens=3, completion_tokens=4)
    assert usage_of(Responses(), RESPONSES[2]) == Usage(prompt_tokens=3, completion_tokens=4)
    assert usage_of(Messages(), MESSAGES[2]) == Usage(prompt_tokens=3, completion_tokens=4)


def test_a_cached_prompt_counts_once_on_every_surface() -> None:
    details = {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 80}}
    assert usage_of(Completions(), event({"usage": details})) == Usage(
        prompt_tokens=100, cached_tokens=80, completion_tokens=5
    )
    # LiteLLM repeats Anthropic's fields beside OpenAI's there: the prompt already includes them.
    mixed = {**details, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 7}
    assert usage_of(Completions(), event({"usage": mixed})) == Usage(
        prompt_tokens=100, cached_tokens=80, cache_write_tokens=7, completion_tokens=5
    )
    of_messages = {
        "input_tokens": 20, "output_tokens": 5, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 7,
    }  # fmt: skip
    assert usage_of(Messages(), event({"type": "message_delta", "usage": of_messages})) == Usage(
        prompt_tokens=107, cached_tokens=80, cache_write_tokens=7, completion_tokens=5
    )


def test_cache_writes_for_an_hour_are_counted_apart_on_every_surface() -> None:
    by_lifetime = {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30}
    expected = Usage(prompt_tokens=100, cache_write_tokens=50, cache_write_1h_tokens=30, completion_tokens=5)
    details = {"cached_tokens": 0, "cache_creation_tokens": 50, "cache_creation_token_details": by_lifetime}
    chat = {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": details}
    assert usage_of(Completions(), event({"usage": chat})) == expected
    messages = {
        "input_tokens": 50, "output_tokens": 5, "cache_creation_input_tokens": 50, "cache_creation": by_lifetime,
    }  # fmt: skip
    assert usage_of(Messages(), event({"type": "message_delta", "usage": messages})) == expected
    # An odd breakdown does not make the response invalid.
    odds: tuple[Any, ...] = ([], "x", {"ephemeral_1h_input_tokens": "x"}, {"ephemeral_1h_input_tokens": None})
    for odd in odds:
        found = usage_of(Messages(), event({"type": "message_delta", "usage": {**messages, "cache_creation": odd}}))
        assert found == msgspec.structs.replace(expected, cache_write_1h_tokens=0)
    responses = {"input_tokens": 100, "output_tokens": 5, "input_tokens_details": details}
    completed = {"type": "response.completed", "response": {"usage": responses}}
    assert usage_of(Responses(), event(completed)) == expected


def test_the_start_of_a_message_reports_input_only() -> None:
    """Its output count is that of a beginning: billing a cut stream by it would be wrong."""
    found = Messages().classify(MESSAGES[0]).usage
    assert found is not None
    assert found.is_partial
    later = Messages().classify(event({"type": "message_delta", "usage": {"output_tokens": 4}})).usage
    assert later is not None
    assert not later.is_partial
    both = merged({"input_tokens": 9, "output_tokens": 1}, later.fields)
    assert read_usage(both).usage == Usage(prompt_tokens=9, completion_tokens=4)


def test_cost_is_removed_and_usage_is_sent_only_on_request() -> None:
    response_format = Completions()
    found = response_format.classify(CHAT[1])
    assert response_format.for_caller(found, wants_usage=False) == b""
    assert json.loads(response_format.for_caller(found, wants_usage=True)[6:])["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
    }
    usage = {"input_tokens": 1, "output_tokens": 2, "cost": 0.25, "cost_details": {"x": 1}}
    end = Responses().classify(event({"type": "response.completed", "response": {"id": "r", "usage": usage}}))
    shown = json.loads(Responses().for_caller(end, wants_usage=True)[6:])
    assert shown["response"]["usage"] == {"input_tokens": 1, "output_tokens": 2}


@pytest.mark.parametrize("usage", [{"prompt_tokens": 1, "completion_tokens": 2, "cost": 0.25, "cost_details": {}}])
def test_a_whole_response_loses_the_upstreams_cost_and_nothing_else(usage: dict[str, Any]) -> None:
    body = b'{"id": "c1", "choices":[{"message":{"content":"1.0e2"}}],  "usage":%b}' % json.dumps(usage).encode()
    summary = Completions().summarize(body)
    assert summary is not None
    shown = Completions().body_for_caller(body, summary)
    assert json.loads(shown) == {**json.loads(body), "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    free = body.replace(b', "cost": 0.25, "cost_details": {}', b"")
    assert b"cost" not in free
    assert Completions().body_for_caller(free, Completions().summarize(free) or summary) == free


_USAGE = b'"usage":{"prompt_tokens":1,"input_tokens":1,"completion_tokens":2,"output_tokens":2,"cost":1}'
BROKEN = (b'"\xff"', b"1e400", b"9" * 5_000, b"[" * 2_000 + b"]" * 2_000, b'{"\xff":1}')


@pytest.mark.parametrize("broken", BROKEN, ids=range(len(BROKEN)))
def test_broken_responses_never_raise(broken: bytes) -> None:
    for response_format, fields in (
        (Completions(), b'"choices":[{"delta":{"content":"x"}}],'),
        (Responses(), b'"output":[],"type":"response.completed","response":{%b},' % _USAGE),
        (Messages(), b'"content":[],"type":"message_delta",'),
        (Embeddings(), b'"data":[],'),
    ):
        body = b'{"x":%b,%b%b}' % (broken, fields, _USAGE)
        if summary := response_format.summarize(body):
            assert response_format.body_for_caller(body, summary)
        if isinstance(response_format, Embeddings):
            continue
        raw = b"data: " + body + b"\n\n"
        response_format.identity(raw)
        for wants_usage in (False, True):
            assert response_format.for_caller(response_format.classify(raw), wants_usage=wants_usage)


def test_a_whole_response_must_have_its_surfaces_form() -> None:
    whole = {
        Completions(): b'{"id":"c1","choices":[{"message":{"content":"12345678"}}],"usage":{"prompt_tokens":1}}',
        Responses(): b'{"id":"c1","output":[{"type":"message"}]}',
        Messages(): b'{"id":"c1","content":[{"type":"text","text":"12345678"}]}',
        Embeddings(): b'{"data":[[1,2]],"usage":{"prompt_tokens":4}}',
    }
    for response_format, body in whole.items():
        assert response_format.summarize(body) is not None
        assert response_format.summarize(b"{}") is None
        assert response_format.summarize(b"<html>") is None
        assert response_format.summarize(b'{"choices":[{"message":"x"}],"output":1,"content":1,"data":1}') is None
    summary = Messages().summarize(whole[next(each for each in whole if isinstance(each, Messages))])
    assert summary is not None
    assert (summary.identity.id, summary.output.chars) == ("c1", 8)


def test_errors_are_written_as_each_surfaces_clients_expect() -> None:
    error = AppError("words")
    for response_format in (Completions(), Responses(), Embeddings()):
        assert json.loads(response_format.error_body(error))["error"]["code"] == "internal_error"
    assert json.loads(Messages().error_body(error)) == {
        "type": "error",
        "error": {"type": "api_error", "message": "words", "code": "internal_error", "param": None},
    }
    assert Completions().error_event(error).startswith(b'data: {"error":')
    lines = [line for line in Responses().error_event(error).split(b"\n") if line.startswith(b"data: ")]
    in_stream, failed = (json.loads(line[6:]) for line in lines)
    assert (failed["type"], failed["response"]["error"]["code"]) == ("response.failed", "internal_error")
    assert (in_stream["type"], in_stream["error"]["code"]) == ("error", "internal_error")
    assert Messages().error_event(error).startswith(b'event: error\ndata: {"type":"error"')


@pytest.mark.parametrize("cost", [{"total_cost": 0.1}, "0.1", [0.1], True, None])
def test_a_cost_that_is_no_number_does_not_invalidate_a_response(cost: Any) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "cost": cost}
    body = json.dumps({"id": "c1", "choices": [{"message": {"content": "hi"}}], "usage": usage}).encode()
    summary = Completions().summarize(body)
    assert summary is not None
    assert "cost" not in json.loads(Completions().body_for_caller(body, summary))["usage"]
    meter = Meter()
    meter.record_response(summary, None)
    assert meter.usage(0)[0] == Usage(prompt_tokens=1, completion_tokens=2)


def test_a_response_has_the_models_public_name() -> None:
    """LiteLLM writes the provider's own name into a response's events, and its own prefix."""
    response = {"id": "r1", "model": "openai/gpt-4o-2024-11-20", "output": []}
    created = b"event: response.created\n" + event({"type": "response.created", "response": response, "model": "x"})
    delta = event({"type": "response.output_text.delta", "delta": '"response"', "model": "x"})
    first, second = (Responses().named(raw, "gpt-6.1-sol") for raw in (created, delta))
    assert first.startswith(b"event: response.created\ndata: ")
    payload = json.loads(first.partition(b"data: ")[2])
    renamed = {**response, "model": "gpt-6.1-sol"}
    assert payload == {"type": "response.created", "response": renamed, "model": "gpt-6.1-sol"}
    assert second == delta


def test_events_with_the_right_model_or_none_stay_as_they_are() -> None:
    odd = b'data: {"type" : "response.created", "response": {"id":"r1", "model":"gpt-6.1-sol"}}\r\n\r\n'
    for events in (odd, b": ping\n\n", *RESPONSES, b"data: {broken", b"", b'data: {"response":[]}\n\n'):
        assert Responses().named(events, "gpt-6.1-sol") == events
    assert Completions().named(CHAT[0], "gpt-6.1-sol") == CHAT[0]


@pytest.mark.parametrize(
    "body",
    [
        {"choices": [{"message": {"content": "x"}, "error": {"code": 502}}]},
        {"choices": [{"message": {"content": ""}, "finish_reason": "error"}]},
        {"choices": None, "error_type": "x", "error_message": "lost"},
        {"choices": [], "error": "lost"},
    ],
)
def test_a_whole_response_with_an_error_inside_is_none(body: dict[str, Any]) -> None:
    assert Completions().summarize(json.dumps(body).encode()) is None
    empty = {"choices": [{"message": {"content": "x"}, "error": {}}], "error": None, "error_message": ""}
    assert Completions().summarize(json.dumps(empty).encode()) is not None


COUNTS = {"prompt_tokens": 100, "completion_tokens": 20}
COUNTS_OF_NOTHING = (*COUNTS, "total_tokens")
GOOD: dict[str, Any] = {"id": "c1", "choices": [{"message": {"content": "hi"}}], "usage": COUNTS}
# Whole responses whose odd parts are no reason to refuse them, as bytes.
ODD: dict[str, tuple[ResponseFormat, bytes]] = {
    "id as a number": (Completions(), json.dumps({**GOOD, "id": 7}).encode()),
    "usage as floats": (
        Completions(), json.dumps({**GOOD, "usage": {"prompt_tokens": 100.0, "completion_tokens": 20.0}}).encode()
    ),
    "usage as text": (
        Completions(), json.dumps({**GOOD, "usage": {"prompt_tokens": "100", "completion_tokens": "20"}}).encode()
    ),
    "details as a list": (
        Completions(), json.dumps({**GOOD, "usage": {**COUNTS, "prompt_tokens_details": []}}).encode()
    ),
    "an infinite logprob": (Completions(), json.dumps({**GOOD, "logprob": float("-inf")}).encode()),
    "a byte order mark": (Completions(), b"\xef\xbb\xbf" + json.dumps(GOOD).encode()),
    "half a surrogate": (
        Messages(),
        b'{"id":"m1","content":[{"type":"text","text":"\\ud83d"}],"usage":{"input_tokens":100,"output_tokens":20}}',
    ),
    "output null": (Responses(), b'{"id":"r1","output":null,"usage":{"input_tokens":100,"output_tokens":20}}'),
    "bytes that are no UTF-8": (Completions(), json.dumps(GOOD).encode().replace(b"hi", b"caf\xe9")),
    "an integer of thousands of digits": (
        Completions(), json.dumps(GOOD).encode().replace(b'"usage": {', b'"usage": {"x":%b,' % (b"9" * 5_000))
    ),
    "null among the choices": (Completions(), json.dumps({**GOOD, "choices": [None, *GOOD["choices"]]}).encode()),
    "a text in parts": (
        TextCompletions(), json.dumps({"choices": [{"text": ["hi"], "index": 0}], "usage": COUNTS}).encode()
    ),
    "usage in a choice": (
        Completions(), json.dumps({"choices": [{"message": {"content": "hi"}, "usage": COUNTS}]}).encode()
    ),
    "usage in x_groq": (
        Completions(), json.dumps({"choices": GOOD["choices"], "x_groq": {"usage": COUNTS}}).encode()
    ),
    "usage under gemini's name": (
        Completions(),
        json.dumps({"choices": GOOD["choices"], "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 20}})
        .encode(),
    ),
    "content null": (
        Messages(),
        b'{"id":"m","content":null,"stop_reason":"end_turn","usage":{"input_tokens":100,"output_tokens":20}}',
    ),
    "content as a text": (Messages(), b'{"id":"m","content":"hi","usage":{"input_tokens":100,"output_tokens":20}}'),
    "output as an object": (Responses(), b'{"output":{},"usage":{"input_tokens":100,"output_tokens":20}}'),
    "embeddings with floats": (Embeddings(), b'{"data":[],"usage":{"prompt_tokens":100.0,"total_tokens":120}}'),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_an_odd_part_that_is_not_needed_does_not_invalidate_a_response(case: str) -> None:
    response_format, body = ODD[case]
    summary = response_format.summarize(body)
    assert summary is not None
    assert summary.usage is not None
    assert read_usage(summary.usage.fields).usage == Usage(prompt_tokens=100, completion_tokens=20)


@pytest.mark.parametrize(
    "told",
    [
        {"usage": {"total_tokens": 7}},
        {"usage": {"prompt_tokens": 0, "total_tokens": 7}},
        {"meta": {"billed_units": {"input_tokens": 7}}},
    ],
)
def test_embeddings_are_charged_by_a_total_too(told: dict[str, Any]) -> None:
    summary = Embeddings().summarize(json.dumps({"data": [[0.1]], **told}).encode())
    assert summary is not None
    assert summary.usage is not None
    report = read_usage(summary.usage.fields)
    assert (report.usage, report.is_output_known) == (Usage(prompt_tokens=7), True)


EMPTY: dict[str, tuple[ResponseFormat, dict[str, Any]]] = {
    "no choices": (Completions(), {"id": "c", "choices": []}),
    "no choices and counts of zero": (Completions(), {"choices": [], "usage": dict.fromkeys(COUNTS_OF_NOTHING, 0)}),
    "minimax": (Completions(), {"choices": None, "base_resp": {"status_code": 1008}, "usage": {"total_tokens": 1}}),
    "an error as its object": (Completions(), {"object": "error", "message": "x", "choices": []}),
    "an error as its status": (Completions(), {"status": "error", "choices": []}),
    "an error as its type": (Messages(), {"type": "error", "content": [], "usage": {"input_tokens": 1}}),
    "no content and no counts": (Messages(), {"content": [], "stop_reason": "end_turn"}),
    "no output and no counts": (Responses(), {"status": "completed", "output": []}),
    "vectors beside an error": (Embeddings(), {"data": [], "error": {"message": "quota"}}),
    "results beside an error": (Rerank(), {"results": [], "error": "quota"}),
}


@pytest.mark.parametrize("case", EMPTY)
def test_an_empty_success_is_no_whole_response(case: str) -> None:
    response_format, body = EMPTY[case]
    assert response_format.summarize(json.dumps(body).encode()) is None


def test_a_whole_response_without_words_passes_if_it_tells_a_reason_or_counts() -> None:
    for response_format, body in (
        (Completions(), {"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 0}}),
        (Messages(), {"content": [], "stop_reason": "pause_turn"}),
        (Messages(), {"content": [], "stop_reason": "end_turn", "usage": {"input_tokens": 100, "output_tokens": 0}}),
        (Responses(), {"status": "incomplete", "output": []}),
        (Responses(), {"status": "failed", "output": [], "error": {"code": "server_error"}}),
    ):
        assert response_format.summarize(json.dumps(body).encode()) is not None


@pytest.mark.parametrize("name", ["estimated_cost", "total_cost", "cost_in_usd_ticks", "upstream_inference_cost"])
def test_a_cost_under_any_name_and_at_any_depth_is_removed(name: str) -> None:
    usage = {**COUNTS, name: 0.7, "prompt_tokens_details": {"cached_tokens": 1, name: 0.7}}
    shown = {**COUNTS, "prompt_tokens_details": {"cached_tokens": 1}}
    body = json.dumps({**GOOD, "usage": usage}).encode()
    summary = Completions().summarize(body)
    assert summary is not None
    assert json.loads(Completions().body_for_caller(body, summary)) == {**GOOD, "usage": shown}
    found = Completions().classify(event({"choices": [], "usage": usage}))
    assert json.loads(Completions().for_caller(found, wants_usage=True)[6:])["usage"] == shown


@pytest.mark.parametrize("usage", ["", None, [], 7, "many"])
def test_a_usage_that_cannot_be_read_is_unknown_and_the_response_passes(usage: Any) -> None:
    summary = Completions().summarize(json.dumps({**GOOD, "usage": usage}).encode())
    assert summary is not None
    assert (summary.usage, summary.output.tokens) == (None, 1)


@pytest.mark.parametrize(
    "raw",
    [
        b'data: {"id":"c1","choices":[],"usage":{"prompt_tokens":"100","completion_tokens":"20","cost":0.5}}\n\n',
        b'data: {"id":"c1","choices":[],"usage" : {"prompt_tokens":100,"completion_tokens":20,"cost" : 0.5}}\n\n',
        b'data: {"x":"\\ud83d","choices":[],"usage":{"prompt_tokens":100,"completion_tokens":20,"cost":0.5}}\n\n',
    ],
)
def test_odd_usage_in_a_stream_is_read_and_its_cost_never_shown(raw: bytes) -> None:
    response_format = Completions()
    assert not response_format.is_plain(raw)
    assert usage_of(response_format, raw) == Usage(prompt_tokens=100, completion_tokens=20)
    found = response_format.classify(raw)
    assert response_format.for_caller(found, wants_usage=False) == b""
    assert b"cost" not in response_format.for_caller(found, wants_usage=True)


def test_a_response_that_is_read_leniently_goes_out_as_it_came_but_for_its_cost() -> None:
    body = b'{"content":[{"type":"text","text":"\\ud83d"}],"usage":{"input_tokens":1,"output_tokens":2,"cost":0.5}}'
    summary = Messages().summarize(body)
    assert summary is not None
    assert Messages().body_for_caller(body, summary) == body.replace(b',"cost":0.5', b"")


_CALLS: list[dict[str, Any]] = [
    {"type": "web_search_call", "id": "w1", "action": {"type": "search", "query": "rain"}, "status": "completed"},
    {"type": "web_search_call", "id": "w2"},
    {"type": "file_search_call", "queries": []},
    {"type": "code_interpreter_call", "code": "1", "container_id": "c"},
    {"type": "image_generation_call", "result": "aGk="},
    {"type": "mcp_call", "name": "x"},
    {"type": "shell_call", "environment": {"type": "container_reference", "container_id": "c"}},
]
_OTHER_ITEMS: list[dict[str, Any]] = [
    {"type": "function_call", "name": "web_search_call", "arguments": '{"type":"web_search_call"}'},
    {"type": "message", "content": [{"type": "output_text", "text": 'a "web_search_call"'}]},
    {"type": "shell_call", "environment": {"type": "local"}},
    {"type": "shell_call", "environment": None},
    {"type": "local_shell_call"},
    {"type": "computer_call"},
    {"type": "mcp_list_tools", "tools": []},
]
_COUNTS = {
    "web_search_requests": 2, "file_search_requests": 1, "code_execution_requests": 2,
    "image_generation_requests": 1, "mcp_call_requests": 1,
}  # fmt: skip


def _tool_counts(output: list[Any], usage: Any) -> list[Any]:
    """Return what a whole response and a stream's last event tell of hosted tools."""
    response = {"id": "r", "output": output, "usage": usage}
    whole = Responses().summarize(json.dumps(response).encode())
    last = Responses().classify(event({"type": "response.completed", "response": response})).usage
    assert whole is not None
    return [None if each is None else each.fields.get("server_tool_use") for each in (whole.usage, last)]


@pytest.mark.parametrize("usage", [{"input_tokens": 3, "output_tokens": 4}, None])
def test_calls_of_hosted_tools_in_a_response_are_counted(usage: Any) -> None:
    assert _tool_counts([*_OTHER_ITEMS, *_CALLS], usage) == [_COUNTS, _COUNTS]
    none = [None, None]
    assert _tool_counts(_OTHER_ITEMS, usage) == none
    assert _tool_counts([], usage) == none


def test_what_the_provider_counts_itself_is_believed() -> None:
    usage = {"input_tokens": 3, "server_tool_use": {"web_search_requests": 5}}
    expected = {"web_search_requests": 5, "file_search_requests": 1}
    assert _tool_counts(_CALLS[:3], usage) == [expected, expected]


def test_the_caller_sees_the_providers_usage_without_our_count() -> None:
    usage = {"input_tokens": 3, "output_tokens": 4, "cost": 0.5}
    response = {"id": "r", "output": _CALLS, "usage": usage}
    body = json.dumps(response).encode()
    summary = Responses().summarize(body)
    assert summary is not None
    assert json.loads(Responses().body_for_caller(body, summary))["usage"] == {"input_tokens": 3, "output_tokens": 4}
    last = Responses().classify(event({"type": "response.completed", "response": response}))
    assert b"server_tool_use" not in Responses().for_caller(last, wants_usage=True)
    untold = json.dumps({**response, "usage": None, "cost": 1}).encode()
    summary = Responses().summarize(untold)
    assert summary is not None
    assert Responses().body_for_caller(untold, summary) == untold


def test_calls_of_hosted_tools_are_counted_beside_bytes_that_are_no_utf8() -> None:
    output = [*_CALLS, {"type": "message", "content": [{"type": "output_text", "text": "XX"}]}]
    completed = {"type": "response.completed", "response": {"usage": {"input_tokens": 3}, "output": output}}
    found = Responses().classify(event(completed).replace(b"XX", b"caf\xe9")).usage
    assert found is not None
    assert found.fields == {"input_tokens": 3, "server_tool_use": _COUNTS}


_SAID = {"model": "dear"}  # the caller's or the model's words
_IDENTITY = {"id": "r1", "model": "served"}
# Bodies with a field `model` that is not the response's own, in front of it.
_ECHOES: dict[str, tuple[ResponseFormat, dict[str, Any]]] = {
    "a tool's arguments": (Messages(), {"content": [{"type": "tool_use", "input": _SAID}]}),
    "blocks": (Completions(), {"choices": [{"message": {"content": "x", "thinking_blocks": [_SAID]}}]}),
    "documents": (Rerank(), {"results": [{"index": 0, "document": _SAID}]}),
    "instructions": (Responses(), {"instructions": [{"role": "developer", **_SAID}], "output": [{"id": "i"}]}),
    "metadata": (Responses(), {"metadata": _SAID, "output": [{"id": "i"}]}),
    "variables of a prompt": (Responses(), {"prompt": {"variables": _SAID}, "output": [{"id": "i"}]}),
    "vectors": (Embeddings(), {"data": [_SAID], "usage": {"prompt_tokens": 1}}),
}


@pytest.mark.parametrize("place", _ECHOES)
def test_only_a_response_itself_names_the_model_that_served(place: str) -> None:
    """It sets the price: a caller must not choose it."""
    response_format, said = _ECHOES[place]
    for own, identity in ((_IDENTITY, Identity("r1", "served")), ({}, Identity()), ({"model": ["x"]}, Identity())):
        summary = response_format.summarize(json.dumps({**said, **own}).encode())
        assert summary is not None
        assert summary.identity == identity


@pytest.mark.parametrize("own", [_IDENTITY, {}])
def test_only_the_first_event_of_a_stream_names_the_model_that_served(own: dict[str, Any]) -> None:
    identity = Identity(**own)
    echo = {"metadata": _SAID, "instructions": [_SAID], **own}
    assert Responses().identity(event({"type": "response.created", **_SAID, "response": echo})) == identity
    assert Messages().identity(event({"type": "message_start", **_SAID, "message": echo})) == identity
    assert Completions().identity(event({"choices": [{"delta": {"content": "x", **_SAID}}], **echo})) == identity
