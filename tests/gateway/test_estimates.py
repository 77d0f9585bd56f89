"""Charges of calls whose provider tells no usage: by the words that were delivered, whatever is around them."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from keys.tests.factories import a_key
from logs.models import RequestLog
from tests.gateway.test_surfaces import SurfaceCase
from tests.support.installation import Gateway, Installation
from tests.support.loopback import LoopbackServer, QuietHandler

CHAT = SurfaceCase("chat", "/v1/chat/completions", "gpt-6-luna")
RESPONSES = SurfaceCase("responses", "/v1/responses", "gpt-6-luna")
MESSAGES = SurfaceCase("messages", "/v1/messages", "claude-haiku-5.5")
WORDS = "word " * 200
USAGE = {"input_tokens": 100, "output_tokens": 3_000, "total_tokens": 3_100}


def event(payload: Any) -> bytes:
    name = f"event: {payload['type']}\n" if "type" in payload else ""
    return f"{name}data: {json.dumps(payload)}\n\n".encode()


def chunk(text: str) -> bytes:
    return event({"id": "c", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


def delta(text: str) -> bytes:
    return event({"type": "response.output_text.delta", "item_id": "m1", "delta": text})


def block(text: str) -> bytes:
    return event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})


PART = {"type": "output_text", "text": WORDS}
ITEM = {"type": "message", "id": "m1", "content": [PART]}
CREATED = event({"type": "response.created", "response": {"id": "r", "model": "m", "output": []}})
AGAIN = [
    event({"type": "response.output_text.done", "item_id": "m1", "text": WORDS}),
    event({"type": "response.content_part.done", "item_id": "m1", "part": PART}),
    event({"type": "response.output_item.done", "output_index": 0, "item": ITEM}),
]
FAILED = event({"type": "response.failed", "response": {"id": "r", "status": "failed", "output": [], "usage": USAGE}})
START = event({"type": "message_start", "message": {"id": "m", "content": [], "usage": {"input_tokens": 9}}})
DONE = b"data: [DONE]\n\n"

# surface, stream, and the output that is charged; prompt 0: nothing is.
STREAMS: dict[str, tuple[SurfaceCase, list[bytes], int]] = {
    "many words an event": (CHAT, [chunk(WORDS)] * 4 + [DONE], 1_000),
    "all in one event": (CHAT, [chunk(WORDS * 4), DONE], 1_000),
    "one word and comments": (CHAT, [chunk("Rain"), *[b": still working\n\n"] * 200, DONE], 1),
    "a text said again, then lost": (RESPONSES, [CREATED, *[delta("word ")] * 200, *AGAIN], 250),
    "a complete text said again": (
        RESPONSES,
        [CREATED, delta(WORDS), *AGAIN, event({"type": "response.completed", "response": {"output": [ITEM]}})],
        250,
    ),
    "one word and pings": (
        MESSAGES, [START, block("Rain"), *[event({"type": "ping"})] * 200, event({"type": "message_stop"})], 1
    ),
    "failed with usage": (RESPONSES, [CREATED, delta("Rain"), FAILED], 3_000),
    "error with usage": (
        CHAT,
        [chunk("Rain"), event({"error": {"message": "x"}, "usage": {"prompt_tokens": 9, "completion_tokens": 7}})],
        7,
    ),
    "failed before any output": (RESPONSES, [CREATED, event({"type": "response.in_progress"}), FAILED], 0),
}  # fmt: skip
WHOLE: dict[str, tuple[SurfaceCase, dict[str, Any], int]] = {
    "chat": (CHAT, {"choices": [{"message": {"content": "Rain again", "reasoning": "Hm"}}]}, 3),
    "responses": (RESPONSES, {"output": [{**ITEM, "content": [{"type": "output_text", "text": "Rain again"}]}]}, 3),
    "messages": (MESSAGES, {"content": [{"type": "text", "text": "Rain again", "citations": None}]}, 3),
    "refused": (
        MESSAGES, {"content": [], "stop_reason": "refusal", "usage": {"input_tokens": 9, "output_tokens": 0}}, 0
    ),
    "failed": (RESPONSES, {"status": "failed", "output": [], "usage": USAGE}, 0),
}  # fmt: skip


class Handler(QuietHandler):
    """Responds with the case that the path and the model's last message name."""

    def do_POST(self) -> None:  # noqa: N802 - http.server asks for this name
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        name = body.partition("case=")[2].partition(".")[0]
        is_stream = name in STREAMS
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if is_stream else "application/json")
        self.send_header("connection", "close")
        self.end_headers()
        if not is_stream:
            self.wfile.write(json.dumps(WHOLE[name][1]).encode())
        for piece in STREAMS[name][1] if is_stream else ():
            self.wfile.write(piece)
            self.wfile.flush()


@pytest.fixture(scope="module")
def odd(installation: Installation) -> Iterator[Gateway]:
    server = LoopbackServer(Handler)
    gateway = installation.new_gateway(LITELLM_URL=server.url)
    yield gateway
    gateway.stop()
    server.close()


@pytest.fixture
def key(running: Installation) -> str:
    return a_key().plain


def charged(running: Installation, odd: Gateway, key: str, case: SurfaceCase, name: str, **more: Any) -> RequestLog:
    body = case.body(f"case={name}.", max_tokens=4_000, **more)
    if case is RESPONSES:
        body["max_output_tokens"] = body.pop("max_tokens")
    response = httpx.post(odd.url + case.path, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=60)
    return running.row_of(response)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_charged_by_its_words(running: Installation, odd: Gateway, key: str, name: str) -> None:
    case, _, output = STREAMS[name]
    row = charged(running, odd, key, case, name, stream=True)
    assert (row.completion_tokens, row.is_estimated) == (output, "usage" not in name and output > 0)
    assert (row.cost_nanos > 0, row.prompt_tokens > 0) == (output > 0, output > 0)


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_response_is_charged_by_its_words(running: Installation, odd: Gateway, key: str, name: str) -> None:
    case, _, output = WHOLE[name]
    row = charged(running, odd, key, case, name)
    assert (row.status, row.completion_tokens, row.is_estimated) == (200, output, output > 0)
    assert (row.cost_nanos > 0, row.prompt_tokens > 0) == (output > 0, output > 0)


def test_a_picture_that_a_tool_gave_back_is_held_like_one_in_a_message(
    running: Installation, odd: Gateway, key: str
) -> None:
    part = {"type": "input_image", "image_url": "data:image/png;base64," + base64.b64encode(bytes(450_000)).decode()}
    rows = [
        charged(running, odd, key, RESPONSES, "responses", input=[{"role": "user", "content": "case=responses."}, item])
        for item in (
            {"role": "user", "content": [part]},
            {"type": "function_call_output", "call_id": "c", "output": [part]},
            {"type": "computer_call_output", "call_id": "c", "output": {**part, "type": "computer_screenshot"}},
        )
    ]
    assert max(row.held_nanos for row in rows) < 1.05 * min(row.held_nanos for row in rows)
    assert all(1_000 <= row.prompt_tokens < 1_100 for row in rows)
