"""Content codings of request bodies (RFC 9110, 8.4): gzip, deflate and zstd, unpacked within a limit. Pure."""

import zlib
from collections.abc import Callable

import zstandard

CODINGS = ("gzip", "deflate", "zstd")
# No request is that repetitive: more than this many bytes for one of the packed body is an attack.
MAX_RATIO = 200
# A short text may be: its headers and checksums alone would make any bound.
MIN_BOUND_BYTES = 64 * 1024
# Members or frames of one body. Programs that write in blocks make one for 64 KB or more.
MAX_MEMBERS = 1_000
# Unpacked in pieces of this size: what is left of one behind the end of a member is copied.
_PIECE_BYTES = 64 * 1024


class PackingError(Exception):
    """The body cannot be unpacked."""


class UnknownCoding(PackingError):
    """The coding is none of CODINGS, or there are several."""


class BrokenPacking(PackingError):
    """The bytes are not what the coding says, or end too early."""


class UnpackedTooLarge(PackingError):
    """The unpacked body is above the limit, or above MAX_RATIO of the packed one."""


def is_packed(coding: bytes | None) -> bool:
    """Return whether a Content-Encoding names a coding other than `identity`."""
    return coding is not None and coding.strip().lower() not in (b"", b"identity")


def most_unpacked_bytes(size_bytes: int, limit_bytes: int) -> int:
    """Return the size above which what is unpacked from a body is refused."""
    return min(limit_bytes, max(MIN_BOUND_BYTES, MAX_RATIO * size_bytes))


def unpacked(body: bytes, coding: bytes, *, limit_bytes: int) -> bytes:
    """Unpack a body. Raises UnknownCoding, BrokenPacking, UnpackedTooLarge."""
    name = coding.decode("latin-1").strip().lower()
    unpack = _UNPACKERS.get(name)
    if unpack is None:
        raise UnknownCoding
    bound = most_unpacked_bytes(len(body), limit_bytes)
    plain = unpack(body, bound)
    if len(plain) > bound:
        raise UnpackedTooLarge
    return plain


def _gzip(body: bytes, bound: int) -> bytes:
    """Unpack one or several members."""
    view, plain, at = memoryview(body), bytearray(), 0
    for _ in range(MAX_MEMBERS):
        unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        while not unpacker.eof:
            piece = view[at : at + _PIECE_BYTES]
            if not piece:
                raise BrokenPacking
            try:
                plain += unpacker.decompress(piece, bound + 1 - len(plain))
            except zlib.error as exc:
                raise BrokenPacking from exc
            if len(plain) > bound:
                return bytes(plain)
            at += len(piece) - len(unpacker.unused_data)
        if at == len(body):
            return bytes(plain)
    raise BrokenPacking


def _deflate(body: bytes, bound: int) -> bytes:
    """Unpack zlib's format, which the name means, or the bare stream that some clients send under it."""
    try:
        return _inflated(zlib.decompressobj(), body, bound + 1)
    except BrokenPacking:
        return _inflated(zlib.decompressobj(wbits=-zlib.MAX_WBITS), body, bound + 1)


def _inflated(unpacker: "zlib._Decompress", body: bytes, most_bytes: int) -> bytes:
    try:
        plain = unpacker.decompress(body, most_bytes)
    except zlib.error as exc:
        raise BrokenPacking from exc
    if not unpacker.eof and len(plain) < most_bytes:
        raise BrokenPacking
    return plain


def _zstd(body: bytes, bound: int) -> bytes:
    unpacker = zstandard.ZstdDecompressor(max_window_size=8 * 1024 * 1024)
    try:
        with unpacker.stream_reader(body, read_across_frames=True) as reader:
            plain = reader.read(bound + 1)
        if len(plain) <= bound:
            _check_whole(unpacker, body)
    except zstandard.ZstdError as exc:
        raise BrokenPacking from exc
    return plain


def _check_whole(unpacker: zstandard.ZstdDecompressor, body: bytes) -> None:
    """Raise BrokenPacking when the last frame is not complete, which the bounded reader does not notice."""
    view, at = memoryview(body), 0
    for _ in range(MAX_MEMBERS):
        frame = unpacker.decompressobj()
        while not frame.eof:
            piece = view[at : at + _PIECE_BYTES]
            if not piece:
                raise BrokenPacking
            frame.decompress(piece)
            at += len(piece) - len(frame.unused_data)
        if at == len(body):
            return
    raise BrokenPacking


_UNPACKERS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
}
