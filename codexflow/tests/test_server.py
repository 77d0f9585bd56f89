"""The server: one write a turn, nothing lost, nothing out of order; and the exchange without ASGI's messages."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from codexflow import server
from codexflow.lib.http import DIRECT_EXTENSION
from codexflow.server import Corked, Direct, Protocol
from routing.incoming import Incoming


class Wire:
    """A transport that remembers."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def close(self) -> None:
        self.sent.append(b"(closed)")

    def is_closing(self) -> bool:
        return False


def corked(wire: Any) -> Corked:
    return Corked(wire, asyncio.get_running_loop())


async def test_writes_of_one_turn_go_out_as_one() -> None:
    wire = Wire()
    transport = corked(wire)
    transport.write(b"head")
    transport.write(b"body")
    assert wire.sent == []
    await asyncio.sleep(0)
    transport.write(b"more")
    await asyncio.sleep(0)
    assert wire.sent == [b"headbody", b"more"]


async def test_closing_comes_after_what_was_written() -> None:
    wire = Wire()
    transport = corked(wire)
    transport.write(b"last words")
    transport.close()
    await asyncio.sleep(0)
    assert wire.sent == [b"last words", b"(closed)"]


async def test_everything_else_is_the_transports_own() -> None:
    assert corked(Wire()).is_closing() is False


Handler = Callable[[Direct, MutableMapping[str, Any], Any, Any], Awaitable[None]]


