"""How this process keeps its memory."""

import contextlib
import ctypes

_M_ARENA_MAX = -8  # malloc.h


def use_one_arena() -> None:
    """Let all threads take memory from one place. Call before threads are started.

    glibc gives every thread an arena of its own and seldom gives back what was used there once: the few threads that
    ship journals held 25 MB that way. Under the interpreter's lock they would not allocate at the same time anyway.
    Elsewhere than on glibc this does nothing.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
