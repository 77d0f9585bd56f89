"""Circuit breaker of one upstream model: the reference model that `lua/breaker.lua` is tested against. Pure.

Production runs only the Lua script, on a hash that all processes share; a test plays the same histories on both.

Closed: calls go through and failures in a row are counted. Open: no calls for the recovery timeout. Half-open: one
trial is in progress, and its outcome closes or opens the circuit.

Failures that all came from one caller may be caused by what it sends: they open the circuit for that caller only, and
the first failure of another caller opens it for all.
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
    caller: str = ""  # the one that all these failures came from; empty: several

    def concerns(self, caller: str) -> bool:
        """Return whether an open circuit is open for the caller."""
        return self.caller in ("", caller)


CLOSED = Breaker("closed", 0, 0.0, 0.0)


def record_failure(breaker: Breaker, config: BreakerConfig, now_s: float, caller: str) -> Breaker:
    """Return the circuit after a failed call: one more in a row, a failed trial, or a failure of one more caller.

    A call that began before the circuit opened may fail after; that neither prolongs the timeout nor counts.
    """
    if breaker.state == "open":
        return breaker if breaker.concerns(caller) else Breaker("open", breaker.failures + 1, now_s, 0.0)
    failures = breaker.failures + 1
    only_caller = caller if breaker.caller == caller or not breaker.failures else ""
    if breaker.state == "half_open" or failures >= config.failure_threshold:
        return Breaker("open", failures, now_s, 0.0, only_caller)
    return replace(breaker, failures=failures, caller=only_caller)


def record_success(breaker: Breaker) -> Breaker:
    """Return the circuit after a successful call. While open, only a trial may close it."""
    return breaker if breaker.state == "open" else CLOSED


def allow_request(breaker: Breaker, config: BreakerConfig, now_s: float, caller: str) -> tuple[bool, Breaker]:
    """Return whether a call may go to the model now, and the circuit after that decision.

    After the recovery timeout the first request gets the one trial. A trial that never reports, because its process
    died, is given up after another timeout, and the next request gets one.
    """
    if breaker.state == "closed" or not breaker.concerns(caller):
        return True, breaker
    since_s = breaker.opened_at_s if breaker.state == "open" else breaker.trial_until_s - config.recovery_timeout_s
    # Not before `since_s` either: a clock that was set back must not keep a circuit open for hours.
    if 0 <= now_s - since_s < config.recovery_timeout_s:
        return False, breaker
    return True, replace(breaker, state="half_open", opened_at_s=0.0, trial_until_s=now_s + config.recovery_timeout_s)