class House:
    """A server with one handler, and what happened in it."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.gone: list[str] = []
        self.began: list[str] = []
        self.bodies: list[bytes | None] = []
        # Handlers that wait do so for this.
        self.may_go_on = asyncio.Event()
        self.port = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        self.began.append(scope["path"])
        direct: Direct = scope["extensions"][DIRECT_EXTENSION]
        await self.handler(direct, scope, receive, send)


@asynccontextmanager
async def serving(house: House) -> AsyncIterator[House]:
    config = Config(house, lifespan="off", ws="none", log_config=None)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Protocol(config, state, {}), "127.0.0.1", 0)
    house.port = listener.sockets[0].getsockname()[1]
    try:
        yield house
    finally:
        house.may_go_on.set()
        listener.close()
        for connection in list(state.connections):
            connection.transport.abort()
        if state.tasks:
            await asyncio.wait(state.tasks)


@asynccontextmanager
async def caller(house: House) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.transport.abort()


def request(path: str = "/", body: bytes = b"", *more: str, version: str = "1.1", method: str = "POST") -> bytes:
    lines = (f"{method} {path} HTTP/{version}", "Host: x", f"Content-Length: {len(body)}", *more, "", "")
    return "\r\n".join(lines).encode() + body


async def response(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return head, await reader.readexactly(length)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the event looked for is in another task of this loop
            await asyncio.sleep(0.005)


@pytest.fixture
def echo() -> House:
    """Answers with the body, read directly where it is whole, otherwise as ASGI has it."""

    async def handler(direct: Direct, scope: MutableMapping[str, Any], receive: Any, _send: Any) -> None:
        body = direct.whole_body()
        house.bodies.append(body)
        if body is None:
            message = {"more_body": True}
            body = b""
            while message["more_body"]:
                message = await receive()
                if message["type"] == "http.disconnect":
                    house.gone.append(scope["path"])
                    return
                body += message["body"]
        direct.respond(200, [], scope["path"].encode() + b" " + body, closes=scope["path"] == "/close")

    house = House(handler)
    return house


@pytest.fixture
def waiting() -> House:
    """Watches, waits, and answers."""

    async def handler(direct: Direct, scope: MutableMapping[str, Any], _receive: Any, _send: Any) -> None:
        assert direct.whole_body() is not None
        direct.watch(lambda: house.gone.append(scope["path"]))
        await house.may_go_on.wait()
        direct.respond(200, [], scope["path"].encode())

    house = House(handler)
    return house


@pytest.fixture
def streaming() -> House:
    """Sends a head, one piece, waits, and then the last."""

    async def handler(direct: Direct, scope: MutableMapping[str, Any], _receive: Any, _send: Any) -> None:
        direct.watch(lambda: house.gone.append(scope["path"]))
        direct.start(200, [(b"x-a", b"b")])
        await direct.send(b"one", is_last=False)
        await house.may_go_on.wait()
        await direct.send(b"two", is_last=True)

    house = House(handler)
    return house


async def test_a_body_that_came_whole_is_there_at_once_whatever_its_size(echo: House) -> None:
    async with serving(echo), caller(echo) as (reader, writer):
        for body in (b"", b"small", b"x" * 70_000):
            writer.write(request("/", body))
            head, found = await response(reader)
            assert (head.startswith(b"HTTP/1.1 200 OK\r\n"), found) == (True, b"/ " + body)
        assert echo.bodies[:2] == [b"", b"small"]


async def test_a_body_in_pieces_is_received_as_asgi_has_it(echo: House) -> None:
    async with serving(echo), caller(echo) as (reader, writer):
        whole = request("/", b"x" * 300_000)
        writer.write(whole[:200])
        await until(lambda: echo.bodies == [None])
        writer.write(whole[200:])
        assert (await response(reader))[1] == b"/ " + b"x" * 300_000
        writer.write(request("/next", b"y"))
        assert (await response(reader))[1] == b"/next y"


async def test_who_waits_for_a_go_ahead_gets_it(echo: House) -> None:
    async with serving(echo), caller(echo) as (reader, writer):
        whole = request("/", b"body", "Expect: 100-continue")
        writer.write(whole[:-4])
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"body")
        assert (await response(reader))[1] == b"/ body"


async def test_who_is_refused_before_his_body_is_not_waited_for(waiting: House) -> None:
    async def refuse(direct: Direct, *_rest: Any) -> None:
        direct.respond(401, [], b"no")

    house = House(refuse)
    async with serving(house), caller(house) as (reader, writer):
        writer.write(request("/", b"body", "Expect: 100-continue")[:-4])
        head, _ = await response(reader)
        assert b"connection: close" in head
        assert await reader.read() == b""


async def test_requests_sent_at_once_are_answered_in_order(echo: House) -> None:
    async with serving(echo), caller(echo) as (reader, writer):
        writer.write(b"".join(request(f"/{n}", b"b") for n in range(20)))
        assert [(await response(reader))[1] for _ in range(20)] == [f"/{n} b".encode() for n in range(20)]


async def test_after_an_answer_that_closes_nothing_is_served(echo: House) -> None:
    async with serving(echo), caller(echo) as (reader, writer):
        writer.write(request("/close") + request("/never"))
        head, found = await response(reader)
        assert (b"connection: close" in head, found) == (True, b"/close ")
        assert await reader.read() == b""
        assert echo.began == ["/close"]


async def test_a_caller_who_leaves_is_noticed_and_the_rest_never_begins(waiting: House) -> None:
    async with serving(waiting):
        async with caller(waiting) as (_, writer):
            writer.write(request("/first") + request("/second"))
            await until(lambda: waiting.began)
        await until(lambda: waiting.gone)
        waiting.may_go_on.set()
        await asyncio.sleep(0)
        assert (waiting.gone, waiting.began) == (["/first"], ["/first"])


async def test_a_caller_who_leaves_during_a_later_exchange_is_noticed_there(waiting: House) -> None:
    async with serving(waiting):
        async with caller(waiting) as (reader, writer):
            writer.write(request("/first") + request("/second"))
            await until(lambda: waiting.began)
            waiting.may_go_on.set()
            await response(reader)
            await response(reader)
            waiting.may_go_on.clear()
            writer.write(request("/third"))
            await until(lambda: len(waiting.began) == 3)
        await until(lambda: waiting.gone)
        assert waiting.gone == ["/third"]


async def test_leaving_after_the_answer_is_no_news(waiting: House) -> None:
    async with serving(waiting):
        waiting.may_go_on.set()
        async with caller(waiting) as (reader, writer):
            writer.write(request("/"))
            await response(reader)
        async with caller(waiting) as (reader, writer):
            writer.write(request("/again"))
            await response(reader)
        assert waiting.gone == []


async def test_who_has_left_before_the_watch_is_told_at_once() -> None:
    async def handler(direct: Direct, _scope: Any, _receive: Any, _send: Any) -> None:
        await house.may_go_on.wait()
        assert direct.whole_body() is None
        direct.watch(lambda: house.gone.append("at once"))
        direct.respond(200, [], b"nobody hears")
        direct.start(200, [])
        await direct.send(b"nobody", is_last=True)

    house = House(handler)
    async with serving(house):
        async with caller(house) as (_, writer):
            writer.write(request("/"))
            await until(lambda: house.began)
        await asyncio.sleep(0.05)
        house.may_go_on.set()
        await until(lambda: house.gone)
        assert house.gone == ["at once"]


async def test_a_stream_goes_out_in_chunks_and_the_connection_serves_on(streaming: House) -> None:
    async with serving(streaming), caller(streaming) as (reader, writer):
        for _ in range(2):
            streaming.may_go_on.clear()
            writer.write(request("/"))
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"x-a: b\r\ntransfer-encoding: chunked\r\n" in head
            assert await reader.readexactly(8) == b"3\r\none\r\n"
            streaming.may_go_on.set()
            assert await reader.readexactly(13) == b"3\r\ntwo\r\n0\r\n\r\n"
        assert streaming.gone == []


async def test_an_older_http_gets_a_stream_that_ends_with_the_connection(streaming: House) -> None:
    streaming.may_go_on.set()
    async with serving(streaming), caller(streaming) as (reader, writer):
        writer.write(request("/", b"", "Connection: keep-alive", version="1.0"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"chunked" not in head
        assert b"connection: close" in head
        assert await reader.read() == b"onetwo"


async def test_an_older_http_is_answered_once_and_closed(echo: House) -> None:
    async with serving(echo), caller(echo) as (reader, writer):
        writer.write(request("/", b"b", "Connection: keep-alive", version="1.0"))
        head, found = await response(reader)
        assert (b"connection: close" in head, found) == (True, b"/ b")
        assert await reader.read() == b""


async def test_head_may_go_the_ways_of_asgi() -> None:
    async def handler(_direct: Direct, _scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"body"})

    house = House(handler)
    async with serving(house), caller(house) as (reader, writer):
        writer.write(request("/", method="HEAD") + request("/", method="HEAD"))
        for _ in range(2):
            assert b"content-length: 4\r\n" in await reader.readuntil(b"\r\n\r\n")


async def test_garbage_after_a_request_is_no_answer_to_it(streaming: House) -> None:
    async with serving(streaming), caller(streaming) as (reader, writer):
        writer.write(request("/"))
        await until(lambda: streaming.began)
        writer.write(b"\0garbage\r\n\r\n")
        seen = await reader.read()
        assert seen.count(b"HTTP/1.1") == 1
        assert not seen.endswith(b"0\r\n\r\n")
        await until(lambda: streaming.gone)


async def test_garbage_alone_is_refused(streaming: House) -> None:
    async with serving(streaming), caller(streaming) as (reader, writer):
        writer.write(b"\0garbage\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"\r\nx-cfx-request-id: " in head
        assert json.loads(body)["error"]["code"] == "invalid_request"
        assert streaming.began == []


async def test_an_upgrade_ends_the_connection_after_its_answer(echo: House) -> None:
    """The parser takes what follows the head, be it a body, for the other protocol: it is nobody's."""
    async with serving(echo), caller(echo) as (reader, writer):
        writer.write(request("/", b"b", "Connection: Upgrade", "Upgrade: websocket") + request("/never"))
        head, found = await response(reader)
        assert (b"connection: close" in head, found) == (True, b"/ ")
        assert await reader.read() == b""


