"""Streams as providers write them: line ends, white space, pauses, ends and errors of every kind."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from keys.tests.factories import a_key
from tests.gateway.test_surfaces import SurfaceCase
from tests.support.installation import Gateway, Installation
from tests.support.loopback import LoopbackServer, QuietHandler
from tests.support.waiting import until

CHAT = SurfaceCase("chat", "/v1/chat/completions", "gpt-6-luna")
RESPONSES = SurfaceCase("responses", "/v1/responses", "gpt-6-luna")
MESSAGES = SurfaceCase("messages", "/v1/messages", "claude-haiku-5.5")
USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
# A pause: what comes after it comes by itself.
PAUSE = None


def event(payload: Any) -> bytes:
    name = f"event: {payload['type']}\n" if "type" in payload else ""
    return f"{name}data: {json.dumps(payload)}\n\n".encode()


def chunk(*, reason: str | None = None, **delta: Any) -> bytes:
    return event({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def message(reason: str, *, text: str = "", input_tokens: int = 100) -> list[bytes]:
    usage = {"input_tokens": input_tokens, "output_tokens": 0}
    blocks = [event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})]
    return [
        event({"type": "message_start", "message": {"id": "m", "content": [], "usage": usage}}),
        *(blocks if text else []),
        event({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 20 * bool(text)}}),
    ]


ROLE, RAIN, STOP, DONE = (
    chunk(role="assistant", content=""),
    chunk(content="Rain"),
    chunk(reason="stop"),
    b"data: [DONE]\n\n",
)
COUNTED = event({"id": "c", "choices": [], "usage": USAGE})
MESSAGE_STOP = event({"type": "message_stop"})
CREATED = event({"type": "response.created", "response": {"id": "r", "model": "m", "output": []}})
ITEM = {"type": "message", "id": "i", "content": [{"type": "output_text", "text": "Rain", "annotations": []}]}
NO_ERRORS: list[Any] = ["", {}, False, 0]
GOOD = [ROLE, RAIN, STOP, COUNTED, DONE]
# Of two choices, which take turns and end one after the other.
TWO = [
    event({"id": "c", "choices": [{"index": index, "delta": delta, "finish_reason": reason}]})
    for index, delta, reason in (
        (0, {"content": "Rain"}, None), (1, {"content": "Snow"}, None), (0, {"content": "s"}, None),
        (1, {"content": "s"}, None), (0, {}, "stop"), (1, {}, "stop"),
    )
]  # fmt: skip


def ended_by(end: bytes, events: list[bytes]) -> list[bytes]:
    return [each.replace(b"\n", end) for each in events]


def spaced(events: list[bytes]) -> list[bytes]:
    return [each.replace(b'":', b'" :').replace(b"{", b"{ ") for each in events]


# surface, stream, (prompt, completion) of its row, and what the caller must not see. All are complete responses.
COMPLETE: dict[str, tuple[SurfaceCase, list[bytes | None], tuple[int, int]]] = {
    "CR": (CHAT, [*ended_by(b"\r", GOOD)], (100, 20)),
    "CRLF": (CHAT, [*ended_by(b"\r\n", GOOD)], (100, 20)),
    "CRLF in pieces": (CHAT, [piece for each in ended_by(b"\r\n", GOOD) for piece in (each[:-1], PAUSE, each[-1:])],
                       (100, 20)),
    "mixed ends": (CHAT, [*ended_by(b"\r", GOOD[:2]), *ended_by(b"\r\n", GOOD[2:4]), DONE], (100, 20)),
    "CR on messages": (MESSAGES, [*ended_by(b"\r", [*message("end_turn", text="Rain"), MESSAGE_STOP])], (100, 20)),
    "white space": (CHAT, [*spaced(GOOD)], (100, 20)),
    "white space on messages": (MESSAGES, [*spaced([*message("end_turn", text="Rain"), MESSAGE_STOP])], (100, 20)),
    "white space on responses": (
        RESPONSES,
        [*spaced([CREATED, event({"type": "response.output_item.done", "item": ITEM}), event({
            "type": "response.completed", "response": {"id": "r", "usage": {"input_tokens": 100, "output_tokens": 20}}
        })])],
        (100, 20),
    ),
    "lines of one payload": (CHAT, [b'data: {"id":"c",\ndata: "choices":[{"delta":{"content":"Rain"}}]}\n\n', STOP,
                                    COUNTED, DONE], (100, 20)),
    "an item as a whole": (
        RESPONSES,
        [CREATED, PAUSE, event({"type": "response.output_item.done", "item": ITEM}), PAUSE,
         event({"type": "response.completed", "response": {"id": "r", "output": [ITEM]}})],
        (-1, 1),
    ),
    "empty errors": (
        CHAT,
        [*(event({**json.loads(each[6:]), "error": none}) for each, none in zip(GOOD, NO_ERRORS, strict=False)), DONE],
        (100, 20),
    ),
    "comments and pauses": (
        CHAT, [b": ping\n\n", PAUSE, ROLE, PAUSE, b": ping\n\n", RAIN, STOP, COUNTED, DONE], (100, 20)
    ),
    "without its end": (CHAT, [*GOOD[:4]], (100, 20)),
    "without its end, cut off": (CHAT, [*GOOD[:4], b"data: [DO"], (100, 20)),
    "without its end and usage": (CHAT, [*GOOD[:3]], (-1, 1)),
    "without its last empty line": (CHAT, [*GOOD[:4], b"data: [DONE]"], (100, 20)),
    "without its end on messages": (MESSAGES, [*message("end_turn", text="Rain")], (100, 20)),
    "pause_turn": (MESSAGES, [*message("pause_turn"), MESSAGE_STOP], (100, 0)),
    "stop_sequence in pieces": (
        MESSAGES, [piece for each in [*message("stop_sequence"), MESSAGE_STOP] for piece in (each, PAUSE)], (100, 0)
    ),
    "model_context_window_exceeded": (
        MESSAGES, [*message("model_context_window_exceeded"), MESSAGE_STOP], (100, 0)
    ),
    "end_turn": (MESSAGES, [*message("end_turn"), MESSAGE_STOP], (100, 0)),
    "refusal": (MESSAGES, [*message("refusal"), MESSAGE_STOP], (0, 0)),
    "content_filter": (CHAT, [ROLE, chunk(reason="content_filter"), DONE], (0, 0)),
    "incomplete": (
        RESPONSES,
        [CREATED, PAUSE, event({"type": "response.incomplete", "response": {
            "id": "r", "output": [], "incomplete_details": {"reason": "max_output_tokens"},
            "usage": {"input_tokens": 100, "output_tokens": 20}}})],
        (100, 20),
    ),
    "filtered": (
        RESPONSES,
        [CREATED, event({"type": "response.incomplete", "response": {
            "id": "r", "output": [], "incomplete_details": {"reason": "content_filter"},
            "usage": {"input_tokens": 100, "output_tokens": 0}}})],
        (0, 0),
    ),
    "two choices without their end": (CHAT, [*TWO, COUNTED], (100, 20)),
    "usage in a choice": (
        CHAT, [ROLE, RAIN, event({"choices": [{"delta": {}, "finish_reason": "stop", "u": 1, "usage": USAGE}]}), DONE],
        (100, 20),
    ),
    "usage in x_groq": (
        CHAT, [RAIN, event({"choices": [{"finish_reason": "stop"}], "x_groq": {"id": "r", "usage": USAGE}}), DONE],
        (100, 20),
    ),
    "usage after the end": (CHAT, [RAIN, STOP, DONE, PAUSE, COUNTED], (100, 20)),
    "usage right after the end": (CHAT, [RAIN, STOP, DONE + COUNTED], (100, 20)),
    "usage beside the end of messages": (
        MESSAGES,
        [*message("end_turn", text="Rain", input_tokens=0)[:2], event({"type": "message_delta", "delta": {}}),
         event({"type": "message_stop", "amazon-bedrock-invocationMetrics": {
             "inputTokenCount": 100, "outputTokenCount": 20}})],
        (100, 20),
    ),
    "usage in the delta of messages": (
        MESSAGES,
        [*message("end_turn", text="Rain")[:2],
         event({"type": "message_delta", "delta": {"stop_reason": "end_turn", "usage": {"output_tokens": 20}}}),
         MESSAGE_STOP],
        (100, 20),
    ),
    "usage beside the response": (
        RESPONSES,
        [CREATED, event({"type": "response.output_item.done", "item": ITEM}), event({
            "type": "response.completed", "response": {"id": "r"}, "usage": {"input_tokens": 100, "output_tokens": 20}
        })],
        (100, 20),
    ),
    "metadata that names a model": (
        RESPONSES,
        [event({"type": "response.created", "response": {
            "id": "r", "metadata": {"model": "claude-sonnet-5.5"}, "model": "gpt-6-luna", "output": []}}),
         event({"type": "response.output_item.done", "item": ITEM}),
         event({"type": "response.completed", "response": {
             "id": "r", "usage": {"input_tokens": 100, "output_tokens": 20}}})],
        (100, 20),
    ),
    "bytes that are no UTF-8": (
        CHAT,
        [chunk(content="X").replace(b"X", b"caf\xe9"), STOP, COUNTED, DONE],
        (100, 20),
    ),
    "created": (CHAT, [*GOOD], (100, 20)),
    "comments without end": (CHAT, [*GOOD[:4], *([b": ping\n\n", PAUSE] * 3)], (100, 20)),
    "usage that is no object": (
        CHAT, [*GOOD[:3], event({"id": "c", "choices": [], "usage": "100", "cost": 0.5}), DONE], (-1, 1)
    ),
}  # fmt: skip
# After content: an error event, no end, 502.
BROKEN: dict[str, tuple[SurfaceCase, list[bytes | None]]] = {
    "error as text": (CHAT, [ROLE, RAIN, event({"error": "lost"}), DONE]),
    "error in a choice": (CHAT, [ROLE, RAIN, event({"choices": [{"delta": {}, "error": {"code": 502}}]}), DONE]),
    "error in a delta": (
        CHAT, [ROLE, RAIN, PAUSE, event({"choices": [{"delta": {"error": {"code": 502}}}]}), PAUSE, DONE]
    ),
    "one of two choices": (CHAT, [*TWO[:4], PAUSE, TWO[4]]),
    "a reason beside a choice without one": (CHAT, [*TWO[:3], PAUSE, event({"choices": [
        {"index": 0, "delta": {}, "finish_reason": "stop"}, {"index": 1, "delta": {"content": "fall"}}]})]),
    "error as a reason": (CHAT, [ROLE, RAIN, chunk(content="", reason="error"), COUNTED, DONE]),
    "error beside choices": (CHAT, [ROLE, RAIN, event({"choices": None, "error_message": "lost"}), DONE]),
    "error by its name": (CHAT, [ROLE, RAIN, b'event: error\ndata: {"message":"x"}\n\n', STOP, DONE]),
    "error of one field": (CHAT, [ROLE, RAIN, event({"error_code": 336003, "error_msg": "x"}), STOP, DONE]),
    "error by its name on messages": (
        MESSAGES, [*message("end_turn", text="Rain"), PAUSE, b"event: error\ndata:\n\n", MESSAGE_STOP]
    ),
    "error in a completed response": (
        RESPONSES,
        [CREATED, event({"type": "response.output_item.done", "item": ITEM}), event({
            "type": "response.completed", "response": {"id": "r", "output": [ITEM], "error": {"code": "server_error"}}
        })],
    ),
    "broken JSON": (CHAT, [ROLE, RAIN, b'data: {"choices":[{"delta":{"content":"x"}}]\n\n', RAIN, STOP, DONE]),
    "broken JSON, by itself": (CHAT, [ROLE, RAIN, PAUSE, b"data: {broken}\n\n", PAUSE, RAIN, STOP, DONE]),
    "broken JSON on messages": (
        MESSAGES,
        [*message("end_turn", text="Rain")[:2], PAUSE, b'event: message_delta\ndata: {"type": \n\n', MESSAGE_STOP],
    ),
    "no reason to stop": (CHAT, [ROLE, RAIN, COUNTED]),
    "text after a reason": (CHAT, [ROLE, STOP, RAIN]),
    "a response without its end": (RESPONSES, [CREATED, event({"type": "response.output_item.done", "item": ITEM})]),
}  # fmt: skip
# Before content: the next model is asked, here until none is left.
FAILED: dict[str, tuple[SurfaceCase, list[bytes | None]]] = {
    "error in two pieces": (CHAT, [b'data: {"err', PAUSE, b'or":{"message":"overloaded","code":529}}\n\n', DONE]),
    "error after a ping": (MESSAGES, [event({"type": "ping"}), PAUSE, event({"type": "error", "error": {}})]),
    "error after a role": (CHAT, [ROLE, PAUSE, chunk(), PAUSE, event({"error": {"message": "x"}}), DONE]),
    "failed after its beginning": (
        RESPONSES, [CREATED, PAUSE, event({"type": "response.failed", "response": {"id": "r", "status": "failed"}})]
    ),
    "empty": (CHAT, [ROLE, PAUSE, STOP, PAUSE, DONE]),
    "empty on messages": (MESSAGES, [*message("end_turn", input_tokens=0), PAUSE, MESSAGE_STOP]),
    "nothing": (CHAT, []),
}  # fmt: skip
STREAMS = {name: case[1] for cases in (COMPLETE, BROKEN, FAILED) for name, case in cases.items()}
STATUSES = {"created": 201}
ENDS = {"chat": b"[DONE]", "messages": b'message_stop"', "responses": b'"response.'}


class Handler(QuietHandler):
    """Responds with the stream that the request's last message names."""

    def is_read(self) -> bool:
        """Return whether the gateway has taken everything that was sent, by the kernel's queue of its socket."""
        ends = [f":{port:04X}" for port in (self.client_address[1], self.connection.getsockname()[1])]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, own, other, _, queues, *_ = line.split()
            if own.endswith(ends[0]) and other.endswith(ends[1]):
                return queues.endswith(":00000000")
        return True  # the gateway has gone

    def do_POST(self) -> None:  # noqa: N802 - http.server asks for this name
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        name = body.partition("case=")[2].partition(".")[0]
        self.send_response(STATUSES.get(name, 200))
        self.send_header("content-type", "Text/Event-Stream; charset=UTF-8")
        self.send_header("content-encoding", "Identity")
        self.send_header("connection", "close")
        self.end_headers()
        for piece in STREAMS[name]:
            if piece is PAUSE:
                until(self.is_read, what="the gateway to read what was sent")  # a TCP edge
            else:
                self.wfile.write(piece)
                self.wfile.flush()


