"""Prompts and answers on their way into the database, for organizations that want them kept. Pure.

What is kept is what went over the wire, as bytes, compressed and bounded on both sides.
"""

import zlib
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import Struct

# Of a request's body and of an answer: that much is kept, compressed at most to the second.
MAX_BYTES = 256 * 1024
MAX_PACKED_BYTES = 128 * 1024
# What does not compress at all grows by less.
_ROOM_BYTES = 1024
# How LiteLLM writes what it was told to leave out.
REDACTED = "redacted-by-litellm"


class Packed(Struct, frozen=True, array_like=True):
    """One side, compressed; `is_cut` when the end is missing."""

    packed: bytes
    is_cut: bool = False


class Content(Struct, frozen=True, array_like=True):
    """Both sides of one request."""

    request_id: UUID
    organization_id: UUID
    request: Packed
    answer: Packed


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Prompt and answer of one request, as they went over the wire."""

    request_id: UUID
    request: str
    answer: str
    is_request_cut: bool
    is_answer_cut: bool
    kept_until: datetime


class BadContent(ValueError):
    """The bytes are no content."""


_decoder = msgspec.msgpack.Decoder(Content)
_encode = msgspec.msgpack.Encoder().encode


def pack(raw: bytes, *, is_cut: bool = False) -> Packed:
    """The beginning of `raw` that may be kept. `is_cut` says that something was missing before."""
    whole, raw = len(raw), raw[:MAX_BYTES]
    packed = zlib.compress(raw, 1)
    if len(packed) > MAX_PACKED_BYTES:
        raw = raw[: MAX_PACKED_BYTES - _ROOM_BYTES]
        packed = zlib.compress(raw, 1)
    return Packed(packed, is_cut or len(raw) < whole)


def text_of(packed: bytes) -> str:
    """The text; what is no UTF-8 (a cut may fall into a letter) is replaced."""
    unpacker = zlib.decompressobj()
    return unpacker.decompress(packed, MAX_BYTES).decode(errors="replace")


def encode(content: Content) -> bytes:
    return _encode(content)


def decode(payload: bytes) -> Content:
    """Raises BadContent, which does not repeat what it read."""
    try:
        return _decoder.decode(payload)
    except msgspec.MsgspecError:
        raise BadContent("Not a content.") from None
