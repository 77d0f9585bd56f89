"""Relay of a stream: what a caller gets, and when, whatever the server's interface."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

from typing_extensions import override

from codexflow.lib.ids import random_id
from routing.call import ShutdownSignal
from routing.meter import Meter
from routing.relay import StreamRelay
from routing.surfaces.opening import Opening
from routing.surfaces.responses import Completions, ResponseFormat, Responses
from routing.surfaces.sse import DONE
from routing.upstream.attempts import Attempt
from routing.upstream.open import OpenedResponse

CHUNK = b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"Rain"}}]}\n\n'


class _Response:
    """A caller behind a server without a direct interface. Reads when `may_read` is set."""

    def __init__(self) -> None:
        self.is_gone = False
        self.heads: list[list[tuple[bytes, bytes]]] = []
        self.pieces: list[bytes] = []
        self.has_got = asyncio.Event()
        self.may_read = asyncio.Event()
        self.may_read.set()

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        await asyncio.sleep(0)
        self.heads.append(headers)

    async def send(self, chunk: bytes, *, is_last: bool = False) -> None:
        assert self.heads
        self.pieces.append(chunk)
        self.has_got.set()
        await self.may_read.wait()

    async def respond(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        raise AssertionError

    def send_at_once(self, chunk: bytes) -> bool:
        return False


class _Call:
    def __init__(self) -> None:
        self.request_id = random_id()
        self.intent = SimpleNamespace(model="first", started_ms=1_000)
        self.meter = Meter()
        self.shutdown = ShutdownSignal()
        self.statuses: list[int] = []

    async def finish(self, *, status: int, **_facts: Any) -> None:
        self.statuses.append(status)


def a_relay(response: _Response, call: _Call, response_format: ResponseFormat, *, ping_s: float) -> StreamRelay:
    return StreamRelay(
        response,
        call,  # type: ignore[arg-type] # a stand-in
        SimpleNamespace(model="first", left_s=5.0, abort=lambda: None, release=lambda: None),  # type: ignore[arg-type] # a stand-in
        response_format=response_format,
        wants_usage=False,
        ping_s=ping_s,
        headers=lambda model: [(b"x-cfx-model", model.encode())],
    )


class _Connection:
    """A connection whose stream has ended. `read_to_end` would read what belongs to the next call."""

    consumed_s = 0.0

    async def chunk_past(self, *_facts: Any, **_limits: Any) -> None:
        return None

    async def read_to_end(self, _timeout_s: float) -> None:
        raise AssertionError


def opened(response_format: ResponseFormat, stream: bytes) -> OpenedResponse:
    opening = Opening(response_format)
    opening.feed(stream)
    assert opening.is_response
    return OpenedResponse(Attempt(2, "second", is_retry=False), opening.identity, opening=opening)


async def test_a_ping_begins_the_response_and_the_stream_goes_on_from_there() -> None:
    response, call, response_format = _Response(), _Call(), Completions()
    relay = a_relay(response, call, response_format, ping_s=0.01)
    await response.has_got.wait()
    await relay.send(opened(response_format, CHUNK + DONE), idle_s=5)
    relay.close()
    assert [dict(head)[b"x-cfx-model"] for head in response.heads] == [b"first"]
    *pings, content, end = response.pieces
    assert pings
    for ping in pings:
        chunk = json.loads(ping[5:])
        assert (chunk["model"], chunk["choices"]) == ("first", [{"index": 0, "delta": {}, "finish_reason": None}])
    assert (content, end, call.statuses) == (CHUNK, DONE, [200])
    assert call.meter.delivered_tokens() == 1


async def test_a_response_keeps_the_id_of_its_first_ping() -> None:
    response, call, response_format = _Response(), _Call(), Responses()
    relay = a_relay(response, call, response_format, ping_s=0.01)
    await response.has_got.wait()
    item = {"type": "message", "content": [{"type": "output_text", "text": "Rain"}]}
    events = [
        {"type": "response.created", "response": {"id": "r", "model": "x", "output": []}},
        {"type": "response.output_item.done", "item": item},
        {"type": "response.completed", "response": {"id": "r", "model": "x", "output": [item]}},
    ]
    stream = b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in events)
    await relay.send(opened(response_format, stream), idle_s=5)
    relay.close()
    lines = [line for line in b"".join(response.pieces).splitlines() if line.startswith(b"data:")]
    told = [json.loads(line[5:]) for line in lines]
    assert [each["type"] for each in told[:2]] == ["response.created", "response.in_progress"]
    assert {each["response"]["id"] for each in told if "response" in each} == {f"resp_{call.request_id.hex}"}


async def test_a_caller_who_reads_slowly_is_not_pinged() -> None:
    response, call, response_format = _Response(), _Call(), Completions()
    relay = a_relay(response, call, response_format, ping_s=0)
    response.may_read.clear()
    sending = asyncio.create_task(relay.send(opened(response_format, CHUNK + DONE), idle_s=5))
    await response.has_got.wait()
    for _ in range(20):  # an interval each
        await asyncio.sleep(0)
    response.may_read.set()
    await sending
    relay.close()
    assert response.pieces == [CHUNK, DONE]


async def test_a_stream_that_is_not_silent_has_no_ping() -> None:
    response, call, response_format = _Response(), _Call(), Completions()
    relay = a_relay(response, call, response_format, ping_s=60)
    await relay.send(opened(response_format, CHUNK + DONE), idle_s=5)
    relay.close()
    assert [dict(head)[b"x-cfx-model"] for head in response.heads] == [b"second"]
    assert response.pieces == [CHUNK, DONE]


async def test_a_stream_without_its_end_leaves_its_connection_to_the_next_call() -> None:
    response, call, response_format = _Response(), _Call(), Completions()
    relay = a_relay(response, call, response_format, ping_s=60)
    stop = CHUNK.replace(b'"delta":{"content":"Rain"}', b'"delta":{},"finish_reason":"stop"')
    found = opened(response_format, CHUNK + stop)
    found.connection = _Connection()  # type: ignore[assignment] # a stand-in
    await relay.send(found, idle_s=5)
    relay.close()
    assert (response.pieces, call.statuses) == ([CHUNK + stop, DONE], [200])
    assert found.connection is None


class _LateConnection(_Connection):
    """A connection that has more after the last event."""

    def __init__(self, *late: bytes, is_endless: bool = False) -> None:
        self._late = [*late]
        self._is_endless = is_endless
        self.has_been_read = False

    async def chunk(self, _timeout_s: float) -> bytes | None:
        if self._is_endless:
            return b": ping\n\n" * 100
        return self._late.pop(0) if self._late else None

    @override
    async def read_to_end(self, _timeout_s: float) -> None:
        self.has_been_read = True


async def with_late(connection: _LateConnection, *told: bytes) -> tuple[_Response, _Call]:
    response, call, response_format = _Response(), _Call(), Completions()
    relay = a_relay(response, call, response_format, ping_s=60)
    found = opened(response_format, b"".join([CHUNK, *told, DONE]))
    found.connection = connection  # type: ignore[assignment] # a stand-in
    await relay.send(found, idle_s=5)
    relay.close()
    assert b"".join(response.pieces) == CHUNK + DONE
    assert call.statuses == [200]
    return response, call


def counts(completion: int) -> bytes:
    usage = {"prompt_tokens": 100, "completion_tokens": completion}
    return b"data: %b\n\n" % json.dumps({"choices": [], "usage": usage}).encode()


async def test_usage_that_comes_after_the_end_counts_wherever_it_is_cut() -> None:
    for late in ([counts(20)], [counts(20)[:30], counts(20)[30:]], [counts(20)[:-2]], [b": ping\n\n", counts(20)]):
        _, call = await with_late(_LateConnection(*late))
        usage, _rank = call.meter.usage(7)
        assert (usage.prompt_tokens, usage.completion_tokens) == (100, 20)


async def test_nothing_is_awaited_after_the_end_once_usage_is_told() -> None:
    connection = _LateConnection(counts(1))
    _, call = await with_late(connection, counts(20))
    assert call.meter.usage(7)[0].completion_tokens == 20
    assert connection.has_been_read


async def test_what_goes_on_without_end_after_the_last_event_is_not_waited_for() -> None:
    _, call = await with_late(_LateConnection(is_endless=True))
    assert call.meter.usage(7)[0].completion_tokens == 1
