"""The HTTP protocol: combined writes, pipelining, disconnects, and the exchange without ASGI messages."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import Mock

import pytest
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from codexflow import server
from codexflow.lib.http import DIRECT_EXTENSION
from codexflow.server import CorkedTransport, Direct, Protocol
from routing.incoming import Incoming


class RecordingTransport:
    """Transport that records what is written."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def close(self) -> None:
        self.sent.append(b"(closed)")

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


def corked(raw: Any) -> CorkedTransport:
    return CorkedTransport(raw, asyncio.get_running_loop())


async def test_writes_of_one_loop_iteration_are_sent_as_one() -> None:
    raw = RecordingTransport()
    transport = corked(raw)
    transport.write(b"head")
    transport.write(b"body")
    assert raw.sent == []
    await asyncio.sleep(0)
    transport.write(b"more")
    await asyncio.sleep(0)
    assert raw.sent == [b"headbody", b"more"]


async def test_closing_flushes_pending_writes_first() -> None:
    raw = RecordingTransport()
    transport = corked(raw)
    transport.write(b"last bytes")
    transport.close()
    await asyncio.sleep(0)
    assert raw.sent == [b"last bytes", b"(closed)"]


async def test_other_attributes_are_the_transports() -> None:
    assert corked(RecordingTransport()).is_closing() is False


Handler = Callable[[Direct, MutableMapping[str, Any], Any, Any], Awaitable[None]]


