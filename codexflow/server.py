"""uvicorn's HTTP protocol with two optimizations for the gateway.

All writes to a connection in one event loop iteration are sent at once: uvicorn writes head and body of a response
separately, which costs one more system call and packet per request.

A request's scope offers `Direct`, the exchange without ASGI messages. Reading, watching for a disconnect and responding
by messages cost as much as everything else that happens to a small request. `Direct` updates uvicorn's own state (the
request-response cycle), so applications that do not know it use ASGI on the same connection.

And with bounds on what a stranger can make it hold: the head of a request is counted while it arrives, so are the
framing and the trailers of a chunked body, and only the beginning of another request keeps an answered connection open.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from http import HTTPStatus
from itertools import chain
from typing import Any
from urllib.parse import unquote

import httptools
from typing_extensions import override
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from codexflow.lib.asgi import Header
from codexflow.lib.errors import AppError, BadRequest
from codexflow.lib.http import DIRECT_EXTENSION
from codexflow.lib.ids import new_id
from codexflow.settings import ENV
from routing.errors import HeadersTooLarge, UrlTooLong
from routing.surfaces.table import response_format_of

logger = logging.getLogger(__name__)

WEBSOCKETS = b"/ws/"
_STATUS_LINES = {int(each): b"HTTP/1.1 %d %b" % (each, each.phrase.encode()) for each in HTTPStatus}

_line = b": ".join  # name and value of a header

_UPGRADE_HEADERS = (b"upgrade", b"http2-settings")

# Most header lines of a request, most bytes of their names and values, and of its URL.
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
MAX_URL_BYTES = 16 * 1024
# A head that has not ended by then, with its separators and request line, will be larger.
MAX_HEAD_BYTES = MAX_HEADER_BYTES + 2 * 1024
# A chunked body may have this much framing (sizes, extensions, trailers), and so many bytes more for each of its own:
# pieces of one byte, which are honest, take five.
MAX_FRAMING_BYTES = 32 * 1024
FRAMING_PER_BYTE = 8

# An unread body is discarded up to here, so that its connection is kept alive; a longer one closes it.
MAX_UNREAD_BYTES = 1024 * 1024
# Limits of lingering close: most bytes still read from a client after a closing response, and for how long.
LINGER_BYTES = 32 * 1024 * 1024
LINGER_S = 5.0
# A client that reads nothing for so long counts as disconnected: its stream occupies an upstream connection.
WRITE_TIMEOUT_S = 120.0
# Timers may fire a little early.
TIMER_SLACK_S = 0.01


class CorkedTransport:
    """Transport whose writes are sent at the end of the loop iteration. Other attributes are the transport's own."""

    __slots__ = ("_loop", "_transport", "is_closing", "pieces", "write_past")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self.is_closing = transport.is_closing  # asked for every response: not by way of __getattr__
        self.pieces: list[bytes] = []  # that wait for the end of the iteration; never another list
        self.write_past = transport.write  # only while none wait

    def write(self, data: bytes) -> None:
        if not self.pieces:
            self._loop.call_soon(self.flush)
        self.pieces.append(data)

    def write_now(self, data: bytes) -> None:
        """Send at once, together with pending writes."""
        if self.pieces:
            self.pieces.append(data)
            self.flush()
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Flush pending writes, then close; a client that does not read them has WRITE_TIMEOUT_S."""
        self.flush()
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._loop.call_later(WRITE_TIMEOUT_S, self._transport.abort)

    def linger(self) -> None:
        """Flush pending writes, then close once the client has stopped sending."""
        self.flush()
        self._transport.set_protocol(Lingering(self._transport, self._loop))

    def flush(self) -> None:
        if self.pieces:
            self._transport.write(self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces))
            self.pieces.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Lingering(asyncio.Protocol):
    """Lingering close: discards further input within limits.

    Closing with unread input would reset the connection, and the client could lose the response.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._previous_protocol = transport.get_protocol()
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
        self._previous_protocol.connection_lost(exc)


