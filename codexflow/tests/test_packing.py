"""Content codings: what was packed comes back, within limits, and everything else is refused."""

import contextlib
import gzip
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from codexflow.lib.packing import (
    CODINGS,
    MAX_RATIO,
    BrokenPacking,
    PackingError,
    UnknownCoding,
    UnpackedTooLarge,
    is_packed,
    unpacked,
)


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def streamed_zstd(data: bytes) -> bytes:
    """A frame that does not tell its size, as clients write when they stream."""
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(data) + packer.flush()


def in_two(pack: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda data: pack(data[: len(data) // 2]) + pack(data[len(data) // 2 :])


PACKERS: list[tuple[bytes, Callable[[bytes], bytes]]] = [
    (b"gzip", gzip.compress),
    (b"GZIP", gzip.compress),
    (b" x-gzip ", gzip.compress),
    (b"gzip", in_two(gzip.compress)),
    (b"deflate", zlib.compress),
    (b"deflate", bare_deflate),
    (b"zstd", zstandard.compress),
    (b"Zstd", streamed_zstd),
    (b"zstd", in_two(streamed_zstd)),
]
LIMIT = 10 * 1024 * 1024


@pytest.mark.parametrize(("coding", "pack"), PACKERS)
@given(data=st.binary(max_size=5_000))
def test_what_was_packed_comes_back(coding: bytes, pack: Callable[[bytes], bytes], data: bytes) -> None:
    assert unpacked(pack(data), coding, limit_bytes=LIMIT) == data


@pytest.mark.parametrize(("coding", "pack"), PACKERS)
def test_a_body_above_the_limit_or_the_ratio_is_refused(coding: bytes, pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(UnpackedTooLarge):
        unpacked(pack(bytes(range(256)) * 1_000), coding, limit_bytes=255_999)
    bomb = pack(bytes(50_000_000))
    assert len(bomb) * MAX_RATIO < 50_000_000
    with pytest.raises(UnpackedTooLarge):
        unpacked(bomb, coding, limit_bytes=100_000_000)


@pytest.mark.parametrize(("coding", "pack"), PACKERS)
def test_a_body_that_ends_too_early_is_refused(coding: bytes, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(bytes(range(256)) * 40)
    with pytest.raises(BrokenPacking):
        unpacked(packed[:-9], coding, limit_bytes=LIMIT)


@pytest.mark.parametrize("coding", [b"br", b"gzip, gzip", b"gzip,identity", b"compress", b"\xff"])
def test_another_coding_is_refused(coding: bytes) -> None:
    with pytest.raises(UnknownCoding):
        unpacked(b"x", coding, limit_bytes=LIMIT)


@given(data=st.binary(max_size=200), coding=st.sampled_from(CODINGS))
def test_any_bytes_are_unpacked_or_refused(data: bytes, coding: str) -> None:
    with contextlib.suppress(PackingError):
        unpacked(data, coding.encode(), limit_bytes=1_000)


def test_identity_is_no_packing() -> None:
    codings = (None, b"", b"identity", b" Identity ", b"gzip")
    assert [is_packed(each) for each in codings] == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("coding", "member"),
    [(b"gzip", gzip.compress(b"")), (b"gzip", gzip.compress(b"a")), (b"zstd", zstandard.compress(b"a"))],
    ids=["empty", "gzip", "zstd"],
)
def test_a_body_of_very_many_members_is_refused(coding: bytes, member: bytes) -> None:
    """Behind each of them the rest of the body was copied."""
    with pytest.raises(BrokenPacking):
        unpacked(member * 200_000, coding, limit_bytes=10_000_000)
    assert unpacked(member * 200, coding, limit_bytes=10_000_000) in (b"", b"a" * 200)
