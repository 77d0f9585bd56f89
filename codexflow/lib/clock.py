"""The only clocks. Other modules take the time as an argument or read it here, so tests can replace it."""

import time
from datetime import UTC, datetime


def now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


def now_s() -> float:
    """Unix time in seconds."""
    return time.time()  # noqa: TID251 - this is the one place


def now_ms() -> int:
    """Unix time in whole milliseconds."""
    return time.time_ns() // 1_000_000


# Seconds on a clock that never goes back; only differences are meaningful. Not wrapped: it is read 20 times per call.
monotonic_s = time.monotonic  # noqa: TID251 - this is the one place