class Direct:
    """One request and its response, without ASGI messages."""

    __slots__ = ("_cycle", "_flow", "_is_chunked", "_on_disconnect", "_pieces", "_transport", "_write_past")

    def __init__(self, cycle: RequestResponseCycle, transport: CorkedTransport) -> None:
        self._cycle = cycle
        self._flow = cycle.flow
        self._transport = transport
        # What a transport with `__getattr__` is asked for takes its time.
        self._pieces, self._write_past = transport.pieces, transport.write_past
        self._on_disconnect: Callable[[], None] | None = None
        # HTTP/1.0 has no chunked encoding: the end of the connection ends the response.
        self._is_chunked = cycle.scope["http_version"] >= "1.1"

    def whole_body(self, most_bytes: int = sys.maxsize) -> bytes | None:
        """Return the body if all of it has arrived and has no more than this; otherwise None, and it is left here."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected or len(cycle.body) > most_bytes:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        cycle.message_event.clear()
        return body

    def watch(self, on_disconnect: Callable[[], None]) -> None:
        """Call `on_disconnect` if the client disconnects before the response is complete; at once if it already has."""
        # uvicorn pauses reading for a large body; a disconnect would then go unnoticed.
        self._flow.resume_reading()
        self._on_disconnect = on_disconnect
        if self._cycle.disconnected:
            self.mark_disconnected()

    def mark_disconnected(self) -> None:
        """Record that the connection is lost, and notify the watcher."""
        self._cycle.disconnected = True
        callback, self._on_disconnect = self._on_disconnect, None
        if callback is not None and not self._cycle.response_complete:
            callback()

    def respond(self, status: int, headers: Iterable[Header], body: bytes, *, closes: bool = False) -> None:
        """Send a complete response in one write."""
        cycle = self._cycle
        if closes or (cycle.more_body and self._may_exceed_unread_limit()):
            cycle.keep_alive = False
        if not cycle.disconnected:
            head = self._head(status, headers)
            if body or status != HTTPStatus.NO_CONTENT:  # which has no length (RFC 9110, 8.6)
                self._transport.write_now(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
            else:
                self._transport.write_now(head + b"\r\n")
        self._complete()

    def _may_exceed_unread_limit(self) -> bool:
        """Return whether the rest of the body may exceed MAX_UNREAD_BYTES."""
        headers = dict(self._cycle.scope["headers"])
        return b"transfer-encoding" in headers or int(headers.get(b"content-length", 0)) > MAX_UNREAD_BYTES

    def start(self, status: int, headers: Iterable[Header]) -> None:
        """Send the head of a response of unknown length, together with what follows in this loop iteration."""
        if not self._cycle.disconnected:
            framing = b"transfer-encoding: chunked\r\n" if self._is_chunked else b""
            self._transport.write(b"%b%b\r\n" % (self._head(status, headers), framing))

    async def send(self, chunk: bytes, *, is_last: bool) -> None:
        """Send a chunk of the response. Waits while the client is slow to read earlier ones."""
        cycle = self._cycle
        if self._flow.write_paused and not cycle.disconnected:
            await self._drained()
        if not cycle.disconnected:
            if self._is_chunked:
                frame = b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunk else b""
                chunk = frame + b"0\r\n\r\n" if is_last else frame
            self._transport.write_now(chunk)
        if is_last:
            self._complete()

    def send_at_once(self, chunk: bytes) -> bool:
        """Send a chunk other than the last unless the client is slow; returns whether it was sent."""
        cycle = self._cycle
        if self._flow.write_paused or cycle.disconnected:
            return False
        framed = b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._is_chunked else chunk
        if self._pieces:
            self._transport.write_now(framed)
        else:  # nearly always, and for every event of every stream
            write = self._write_past
            write(framed)
        return True

    async def _drained(self) -> None:
        """Wait until the client has read most of what was sent; disconnect it after WRITE_TIMEOUT_S."""
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._flow.drain()
        except TimeoutError:
            self._transport.abort()
            self.mark_disconnected()

    def _head(self, status: int, headers: Iterable[Header]) -> bytes:
        cycle = self._cycle
        cycle.response_started = True
        if cycle.waiting_for_100_continue and cycle.more_body:
            cycle.keep_alive = False  # the client may send the body or not: the next request could not be found
        lines = [
            _STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status,
            *map(_line, cycle.default_headers),
            *map(_line, headers),
            b"" if cycle.keep_alive else b"connection: close\r\n",
        ]
        return b"\r\n".join(lines)

    def _complete(self) -> None:
        cycle = self._cycle
        self._on_disconnect = None  # the callback refers to this object: break the cycle, so that no garbage is left
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


class _Trailers(list[Header]):
    """Headers after the head: nobody reads trailers, and none may pass for a header (RFC 9110, 6.5.1)."""

    @override
    def append(self, header: Header) -> None:
        """Drop the header."""


_TRAILERS = _Trailers()


@lru_cache(maxsize=128)
def _parsed(url: bytes) -> tuple[str, bytes, bytes]:
    """Path, path as it was written, and query of a URL. Raises as uvicorn, of which the server makes a 400."""
    parsed = httptools.parse_url(url)
    path = parsed.path.decode("ascii")
    return (unquote(path) if "%" in path else path), parsed.path, parsed.query or b""


# Where the parser is: between two requests, in a head, in a body.
_BETWEEN, _HEAD, _BODY = range(3)


class Protocol(HttpToolsProtocol):
    """HTTP protocol for `uvicorn --http codexflow.server:Protocol`."""

    # Unfinished exchanges of this connection: one, unless the client pipelines requests.
    _open: list[tuple[RequestResponseCycle, Direct]]
    _asgi: dict[str, str]  # of every scope of the connection
    url = b""
    _phase = _BETWEEN
    # Received of a head that has not ended.
    _head_bytes = 0
    # A head that ends in the data just received, and began there, has at most so many bytes.
    _most_head_bytes = sys.maxsize
    # Framing of the body beyond what its own bytes allow, and these of the data just received.
    _framing_bytes = 0
    _body_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    # When the last response was complete, by the loop's clock; 0 while there is a request.
    _idle_since_s = 0.0
    _idle_timer: asyncio.TimerHandle | None = None
    _app_of: Callable[[Any, dict[bytes, bytes]], Any] | None = None
    # Nothing more is read: the connection is refused, or it is a WebSocket.
    _is_done = False
    # The completed response waits to be read before the next request is served.
    _is_completion_deferred = False

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        self._open = []
        self._asgi = {"version": self.asgi_version, "spec_version": "2.3"}
        self._app_of = getattr(self.app, "of", None)
        super().connection_made(CorkedTransport(transport, self.loop))  # type: ignore[arg-type] # it implements what uvicorn uses
        if len(self.connections) > ENV.max_connections:
            logger.warning("server.too_many_connections", extra={"connections": len(self.connections)})
            transport.abort()
            return
        self._head_timer = self.loop.call_later(ENV.header_timeout_s, transport.abort)

    @override
    def data_received(self, data: bytes) -> None:
        phase, cycle = self._phase, self.cycle
        if phase != _BODY and self._head_bytes + len(data) > MAX_HEAD_BYTES:
            self._receive_in_two(data)
            return
        self._body_bytes = 0
        self._most_head_bytes = len(data) if phase != _HEAD else sys.maxsize
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as exc:
            # Raised by a callback, the parser has it as the context.
            found = exc.__context__
            self._refuse(found if isinstance(found, AppError) else BadRequest("Invalid HTTP request received."))
            return
        except httptools.HttpParserUpgrade as exc:
            if self._ignores_upgrade():
                self._read_on_without_upgrade(data[exc.args[0] :])
            elif self._should_upgrade():
                self._is_done = True
                self.handle_websocket_upgrade()
                return
        if self._phase == _BODY:
            if self._body_bytes:
                self.cycle.message_event.set()  # there is a piece; at the end of the body, its callback tells
            if phase == _BODY and self.cycle is cycle:
                self._count_framing(len(data))
            return
        # Where in the data a later request began is not known: it is counted from the next data on.
        self._head_bytes = 0 if phase == _BODY or self.cycle is not cycle else self._head_bytes + len(data)
        if self._phase == _HEAD:
            if len(self.headers) > MAX_HEADERS:
                self._refuse(HeadersTooLarge())
            elif self._head_timer is None:
                # The rest of the head must arrive in time; a head that arrived at once needs no timer.
                self._head_timer = self.loop.call_later(ENV.header_timeout_s, self.transport.abort)

    def _receive_in_two(self, data: bytes) -> None:
        """Read as much as a head may still have, and the rest only if it has ended by then."""
        room = MAX_HEAD_BYTES - self._head_bytes
        self.data_received(data[:room])
        if self._is_done or self.transport.is_closing():
            return
        if self._phase != _BODY and self._head_bytes >= MAX_HEAD_BYTES:
            self._refuse(UrlTooLong() if len(self.url) > MAX_URL_BYTES else HeadersTooLarge())
            return
        self.data_received(data[room:])

    def _count_framing(self, size_bytes: int) -> None:
        """Bound what is no body in a chunked body: it takes work and memory, and no limit of bodies sees it."""
        body_bytes = self._body_bytes
        if body_bytes != size_bytes or self._framing_bytes:
            framing = size_bytes - body_bytes - FRAMING_PER_BYTE * body_bytes
            self._framing_bytes = max(0, self._framing_bytes + framing)
            if self._framing_bytes > MAX_FRAMING_BYTES:
                self._refuse(HeadersTooLarge("The chunked body has too long extensions or trailers."))

    @override
    def on_message_begin(self) -> None:
        # Only another request keeps an answered connection: no bytes of an unread body, nor line breaks after it.
        self._idle_since_s = 0.0
        self._phase = _HEAD
        self.url = b""
        self.headers = []

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    @override
    def on_body(self, body: bytes) -> None:
        # As in uvicorn, whose method would be one more call for each piece.
        self._body_bytes += len(body)
        cycle = self.cycle
        if cycle is None or cycle.response_complete or self._is_done:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    @override
    def _should_upgrade_to_ws(self) -> bool:
        """Upgrade only below /ws/: the gateway itself refuses upgrades of /v1 with a message."""
        return super()._should_upgrade_to_ws() and self.url.startswith(WEBSOCKETS)

    def _ignores_upgrade(self) -> bool:
        """Return whether the request offers another protocol than WebSocket, as every JDK client does with h2c."""
        if not self.parser.should_upgrade():
            return False
        upgrades = [value.lower() for name, value in self.headers if name == b"upgrade"]
        return bool(upgrades) and b"websocket" not in upgrades  # none: CONNECT

    def _read_on_without_upgrade(self, rest: bytes) -> None:
        """Go on in HTTP/1.1 (RFC 9110, 7.8): read the request again without its offer, and what follows as its body.

        The parser has taken all behind the head for the other protocol.
        """
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                options = [each for each in value.split(b",") if each.strip().lower() not in _UPGRADE_HEADERS]
                lines.append(b"connection: %b" % b",".join(options))
            elif name not in _UPGRADE_HEADERS:
                lines.append(b"%b: %b" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.data_received(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    @override
    def on_message_complete(self) -> None:
        if self.parser.should_upgrade() and (self._ignores_upgrade() or self._should_upgrade()):
            return
        self._phase = _BETWEEN
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    @override
    def on_headers_complete(self) -> None:
        """As uvicorn's, in one function: what is not needed here costs every request."""
        parser, headers = self.parser, self.headers
        is_upgrade = parser.should_upgrade()
        if is_upgrade and self._ignores_upgrade():
            return  # it is read again
        if len(self.url) > MAX_URL_BYTES:
            raise UrlTooLong
        if len(headers) > MAX_HEADERS or (
            self._most_head_bytes > MAX_HEADER_BYTES and sum(map(len, chain.from_iterable(headers))) > MAX_HEADER_BYTES
        ):
            raise HeadersTooLarge
        self._phase = _BODY
        self._head_bytes = self._framing_bytes = 0
        self._idle_since_s = 0.0
        if self._head_timer is not None:
            self._cancel_head_timer()
        http_version = parser.get_http_version()
        path, raw_path, query = _parsed(self.url)
        by_name = dict(headers)
        scope: Any = {
            "type": "http",
            "asgi": self._asgi,
            "http_version": http_version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": parser.get_method().decode("ascii"),
            "root_path": self.root_path,
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": headers,
            "state": self.app_state.copy(),
        }
        self.scope = scope
        if is_upgrade and self._should_upgrade():
            return  # to a WebSocket: no HTTP exchange
        before = self.cycle
        self.cycle = cycle = RequestResponseCycle(
            scope,
            self.transport,
            self.flow,
            self.logger,
            self.access_logger,
            self.access_log,
            self.server_state.default_headers,
            asyncio.Event(),
            b"expect" in by_name and by_name[b"expect"].lower() == b"100-continue",
            # Of an upgrade that is refused, the parser takes what follows for the other protocol.
            http_version != "1.0" and not is_upgrade and parser.should_keep_alive(),
            self.on_response_complete,
        )
        # The one that serves this scope, where the application tells which.
        app = self.app if self._app_of is None else self._app_of(scope, by_name)
        direct = Direct(cycle, self.transport)  # type: ignore[arg-type] # the one given above
        scope["extensions"] = {DIRECT_EXTENSION: direct}  # of our own
        if not is_upgrade:
            self.headers = _TRAILERS
        if before is None or before.response_complete:
            self._open = [(cycle, direct)]
            self._start_asgi_task(cycle, app)
        else:  # pipelined: served in order
            self._open.append((cycle, direct))
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, app))

    @override
    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.write_paused:
            # Pause reading until the client reads its responses: otherwise they would pile up in memory.
            self._is_completion_deferred = True
            self.flow.pause_reading()
            self.timeout_keep_alive_task = self.loop.call_later(WRITE_TIMEOUT_S, self.transport.abort)
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since_s = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._close_idle)

    def _close_idle(self) -> None:
        """Close the connection if it has been idle for long. One timer serves many requests."""
        self._idle_timer = None
        if self._idle_since_s:
            left_s = self._idle_since_s + self.timeout_keep_alive - self.loop.time()
            if left_s > TIMER_SLACK_S:
                self._idle_timer = self.loop.call_later(left_s, self._close_idle)
            else:
                self.timeout_keep_alive_handler()

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        if self._is_completion_deferred:
            self._is_completion_deferred = False
            self._unset_keepalive_if_required()
            self.on_response_complete()

    def _refuse(self, error: AppError) -> None:
        """Refuse what cannot be read as a request, and read nothing more of the connection."""
        self._is_done = True
        self._cancel_head_timer()
        transport: CorkedTransport = self.transport  # type: ignore[assignment] # the one given above
        is_in_body = self._phase == _BODY
        waiting = [(cycle, direct) for cycle, direct in self._open if not cycle.response_complete]
        if is_in_body and len(waiting) == 1 and waiting[0][0] is self.cycle and not self.cycle.response_started:
            # The error takes the place of the response, and the application finds the client gone.
            waiting[0][1].mark_disconnected()
            self.cycle.message_event.set()
        elif is_in_body or waiting:
            transport.close()  # an error now would be taken for the response to another request
            return
        response_format = response_format_of(self.url.decode("latin-1"), dict(self.headers or ()))
        request_id, body = str(new_id()).encode(), response_format.error_body(error)
        logger.info("server.refused", extra={"request_id": request_id.decode(), "code": error.code})
        lines = [
            _STATUS_LINES[int(error.status)],
            *(b": ".join(header) for header in self.server_state.default_headers),
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"x-cfx-request-id: %b" % request_id,
            b"connection: close",
        ]
        transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        transport.linger()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_head_timer()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        super().connection_lost(exc)
        for _, direct in self._open:
            direct.mark_disconnected()
        self._open = []

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
