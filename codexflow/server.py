"""uvicorn's HTTP protocol with two shortcuts for the gateway, and none for anybody else.

What one turn of the loop writes to a connection goes out in one piece: uvicorn writes head and body of an answer on
their own, which costs a system call and a packet more for every request.

A request's scope offers `Direct`, the exchange without ASGI's messages in between. Reading, watching for the caller's
leaving and answering by messages cost as much as everything else that happens to a small request. It keeps uvicorn's
own books (the request-response cycle), so both ways mix: whoever does not know of it uses ASGI.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

import msgspec
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from codexflow.lib.envelope import envelope
from codexflow.lib.errors import BadRequest
from codexflow.lib.http import DIRECT_EXTENSION, Header
from codexflow.lib.ids import new_id
from codexflow.settings import ENV

logger = logging.getLogger(__name__)

WEBSOCKETS = b"/ws/"
_STATUS_LINES = {int(each): b"HTTP/1.1 %d %b" % (each, each.phrase.encode()) for each in HTTPStatus}

# A body that nobody reads is thrown away up to here, so that its connection serves on; a longer one ends it.
MAX_UNREAD_BYTES = 1024 * 1024
# What is still taken from a caller who goes on sending after an answer that ends the connection, and for how long.
LINGER_BYTES = 32 * 1024 * 1024
LINGER_S = 5.0
# How long a caller may take nothing of what was sent to it before it counts as gone. Its stream holds a place upstream.
TAKES_NOTHING_S = 120.0


class Corked:
    """A transport whose writes wait for the end of the turn. Everything else is the transport's own."""

    __slots__ = ("_loop", "_pieces", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._pieces:
            self._loop.call_soon(self.flush)
        self._pieces.append(data)

    def write_now(self, data: bytes) -> None:
        """What is complete need not wait."""
        if self._pieces:
            self._pieces.append(data)
            self.flush()
        else:
            self._transport.write(data)

    def close(self) -> None:
        """After everything that was written."""
        self.flush()
        self._transport.close()

    def linger(self) -> None:
        """As `close`, once the caller has stopped sending."""
        self.flush()
        self._transport.set_protocol(Lingering(self._transport, self._loop))

    def flush(self) -> None:
        if self._pieces:
            self._transport.write(self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces))
            self._pieces.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Lingering(asyncio.Protocol):
    """Throws away what still comes, within bounds: closing at once would reset the connection and lose the answer."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._before = transport.get_protocol()
        self._left_bytes = LINGER_BYTES
        self._timer = loop.call_later(LINGER_S, transport.abort)
        if transport.can_write_eof():
            transport.write_eof()
        transport.resume_reading()

    @override
    def data_received(self, data: bytes) -> None:
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            self._transport.abort()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._before.connection_lost(exc)


class Direct:
    """One request and its answer on the wire."""

    __slots__ = ("_cycle", "_is_chunked", "_transport", "_when_gone")

    def __init__(self, cycle: RequestResponseCycle, transport: Corked) -> None:
        self._cycle = cycle
        self._transport = transport
        self._when_gone: Callable[[], None] | None = None
        # Who speaks an older HTTP knows no chunks: there the connection's end is the answer's.
        self._is_chunked = cycle.scope["http_version"] >= "1.1"

    def whole_body(self) -> bytes | None:
        """The body, if all of it has arrived; otherwise it is to be received as ASGI has it."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        cycle.message_event.clear()
        # Reading stops for a large body; a caller who leaves would then not be noticed.
        cycle.flow.resume_reading()
        return body

    def watch(self, when_gone: Callable[[], None]) -> None:
        """Call `when_gone` when the caller leaves before the answer is complete, at once if it has."""
        self._when_gone = when_gone
        if self._cycle.disconnected:
            self.gone()

    def gone(self) -> None:
        """The connection is lost."""
        self._cycle.disconnected = True
        callback, self._when_gone = self._when_gone, None
        if callback is not None and not self._cycle.response_complete:
            callback()

    def respond(self, status: int, headers: Iterable[Header], body: bytes, *, closes: bool = False) -> None:
        """A complete answer, in one write."""
        cycle = self._cycle
        if closes or (cycle.more_body and self._may_be_long()):
            cycle.keep_alive = False
        if not cycle.disconnected:
            self._transport.write_now(
                b"%bcontent-length: %d\r\n\r\n%b" % (self._head(status, headers), len(body), body)
            )
        self._complete()

    def _may_be_long(self) -> bool:
        """Whether much of the body may still come."""
        headers = dict(self._cycle.scope["headers"])
        return b"transfer-encoding" in headers or int(headers.get(b"content-length", 0)) > MAX_UNREAD_BYTES

    def start(self, status: int, headers: Iterable[Header]) -> None:
        """The head of an answer of unknown length; it goes out with what follows in this turn."""
        if not self._cycle.disconnected:
            framing = b"transfer-encoding: chunked\r\n" if self._is_chunked else b""
            self._transport.write(b"%b%b\r\n" % (self._head(status, headers), framing))

    async def send(self, chunk: bytes, *, is_last: bool) -> None:
        """A piece of the answer. Waits while the caller is slow to take the earlier ones."""
        cycle = self._cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await self._taken()
        if not cycle.disconnected:
            if self._is_chunked:
                frame = b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunk else b""
                chunk = frame + b"0\r\n\r\n" if is_last else frame
            self._transport.write_now(chunk)
        if is_last:
            self._complete()

    def send_at_once(self, chunk: bytes) -> bool:
        """Send a piece that is not the last if the caller takes it now; returns whether it did."""
        cycle = self._cycle
        if cycle.flow.write_paused or cycle.disconnected:
            return False
        self._transport.write_now(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._is_chunked else chunk)
        return True

    async def _taken(self) -> None:
        """Wait until the caller has taken most of what was sent; who takes nothing for too long has left."""
        try:
            async with asyncio.timeout(TAKES_NOTHING_S):
                await self._cycle.flow.drain()
        except TimeoutError:
            self._transport.abort()
            self.gone()

    def _head(self, status: int, headers: Iterable[Header]) -> bytes:
        cycle = self._cycle
        cycle.response_started = True
        if cycle.waiting_for_100_continue and cycle.more_body:
            cycle.keep_alive = False  # nobody knows whether the body still comes
        lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status]
        lines += [b": ".join(header) for header in cycle.default_headers]
        lines += [b": ".join(header) for header in headers]
        lines.append(b"" if cycle.keep_alive else b"connection: close\r\n")
        return b"\r\n".join(lines)

    def _complete(self) -> None:
        cycle = self._cycle
        self._when_gone = None  # whoever watches knows us: nothing may be left for the garbage collector
        if cycle.response_complete or cycle.disconnected:
            return
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive and cycle.more_body:
            self._transport.linger()
            return
        if not cycle.keep_alive:
            self._transport.close()
        cycle.on_response()


