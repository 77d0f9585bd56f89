"""Limits while Redis is away: when to stop asking it, and what one process may then let in by itself. Pure.

The limits are shared by several processes that cannot hear each other now, so each takes its part of them and trusts
nothing beyond what Redis told it last. A hard budget is never guessed at: such calls are refused.
"""

from dataclasses import dataclass

from billing.errors import LimiterUnavailable
from billing.limiter.admission import SCOPES, SECONDS_PER_DAY, SECONDS_PER_MINUTE, Admission, refusal
from billing.plans import Limits, tighter

FAILURES_TO_OPEN = 5
PROBE_S = 1.0
PERCENT_OF_DAY = 5
# A relapse within this time is the same outage: counters are put right every half minute, journals are shipped sooner.
SAME_OUTAGE_S = 60.0
# Scopes whose last counts are kept; one that was forgotten counts as unknown.
MAX_KNOWN = 40_000
KEY = SCOPES.index("key")

Scopes = tuple[bytes, bytes]


class Breaker:
    """Whether to ask the limiter's Redis. A slow Redis hurts more than a dead one.

    Opens after five failures in a row, or at once when the connection is gone and a moment's patience did not bring it
    back. While there is no connection nobody asks: reconnecting, tried every second, is the trial. With a connection
    that gave five failures, one call a second is.
    """

    __slots__ = ("_is_cut", "_probe_at_s", "failures")

    def __init__(self) -> None:
        self.failures = 0
        self._is_cut = False
        self._probe_at_s = 0.0

    @property
    def is_open(self) -> bool:
        return self._is_cut or self.failures >= FAILURES_TO_OPEN

    def is_resting(self, now_s: float, *, is_up: bool) -> bool:
        """Whether a call would not ask now."""
        if not is_up:
            return self.is_open
        return self.failures >= FAILURES_TO_OPEN and now_s < self._probe_at_s

    def asks(self, now_s: float, *, is_up: bool) -> bool:
        """Whether this call asks Redis. Claims the trial when it is due."""
        if self.is_resting(now_s, is_up=is_up):
            return False
        self._probe_at_s = now_s + PROBE_S
        return True

    def failed(self, now_s: float, *, is_up: bool) -> None:
        """A call asked and got no answer; `is_up` is whether there is a connection now."""
        self.failures += 1
        self._is_cut = not is_up
        self._probe_at_s = now_s + PROBE_S

    def succeeded(self) -> None:
        self.failures = 0
        self._is_cut = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the operator allows during an outage."""

    processes: int = 1  # gateway processes that share the limits
    allowance_nanos: int = 1_000_000_000  # per key and outage, over all processes

    def share(self, limit: int) -> int:
        """This process's part of a limit, rounded up."""
        return -(-limit // self.processes)

    def daily(self, limit: int) -> int:
        """Requests of one outage against a daily limit: a part of 5 %, and never nothing."""
        return min(limit, max(1, limit * PERCENT_OF_DAY // 100 // self.processes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a call asks for."""

    tokens: int
    hold_nanos: int
    takes_slot: bool
    open_streams: tuple[int, int]  # of this process, for organization and key


@dataclass(slots=True)
class _Used:
    """What a scope got from this process during the outage."""

    requests: int = 0
    minute: int = 0
    minute_requests: int = 0
    minute_tokens: int = 0
    nanos: int = 0  # spent, or held by running calls


class Rations:
    """What every scope still gets from this process while Redis is away."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._known: dict[bytes, Admission] = {}
        self._used: dict[bytes, _Used] = {}
        self._ended_at_s: float | None = None
        self.is_on = False
        self.admitted = 0
        self.refused = 0

    def remember(self, scopes: Scopes, admission: Admission) -> None:
        """What Redis said last: the outage starts from there."""
        known = self._known
        if len(known) > MAX_KNOWN:
            known.clear()
        known[scopes[0]] = known[scopes[1]] = admission

    def begin(self, now_s: float) -> None:
        """An outage begins, or goes on after Redis was there for a moment."""
        self.is_on = True
        if self._ended_at_s is None or now_s - self._ended_at_s > SAME_OUTAGE_S:
            self._used.clear()
            self.admitted = self.refused = 0

    def end(self, now_s: float) -> None:
        self.is_on = False
        self._ended_at_s = now_s

    def admit(
        self, scopes: Scopes, limits: tuple[Limits, Limits], wish: Wish, *, now_ms: int, is_closed: bool = False
    ) -> Admission:
        """Let a call in as far as this process can answer for it alone.

        `now_ms` is Redis's time as well as this process can tell. Raises the limit's own refusal (429) where the limit
        itself is known to be reached, LimiterUnavailable (503) where only Redis could say; a refusal uses nothing up.
        """
        minute = now_ms // 1000 // SECONDS_PER_MINUTE
        admission = Admission(
            day=now_ms // 1000 // SECONDS_PER_DAY,
            minute=minute,
            now_ms=now_ms,
            limits=limits,
            requests_today=(0, 0),
            is_degraded=True,
        )
        try:
            counts = self._checked(scopes, wish, admission, is_closed=is_closed)
        except Exception:
            self.refused += 1
            raise
        self.admitted += 1
        for scope in scopes:
            used = self._used.setdefault(scope, _Used())
            if used.minute != minute:
                used.minute, used.minute_requests, used.minute_tokens = minute, 0, 0
            used.requests += 1
            used.minute_requests += 1
            used.minute_tokens += wish.tokens
            used.nanos += wish.hold_nanos
        return _counted(admission, (counts[0] + 1, counts[1] + 1))

    def settle(self, scopes: Scopes, *, hold_nanos: int, cost_nanos: int) -> None:
        """A call that was let in here has ended."""
        for scope in scopes:
            if (used := self._used.get(scope)) is not None:
                used.nanos = max(0, used.nanos + cost_nanos - hold_nanos)

    def _checked(self, scopes: Scopes, wish: Wish, admission: Admission, *, is_closed: bool) -> tuple[int, int]:
        """Requests of the day so far as this process knows them, when the call may pass. Raises as `admit`."""
        limits = admission.limits
        counts = (self._count(scopes[0], 0, admission), self._count(scopes[1], 1, admission))
        admission = _counted(admission, counts)
        if is_closed or limits[0].has_budget or limits[1].has_budget:
            raise _unavailable(admission, "closed" if is_closed else "hard budget")
        for index in range(len(SCOPES)):
            if verdict := self._verdict(scopes[index], index, wish, admission):
                raise refusal(verdict, index, admission, slot_free_in_ms=0)
        tightest = tighter(limits[0].daily_requests, limits[1].daily_requests)
        for index, limit in enumerate((limits[0].daily_requests, tightest)):
            used = self._used.get(scopes[index], _Used()).requests
            # A key of which nothing is known could have nothing left.
            is_unknown = index == KEY and scopes[index] not in self._known
            if limit >= 0 and used >= (1 if is_unknown else self._terms.daily(limit)):
                raise _unavailable(admission, "requests of an outage")
        spent = self._used.get(scopes[KEY], _Used()).nanos
        if spent + wish.hold_nanos > self._terms.allowance_nanos // self._terms.processes:
            raise _unavailable(admission, "allowance of an outage")
        return counts

    def _count(self, scope: bytes, index: int, admission: Admission) -> int:
        known, used = self._known.get(scope), self._used.get(scope)
        before = known.requests_today[index] if known is not None and known.day == admission.day else 0
        return before + (used.requests if used else 0)

    def _verdict(self, scope: bytes, index: int, wish: Wish, admission: Admission) -> str:
        """Which limit of the scope is reached, as far as this process can know; empty: none."""
        limits, share = admission.limits[index], self._terms.share
        used = self._used.get(scope, _Used())
        is_this_minute = used.minute == admission.minute
        requests = used.minute_requests if is_this_minute else 0
        tokens = used.minute_tokens if is_this_minute else 0
        if 0 <= limits.daily_requests <= admission.requests_today[index]:
            return "day"
        if limits.rpm >= 0 and requests >= share(limits.rpm):
            return "rpm"
        if limits.tpm == 0 or (limits.tpm > 0 and tokens > 0 and tokens + wish.tokens > share(limits.tpm)):
            return "tpm"
        if wish.takes_slot and limits.concurrent_streams >= 0:
            return "streams" if wish.open_streams[index] >= share(limits.concurrent_streams) else ""
        return ""


def _counted(admission: Admission, counts: tuple[int, int]) -> Admission:
    return Admission(
        day=admission.day,
        minute=admission.minute,
        now_ms=admission.now_ms,
        limits=admission.limits,
        requests_today=counts,
        is_degraded=True,
    )


def _unavailable(admission: Admission, reason: str) -> LimiterUnavailable:
    return LimiterUnavailable(retry_after_s=1, reason=reason, admission=admission)