@pytest.fixture(scope="module")
def odd(installation: Installation) -> Iterator[Gateway]:
    server = LoopbackServer(Handler)
    gateway = installation.new_gateway(LITELLM_URL=server.url)
    yield gateway
    gateway.stop()
    server.close()


def streamed(odd: Gateway, case: SurfaceCase, name: str, **more: Any) -> httpx.Response:
    body = case.body(f"case={name}.", stream=True, **more)
    headers = {"Authorization": f"Bearer {a_key().plain}"}
    return httpx.post(odd.url + case.path, json=body, headers=headers, timeout=60)


def lines_of(stream: bytes) -> list[bytes]:
    return [line for line in stream.splitlines() if line]


@pytest.mark.parametrize("name", COMPLETE)
def test_a_complete_response_is_complete(running: Installation, odd: Gateway, name: str) -> None:
    case, stream, (prompt, completion) = COMPLETE[name]
    response = streamed(odd, case, name)
    row = running.row_of(response)
    assert (response.status_code, row.status, row.error_code) == (200, 200, "")
    assert row.model == case.model
    assert row.completion_tokens == completion
    assert row.prompt_tokens == prompt if prompt >= 0 else row.prompt_tokens > 0
    assert (row.cost_nanos == 0) == (prompt == 0)
    assert ENDS[case.name] in lines_of(response.content)[-1]
    assert b"error_message" not in response.content
    assert b"cost" not in response.content
    # Bytes pass as they came, but for usage that was not requested, the model's name and a missing end.
    if case is not RESPONSES:
        given = [line for line in lines_of(b"".join(filter(None, stream))) if b'"usage' not in line or case is MESSAGES]
        shown = lines_of(response.content)
        assert shown[: len(given) - 1] == given[:-1]


