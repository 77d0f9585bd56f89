"""The process' memory: how it is allocated, on which pages, and how much there is."""

import contextlib
import ctypes
import os
import re
from collections.abc import Iterator
from pathlib import Path

LEAST_ROOM_BYTES = 64 * 1024 * 1024
MOST_ROOM_BYTES = 1024 * 1024 * 1024

_M_ARENA_MAX = -8  # malloc.h
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25  # linux/mman.h
HUGE_PAGE_BYTES = 2 << 20  # of x86-64, and of ARM with pages of 4 KiB
_ANONYMOUS = re.compile(
    r"^([0-9a-f]+)-([0-9a-f]+) rw-p [0-9a-f]+ 00:00 0 *(?:\[heap\])?$(?:\n[A-Z]\w+:.*)*?\nRss: +(\d+) kB$", re.MULTILINE
)


def use_one_arena() -> None:
    """Make all threads share one malloc arena. Call before threads are started.

    glibc gives every thread its own arena and seldom returns memory from it: the few threads that ship journals held
    25 MB that way. The interpreter's lock keeps threads from allocating simultaneously anyway.
    No effect with other C libraries.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def use_huge_pages() -> None:
    """Put what the process has allocated so far on huge pages, where the kernel allows it. Call once at the start.

    A call touches a few objects on each of thousands of small pages: more than a processor can keep translated, and in
    a virtual machine each miss walks two tables. Memory that is allocated later stays on small pages. No effect unless
    Linux has transparent huge pages.
    """
    with contextlib.suppress(AttributeError, OSError):
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        for start, end in full_ranges(Path("/proc/self/smaps").read_text()):
            if madvise(start, end - start, _MADV_HUGEPAGE) == 0:
                madvise(start, end - start, _MADV_COLLAPSE)  # at once, from Linux 6.1 on; else in the background


def full_ranges(smaps: str) -> list[tuple[int, int]]:
    """Return the ranges of whole huge pages in private memory that is mostly in use; `smaps` as in /proc/PID/smaps.

    Stacks of threads are large, hardly used, and stay as they are.
    """
    ranges: list[tuple[int, int]] = []
    for addresses, mapped_bytes, resident_bytes in _anonymous(smaps):
        if 2 * resident_bytes < mapped_bytes:
            continue
        start, end = addresses
        if ranges and ranges[-1][1] == start:  # as the interpreter's arenas mostly are
            start = ranges.pop()[0]
        ranges.append((start, end))
    size = HUGE_PAGE_BYTES
    whole = [(-(-start // size) * size, end // size * size) for start, end in ranges]
    return [(start, end) for start, end in whole if start < end]


def _anonymous(smaps: str) -> Iterator[tuple[tuple[int, int], int, int]]:
    """Iterate over writable mappings without a file: their addresses, their size and what of it is resident."""
    for found in _ANONYMOUS.finditer(smaps):
        start, end = int(found[1], 16), int(found[2], 16)
        yield (start, end), end - start, int(found[3]) * 1024


def room_for_bodies(configured_bytes: int, processes: int) -> int:
    """Return the room of one process for bodies in reception; 0 configured: its part of an eighth of the memory."""
    return configured_bytes or min(MOST_ROOM_BYTES, max(LEAST_ROOM_BYTES, available_bytes() // 8 // processes))


def available_bytes() -> int:
    """Return the memory that this machine or container has in all."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            found = min(found, int(Path(path).read_text()))  # "max": no bound
    return found
