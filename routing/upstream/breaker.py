"""Circuit breakers of one upstream model: the reference model that `lua/breaker.lua` is tested against. Pure.

Production runs only the Lua script, on a hash that all processes share; a test plays the same histories on both.

Counted are failed calls, however many attempts each made. A circuit has a scope, and opens

- for a key, when `failure_threshold` of its calls failed and none succeeded in between: one prompt that an agent
  repeats may be the cause, so it does not take the model from colleagues;
- for an organization, when as many failed of at least two of its keys and no call of it succeeded in between;
- for all, when as many failed within a minute, the last calls of at least two owners failed, and these owners are at
  least as many as the calls that succeeded of all other owners, of the twenty on record within that minute.

For all, an owner's failures count once, however many calls, keys and organizations it has: a retry storm is one
caller's. Owners whom anybody can become within minutes do not count there, nor do failures that a request can bring
about by being slow. Such a call has no `owner`. Nor does one owner reopen the circuit of all by failing one trial after
the other.

Where one caller makes all the traffic, its circuit is marked as everybody's (`is_whole`), for /health.

Open: no calls of the scope for the recovery timeout. Half-open: one trial is in progress, and its outcome closes or
opens the circuit; a trial that proved nothing is given back.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

WINDOW_MS = 60_000
WINDOW_CALLS = 20
# As many must be failing before a circuit opens for all.
OWNERS = 2
# A failed call is forgotten after this time.
FORGET_MS = 600_000
# A threshold above this is never reached.
MAX_FAILURES = 200
ALL = ""


class Caller(NamedTuple):
    """Organization and key of a call, and the organization's owner; empty if the call does not count for all."""

    organization: str
    key: str
    owner: str = ""

    @property
    def scopes(self) -> tuple[str, str, str]:
        """The scopes whose circuits concern the caller."""
        return (ALL, f"o:{self.organization}", f"k:{self.key}")


class Failed(NamedTuple):
    """A failed call. `counts_for`: 2 key and organization, 1 the key only, 0 neither: a call succeeded since."""

    at_ms: int
    organization: str
    key: str
    counts_for: int
    owner: str = ""


class Succeeded(NamedTuple):
    """A call that succeeded. They are told in batches: `at_ms` may lie before failures on record."""

    at_ms: int
    organization: str
    key: str
    owner: str = ""


class Circuit(NamedTuple):
    """An open circuit; half-open while `trial_until_ms` is set."""

    scope: str
    organization: str  # that it is of; empty for all
    opened_at_ms: int
    trial_until_ms: int = 0
    is_whole: int = 0
    failed_by: str = ""  # owner whose trial reopened it last


class Breaker(NamedTuple):
    """State of one model: what is on record, oldest first, and its open circuits in the order in which they opened."""

    failures: tuple[Failed, ...] = ()
    successes: tuple[Succeeded, ...] = ()
    circuits: tuple[Circuit, ...] = ()


CLEAN = Breaker()
_Call = TypeVar("_Call", Failed, Succeeded)


def record_successes(breaker: Breaker, now_ms: int, successes: Iterable[Succeeded]) -> Breaker:
    """Return the breaker after successful calls. While a circuit is open, only its trial closes it."""
    return _pruned(_with_successes(breaker, successes), now_ms)


def _with_successes(breaker: Breaker, successes: Iterable[Succeeded]) -> Breaker:
    failures, kept, circuits = list(breaker.failures), list(breaker.successes), list(breaker.circuits)
    for success in successes:
        kept = _fairly_cut(_inserted(kept, success))
        for n, failed in enumerate(failures):
            if failed.at_ms <= success.at_ms and failed.organization == success.organization:
                still = 0 if failed.key == success.key else min(failed.counts_for, 1)
                failures[n] = failed._replace(counts_for=still)
        circuits = [
            each._replace(is_whole=0) if each.scope != ALL and each.organization != success.organization else each
            for each in circuits
        ]
    return Breaker(tuple(failures), tuple(kept), tuple(circuits))


def record_failure(
    breaker: Breaker,
    threshold: int,
    now_ms: int,
    caller: Caller,
    *,
    successes: Iterable[Succeeded] = (),
    is_trial: bool = False,
) -> Breaker:
    """Return the breaker after a failed call and the successes that were not told yet.

    A failed trial opens its circuits anew. A call that began before a circuit opened neither prolongs nor closes it.
    """
    breaker = _with_successes(breaker, successes)
    failed = Failed(now_ms, caller.organization, caller.key, 2, caller.owner)
    size = min(max(threshold, WINDOW_CALLS), MAX_FAILURES)
    breaker = _pruned(breaker._replace(failures=tuple(_inserted(breaker.failures, failed)[-size:])), now_ms)
    circuits = list(breaker.circuits)
    if is_trial:
        for n, circuit in enumerate(circuits):
            if circuit.scope in caller.scopes and circuit.trial_until_ms:
                circuits[n] = _after_failed_trial(circuit, now_ms, caller.owner)
    open_scopes = {each.scope for each in circuits}
    window = _window(breaker, now_ms)
    is_whole = int(all(each.organization == caller.organization for each in window))
    if _is_open_for_all(breaker, threshold, now_ms) and ALL not in open_scopes:
        circuits.append(Circuit(ALL, "", now_ms, 0, 1))
    of_organization = [f for f in breaker.failures if f.organization == caller.organization and f.counts_for == 2]
    several_keys = len({each.key for each in of_organization}) >= 2
    _all, organization, key = caller.scopes
    if several_keys and len(of_organization) >= threshold and organization not in open_scopes:
        circuits.append(Circuit(organization, caller.organization, now_ms, 0, is_whole))
    of_key = [f for f in breaker.failures if f.key == caller.key and f.counts_for >= 1]
    if len(of_key) >= threshold and key not in open_scopes:
        circuits.append(Circuit(key, caller.organization, now_ms, 0, is_whole))
    return breaker._replace(circuits=tuple(circuits))