class Protocol(HttpToolsProtocol):
    """For `uvicorn --http codexflow.server:Protocol`."""

    # The exchanges of this connection that are not over: one, unless a caller sends several requests at once.
    _open: list[tuple[RequestResponseCycle, Direct]]
    _is_in_head = True
    _head_timer: asyncio.TimerHandle | None = None
    # Whether the end of an exchange waits for its answer to be taken.
    _is_held = False

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        self._open = []
        super().connection_made(Corked(transport, self.loop))  # type: ignore[arg-type] # it is one in all that matters
        if len(self.connections) > ENV.max_connections:
            logger.warning("server.too_many_connections", extra={"connections": len(self.connections)})
            transport.abort()
            return
        self._head_timer = self.loop.call_later(ENV.header_timeout_s, transport.abort)

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Whoever begins a request must come to its body in time; a head that came at once needs no clock.
        if self._is_in_head and self._head_timer is None:
            self._head_timer = self.loop.call_later(ENV.header_timeout_s, self.transport.abort)

    @override
    def on_message_begin(self) -> None:
        self._is_in_head = True
        super().on_message_begin()

    @override
    def _should_upgrade_to_ws(self) -> bool:
        """Only below /ws/: the gateway itself tells callers of /v1 that they shall use HTTP."""
        return super()._should_upgrade_to_ws() and self.url.startswith(WEBSOCKETS)

    @override
    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._stop_clock()
        scope, before = self.scope, self.cycle
        super().on_headers_complete()
        if self.cycle is before:
            return  # an upgrade: no exchange of ours
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # what follows is in the other protocol, which nobody here speaks
        direct = Direct(self.cycle, self.transport)  # type: ignore[arg-type] # the one given above
        # The task that will look at it starts in the next turn.
        scope["extensions"] = {DIRECT_EXTENSION: direct}  # type: ignore[dict-item] # of our own
        self._open = [each for each in self._open if not each[0].response_complete]
        self._open.append((self.cycle, direct))

    @override
    def on_response_complete(self) -> None:
        if self.flow.write_paused and not self.transport.is_closing():
            # Who sends requests and takes no answers is not listened to until he does: answers would pile up here.
            self._is_held = True
            self.flow.pause_reading()
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(TAKES_NOTHING_S, self.transport.abort)
        else:
            super().on_response_complete()

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        if self._is_held:
            self._is_held = False
            self.on_response_complete()

    @override
    def send_400_response(self, msg: str) -> None:
        if any(not cycle.response_complete for cycle, _ in self._open):
            self.transport.close()  # a refusal now would be taken for the answer that is still to come
            return
        request_id, body = str(new_id()).encode(), msgspec.json.encode(envelope(BadRequest(msg)))
        lines = [
            _STATUS_LINES[400],
            *(b": ".join(header) for header in self.server_state.default_headers),
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"x-cfx-request-id: %b" % request_id,
            b"connection: close",
        ]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        self.transport.close()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)
        for _, direct in self._open:
            direct.gone()
        self._open = []

    def _stop_clock(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
