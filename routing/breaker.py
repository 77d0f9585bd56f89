"""Circuit breaker of one upstream model, as a value.

Closed: calls go through and failures in a row are counted. Open: the model rests. Half-open: one trial is under way,
and its outcome closes or opens the circuit. `lua/breaker.lua` does the same to a hash that all processes share.
"""

from dataclasses import dataclass, replace
from typing import Literal

from codexflow.catalogue.schema import BreakerConfig

State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Breaker:
    """`opened_at_s` counts while open, `trial_until_s` while half-open; otherwise they are 0."""

    state: State
    failures: int  # in a row
    opened_at_s: float
    trial_until_s: float


CLOSED = Breaker("closed", 0, 0.0, 0.0)


def record_failure(breaker: Breaker, config: BreakerConfig, now_s: float) -> Breaker:
    """The circuit after a failed call: one more in a row, or a failed trial.

    A call that began before the circuit opened may fail after; that neither prolongs the rest nor counts.
    """
    if breaker.state == "open":
        return breaker
    failures = breaker.failures + 1
    if breaker.state == "half_open" or failures >= config.failure_threshold:
        return Breaker("open", failures, now_s, 0.0)
    return replace(breaker, failures=failures)


def record_success(breaker: Breaker) -> Breaker:
    """The circuit after a call that worked. While open, only a trial may close it: a late success says little."""
    return breaker if breaker.state == "open" else CLOSED


def may_try(breaker: Breaker, config: BreakerConfig, now_s: float) -> tuple[bool, Breaker]:
    """Whether a call may go to the model now, and the circuit after that answer.

    After the rest the first to ask gets the one trial. A trial that never reports, because its process died, is
    given up after another rest, and the next to ask gets one.
    """
    if breaker.state == "closed":
        return True, breaker
    since_s = breaker.opened_at_s if breaker.state == "open" else breaker.trial_until_s - config.recovery_timeout_s
    # Not before `since_s` either: a clock that was set back must not put a model to rest for hours.
    if 0 <= now_s - since_s < config.recovery_timeout_s:
        return False, breaker
    return True, Breaker("half_open", breaker.failures, 0.0, now_s + config.recovery_timeout_s)