def _after_failed_trial(circuit: Circuit, now_ms: int, owner: str) -> Circuit:
    """Open a circuit anew; that of all only if the failure counts and another owner's was the one before."""
    if circuit.scope == ALL and owner in ("", circuit.failed_by):
        return circuit._replace(trial_until_ms=0)
    return circuit._replace(opened_at_ms=now_ms, trial_until_ms=0, failed_by=owner if circuit.scope == ALL else "")


def _is_open_for_all(breaker: Breaker, threshold: int, now_ms: int) -> bool:
    failures = [each for each in breaker.failures if each.owner and now_ms - each.at_ms <= WINDOW_MS]
    successes = [each for each in breaker.successes if each.owner and now_ms - each.at_ms <= WINDOW_MS]
    failed_ms = {each.owner: each.at_ms for each in failures}  # each owner's last
    served_ms = {each.owner: each.at_ms for each in successes}
    failing = {owner for owner, at_ms in failed_ms.items() if at_ms >= served_ms.get(owner, at_ms)}
    working = sum(each.owner not in failing for each in successes)
    return len(failures) >= threshold and len(failing) >= OWNERS and len(failing) >= working


def _window(breaker: Breaker, now_ms: int) -> list[Failed | Succeeded]:
    """Return the last twenty calls on record within a minute, newest first; of two at once the failure."""
    failures, successes = list(breaker.failures), list(breaker.successes)
    window: list[Failed | Succeeded] = []
    while (failures or successes) and len(window) < WINDOW_CALLS:
        is_failure = not successes or (failures and failures[-1].at_ms >= successes[-1].at_ms)
        newest: Failed | Succeeded = failures.pop() if is_failure else successes.pop()
        if now_ms - newest.at_ms > WINDOW_MS:
            break
        window.append(newest)
    return window


def allow_request(breaker: Breaker, timeout_ms: int, now_ms: int, caller: Caller) -> tuple[bool, bool, Breaker]:
    """Return whether a call may go to the model now, whether it is the trial, and the breaker after that.

    After the recovery timeout the first request gets the one trial. A trial that never reports, because its process
    died, is given up after another timeout, and the next request gets one.
    """
    own = [each for each in breaker.circuits if each.scope in caller.scopes]
    for circuit in own:
        since_ms = circuit.trial_until_ms - timeout_ms if circuit.trial_until_ms else circuit.opened_at_ms
        # Not before that either: a clock that was set back must not keep a circuit open for hours.
        if 0 <= now_ms - since_ms < timeout_ms:
            return False, False, breaker
    if not own:
        return True, False, breaker
    circuits = tuple(
        each._replace(trial_until_ms=now_ms + timeout_ms) if each in own else each for each in breaker.circuits
    )
    return True, True, _pruned(breaker._replace(circuits=circuits), now_ms)


def close(breaker: Breaker, now_ms: int, caller: Caller) -> Breaker:
    """Return the breaker after a trial that succeeded: its circuits are closed, and their failures forgotten."""
    closed = {each.scope for each in breaker.circuits if each.scope in caller.scopes and each.trial_until_ms}
    failures = tuple(each for each in breaker.failures if closed.isdisjoint(Caller(each.organization, each.key).scopes))
    circuits = tuple(each for each in breaker.circuits if each.scope not in closed)
    return _pruned(breaker._replace(failures=failures, circuits=circuits), now_ms)


def give_back(breaker: Breaker, now_ms: int, caller: Caller) -> Breaker:
    """Return the breaker after a trial that proved nothing: the next request gets one at once."""
    circuits = tuple(
        each._replace(trial_until_ms=0) if each.scope in caller.scopes else each for each in breaker.circuits
    )
    return _pruned(breaker._replace(circuits=circuits), now_ms)


def _inserted(calls: Sequence[_Call], call: _Call) -> list[_Call]:
    """Insert a call by its time, after those of the same."""
    found = list(calls)
    at = len(found)
    while at and found[at - 1].at_ms > call.at_ms:
        at -= 1
    found.insert(at, call)
    return found


def _fairly_cut(successes: list[Succeeded]) -> list[Succeeded]:
    """Forget successes of whoever has most of them, the oldest first, so that nobody crowds others out."""
    while len(successes) > WINDOW_CALLS:
        numbers = Counter(each.owner for each in successes)
        most = max(numbers.values())
        successes.remove(next(each for each in successes if numbers[each.owner] == most))
    return successes


def _pruned(breaker: Breaker, now_ms: int) -> Breaker:
    """Forget old calls; without failures and circuits nothing is on record."""
    failures = tuple(each for each in breaker.failures if now_ms - each.at_ms <= FORGET_MS)
    successes = tuple(each for each in breaker.successes if now_ms - each.at_ms <= WINDOW_MS)
    return Breaker(failures, successes, breaker.circuits) if failures or breaker.circuits else CLEAN
