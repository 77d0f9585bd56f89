"""Settings of the process' memory allocator."""

import contextlib
import ctypes

_M_ARENA_MAX = -8  # malloc.h


def use_one_arena() -> None:
    """Make all threads share one malloc arena. Call before threads are started.

    glibc gives every thread its own arena and seldom returns memory from it: the few threads that ship journals held
    25 MB that way. The interpreter's lock keeps threads from allocating simultaneously anyway.
    No effect with other C libraries.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