@pytest.mark.parametrize("name", BROKEN)
def test_a_failure_after_content_ends_the_stream_with_an_error(running: Installation, odd: Gateway, name: str) -> None:
    case, _ = BROKEN[name]
    response = streamed(odd, case, name)
    row = running.row_of(response)
    assert (response.status_code, row.status, row.error_code) == (200, 502, "upstream_stream_broken")
    assert b"upstream_stream_broken" in response.content
    assert b"Rain" in response.content
    assert ENDS["chat"] not in response.content
    assert ENDS["messages"] not in response.content
    assert b"response.completed" not in response.content
    for line in lines_of(response.content):
        assert not line.startswith(b"data:") or json.loads(line[5:])
    assert row.cost_nanos > 0


@pytest.mark.parametrize("name", FAILED)
def test_a_failure_before_content_is_free_and_tries_the_next_model(
    running: Installation, odd: Gateway, name: str
) -> None:
    case, _ = FAILED[name]
    response = streamed(odd, case, name, **({"model": "cfx-code"} if case is CHAT else {}))
    row = running.row_of(response)
    assert (response.status_code, row.status, row.error_code) == (503, 503, "upstream_unavailable")
    assert row.attempts >= (3 if case is CHAT else 1)
    assert (row.prompt_tokens, row.cost_nanos) == (0, 0)


def test_usage_is_shown_on_request_however_it_is_written(odd: Gateway) -> None:
    response = streamed(odd, CHAT, "white space", stream_options={"include_usage": True})
    assert json.loads(lines_of(response.content)[-2][5:])["usage"] == USAGE
