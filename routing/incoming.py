"""One HTTP request as the gateway sees it: ASGI's callables behind a few words, guarded while reading."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from uuid import UUID

from billing.limits import Admission
from codexflow.lib.errors import AppError
from codexflow.lib.http import Header, body_of, headers_of
from codexflow.lib.ids import new_id
from routing.errors import BadHeader, ClientDisconnected, HeadersTooLarge, RequestTimeout, RequestTooLarge

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024


class Incoming:
    """A request and its answer. Every answer carries X-CFX-Request-Id."""

    __slots__ = (
        "_gone_callback", "_receive", "_send", "_watcher", "admission", "headers", "is_gone", "is_started",
        "request_id", "scope",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self.request_id: UUID = new_id()
        self.headers: dict[bytes, bytes] = {}
        self.is_started = False
        self.is_gone = False
        # Set once the call is admitted: errors after that still tell of the daily limit.
        self.admission: Admission | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._gone_callback: Callable[[], None] | None = None

    def check_headers(self) -> None:
        """Take the headers in. Raises HeadersTooLarge (431), and BadHeader (400) for a doubled one that decides."""
        raw: list[Header] = self.scope["headers"]
        if len(raw) > MAX_HEADERS or sum(len(name) + len(value) for name, value in raw) > MAX_HEADER_BYTES:
            raise HeadersTooLarge
        headers = dict(raw)
        if len(headers) != len(raw):
            names = [name for name, _ in raw]
            for name in (b"authorization", b"x-api-key", b"content-length", b"x-cfx-stage", b"host"):
                if names.count(name) > 1:
                    raise BadHeader(f"The header {name.decode()} may be given only once.")
        self.headers = headers

    @property
    def address(self) -> str | None:
        client = self.scope.get("client")
        return client[0] if client else None

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return value.decode("latin-1") if value is not None else None

    def bearer(self) -> str | None:
        """The presented key: `Authorization: Bearer …`, or `x-api-key` as Anthropic's clients send it."""
        scheme, _, token = (self.header(b"authorization") or "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return token.strip()
        return self.header(b"x-api-key")

    async def read(self, *, limit_bytes: int, timeout_s: float) -> bytes:
        """The body. Raises RequestTooLarge before reading past the limit, RequestTimeout, ClientDisconnected."""
        declared = self.headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limit_bytes:
            raise RequestTooLarge(f"The request body may have at most {limit_bytes} bytes.")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._read_pieces(limit_bytes)
        except TimeoutError:
            raise RequestTimeout from None

    async def _read_pieces(self, limit_bytes: int) -> bytes:
        body = b""
        pieces: bytearray | None = None
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.is_gone = True
                raise ClientDisconnected
            piece = message.get("body", b"")
            if not message.get("more_body") and pieces is None:
                body = piece
            else:
                pieces = pieces if pieces is not None else bytearray()
                pieces += piece
            if len(pieces if pieces is not None else body) > limit_bytes:
                raise RequestTooLarge(f"The request body may have at most {limit_bytes} bytes.")
            if not message.get("more_body"):
                return body if pieces is None else bytes(pieces)

    def watch(self, when_gone: Callable[[], None]) -> None:
        """Call `when_gone` once should the caller leave before its answer is complete. After `read`."""
        self._gone_callback = when_gone
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        # The server answers this only when the caller has left or the answer is complete.
        while (await self._receive())["type"] != "http.disconnect":
            pass
        callback, self._gone_callback = self._gone_callback, None
        if callback is not None:
            self.is_gone = True
            callback()

    def unwatch(self) -> None:
        """The answer is complete as far as it matters: leaving is no news any more."""
        self._gone_callback = None

    async def start(self, status: int, headers: list[Header]) -> None:
        self.is_started = True
        request_id = str(self.request_id).encode()
        own = [(b"x-cfx-request-id", request_id), (b"x-request-id", request_id)]
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, *own]})

    async def send(self, chunk: bytes, *, is_last: bool = False) -> None:
        """Send a piece of the body; waits while the caller is slow."""
        if is_last:
            self.unwatch()
        await self._send({"type": "http.response.body", "body": chunk, "more_body": not is_last})

    async def respond(self, status: int, headers: list[Header], body: bytes) -> None:
        """A complete answer in one piece."""
        await self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self.send(body, is_last=True)

    async def refuse(self, error: AppError, headers: list[Header]) -> None:
        """An error as a complete answer."""
        if isinstance(error, RequestTooLarge | RequestTimeout):
            # The rest of the body would otherwise be read to its end and thrown away.
            headers = [*headers, (b"connection", b"close")]
        await self.respond(int(error.status), [*headers_of(error), *headers], body_of(error))
