"""One HTTP request of the gateway and its response, over ASGI or the server's direct interface."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Protocol
from uuid import UUID

from billing.limiter.limits import Admission
from codexflow.lib.addresses import plain_address
from codexflow.lib.asgi import Header, Message, Receive, Scope, Send
from codexflow.lib.errors import AppError
from codexflow.lib.exchange import (
    BodyAborted,
    BodyBroken,
    BodyCodingUnknown,
    BodyTimeout,
    BodyTooLarge,
    exceeds,
    read_body,
    unpacked_body,
)
from codexflow.lib.http import DIRECT_EXTENSION, headers_of
from codexflow.lib.ids import new_id, text_of
from codexflow.lib.packing import CODINGS, most_unpacked_bytes
from codexflow.lib.reception import Place, Reception, ReceptionFull, SenderFull
from keys import secret
from keys.lookup import PrincipalCache
from keys.principal import Principal
from routing.errors import (
    BadHeader,
    ClientDisconnected,
    InvalidRequestBody,
    RequestTimeout,
    RequestTooLarge,
    UnsupportedCoding,
    UpgradeRefused,
    UploadLimitExceeded,
    UploadsFull,
)

# Larger bodies are worth a question to the limiter before they are read.
SMALL_BODY_BYTES = 64 * 1024
# Bodies arrive within seconds, or time out.
UPLOADS_RETRY_AFTER_S = 5

_BEARER = b"Bearer "

_SINGLE = (b"authorization", b"x-api-key", b"content-length", b"transfer-encoding", b"x-cfx-stage", b"host")


# Raises when a caller's large body is not to be read.
Check = Callable[[Principal], Awaitable[None]]


class Direct(Protocol):
    """Direct interface of `codexflow.server`, besides ASGI."""

    def whole_body(self, most_bytes: int = sys.maxsize) -> bytes | None: ...
    def watch(self, when_gone: Callable[[], None]) -> None: ...
    def respond(self, status: int, headers: Iterable[Header], body: bytes, *, closes: bool = False) -> None: ...
    def start(self, status: int, headers: Iterable[Header]) -> None: ...
    def send_at_once(self, chunk: bytes) -> bool: ...
    async def send(self, chunk: bytes, *, is_last: bool) -> None: ...


class Incoming:
    """A request and its response. Every response carries X-CFX-Request-Id."""

    __slots__ = (
        "_cors", "_direct", "_gone_callback", "_place", "_receive", "_send", "_watcher", "address", "admission",
        "caller", "counted_tokens", "dropped", "headers", "is_gone", "is_started", "request_id", "scope",
        "send_at_once",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        # HEAD goes through ASGI, which handles it.
        # Removed from the scope: it refers to the scope, and that cycle would be left to the garbage collector.
        offered = scope.get("extensions", {}).pop(DIRECT_EXTENSION, None)
        self._direct: Direct | None = offered if scope["method"] != "HEAD" else None
        # Sends a piece of the body if that needs no waiting; returns whether it did.
        self.send_at_once = self._direct.send_at_once if self._direct is not None else _send_nothing
        self.request_id: UUID = new_id()
        client = scope.get("client")
        self.address: str | None = plain_address(client[0]) if client else None
        self.headers: dict[bytes, bytes] = {}
        self._cors: list[Header] = []
        self.is_started = False
        self.is_gone = False
        # Set once the call is admitted: errors after that still carry the headers of the limits.
        self.admission: Admission | None = None
        # Set once the key is known: a refusal is counted for it.
        self.caller: Principal | None = None
        # Set once the call is accepted: names of what the request asked for and does not go upstream.
        self.dropped: tuple[str, ...] = ()
        # Set where the provider counted the prompt before the call was admitted.
        self.counted_tokens: int | None = None
        self._place: Place | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._gone_callback: Callable[[], None] | None = None

    def check_headers(self) -> None:
        """Read the headers. Raises BadHeader (400) for a decisive one given twice."""
        raw: list[Header] = self.scope["headers"]  # few and short: the server has counted them
        headers = dict(raw)
        if len(headers) != len(raw):
            headers = _joined(raw)
        if b"transfer-encoding" in headers and headers[b"transfer-encoding"].strip().lower() != b"chunked":
            raise BadHeader("The only transfer coding is chunked.")  # proxies on the way disagree about others
        self.headers = headers

    def allow_origin(self, headers: list[Header]) -> None:
        """Send these headers with the response: a page of another origin may read it."""
        self._cors = headers

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return value.decode("latin-1").strip() if value is not None else None

    def principal(self, keys: PrincipalCache) -> Awaitable[Principal]:
        """Authenticate the presented key. Raises as `PrincipalCache.authenticate`."""
        headers = self.headers
        authorization, x_api_key = headers.get(b"authorization"), headers.get(b"x-api-key")
        return keys.authenticate(_presented_key(authorization, x_api_key), self.address)

    def small_body(self, *, limit_bytes: int) -> bytes | None:
        """Return a body that is here, small and unpacked, as nearly all are. Otherwise None: `read` it."""
        headers = self.headers
        if self._direct is None or b"content-encoding" in headers or b"upgrade" in headers:
            return None
        return self._direct.whole_body(SMALL_BODY_BYTES if limit_bytes > SMALL_BODY_BYTES else limit_bytes)

    async def read(
        self, *, limit_bytes: int, timeout_s: float, reception: Reception | None = None, check: Check | None = None
    ) -> bytes:
        """Read the body, unpacked where it has a content coding, within the room of `reception`: see `leave_reception`.

        `check` is asked before a large body is read. Raises what it raises, RequestTooLarge before reading past the
        limit, RequestTimeout, UpgradeRefused, UnsupportedCoding, InvalidRequestBody, ClientDisconnected,
        UploadLimitExceeded, UploadsFull.
        """
        try:
            body = await self._read(limit_bytes, timeout_s, reception, check)
            if b"content-encoding" not in self.headers:
                return body
            # What it may become counts, until it is known.
            self._hold(reception, len(body) + most_unpacked_bytes(len(body), limit_bytes))
            body = await unpacked_body(body, self.headers[b"content-encoding"], limit_bytes=limit_bytes)
            self._hold(reception, len(body))
        except SenderFull:
            raise UploadLimitExceeded(retry_after_s=UPLOADS_RETRY_AFTER_S) from None
        except ReceptionFull:
            raise UploadsFull(retry_after_s=UPLOADS_RETRY_AFTER_S) from None
        except BodyCodingUnknown:
            raise UnsupportedCoding from None
        except BodyTooLarge:
            raise _too_large(limit_bytes) from None
        except BodyBroken:
            raise InvalidRequestBody("The body is not what its `Content-Encoding` says.") from None
        return body

    async def _read(
        self, limit_bytes: int, timeout_s: float, reception: Reception | None, check: Check | None
    ) -> bytes:
        if b"upgrade" in self.headers and self.headers[b"upgrade"].lower() == b"websocket":
            raise UpgradeRefused  # the parser has treated the body as the other protocol
        announced = self.headers.get(b"content-length")
        if exceeds(announced, SMALL_BODY_BYTES):
            if exceeds(announced, limit_bytes):
                raise _too_large(limit_bytes)
            await self._check(check)
        if self._direct is not None and (body := self._direct.whole_body()) is not None:
            if len(body) > limit_bytes:
                raise _too_large(limit_bytes)
            if len(body) > SMALL_BODY_BYTES:
                self._hold(reception, len(body))
            return body
        # Announced is as good as sent: the rest may come at any time.
        self._hold(reception, int(announced or 0))
        receive = self._receive if announced else self._counted(reception, check)
        try:
            return await read_body(receive, limit_bytes=limit_bytes, timeout_s=timeout_s)
        except BodyTooLarge:
            raise _too_large(limit_bytes) from None
        except BodyTimeout:
            raise RequestTimeout from None
        except BodyAborted:
            self.is_gone = True
            raise ClientDisconnected from None

    def _counted(self, reception: Reception | None, check: Check | None) -> Receive:
        """Return `receive` for a body of unknown length: what has arrived counts."""
        size_bytes = 0

        async def receive() -> Message:
            nonlocal size_bytes
            message = await self._receive()
            before, size_bytes = size_bytes, size_bytes + len(message.get("body", b""))
            self._hold(reception, size_bytes)
            if before <= SMALL_BODY_BYTES < size_bytes:
                await self._check(check)
            return message

        return receive

    async def _check(self, check: Check | None) -> None:
        if check is not None and self.caller is not None:
            await check(self.caller)

    def _hold(self, reception: Reception | None, size_bytes: int) -> None:
        """Hold room for the body. Raises SenderFull, ReceptionFull."""
        if self._place is None:
            if reception is None:
                return
            self._place = Place(reception, self.caller.key_id if self.caller else None)
        self._place.hold(size_bytes)

    def leave_reception(self) -> None:
        """Give back the room of the body. Call this after `read`, however it ended, once the body is understood."""
        if self._place is not None:
            self._place.give_back()
            self._place = None

    def watch(self, when_gone: Callable[[], None]) -> None:
        """Call `when_gone` once if the caller leaves before the response is complete. Call this after `read`.

        A later call replaces the function; `unwatch` stands between them.
        """
        self._gone_callback = when_gone
        if self._direct is not None:
            self._direct.watch(self._gone)
        elif self._watcher is None or self._watcher.done():  # gone already: it will notice
            self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        # The server returns from this only when the caller has left or the response is complete.
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone()

    def _gone(self) -> None:
        callback, self._gone_callback = self._gone_callback, None
        if callback is not None:
            self.is_gone = True
            callback()

    def unwatch(self) -> None:
        """Stop watching: the response is complete, so a caller who leaves no longer matters."""
        self._gone_callback = None

    async def start(self, status: int, headers: list[Header]) -> None:
        """Send the head of a response of unknown length."""
        headers = self._with_id(headers)
        if self._direct is not None:
            self._direct.start(status, headers)
        else:
            await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, chunk: bytes, *, is_last: bool = False) -> None:
        """Send a piece of the body; waits while the caller is slow."""
        if is_last:
            self.unwatch()
        if self._direct is not None:
            await self._direct.send(chunk, is_last=is_last)
        else:
            await self._send({"type": "http.response.body", "body": chunk, "more_body": not is_last})

    async def respond(self, status: int, headers: list[Header], body: bytes, *, closes: bool = False) -> None:
        """Send a complete response in one piece; `closes` ends the connection after it."""
        if self._direct is not None:
            self.unwatch()
            self._direct.respond(status, self._with_id(headers), body, closes=closes)
            return
        length = [(b"content-length", b"%d" % len(body))] if body or status != HTTPStatus.NO_CONTENT else []
        await self.start(status, [*headers, *length, *([(b"connection", b"close")] if closes else [])])
        await self.send(body, is_last=True)

    def _with_id(self, headers: list[Header]) -> list[Header]:
        self.is_started = True
        request_id = text_of(self.request_id).encode()
        own = [(b"x-cfx-request-id", request_id), (b"x-request-id", request_id)]
        if self.scope["path"].startswith("/v1/messages"):
            own.append((b"request-id", request_id))  # read by Anthropic's clients
        if self.dropped:
            own.append((b"x-cfx-dropped", ", ".join(self.dropped).encode()))
        return headers + own + self._cors if self._cors else headers + own

    async def refuse(self, error: AppError, body: bytes, headers: list[Header]) -> None:
        """Send an error, written as `body`, as a complete response."""
        # The rest of a body that is too large or too slow would otherwise be read to its end and discarded.
        if isinstance(error, UnsupportedCoding):
            headers = [*headers, (b"accept-encoding", ", ".join(CODINGS).encode())]
        closes = isinstance(error, RequestTooLarge | RequestTimeout | BadHeader | UploadLimitExceeded | UploadsFull)
        await self.respond(int(error.status), [*headers_of(error), *headers], body, closes=closes)


def _presented_key(authorization: bytes | None, x_api_key: bytes | None) -> str | None:
    """Return the presented key: `Authorization: Bearer …`, or `x-api-key` as Anthropic's clients send it.

    Of both the first counts, unless only the second has the form of a key: clients send tokens of other services.
    """
    if x_api_key is None and authorization is not None and authorization.startswith(_BEARER):  # nearly always
        return authorization[len(_BEARER) :].decode("latin-1").strip() or None
    other = x_api_key.decode("latin-1").strip() if x_api_key is not None else None
    words = (authorization or b"").decode("latin-1").split(None, 1)
    if len(words) < 2 or words[0].lower() != "bearer":
        return other
    token = words[1].strip()
    return other if other and secret.split(other) and not secret.split(token) else token


def _send_nothing(_chunk: bytes) -> bool:
    return False


def _joined(raw: list[Header]) -> dict[bytes, bytes]:
    """Join lines of one name into a list (RFC 9110, 5.3). Raises BadHeader (400) for a decisive one given twice."""
    headers: dict[bytes, bytes] = {}
    for name, value in raw:
        if name not in headers:
            headers[name] = value
        elif name in _SINGLE:
            raise BadHeader(f"The header {name.decode()} may be given only once.")
        else:
            headers[name] += (b"; " if name == b"cookie" else b", ") + value
    return headers


def _too_large(limit_bytes: int) -> RequestTooLarge:
    return RequestTooLarge(f"The request body may have at most {limit_bytes} bytes.")
