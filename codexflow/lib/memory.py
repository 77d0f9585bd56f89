"""Settings of the process' memory allocator, and how much memory there is."""

import contextlib
import ctypes
import os
from pathlib import Path

LEAST_ROOM_BYTES = 64 * 1024 * 1024
MOST_ROOM_BYTES = 1024 * 1024 * 1024

_M_ARENA_MAX = -8  # malloc.h


def use_one_arena() -> None:
    """Make all threads share one malloc arena. Call before threads are started.

    glibc gives every thread its own arena and seldom returns memory from it: the few threads that ship journals held
    25 MB that way. The interpreter's lock keeps threads from allocating simultaneously anyway.
    No effect with other C libraries.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


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
