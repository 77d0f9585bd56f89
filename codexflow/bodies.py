"""Limits on size, duration and number of request bodies, in front of Django.

Django stores any body on disk before a view could refuse it.
"""

import asyncio
from typing import Any

from django.conf import settings

from codexflow.lib.asgi import Message, Receive, Scope, Send
from codexflow.lib.envelope import envelope
from codexflow.lib.errors import AppError
from codexflow.lib.exchange import (
    BodyCodingUnknown,
    BodyError,
    BodyTooLarge,
    exceeds,
    read_body,
    send_json,
    unpacked_body,
)
from codexflow.lib.http import headers_of
from codexflow.lib.ids import new_id
from codexflow.lib.memory import room_for_bodies
from codexflow.lib.packing import is_packed, most_unpacked_bytes
from codexflow.lib.reception import Place, Reception, ReceptionFull, SenderFull
from routing.errors import (
    InvalidRequestBody,
    RequestTimeout,
    RequestTooLarge,
    UnsupportedCoding,
    UploadLimitExceeded,
    UploadsFull,
)
from routing.incoming import UPLOADS_RETRY_AFTER_S

# Django's own limit for forms and JSON; no page accepts files.
MAX_BODY_BYTES = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
# The part of the room for bodies that senders without a key have: the gateway's callers keep the rest.
STRANGERS_SHARE = 4

_BROKEN = "The body is not what its `Content-Encoding` says."


class BoundedBodies:
    """ASGI middleware that responds with 413 to a body that is too large and with 408 to one that is too slow.

    429 and 503: there is no room for it beside others of the same address, or of all.
    """

    def __init__(self, application: Any) -> None:
        self._application = application
        room_bytes = room_for_bodies(settings.ENV.reception_bytes, settings.ENV.web_processes)
        self._reception = Reception(room_bytes // STRANGERS_SHARE, largest_bytes=MAX_BODY_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        place = Place(self._reception, (scope.get("client") or ("", 0))[0])
        try:
            await self._serve(scope, _Body(scope, receive, place), send)
        finally:
            place.give_back()

    async def _serve(self, scope: Scope, body: "_Body", send: Send) -> None:
        if body.error is None and is_packed(dict(scope["headers"]).get(b"content-encoding")):
            await self._unpacked(scope, body, send)
            return
        if body.error is None:
            await self._application(scope, body.receive, send)
        if body.error is not None:
            await _refuse(send, body.error)

    async def _unpacked(self, scope: Scope, body: "_Body", send: Send) -> None:
        """Serve a request whose body is packed, as if it were not."""
        coding = dict(scope["headers"])[b"content-encoding"]
        try:
            packed = await read_body(
                body.receive, limit_bytes=MAX_BODY_BYTES, timeout_s=settings.ENV.request_body_timeout_s
            )
            if not body.holds(len(packed) + most_unpacked_bytes(len(packed), MAX_BODY_BYTES)):
                raise BodyTooLarge
            plain = await unpacked_body(packed, coding, limit_bytes=MAX_BODY_BYTES)
        except BodyCodingUnknown:
            await _refuse(send, UnsupportedCoding())
            return
        except BodyError as exc:
            error = body.error or (_too_large() if isinstance(exc, BodyTooLarge) else InvalidRequestBody(_BROKEN))
            await _refuse(send, error)
            return
        headers = [each for each in scope["headers"] if each[0] not in (b"content-encoding", b"content-length")]
        message = {"type": "http.request", "body": plain}

        async def receive() -> Message:
            nonlocal message
            found, message = message, {}
            return found or await body.receive()

        await self._application(
            {**scope, "headers": [*headers, (b"content-length", b"%d" % len(plain))]}, receive, send
        )


class _Body:
    """Body of one request. Beyond a limit the application sees a disconnect, and `error` holds the reason."""

    def __init__(self, scope: Scope, receive: Receive, place: Place) -> None:
        announced = dict(scope["headers"]).get(b"content-length")
        self.error: AppError | None = None
        self._place = place
        if exceeds(announced, MAX_BODY_BYTES):
            self.error = _too_large()
        elif announced:
            self.holds(int(announced))
        self._receive = receive
        self._left = MAX_BODY_BYTES
        self._until_s = asyncio.get_running_loop().time() + settings.ENV.request_body_timeout_s
        self._is_whole = False

    def holds(self, size_bytes: int) -> bool:
        """Hold room for so much of the body, and return whether there is; otherwise `error` says so."""
        try:
            self._place.hold(max(size_bytes, self._place.size_bytes))
        except ReceptionFull:
            self.error = UploadsFull(retry_after_s=UPLOADS_RETRY_AFTER_S)
        except SenderFull:
            self.error = UploadLimitExceeded(retry_after_s=UPLOADS_RETRY_AFTER_S)
        return self.error is None

    async def receive(self) -> Message:
        if self._is_whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until_s):
                message = await self._receive()
        except TimeoutError:
            self.error = RequestTimeout()
            return {"type": "http.disconnect"}
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.error = _too_large()
        if self.error is not None or not self.holds(MAX_BODY_BYTES - self._left):
            return {"type": "http.disconnect"}
        self._is_whole = not message.get("more_body", False)
        return message


def _too_large() -> RequestTooLarge:
    return RequestTooLarge(f"The request body may have at most {MAX_BODY_BYTES} bytes.")


async def _refuse(send: Send, error: AppError) -> None:
    headers = [
        *headers_of(error),
        (b"x-cfx-request-id", str(new_id()).encode()),
        (b"connection", b"close"),  # otherwise the server would read and discard the rest
    ]
    await send_json(send, int(error.status), envelope(error), headers)
