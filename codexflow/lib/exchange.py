"""Exchanges of raw ASGI applications: read a bounded body, send a response.

Applications answer with their own errors, so the exceptions here are not AppErrors: each application maps them.
"""

import asyncio
from typing import Any

import msgspec

from codexflow.lib import packing
from codexflow.lib.asgi import Header, Receive, Send

JSON: Header = (b"content-type", b"application/json")
# A Content-Length with more digits is beyond any limit, and int() would take its time with it.
_MAX_LENGTH_DIGITS = 18


class BodyError(Exception):
    """The body of a request cannot be read."""


class BodyTooLarge(BodyError):
    """The body is larger than its limit, by its Content-Length or by what has arrived."""


class BodyTimeout(BodyError):
    """The body did not arrive in time."""


class BodyAborted(BodyError):
    """The client left before the body was complete."""


class BodyCodingUnknown(BodyError):
    """The body has a content coding that is not unpacked here."""


class BodyBroken(BodyError):
    """The body is not what its content coding says."""


def exceeds(content_length: bytes | None, limit_bytes: int) -> bool:
    """Return whether a Content-Length announces more than `limit_bytes`, or is no number."""
    announced = (content_length or b"0").strip()
    if not announced.isdigit() or len(announced) > _MAX_LENGTH_DIGITS:
        return True
    return int(announced) > limit_bytes


async def read_body(receive: Receive, *, limit_bytes: int, timeout_s: float) -> bytes:
    """Read a request's body. Raises BodyTooLarge at the first byte above the limit, BodyTimeout, BodyAborted."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _read_pieces(receive, limit_bytes)
    except TimeoutError:
        raise BodyTimeout from None


async def unpacked_body(body: bytes, coding: bytes | None, *, limit_bytes: int) -> bytes:
    """Unpack a body that was read. Raises BodyTooLarge, BodyCodingUnknown, BodyBroken."""
    if coding is None or not body or not packing.is_packed(coding):
        return body
    try:
        # On a thread: megabytes take tens of milliseconds.
        return await asyncio.to_thread(packing.unpacked, body, coding, limit_bytes=limit_bytes)
    except packing.UnknownCoding:
        raise BodyCodingUnknown from None
    except packing.UnpackedTooLarge:
        raise BodyTooLarge from None
    except packing.BrokenPacking:
        raise BodyBroken from None


async def _read_pieces(receive: Receive, limit_bytes: int) -> bytes:
    pieces: bytearray | None = None
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise BodyAborted
        piece, is_last = message.get("body", b""), not message.get("more_body")
        if pieces is None and is_last and len(piece) <= limit_bytes:
            return bytes(piece)  # the usual case: one piece, not copied
        pieces = bytearray() if pieces is None else pieces
        pieces += piece
        if len(pieces) > limit_bytes:
            raise BodyTooLarge
        if is_last:
            return bytes(pieces)


async def send_response(send: Send, status: int, body: bytes, headers: list[Header]) -> None:
    """Send a whole response with its Content-Length."""
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, status: int, content: Any, headers: list[Header]) -> None:
    """Send `content` as a JSON response. `headers` replace the content type when they have one."""
    if not any(name == JSON[0] for name, _ in headers):
        headers = [JSON, *headers]
    await send_response(send, status, msgspec.json.encode(content), headers)