class RecordingApp:
    """ASGI application with one handler; records requests, bodies and disconnects."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.disconnects: list[str] = []
        self.started: list[str] = []
        self.bodies: list[bytes | None] = []
        # Handlers that wait do so for this.
        self.may_continue = asyncio.Event()
        self.port = 0
        # Open connections of the server that runs this application.
        self.connections: set[Any] = set()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        self.started.append(scope["path"])
        direct: Direct = scope["extensions"][DIRECT_EXTENSION]
        await self.handler(direct, scope, receive, send)


@asynccontextmanager
async def serving(app: RecordingApp) -> AsyncIterator[RecordingApp]:
    config = Config(app, lifespan="off", ws="none", log_config=None)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Protocol(config, state, {}), "127.0.0.1", 0)
    app.port = listener.sockets[0].getsockname()[1]
    app.connections = state.connections
    try:
        yield app
    finally:
        app.may_continue.set()
        listener.close()
        for connection in list(state.connections):
            connection.transport.abort()
        if state.tasks:
            await asyncio.wait(state.tasks)


@asynccontextmanager
async def connected(app: RecordingApp) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.transport.abort()


def request(path: str = "/", body: bytes = b"", *more: str, version: str = "1.1", method: str = "POST") -> bytes:
    lines = (f"{method} {path} HTTP/{version}", "Host: x", f"Content-Length: {len(body)}", *more, "", "")
    return "\r\n".join(lines).encode() + body


async def read_response(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of the next response."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return head, await reader.readexactly(length)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition is set by another task of this loop
            await asyncio.sleep(0.005)


@pytest.fixture
def echo() -> RecordingApp:
    """Responds with the body, read directly if it is complete, otherwise by ASGI messages."""

    async def handler(direct: Direct, scope: MutableMapping[str, Any], receive: Any, _send: Any) -> None:
        body = direct.whole_body()
        app.bodies.append(body)
        if body is None:
            message = {"more_body": True}
            body = b""
            while message["more_body"]:
                message = await receive()
                if message["type"] == "http.disconnect":
                    app.disconnects.append(scope["path"])
                    return
                body += message["body"]
        direct.respond(200, [], scope["path"].encode() + b" " + body, closes=scope["path"] == "/close")

    app = RecordingApp(handler)
    return app


@pytest.fixture
def waiting() -> RecordingApp:
    """Watches for a disconnect, waits, and responds."""

    async def handler(direct: Direct, scope: MutableMapping[str, Any], _receive: Any, _send: Any) -> None:
        assert direct.whole_body() is not None
        direct.watch(lambda: app.disconnects.append(scope["path"]))
        await app.may_continue.wait()
        direct.respond(200, [], scope["path"].encode())

    app = RecordingApp(handler)
    return app


@pytest.fixture
def streaming() -> RecordingApp:
    """Sends a head and a chunk, waits, and sends the last chunk."""

    async def handler(direct: Direct, scope: MutableMapping[str, Any], _receive: Any, _send: Any) -> None:
        direct.watch(lambda: app.disconnects.append(scope["path"]))
        direct.start(200, [(b"x-a", b"b")])
        await direct.send(b"one", is_last=False)
        await app.may_continue.wait()
        await direct.send(b"two", is_last=True)

    app = RecordingApp(handler)
    return app


async def test_a_complete_body_is_available_at_once_whatever_its_size(echo: RecordingApp) -> None:
    async with serving(echo), connected(echo) as (reader, writer):
        for body in (b"", b"small", b"x" * 70_000):
            writer.write(request("/", body))
            head, found = await read_response(reader)
            assert (head.startswith(b"HTTP/1.1 200 OK\r\n"), found) == (True, b"/ " + body)
        assert echo.bodies[:2] == [b"", b"small"]


async def test_an_incomplete_body_is_received_by_asgi_messages(echo: RecordingApp) -> None:
    async with serving(echo), connected(echo) as (reader, writer):
        whole = request("/", b"x" * 300_000)
        writer.write(whole[:200])
        await until(lambda: echo.bodies == [None])
        writer.write(whole[200:])
        assert (await read_response(reader))[1] == b"/ " + b"x" * 300_000
        writer.write(request("/next", b"y"))
        assert (await read_response(reader))[1] == b"/next y"


async def test_expect_100_continue_is_honoured(echo: RecordingApp) -> None:
    async with serving(echo), connected(echo) as (reader, writer):
        whole = request("/", b"body", "Expect: 100-continue")
        writer.write(whole[:-4])
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"body")
        assert (await read_response(reader))[1] == b"/ body"


async def test_a_refusal_before_the_body_closes_the_connection(waiting: RecordingApp) -> None:
    async def refuse(direct: Direct, *_rest: Any) -> None:
        direct.respond(401, [], b"no")

    app = RecordingApp(refuse)
    async with serving(app), connected(app) as (reader, writer):
        writer.write(request("/", b"body", "Expect: 100-continue")[:-4])
        head, _ = await read_response(reader)
        assert b"connection: close" in head
        assert await reader.read() == b""


async def test_pipelined_requests_are_served_in_order(echo: RecordingApp) -> None:
    async with serving(echo), connected(echo) as (reader, writer):
        writer.write(b"".join(request(f"/{n}", b"b") for n in range(20)))
        assert [(await read_response(reader))[1] for _ in range(20)] == [f"/{n} b".encode() for n in range(20)]


async def test_nothing_is_served_after_a_closing_response(echo: RecordingApp) -> None:
    async with serving(echo), connected(echo) as (reader, writer):
        writer.write(request("/close") + request("/never"))
        head, found = await read_response(reader)
        assert (b"connection: close" in head, found) == (True, b"/close ")
        assert await reader.read() == b""
        assert echo.started == ["/close"]


async def test_a_disconnect_is_reported_and_pipelined_requests_never_start(waiting: RecordingApp) -> None:
    async with serving(waiting):
        async with connected(waiting) as (_, writer):
            writer.write(request("/first") + request("/second"))
            await until(lambda: waiting.started)
        await until(lambda: waiting.disconnects)
        waiting.may_continue.set()
        await asyncio.sleep(0)
        assert (waiting.disconnects, waiting.started) == (["/first"], ["/first"])


async def test_a_disconnect_is_reported_to_the_exchange_in_progress(waiting: RecordingApp) -> None:
    async with serving(waiting):
        async with connected(waiting) as (reader, writer):
            writer.write(request("/first") + request("/second"))
            await until(lambda: waiting.started)
            waiting.may_continue.set()
            await read_response(reader)
            await read_response(reader)
            waiting.may_continue.clear()
            writer.write(request("/third"))
            await until(lambda: len(waiting.started) == 3)
        await until(lambda: waiting.disconnects)
        assert waiting.disconnects == ["/third"]


async def test_a_disconnect_after_the_response_is_not_reported(waiting: RecordingApp) -> None:
    async with serving(waiting):
        waiting.may_continue.set()
        async with connected(waiting) as (reader, writer):
            writer.write(request("/"))
            await read_response(reader)
        async with connected(waiting) as (reader, writer):
            writer.write(request("/again"))
            await read_response(reader)
        assert waiting.disconnects == []


async def test_a_disconnect_before_the_watch_is_reported_at_once() -> None:
    async def handler(direct: Direct, _scope: Any, _receive: Any, _send: Any) -> None:
        await app.may_continue.wait()
        assert direct.whole_body() is None
        direct.watch(lambda: app.disconnects.append("at once"))
        direct.respond(200, [], b"unread")
        direct.start(200, [])
        await direct.send(b"unread", is_last=True)

    app = RecordingApp(handler)
    async with serving(app):
        async with connected(app) as (_, writer):
            writer.write(request("/"))
            await until(lambda: app.started)
        await until(lambda: not app.connections)
        app.may_continue.set()
        await until(lambda: app.disconnects)
        assert app.disconnects == ["at once"]


async def test_a_stream_is_chunked_and_the_connection_is_kept_alive(streaming: RecordingApp) -> None:
    async with serving(streaming), connected(streaming) as (reader, writer):
        for _ in range(2):
            streaming.may_continue.clear()
            writer.write(request("/"))
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"x-a: b\r\ntransfer-encoding: chunked\r\n" in head
            assert await reader.readexactly(8) == b"3\r\none\r\n"
            streaming.may_continue.set()
            assert await reader.readexactly(13) == b"3\r\ntwo\r\n0\r\n\r\n"
        assert streaming.disconnects == []


async def test_an_http_1_0_stream_ends_with_the_connection(streaming: RecordingApp) -> None:
    streaming.may_continue.set()
    async with serving(streaming), connected(streaming) as (reader, writer):
        writer.write(request("/", b"", "Connection: keep-alive", version="1.0"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"chunked" not in head
        assert b"connection: close" in head
        assert await reader.read() == b"onetwo"


async def test_an_http_1_0_connection_is_closed_after_its_response(echo: RecordingApp) -> None:
    async with serving(echo), connected(echo) as (reader, writer):
        writer.write(request("/", b"b", "Connection: keep-alive", version="1.0"))
        head, found = await read_response(reader)
        assert (b"connection: close" in head, found) == (True, b"/ b")
        assert await reader.read() == b""


async def test_head_works_by_asgi_messages() -> None:
    async def handler(_direct: Direct, _scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"body"})

    app = RecordingApp(handler)
    async with serving(app), connected(app) as (reader, writer):
        writer.write(request("/", method="HEAD") + request("/", method="HEAD"))
        for _ in range(2):
            assert b"content-length: 4\r\n" in await reader.readuntil(b"\r\n\r\n")


async def test_garbage_after_a_request_gets_no_second_response(streaming: RecordingApp) -> None:
    async with serving(streaming), connected(streaming) as (reader, writer):
        writer.write(request("/"))
        await until(lambda: streaming.started)
        writer.write(b"\0garbage\r\n\r\n")
        seen = await reader.read()
        assert seen.count(b"HTTP/1.1") == 1
        assert not seen.endswith(b"0\r\n\r\n")
        await until(lambda: streaming.disconnects)


async def test_garbage_is_refused_with_400(streaming: RecordingApp) -> None:
    async with serving(streaming), connected(streaming) as (reader, writer):
        writer.write(b"\0garbage\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"\r\nx-cfx-request-id: " in head
        assert json.loads(body)["error"]["code"] == "invalid_request"
        assert streaming.started == []


async def test_an_upgrade_request_closes_the_connection_after_its_response(echo: RecordingApp) -> None:
    """The parser takes everything after the head, a body included, for the other protocol: it is discarded."""
    async with serving(echo), connected(echo) as (reader, writer):
        writer.write(request("/", b"b", "Connection: Upgrade", "Upgrade: websocket") + request("/never"))
        head, found = await read_response(reader)
        assert (b"connection: close" in head, found) == (True, b"/ ")
        assert await reader.read() == b""


async def test_a_client_that_reads_no_responses_is_not_read_from() -> None:
    buffered_bytes = [0]

    async def handler(direct: Direct, _scope: Any, _receive: Any, _send: Any) -> None:
        direct.respond(200, [], bytes(20_000))
        (connection,) = app.connections
        buffered_bytes.append(connection.transport.get_write_buffer_size())

    app = RecordingApp(handler)
    async with serving(app), connected(app) as (reader, writer):
        number = 3_000
        writer.write(request("/") * number)
        await until(lambda: app.connections and all(each.flow.write_paused for each in app.connections))
        for _ in range(100):  # each iteration of the loop would serve another request
            await asyncio.sleep(0)
        # The server serves what fits into the buffers of both sockets, and keeps hardly more than one response itself.
        assert len(app.started) < number / 2
        assert max(buffered_bytes) < 200_000
        for _ in range(number):
            await read_response(reader)
        assert len(app.started) == number


async def test_a_client_that_reads_nothing_of_a_stream_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(direct: Direct, _scope: Any, _receive: Any, _send: Any) -> None:
        direct.watch(lambda: app.disconnects.append("gone"))
        direct.start(200, [])
        while not app.disconnects:
            await direct.send(bytes(100_000), is_last=False)

    monkeypatch.setattr(server, "WRITE_TIMEOUT_S", 0.05)
    app = RecordingApp(handler)
    async with serving(app), connected(app) as (_, writer):
        writer.write(request("/"))
        await until(lambda: app.disconnects)


async def test_a_client_that_reads_nothing_of_a_response_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(direct: Direct, _scope: Any, _receive: Any, _send: Any) -> None:
        direct.respond(200, [], bytes(50_000_000))

    monkeypatch.setattr(server, "WRITE_TIMEOUT_S", 0.05)
    app = RecordingApp(handler)
    async with serving(app), connected(app) as (reader, writer):
        writer.write(request("/") * 2)
        await until(lambda: app.started)
        await reader.readuntil(b"\r\n\r\n")
        await until(lambda: not app.connections)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await reader.readexactly(50_000_000)
        assert app.started == ["/"]


async def test_an_exchange_leaves_no_reference_cycles() -> None:
    """Collecting reference cycles took a tenth of all CPU time."""

    async def respond_once(_direct: Direct, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        incoming = Incoming(scope, receive, send)
        incoming.check_headers()
        await incoming.read(limit_bytes=1_000, timeout_s=5)
        incoming.watch(lambda: None)
        await incoming.respond(200, [], b"done")

    async with serving(RecordingApp(respond_once)) as app, connected(app) as (reader, writer):
        gc.collect()
        gc.disable()
        known = {id(each) for each in gc.get_objects()}
        try:
            for _ in range(50):
                writer.write(request(body=b"{}"))
                await read_response(reader)
            made = [each for each in gc.get_objects() if id(each) not in known]
            left = [each for each in made if isinstance(each, Incoming | Direct | RequestResponseCycle)]
        finally:
            gc.enable()
    assert len(left) <= 4  # the connection still refers to its last exchange


LIMIT = server.MAX_HEAD_BYTES + 1
# Requests whose head, or what a body has besides its bytes, has no end; and the status that ends them.
ENDLESS = {
    "request line": (b"GET /", b"a", 414),
    "query": (b"GET /?", b"a=b&", 414),
    "header value": (b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ", b"a", 431),
    "header name": (b"GET / HTTP/1.1\r\nHost: x\r\nX-", b"a", 431),
    "header lines": (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n", 431),
    "empty header lines": (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X:\r\n", 431),
    "line breaks": (b"", b"\r\n", 431),
    "WebSocket": (b"GET /ws/ HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n", b"X-A: b\r\n", 431),
    "offered protocol": (b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: upgrade\r\n", b"X-A: b\r\n", 431),
    "trailer lines": (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", b"X-A: b\r\n", 431),
    "trailer": (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-A: ", b"a", 431),
    "chunk extension": (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a=", b"b", 431),
    "chunk extensions": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;a=%b\r\na\r\n" % (b"b" * 1_000), 431
    ),
}  # fmt: skip


@pytest.mark.parametrize("size_bytes", [1, 700, 20_000, 300_000])
@pytest.mark.parametrize("name", ENDLESS)
async def test_what_has_no_end_is_refused_while_it_arrives(echo: RecordingApp, name: str, size_bytes: int) -> None:
    """However it is cut into pieces, and also after a request on the same connection."""
    begin, rest, status = ENDLESS[name]
    piece = rest * (size_bytes // len(rest) or 1)
    async with serving(echo):
        for before in (b"", request("/before", b"b")):
            async with connected(echo) as (reader, writer):
                if before:
                    writer.write(before)
                    await read_response(reader)
                writer.write(begin)
                received = asyncio.create_task(reader.read())
                sent = 0
                while not received.done() and sent < 100 * LIMIT:
                    writer.write(piece * (2_000 // len(piece) or 1))
                    sent += len(piece) * (2_000 // len(piece) or 1)
                    await asyncio.sleep(0)
                found = await received
                assert found.startswith(b"HTTP/1.1 %d " % status), found[:200]
                assert b"connection: close" in found
                assert found.count(b"HTTP/1.1") == 1
        assert not any(path.startswith("/ws") for path in echo.started)


async def test_a_head_is_counted_whole_that_began_behind_another_request(echo: RecordingApp) -> None:
    long = b"X-B: " + b"b" * (server.MAX_HEADER_BYTES * 5 // 8) + b"\r\n"
    async with serving(echo), connected(echo) as (reader, writer):
        writer.write(request("/before", b"b") + b"GET / HTTP/1.1\r\nHost: x\r\n" + long)
        await read_response(reader)
        writer.write(long + b"\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 431 ")
    assert echo.started == ["/before"]


async def test_many_pipelined_heads_are_not_taken_for_one(echo: RecordingApp) -> None:
    async with serving(echo), connected(echo) as (reader, writer):
        writer.write(b"".join(request(f"/{n}", b"b") for n in range(3_000)))
        assert [(await read_response(reader))[1] for _ in range(3_000)] == [f"/{n} b".encode() for n in range(3_000)]


async def test_a_body_of_tiny_chunks_is_read(echo: RecordingApp) -> None:
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving(echo), connected(echo) as (reader, writer):
        for extension in (b"", b";a"):
            writer.write(head)
            await until(lambda: None in echo.bodies)
            writer.write((b"1%b\r\na\r\n" % extension) * 50_000 + b"0\r\nX-Checksum: 1\r\n\r\n")
            assert (await read_response(reader))[1] == b"/ " + b"a" * 50_000


async def test_a_trailer_is_no_header() -> None:
    seen: list[list[bytes]] = []

    async def handler(direct: Direct, scope: MutableMapping[str, Any], receive: Any, _send: Any) -> None:
        if direct.whole_body() is None:
            while (await receive()).get("more_body"):
                pass
        seen.append([name for name, _ in scope["headers"]])
        direct.respond(200, [], b"")

    app = RecordingApp(handler)
    sent = (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\na\r\n0\r\nAuthorization: Bearer x\r\nX-CFX-Stage: plan\r\n\r\n",
    )
    async with serving(app), connected(app) as (reader, writer):
        writer.write(b"".join(sent))
        await read_response(reader)
        writer.write(sent[0])
        await until(lambda: len(app.started) == 2)
        writer.write(sent[1])
        await read_response(reader)
    assert seen == [[b"transfer-encoding"]] * 2


@pytest.mark.parametrize(("announced_bytes", "sent"), [(1_000_000, b"a"), (100, b"a"), (0, b"\r\n")])
async def test_bytes_do_not_keep_an_answered_connection(announced_bytes: int, sent: bytes) -> None:
    """Neither those of a body that nobody reads, nor line breaks."""

    async def handler(direct: Direct, *_: Any) -> None:
        (connection,) = app.connections
        connection.timeout_keep_alive = 0.05
        direct.respond(401, [], b"no")

    app = RecordingApp(handler)
    async with serving(app), connected(app) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % announced_bytes)
        await read_response(reader)
        ended = asyncio.create_task(reader.read())
        while not ended.done():
            writer.write(sent)
            await asyncio.wait([ended], timeout=0.01)
        assert ended.exception() or ended.result() == b""


async def test_an_unread_body_may_be_followed_by_a_request() -> None:
    async def handler(direct: Direct, scope: MutableMapping[str, Any], *_: Any) -> None:
        direct.respond(404, [], scope["path"].encode())

    app = RecordingApp(handler)
    async with serving(app), connected(app) as (reader, writer):
        writer.write(b"POST /first HTTP/1.1\r\nContent-Length: 100000\r\n\r\n")
        assert (await read_response(reader))[1] == b"/first"
        writer.write(bytes(100_000) + request("/second"))
        assert (await read_response(reader))[1] == b"/second"


async def test_a_response_that_is_not_read_ends_a_closing_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(direct: Direct, *_: Any) -> None:
        direct.respond(200, [], bytes(50_000_000), closes=True)

    monkeypatch.setattr(server, "WRITE_TIMEOUT_S", 0.05)
    app = RecordingApp(handler)
    async with serving(app), connected(app) as (_, writer):
        writer.write(request("/"))
        await until(lambda: app.started)
        await until(lambda: not app.connections)


def test_a_chunk_shares_the_write_of_what_waits() -> None:
    transport, loop = Mock(), Mock()
    transport.is_closing.return_value = False
    flow = Mock(write_paused=False)
    cycle = Mock(scope={"http_version": "1.1"}, flow=flow, disconnected=False, default_headers=[])
    direct = Direct(cycle, CorkedTransport(transport, loop))
    direct.start(200, [])
    assert not transport.write.called
    assert direct.send_at_once(b"one")
    assert direct.send_at_once(b"two")
    (begin,), (further,) = (call.args for call in transport.write.call_args_list)
    assert begin.endswith(b"\r\n\r\n3\r\none\r\n")
    assert further == b"3\r\ntwo\r\n"
