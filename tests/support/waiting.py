"""Wait for a condition with a deadline, for tests of real processes; never for a fixed time."""

from collections.abc import Callable
from threading import Event
from typing import TypeVar

from codexflow.lib.clock import monotonic_s

T = TypeVar("T")
_never = Event()


def until(condition: Callable[[], T | None], *, within_s: float = 60.0, what: str = "") -> T:
    """Return the first truthy value of `condition`. Fails the test after `within_s`."""
    deadline_s, pause_s = monotonic_s() + within_s, 0.01
    while not (value := condition()):
        assert monotonic_s() < deadline_s, f"not within {within_s:g} s: {what or condition}"
        _never.wait(pause_s)
        pause_s = min(0.1, pause_s * 1.2)
    return value
