"""Wait for a condition with a deadline, for tests of real processes; never for a fixed time."""

from collections.abc import Callable
from threading import Event
from typing import TypeVar

from codexflow.lib.clock import monotonic_s

T = TypeVar("T")
_never = Event()


def until(condition: Callable[[], T | None], *, within_s: float = 60.0, what: str = "") -> T:
    """Return the first truthy value of `condition`. Fails the test after `within_s`."""
    deadline_s = monotonic_s() + within_s
    while not (value := condition()):
        assert monotonic_s() < deadline_s, f"not within {within_s:g} s: {what or condition}"
        _never.wait(0.02)
    return value
