"""Encoding of prompts and responses that organizations store. Pure.

Both are the bytes that went over the wire, each cut to a maximum and compressed.
"""

import zlib
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import Struct

# Maximum of a request's body and of a response, before and after compression.
MAX_BYTES = 256 * 1024
MAX_PACKED_BYTES = 128 * 1024
# Bytes that do not compress at all grow by less than this.
_OVERHEAD_BYTES = 1024
# LiteLLM's text in place of content that it was configured to leave out.
REDACTED = "redacted-by-litellm"


class Packed(Struct, frozen=True, array_like=True):
    """One side of the content, compressed; `is_cut` when its end is missing."""

    packed: bytes
    is_cut: bool = False


class Content(Struct, frozen=True, array_like=True):
    """Prompt and response of one request, in the content stream. Encoded as an array, so names are not on the wire."""

    request_id: UUID
    organization_id: UUID
    request: Packed
    response: Packed


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Prompt and response of one request as text."""

    request_id: UUID
    request: str
    response: str
    is_request_cut: bool
    is_response_cut: bool
    kept_until: datetime


class BadContent(ValueError):
    """The bytes are not a content."""


_decoder = msgspec.msgpack.Decoder(Content)
_encode = msgspec.msgpack.Encoder().encode


def pack(raw: bytes, *, is_cut: bool = False) -> Packed:
    """Compress the beginning of `raw`, up to the maximum. `is_cut`: its end was missing already."""
    size, raw = len(raw), raw[:MAX_BYTES]
    packed = zlib.compress(raw, 1)
    if len(packed) > MAX_PACKED_BYTES:
        raw = raw[: MAX_PACKED_BYTES - _OVERHEAD_BYTES]
        packed = zlib.compress(raw, 1)
    return Packed(packed, is_cut or len(raw) < size)


def text_of(packed: bytes) -> str:
    """Decompress to text; invalid UTF-8 (a cut may fall into a character) is replaced."""
    unpacker = zlib.decompressobj()
    return unpacker.decompress(packed, MAX_BYTES).decode(errors="replace")


def encode(content: Content) -> bytes:
    return _encode(content)


def decode(payload: bytes) -> Content:
    """Raises BadContent, whose message never contains the payload."""
    try:
        return _decoder.decode(payload)
    except msgspec.MsgspecError:
        raise BadContent("Not a content.") from None
