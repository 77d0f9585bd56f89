"""Circuit breaker of one upstream model, as a value.

Closed: calls go through and failures in a row are counted. Open: the model rests. Half-open: one trial is under way,
and its outcome closes or opens the circuit. `lua/breaker.lua` does the same to a hash that all processes share.

Failures that all came from one caller may be the fault of what it sends: they put the model to rest for that caller
only, and the first failure of another one for everybody.
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
    by: str = ""  # the caller from whom all these failures came; empty: from several

    def concerns(self, caller: str) -> bool:
        """Whether an open circuit is open for the caller."""
        return self.by in ("", caller)


CLOSED = Breaker("closed", 0, 0.0, 0.0)


def record_failure(breaker: Breaker, config: BreakerConfig, now_s: float, caller: str) -> Breaker:
    """The circuit after a failed call: one more in a row, a failed trial, or one more caller who fails.

    A call that began before the circuit opened may fail after; that neither prolongs the rest nor counts.
    """
    if breaker.state == "open":
        return breaker if breaker.concerns(caller) else Breaker("open", breaker.failures + 1, now_s, 0.0)
    failures = breaker.failures + 1
    by = caller if breaker.by == caller or not breaker.failures else ""
    if breaker.state == "half_open" or failures >= config.failure_threshold:
        return Breaker("open", failures, now_s, 0.0, by)
    return replace(breaker, failures=failures, by=by)


def record_success(breaker: Breaker) -> Breaker:
    """The circuit after a call that worked. While open, only a trial may close it: a late success says little."""
    return breaker if breaker.state == "open" else CLOSED


def may_try(breaker: Breaker, config: BreakerConfig, now_s: float, caller: str) -> tuple[bool, Breaker]:
    """Whether a call may go to the model now, and the circuit after that answer.

    After the rest the first to ask gets the one trial. A trial that never reports, because its process died, is
    given up after another rest, and the next to ask gets one.
    """
    if breaker.state == "closed" or not breaker.concerns(caller):
        return True, breaker
    since_s = breaker.opened_at_s if breaker.state == "open" else breaker.trial_until_s - config.recovery_timeout_s
    # Not before `since_s` either: a clock that was set back must not put a model to rest for hours.
    if 0 <= now_s - since_s < config.recovery_timeout_s:
        return False, breaker
    return True, replace(breaker, state="half_open", opened_at_s=0.0, trial_until_s=now_s + config.recovery_timeout_s)
