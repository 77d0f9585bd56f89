"""Ranges of memory that go onto huge pages."""

from pathlib import Path

import pytest

from codexflow.lib.memory import HUGE_PAGE_BYTES, full_ranges, use_huge_pages

MIB = 1 << 20


def a_mapping(start: int, end: int, *, rss_kb: int, mode: str = "rw-p", inode: int = 0, name: str = "") -> str:
    device = "fe:00" if inode else "00:00"
    head = f"{start:012x}-{end:012x} {mode} 00000000 {device} {inode}   {name}".rstrip()
    return f"{head}\nSize: {(end - start) // 1024:>10} kB\nKernelPageSize:  4 kB\nRss: {rss_kb:>10} kB\nPss:  1 kB\n"


def test_neighbours_are_joined_and_cut_to_whole_huge_pages() -> None:
    smaps = a_mapping(5 * MIB, 8 * MIB, rss_kb=3 * 1024) + a_mapping(8 * MIB, 13 * MIB, rss_kb=5 * 1024, name="[heap]")
    assert full_ranges(smaps) == [(6 * MIB, 12 * MIB)]


@pytest.mark.parametrize(
    "mapping",
    [
        a_mapping(8 * MIB, 16 * MIB, rss_kb=100),  # a stack
        a_mapping(8 * MIB, 16 * MIB, rss_kb=8 * 1024, mode="r-xp"),
        a_mapping(8 * MIB, 16 * MIB, rss_kb=8 * 1024, inode=7, name="/lib/libc.so.6"),
        a_mapping(8 * MIB, 16 * MIB, rss_kb=8 * 1024, name="[stack]"),
        a_mapping(9 * MIB, 11 * MIB, rss_kb=2 * 1024),  # no whole page
    ],
)
def test_other_memory_stays_as_it_is(mapping: str) -> None:
    assert full_ranges(mapping) == []


def test_this_process_keeps_its_memory() -> None:
    kept = [bytes([n % 256]) * 1000 for n in range(20_000)]
    smaps = Path("/proc/self/smaps")
    ranges = full_ranges(smaps.read_text()) if smaps.exists() else []  # only Linux has it
    assert bool(ranges) == smaps.exists()
    assert all(start % HUGE_PAGE_BYTES == end % HUGE_PAGE_BYTES == 0 for start, end in ranges)
    use_huge_pages()
    assert all(each == bytes([n % 256]) * 1000 for n, each in enumerate(kept))
