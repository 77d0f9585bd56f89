"""Beginnings of streams: which are responses, and which another model should get."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.surfaces.opening import Opening
from routing.surfaces.responses import Completions, Identity, Messages, ResponseFormat, Responses
from routing.surfaces.sse import DONE


def event(payload: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def chat(**choice: Any) -> bytes:
    return event({"id": "c1", "choices": [{"index": 0, **choice}]})


def start(**usage: int) -> bytes:
    return event({"type": "message_start", "message": {"id": "m1", "content": [], "usage": usage}})


def stop(reason: str, **usage: int) -> bytes:
    return event({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage})


def done(item: dict[str, Any]) -> bytes:
    return event({"type": "response.output_item.done", "output_index": 0, "item": item})


def response_end(kind: str, *output: Any, **more: Any) -> bytes:
    return event({"type": f"response.{kind}", "response": {"id": "r1", "output": output, **more}})


ROLE = chat(delta={"role": "assistant", "content": ""})
STOP = chat(delta={}, finish_reason="stop")
CREATED = event({"type": "response.created", "response": {"id": "r1", "output": []}})
MESSAGE_STOP = event({"type": "message_stop"})
MESSAGE = {"type": "message", "content": [{"type": "output_text", "text": "Rain"}]}
NO_ERRORS: list[Any] = ["", {}, [], False, None, 0]
NAMES: dict[str, ResponseFormat] = {"chat": Completions(), "responses": Responses(), "messages": Messages()}

RESPONSES: dict[str, list[list[bytes]]] = {
    "chat": [
        [ROLE, chat(delta={"content": "x"})],
        [ROLE, chat(delta={"tool_calls": [{"index": 0}]})],
        [ROLE, chat(delta={"reasoning_content": "hm"})],
        [chat(text="x", finish_reason="stop")],
        *[[ROLE, chat(delta={}, finish_reason=reason)] for reason in ("length", "content_filter", "tool_calls", "x")],
        # The model produced nothing that it shows, but its provider counted output.
        [STOP, event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1}})],
        # An error that says nothing is none.
        *[
            [event({"choices": [{"delta": {"content": "x"}, "error": none}], "error": none})]
            for none in NO_ERRORS
        ],
    ],
    "responses": [
        [CREATED, event({"type": "response.output_text.delta", "delta": "x"})],
        [CREATED, event({"type" : "response.output_item.added", "item": {"type": "function_call", "arguments": ""}})],
        *[
            [CREATED, done(item)]
            for item in (
                MESSAGE,
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
                {"type": "reasoning", "summary": [], "encrypted_content": "x"},
                {"type": "local_shell_call"}, {"type": "custom_tool_call"}, {"type": "web_search_call"},
                {"type": "image_generation_call"},
            )
        ],
        [CREATED, response_end("incomplete", incomplete_details={"reason": "max_output_tokens"})],
        [CREATED, response_end("completed", MESSAGE)],
        [CREATED, response_end("completed", usage={"input_tokens": 3, "output_tokens": 4})],
    ],
    "messages": [
        [start(), event({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x"}})],
        [start(), event({"type": "content_block_start", "content_block": {"type": "tool_use", "input": {}}})],
        *[
            [start(input_tokens=9), stop(reason, output_tokens=0)]
            for reason in (
                "refusal", "pause_turn", "model_context_window_exceeded", "max_tokens", "stop_sequence", "tool_use",
            )
        ],
        # After tool results Claude may have nothing to say. Its provider knows the size of the prompt from the start.
        [start(input_tokens=9, output_tokens=0), stop("end_turn", output_tokens=0)],
        [start(cache_read_input_tokens=9, input_tokens=0), stop("end_turn", output_tokens=0)],
        [start(), stop("end_turn", output_tokens=2)],
    ],
}  # fmt: skip
FAILURES: dict[str, list[tuple[list[bytes], str]]] = {
    "chat": [
        *[
            ([ROLE, event(payload), chat(delta={"content": "x"})], "error event")
            for payload in (
                {"error": {"message": "overloaded"}},
                {"error": "overloaded"},
                {"choices": [{"delta": {"content": "x"}, "error": {"code": 502}}]},
                {"choices": [{"delta": {"content": ""}, "finish_reason": "error"}]},
                {"choices": None, "error_type": "overloaded", "error_message": "x"},
                {"choices": [], "error_message": "x"},
                {"object": "error", "message": "x", "code": 400},
            )
        ],
        ([ROLE, b'data: {"choices":[{"delta":{"content":"x"}}\n\n'], "broken JSON"),
        ([b"data: <html>\n\n"], "broken JSON"),
        ([STOP, DONE], "empty success"),
        ([ROLE, STOP, DONE], "empty success"),
        ([ROLE, STOP], "empty success"),
        # Usage that LiteLLM made up.
        ([STOP, event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 0}}), DONE], "empty success"),
        ([ROLE], "empty success"),
        ([], "empty stream"),
        ([b": ping\n\n" * 50_000], "too much without content"),
    ],
    "responses": [
        ([CREATED, event({"type": "error", "message": "x"})], "error event"),
        ([CREATED, event({"error" : {"message": "x"}})], "error event"),
        ([CREATED, event({"type" : "response.failed", "response": {"id": "r1"}})], "error event"),
        ([CREATED, response_end("completed", status="failed")], "error event"),
        ([CREATED, event({"type": "response.output_text.delta", "delta": ""}), response_end("completed")],
         "empty success"),
        ([CREATED], "empty success"),
    ],
    "messages": [
        ([start(input_tokens=9), event({"type" : "error", "error" : {"type": "overloaded_error"}})], "error event"),
        ([start(input_tokens=9), event({"error": {"message": "x"}})], "error event"),
        ([start(), stop("end_turn", output_tokens=0), MESSAGE_STOP], "empty success"),
        ([start(input_tokens=9), MESSAGE_STOP], "empty success"),
    ],
}  # fmt: skip
SILENT: dict[str, list[bytes]] = {
    "chat": [b": ping\n\n", b"\n\n", chat(delta={}), chat(delta={"content": None}), event({"choices": []}), ROLE],
    "responses": [
        b": ping\n\n", event({"type": "response.in_progress", "response": {"id": "r1"}}),
        event({"type": "response.queued", "response": {"id": "r1"}}),
        event({"type": "response.output_item.added", "item": {"type": "message", "content": []}}),
        event({"type": "response.content_part.added", "part": {"type": "output_text", "text": ""}}),
    ],
    "messages": [
        b": ping\n\n", b'event: ping\ndata: {"type" : "ping"}\n\n',
        event({"type": "content_block_start", "content_block": {"type": "text", "text": ""}}),
    ],
}  # fmt: skip


def opened(response_format: ResponseFormat, chunks: list[bytes]) -> Opening:
    opening = Opening(response_format)
    for chunk in chunks:
        opening.feed(chunk)
        if opening.is_response or opening.failure:
            return opening
    opening.end()
    return opening


@st.composite
def _cut(draw: st.DrawFn, surface: str, events: list[bytes]) -> list[bytes]:
    """Draw chunks of these events: cut anywhere, after events that say nothing, with any line ends."""
    silent = draw(st.lists(st.sampled_from(SILENT[surface]), max_size=4))
    stream = b"".join([*silent, *events]).replace(b"\n", draw(st.sampled_from([b"\n", b"\r\n", b"\r"])))
    edges = sorted({0, len(stream), *draw(st.lists(st.integers(0, len(stream)), max_size=6))})
    return [stream[begin:end] for begin, end in itertools.pairwise(edges)]


@pytest.mark.parametrize("surface", NAMES)
@given(data=st.data())
def test_the_first_event_that_says_something_makes_it_a_response(surface: str, data: st.DataObject) -> None:
    events = data.draw(st.sampled_from(RESPONSES[surface]))
    chunks = data.draw(_cut(surface, events))
    opening = opened(NAMES[surface], chunks)
    assert (opening.is_response, opening.failure) == (True, "")
    assert all(each.raw in b"".join(chunks) for each in opening.events)


@pytest.mark.parametrize("surface", NAMES)
@given(data=st.data())
def test_an_error_or_an_end_before_that_is_a_failure(surface: str, data: st.DataObject) -> None:
    events, failure = data.draw(st.sampled_from(FAILURES[surface]))
    opening = opened(NAMES[surface], data.draw(_cut(surface, events)))
    assert not opening.is_response
    assert opening.failure == failure or (failure, opening.failure) == ("empty stream", "empty success")


@pytest.mark.parametrize("surface", NAMES)
def test_every_case_by_itself(surface: str) -> None:
    for events in RESPONSES[surface]:
        assert opened(NAMES[surface], events).failure == "", events
    for events, failure in FAILURES[surface]:
        assert opened(NAMES[surface], events).failure == failure, events


def test_the_id_is_that_of_the_first_event_with_a_payload() -> None:
    for surface, response_id in (("chat", "c1"), ("responses", "r1"), ("messages", "m1")):
        opening = opened(NAMES[surface], [b"\xef\xbb\xbf: ping\n\n", *RESPONSES[surface][0]])
        assert opening.identity.id == response_id
    assert opened(Completions(), [b"data: 5\n\n"]).identity == Identity()


def test_the_model_may_be_named_later_than_the_id() -> None:
    first, second = b'data: {"id":"c1","model":"","choices":[]}\n\n', b'data: {"id":"c2","model":"m","choices":[]}\n\n'
    assert opened(Completions(), [first, second]).identity == Identity("c1", "m")


def test_a_long_first_event_is_content_before_it_is_complete() -> None:
    opening = opened(Completions(), [b'data: {"x":"', *[b"x" * 65_536] * 5])
    assert opening.is_response


def test_what_the_opening_counted_is_not_counted_again() -> None:
    opening = opened(Completions(), [ROLE + chat(delta={"content": "1234"}) + chat(delta={"content": "5678"}) + DONE])
    assert (opening.counted, len(opening.events), opening.output.chars) == (2, 4, 4)