async def test_who_takes_no_answers_is_not_listened_to() -> None:
    async def handler(direct: Direct, _scope: Any, _receive: Any, _send: Any) -> None:
        direct.respond(200, [], bytes(20_000))

    house = House(handler)
    async with serving(house), caller(house) as (reader, writer):
        number = 3_000
        writer.write(request("/") * number)
        previous = -1
        while previous != len(house.began):
            previous = len(house.began)
            await asyncio.sleep(0.2)
        # What fits into the buffers of both systems, and no more.
        assert previous < number / 2
        for _ in range(number):
            await response(reader)
        assert len(house.began) == number


async def test_who_takes_nothing_of_a_stream_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(direct: Direct, _scope: Any, _receive: Any, _send: Any) -> None:
        direct.watch(lambda: house.gone.append("gone"))
        direct.start(200, [])
        while not house.gone:
            await direct.send(bytes(100_000), is_last=False)

    monkeypatch.setattr(server, "TAKES_NOTHING_S", 0.05)
    house = House(handler)
    async with serving(house), caller(house) as (_, writer):
        writer.write(request("/"))
        await until(lambda: house.gone)


async def test_who_takes_nothing_of_an_answer_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(direct: Direct, _scope: Any, _receive: Any, _send: Any) -> None:
        direct.respond(200, [], bytes(50_000_000))

    monkeypatch.setattr(server, "TAKES_NOTHING_S", 0.05)
    house = House(handler)
    async with serving(house), caller(house) as (reader, writer):
        writer.write(request("/") * 2)
        await until(lambda: house.began)
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.2)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await reader.readexactly(50_000_000)
        assert house.began == ["/"]


async def test_an_exchange_leaves_nothing_to_the_garbage_collector() -> None:
    """Rings of objects would wait for it, and looking for them was a tenth of all work."""

    async def answer_one(_direct: Direct, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        incoming = Incoming(scope, receive, send)
        incoming.check_headers()
        await incoming.read(limit_bytes=1_000, timeout_s=5)
        incoming.watch(lambda: None)
        await incoming.respond(200, [], b"done")

    async with serving(House(answer_one)) as house, caller(house) as (reader, writer):
        gc.collect()
        gc.disable()
        known = {id(each) for each in gc.get_objects()}
        try:
            for _ in range(50):
                writer.write(request(body=b"{}"))
                await response(reader)
            made = [each for each in gc.get_objects() if id(each) not in known]
            left = [each for each in made if isinstance(each, Incoming | Direct | RequestResponseCycle)]
        finally:
            gc.enable()
    assert len(left) <= 4  # the last exchange is still known to its connection
