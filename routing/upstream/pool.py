"""Keep-alive connections to LiteLLM over httptools.

This is the core of the product, so it is our own: it costs a tenth of what general clients cost for the same
pass-through. All failures are raised as errors of `routing.errors`.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from urllib.parse import urlsplit

import httptools
from typing_extensions import override

from codexflow.lib.asgi import Header
from codexflow.lib.clock import monotonic_s
from routing.errors import ConnectFailed, UpstreamBroken, UpstreamSilent

# Reading pauses above HIGH until the caller has caught up: a slow reader does not grow memory.
HIGH_WATER_BYTES = 256 * 1024
LOW_WATER_BYTES = 64 * 1024
# LiteLLM's server closes idle connections after 5 s; we close first, so that no request meets a closing one.
MAX_IDLE_S = 4.0
MAX_HEADERS = 200
# Most bytes of a head, interim responses before it included; and later in a row that are no body: extensions of chunks
# and trailers.
MAX_HEAD_BYTES = 64 * 1024

# Consumes what a read has brought of a body, or returns False and leaves it to the waiting reader.
Sink = Callable[[bytes], bool]


class Connection(asyncio.Protocol):
    """One connection to the upstream, carrying one exchange at a time."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_s = 0.0
        self._deadline_s = 0.0
        self._reset()
        self._parser: httptools.HttpResponseParser = httptools.HttpResponseParser(self)
        self.idle_since_s = 0.0

    def _reset(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        # As they are written. The parser puts them in without a function of ours: LiteLLM sends dozens.
        self._written_headers: dict[bytes, bytes] = {}
        self.on_header: Callable[[bytes, bytes], None] = self._written_headers.__setitem__
        # What a read has brought of the body. The parser puts it in, likewise: a piece for every chunk of it.
        self._arrived: list[bytes] = []
        self.on_body: Callable[[bytes], None] = self._arrived.append
        self._chunks: deque[bytes] = deque()
        self._buffered_bytes = 0
        self._is_paused = False
        self._has_head = False
        self._head_bytes = 0  # received since the beginning, or since the last read with a piece of the body
        self._is_complete = False
        self._can_be_reused = False
        self._error: UpstreamBroken | UpstreamSilent | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Sink | None = None
        self._idle_s = 0.0
        self._ends_s = 0.0
        # When a sink last consumed a piece.
        self.consumed_s = 0.0

    # Interface of an exchange

    def send(self, head: bytes, body: bytes) -> None:
        """Begin an exchange."""
        assert self._transport is not None  # noqa: S101 - the pool hands out connected ones only
        self._reset()
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(head + body)

    async def head(self, timeout_s: float) -> int:
        """Wait for status and headers. Raises UpstreamSilent after `timeout_s`, UpstreamBroken."""
        self._allow(timeout_s)
        while not self._has_head:
            await self._arrival()
            self._raise_unless_received()
        return self.status

    async def chunk(self, timeout_s: float) -> bytes | None:
        """Read the next piece of the body as it came, or None at its end. Raises as `head`."""
        if not self._chunks and not self._is_complete:
            self._allow(timeout_s)
            while not self._chunks and not self._is_complete:
                await self._arrival()
                self._raise_unless_received()
        if self._chunks:
            return self._received()
        self._finish()
        return None

    def _received(self) -> bytes:
        """Take the next piece that has arrived."""
        piece = self._chunks.popleft()
        self._buffered_bytes -= len(piece)
        if self._is_paused and self._buffered_bytes < LOW_WATER_BYTES:
            self._is_paused = False
            if self._transport is not None:
                self._transport.resume_reading()
        return piece

    async def chunk_past(self, sink: Sink, *, idle_s: float, left_s: float) -> bytes | None:
        """As `chunk`, for the first piece that `sink` does not consume; consumed pieces wake no task.

        Pieces may be `idle_s` apart, and all of them may take `left_s`.
        """
        if not self._chunks and not self._is_complete:
            self._sink, self._idle_s, self._ends_s = sink, idle_s, monotonic_s() + left_s
        try:
            return await self.chunk(min(idle_s, left_s))
        finally:
            self._sink = None

    async def body(self, timeout_s: float, *, limit_bytes: int) -> bytes:
        """Read the whole body, within `timeout_s` in all. Raises UpstreamBroken above `limit_bytes`."""
        pieces: list[bytes] = []
        size = 0
        if not self._is_complete:
            self._allow(timeout_s)
        while self._chunks or not self._is_complete:
            if not self._chunks:
                await self._arrival()
                self._raise_unless_received()
                continue
            piece = self._received()
            size += len(piece)
            if size > limit_bytes:
                self.abort()
                raise UpstreamBroken("The upstream's answer is too large.", reason="response too large")
            pieces.append(piece)
        self._finish()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def read_to_end(self, timeout_s: float) -> None:
        """Read the exchange to its end, so that the connection can be reused; close it when that takes too long."""
        ends_s = monotonic_s() + timeout_s
        try:
            while (left_s := ends_s - monotonic_s()) > 0:
                if await self.chunk(left_s) is None:
                    return
        except (UpstreamBroken, UpstreamSilent):
            pass
        self.abort()

    def abort(self) -> None:
        """Close the connection, which also ends the upstream's work on the exchange."""
        self._disarm()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    @property
    def host(self) -> str:
        """Host name of the upstream."""
        return self._pool.host

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    # Waiting and deadlines: one lazy timer per connection instead of one per wait

    def _arrival(self) -> "asyncio.Future[None]":
        """Return what is done when something arrives. Raises what ended the exchange."""
        if self._error is not None:
            raise self._error
        if self._timer is None:  # it fired just when something had arrived
            self._arm(max(0.0, self._deadline_s - monotonic_s()))
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def _raise_unless_received(self) -> None:
        if self._error is not None and not self._chunks:
            raise self._error

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _allow(self, timeout_s: float) -> None:
        self._deadline_s = monotonic_s() + timeout_s
        if self._timer is None or self._timer_due_s > self._loop.time() + timeout_s:
            self._disarm()
            self._arm(timeout_s)

    def _arm(self, delay_s: float) -> None:
        # Noted here: uvloop's handle of a delay below a millisecond does not tell when it is due.
        self._timer_due_s = self._loop.time() + delay_s
        self._timer = self._loop.call_later(delay_s, self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return  # no reader is waiting: the caller is the slow side
        deadline_s = self._deadline_s
        if self._sink is not None:  # pieces may have been consumed since
            deadline_s = max(deadline_s, min(self.consumed_s + self._idle_s, self._ends_s))
        left_s = deadline_s - monotonic_s()
        if left_s > 0:
            self._arm(left_s)
            return
        self._fail(UpstreamSilent(reason="timeout"))

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fail(self, error: UpstreamBroken | UpstreamSilent) -> None:
        if self._error is None and not self._is_complete:
            self._error = error
        self.abort()
        self._wake()

    def _finish(self) -> None:
        """Return the connection to the pool once its exchange is read to the end."""
        if self._transport is not None and self._can_be_reused:
            self._pool.release(self)
        else:
            self.abort()

    # asyncio.Protocol

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # uvloop's transport is no subclass of asyncio's

    @override
    def data_received(self, data: bytes) -> None:
        size = len(data)
        if not self._has_head and self._head_bytes + size > MAX_HEAD_BYTES:
            self._receive_in_two(data, MAX_HEAD_BYTES - self._head_bytes)
            return
        error = None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:  # the latter is none of the former
            error = UpstreamBroken(reason=f"not HTTP: {exc.__class__.__name__}")
        arrived = self._arrived
        if arrived:
            body = arrived.pop() if len(arrived) == 1 else self._all_arrived()
            self._head_bytes = 0
            sink = self._sink
            if sink is not None and sink(body):
                self.consumed_s = monotonic_s()
            else:
                self._keep(body)
        else:
            self._head_bytes += size
            if self._head_bytes > MAX_HEAD_BYTES and not self._is_complete:
                error = error or UpstreamBroken(reason="extensions or trailers too large")
        if error is not None:
            self._fail(error)

    def _receive_in_two(self, data: bytes, room: int) -> None:
        """Read as much as the head may still have, and the rest only if it has ended by then."""
        if room:
            self.data_received(data[:room])
        if self._has_head and self._error is None:
            self.data_received(data[room:])
        else:
            self._fail(UpstreamBroken(reason="head too large"))

    def _all_arrived(self) -> bytes:
        body = b"".join(self._arrived)
        self._arrived.clear()
        return body

    def _keep(self, body: bytes) -> None:
        """Leave a piece of the body to the reader."""
        self._sink = None  # what follows comes after this piece
        self._chunks.append(body)
        self._buffered_bytes += len(body)
        if self._buffered_bytes > HIGH_WATER_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        if self._waiter is not None:
            self._wake()

    @override
    def eof_received(self) -> bool:
        return False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._pool.remove(self)
        if self._has_head and not self._is_complete and self._ends_with_connection() and exc is None:
            self._is_complete = True
        self._fail(UpstreamBroken(reason="connection lost"))

    def _ends_with_connection(self) -> bool:
        return b"content-length" not in self.headers and b"transfer-encoding" not in self.headers

    # httptools

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status >= 200:
            written = self._written_headers  # trailers come after these, and are not looked at
            if len(written) > MAX_HEADERS:
                written = dict(islice(written.items(), MAX_HEADERS))
            self.headers = dict(zip(map(bytes.lower, written), written.values(), strict=True))
            self._has_head = True
            self._wake()
        else:
            self._written_headers.clear()

    def on_message_complete(self) -> None:
        if self._has_head:
            self._is_complete = True
            # Only here: after this callback the parser has reset, and always returns False.
            self._can_be_reused = self._parser.should_keep_alive()
            if self._waiter is not None:
                self._wake()


@dataclass(frozen=True, slots=True)
class Target:
    """Address of the upstream."""

    host: str
    port: int
    is_tls: bool
    base_path: str

    @classmethod
    def of(cls, url: str) -> "Target":
        parts = urlsplit(url)
        is_tls = parts.scheme == "https"
        return cls(parts.hostname or "localhost", parts.port or (443 if is_tls else 80), is_tls, parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"


class Pool:
    """Keep-alive connections to one upstream. The most recently used one is used next."""

    def __init__(self, url: str, *, api_key: str, connect_s: float) -> None:
        self._target = Target.of(url)
        self._connect_s = connect_s
        self._idle: list[Connection] = []
        self._tls = ssl.create_default_context() if self._target.is_tls else None
        # The gateway retries; LiteLLM must not. Responses must not be compressed: nothing here decompresses them.
        fixed = {
            "Host": self._target.authority,
            "Authorization": f"Bearer {api_key}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "CodexFlow",
            "x-litellm-num-retries": "0",
        }
        self._beginnings: dict[str, bytes] = {}  # of requests, by path
        self._fixed_headers = "".join(f"{name}: {value}\r\n" for name, value in fixed.items()).encode("latin-1")

    @property
    def host(self) -> str:
        return self._target.host

    async def post(self, path: str, body: bytes, *, headers: Sequence[Header] = ()) -> Connection:
        """Send a request; its response is read from the connection. Raises ConnectFailed."""
        connection = self._kept() or await self._new()
        own = b"".join([b"%b: %b\r\n" % header for header in headers])
        begin = self._beginnings.get(path)
        if begin is None:  # paths are few
            line = f"POST {self._target.base_path}{path} HTTP/1.1\r\n".encode("latin-1")
            begin = self._beginnings[path] = line + self._fixed_headers
        connection.send(b"%b%bContent-Length: %d\r\n\r\n" % (begin, own, len(body)), body)
        return connection

    def _kept(self) -> Connection | None:
        """Take the connection that was used last, unless all have been idle for too long."""
        oldest_s = monotonic_s() - MAX_IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and connection.idle_since_s >= oldest_s:
                return connection
            connection.abort()
        return None

    async def _new(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(self), self._target.host, self._target.port, ssl=self._tls
                )
        except (OSError, TimeoutError) as exc:
            raise ConnectFailed(reason=exc.__class__.__name__) from exc
        return connection

    def release(self, connection: Connection) -> None:
        connection.idle_since_s = monotonic_s()
        self._idle.append(connection)

    def remove(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        for connection in self._idle[:]:
            connection.abort()
        self._idle.clear()
