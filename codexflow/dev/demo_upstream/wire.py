"""HTTP/1.1 as bytes: a small server over httptools that can also misbehave below HTTP.

ASGI servers hide what the drills need: resets, wrong lengths, heads that dribble. One request at a time on
each connection; the next ones of a pipeline wait.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast
from urllib.parse import parse_qsl

import httptools
from typing_extensions import override

from codexflow.dev.demo_upstream.ledger import Entry, Ledger

_BODY_LIMIT_BYTES = 256 * 1024 * 1024
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds


@dataclass(slots=True)
class Request:
    """One request, complete. Header names are lower-case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    keeps_alive: bool
    entry: Entry


@dataclass(slots=True)
class Reply:
    """A whole response."""

    status: int
    body: bytes
    headers: list[tuple[str, str]] = field(default_factory=list)
    content_type: str = "application/json"

    def head(self, length: int | None = None) -> bytes:
        """Status line and headers; `length` stands in for the true Content-Length."""
        size = len(self.body) if length is None else length
        return head_of(self.status, [("content-length", str(size)), ("content-type", self.content_type), *self.headers])


def head_of(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}\r\n{lines}\r\n".encode("latin-1", "replace")


Streamed = Callable[["Exchange"], Awaitable[None]]
Handler = Callable[[Request], Reply | Streamed]


class Exchange:
    """A response being written piece by piece."""

    def __init__(self, connection: "Connection", request: Request) -> None:
        self._connection = connection
        self.request = request
        self.entry = request.entry

    async def send(self, raw: bytes) -> None:
        """Write as is, waiting while the caller reads slowly."""
        self._connection.transport.write(raw)
        await self._connection.writable.wait()

    async def chunk(self, payload: bytes) -> None:
        """Write as one HTTP chunk."""
        await self.send(b"%x\r\n%b\r\n" % (len(payload), payload))

    async def end_chunks(self) -> None:
        await self.send(b"0\r\n\r\n")

    async def flushed(self) -> None:
        """Wait until the kernel has everything, so that what follows cannot swallow it."""
        while self._connection.transport.get_write_buffer_size():  # noqa: ASYNC110 - asyncio has no event for it
            await asyncio.sleep(0.001)

    async def reset(self) -> None:
        """Abort the TCP connection: the caller gets ECONNRESET after what was sent."""
        await self.flushed()
        self.finish("broken")
        transport = self._connection.transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()

    async def close(self) -> None:
        """Close the connection properly, whether or not the response is complete."""
        await self.flushed()
        self.finish("broken")
        self._connection.transport.close()

    async def hang(self) -> None:
        """Never come back; the caller's leaving ends it."""
        await asyncio.get_running_loop().create_future()

    def finish(self, outcome: str) -> None:
        self._connection.ledger.finish(self.entry, outcome)


class Connection(asyncio.Protocol):
    """One TCP connection of a caller."""

    transport: asyncio.Transport
    parser: httptools.HttpRequestParser

    def __init__(self, handler: Handler, ledger: Ledger, connections: set["Connection"]) -> None:
        self.handler = handler
        self.ledger = ledger
        self.connections = connections
        self.waiting: deque[Request] = deque()
        self.current: asyncio.Task[None] | None = None
        self.current_entry: Entry | None = None
        self.writable = asyncio.Event()
        self.writable.set()
        self._reset_parser()

    def _reset_parser(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.headers: dict[str, str] = {}
        self.parts: list[bytes] = []
        self.size = 0

    # From the transport.

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        self.transport.set_write_buffer_limits(high=64 * 1024)
        self.connections.add(self)

    @override
    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, b"no upgrades here")
        except httptools.HttpParserError:
            self._refuse(400, b"this is not HTTP")

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        for request in self.waiting:
            self.ledger.finish(request.entry, "aborted")
        self.waiting.clear()
        self.writable.set()
        if self.current is not None:
            if self.current_entry is not None:
                self.ledger.finish(self.current_entry, "aborted")
            self.current.cancel()

    @override
    def pause_writing(self) -> None:
        self.writable.clear()

    @override
    def resume_writing(self) -> None:
        self.writable.set()

    # From the parser.

    def on_message_begin(self) -> None:
        self.url, self.headers, self.parts, self.size = b"", {}, [], 0

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self.headers.get("expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self.size += len(body)
        if self.size > _BODY_LIMIT_BYTES:
            self._refuse(413, b"body too large")
            return
        self.parts.append(body)

    def on_message_complete(self) -> None:
        if self.transport.is_closing():
            return
        url = httptools.parse_url(self.url)
        path = url.path.decode("latin-1") if url.path else "/"
        method = self.parser.get_method().decode("latin-1")
        request = Request(
            method=method,
            path=path,
            query=dict(parse_qsl((url.query or b"").decode("latin-1"))),
            headers=self.headers,
            body=b"".join(self.parts),
            keeps_alive=self.parser.should_keep_alive(),
            entry=self.ledger.begin(method=method, path=path, headers=self.headers),
        )
        if self.current is None:
            self._answer(request)
        else:
            self.waiting.append(request)

    # Responses

    def _answer(self, request: Request) -> None:
        reply = self.handler(request)
        if isinstance(reply, Reply):
            self.transport.write(reply.head() + reply.body)
            request.entry.status = reply.status
            self.ledger.finish(request.entry, "finished")
            if not request.keeps_alive:
                self.transport.close()
            return
        self.current_entry = request.entry
        self.current = asyncio.get_running_loop().create_task(self._live(reply, Exchange(self, request)))

    async def _live(self, act: Streamed, exchange: Exchange) -> None:
        try:
            await act(exchange)
        except Exception:
            exchange.finish("broken")
            self.transport.abort()
            raise
        exchange.finish("finished")
        self.current, self.current_entry = None, None
        if not exchange.request.keeps_alive:
            self.transport.close()
        while self.waiting and self.current is None and not self.transport.is_closing():
            self._answer(self.waiting.popleft())

    def _refuse(self, status: int, why: bytes) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(Reply(status, why, content_type="text/plain").head() + why)
        self.transport.close()
