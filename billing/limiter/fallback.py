"""Fallback of the limiter while Redis is unavailable: a circuit breaker for Redis and a per-process limiter. Pure.

The processes that share the limits cannot communicate during an outage, so each takes its share of them and relies on
nothing beyond the last counts it read from Redis. A hard budget is never estimated: such calls are refused.
"""

from dataclasses import dataclass

from billing.errors import LimiterUnavailable
from billing.limiter.admission import SCOPES, SECONDS_PER_DAY, SECONDS_PER_MINUTE, Admission, refusal
from billing.plans import Limits, tighter

FAILURES_TO_OPEN = 5
TRIAL_INTERVAL_S = 1.0
PERCENT_OF_DAY = 5
# A relapse within this time is the same outage: counters are reconciled every half minute, journals are shipped sooner.
SAME_OUTAGE_S = 60.0
# Scopes whose last counts are kept; an evicted one counts as unknown.
MAX_KNOWN = 40_000
KEY = SCOPES.index("key")

Scopes = tuple[bytes, bytes]


class RedisBreaker:
    """Circuit breaker for the limiter's Redis, of one process. A slow Redis hurts more than a dead one.

    Opens after five failures in a row, or at once when the connection is lost and the short retry did not restore it.
    Without a connection every call is blocked: reconnecting, tried every second, is the trial. With a connection that
    gave five failures, one call a second is the trial.
    """

    __slots__ = ("_is_cut", "_trial_at_s", "failures")

    def __init__(self) -> None:
        self.failures = 0
        self._is_cut = False
        self._trial_at_s = 0.0

    @property
    def is_open(self) -> bool:
        return self._is_cut or self.failures >= FAILURES_TO_OPEN

    def is_blocking(self, now_s: float, *, is_up: bool) -> bool:
        """Return whether a call would skip Redis now. Claims no trial."""
        if not is_up:
            return self.is_open
        return self.failures >= FAILURES_TO_OPEN and now_s < self._trial_at_s

    def allow_request(self, now_s: float, *, is_up: bool) -> bool:
        """Return whether this call uses Redis. Claims the trial when it is due."""
        if self.is_blocking(now_s, is_up=is_up):
            return False
        self._trial_at_s = now_s + TRIAL_INTERVAL_S
        return True

    def record_failure(self, now_s: float, *, is_up: bool) -> None:
        """Count a call that got no reply from Redis; `is_up` tells whether it is connected now."""
        self.failures += 1
        self._is_cut = not is_up
        self._trial_at_s = now_s + TRIAL_INTERVAL_S

    def record_success(self) -> None:
        self.failures = 0
        self._is_cut = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OutageTerms:
    """Limits of an outage, as configured by the operator."""

    processes: int = 1  # gateway processes that share the limits
    allowance_nanos: int = 1_000_000_000  # per key and outage, over all processes

    def share(self, limit: int) -> int:
        """Return this process's share of a limit, rounded up."""
        return -(-limit // self.processes)

    def daily(self, limit: int) -> int:
        """Return the requests allowed in one outage: this process's share of 5 % of a daily limit, at least one."""
        return min(limit, max(1, limit * PERCENT_OF_DAY // 100 // self.processes))


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalClaim:
    """Resources a call requests from the local limiter."""

    tokens: int
    hold_nanos: int
    takes_slot: bool
    open_streams: tuple[int, int]  # of this process, for organization and key


@dataclass(slots=True)
class _Used:
    """Usage of one scope admitted by this process during the outage."""

    requests: int = 0
    minute: int = 0
    minute_requests: int = 0
    minute_tokens: int = 0
    nanos: int = 0  # spent, or held by calls in flight


class LocalLimiter:
    """Per-process fallback limiter, used while Redis is unavailable."""

    def __init__(self, terms: OutageTerms, *, born_ms: int = 0) -> None:
        self._terms = terms
        # A process before this one may have used up what a scope may in that minute.
        self._born_minute = born_ms // 1000 // SECONDS_PER_MINUTE
        self._known: dict[bytes, Admission] = {}
        self._used: dict[bytes, _Used] = {}
        self._ended_at_s: float | None = None
        self.is_on = False
        self.admitted = 0
        self.refused = 0

    def remember(self, scopes: Scopes, admission: Admission) -> None:
        """Store the last counts read from Redis: an outage starts from there."""
        known = self._known
        if len(known) > MAX_KNOWN:
            known.clear()
        known[scopes[0]] = known[scopes[1]] = admission

    def minute_counts(self, minute: int) -> dict[bytes, tuple[int, int]]:
        """Requests and tokens of a minute as this process knows them, of scopes that have limits on them."""
        counts = {}
        for scope, known in list(self._known.items()):
            if known.minute != minute:
                continue
            index = int(b":k:" in scope)
            if known.limits[index].rpm >= 0 or known.limits[index].tpm >= 0:
                used = self._used.get(scope)
                more = (used.minute_requests, used.minute_tokens) if used and used.minute == minute else (0, 0)
                counts[scope] = (known.minute_requests[index] + more[0], known.minute_tokens[index] + more[1])
        return counts

    def begin(self, now_s: float) -> None:
        """Begin an outage, or continue the last one if Redis was back only for a moment."""
        self.is_on = True
        if self._ended_at_s is None or now_s - self._ended_at_s > SAME_OUTAGE_S:
            self._used.clear()
            self.admitted = self.refused = 0

    def end(self, now_s: float) -> None:
        """End the outage: Redis replied."""
        self.is_on = False
        self._ended_at_s = now_s

    def admit(
        self, scopes: Scopes, limits: tuple[Limits, Limits], claim: LocalClaim, *, now_ms: int, is_closed: bool = False
    ) -> Admission:
        """Admit a call within this process's share of the limits.

        `now_ms` is this process's estimate of Redis's time. Raises the limit's own refusal (429) where the limit is
        known to be reached, LimiterUnavailable (503) where only Redis could decide; a refusal consumes nothing.
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
            counts = self._checked(scopes, claim, admission, is_closed=is_closed)
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
            used.minute_tokens += claim.tokens
            used.nanos += claim.hold_nanos
        return _counted(admission, (counts[0] + 1, counts[1] + 1))

    def settle(self, scopes: Scopes, *, hold_nanos: int, cost_nanos: int) -> None:
        """Replace the hold of a finished call by its cost."""
        for scope in scopes:
            if (used := self._used.get(scope)) is not None:
                used.nanos = max(0, used.nanos + cost_nanos - hold_nanos)

    def _checked(self, scopes: Scopes, claim: LocalClaim, admission: Admission, *, is_closed: bool) -> tuple[int, int]:
        """Check all limits. Returns today's requests per scope, as far as they are known. Raises as `admit`."""
        limits = admission.limits
        counts = (self._count(scopes[0], 0, admission), self._count(scopes[1], 1, admission))
        admission = _counted(admission, counts)
        if is_closed or limits[0].has_budget or limits[1].has_budget:
            raise _unavailable(admission, "closed" if is_closed else "hard budget")
        if admission.minute == self._born_minute and any(map(self._has_spent_unknown_minute, scopes, limits)):
            raise _unavailable(admission, "minute of the start", retry_after_s=admission.minute_ends_in_s)
        for index in range(len(SCOPES)):
            if verdict := self._verdict(scopes[index], index, claim, admission):
                raise refusal(verdict, index, admission, tokens=claim.tokens)
        tightest = tighter(limits[0].daily_requests, limits[1].daily_requests)
        for index, limit in enumerate((limits[0].daily_requests, tightest)):
            used = self._used.get(scopes[index], _Used()).requests
            # An unknown key may have nothing left.
            is_unknown = index == KEY and scopes[index] not in self._known
            if limit >= 0 and used >= (1 if is_unknown else self._terms.daily(limit)):
                raise _unavailable(admission, "requests of an outage")
        spent = self._used.get(scopes[KEY], _Used()).nanos
        if spent + claim.hold_nanos > self._terms.allowance_nanos // self._terms.processes:
            raise _unavailable(admission, "allowance of an outage")
        return counts

    def _count(self, scope: bytes, index: int, admission: Admission) -> int:
        known, used = self._known.get(scope), self._used.get(scope)
        before = known.requests_today[index] if known is not None and known.day == admission.day else 0
        return before + (used.requests if used else 0)

    def _has_spent_unknown_minute(self, scope: bytes, limits: Limits) -> bool:
        """Return whether a scope with limits a minute, of which nothing is known, has had its one call."""
        if scope in self._known or (limits.rpm < 0 and limits.tpm < 0):
            return False
        used = self._used.get(scope)
        return used is not None and used.minute_requests > 0

    def _verdict(self, scope: bytes, index: int, claim: LocalClaim, admission: Admission) -> str:
        """Name the limit of the scope that is reached, as far as this process knows; empty: none."""
        limits, share = admission.limits[index], self._terms.share
        used = self._used.get(scope, _Used())
        is_this_minute = used.minute == admission.minute
        requests = used.minute_requests if is_this_minute else 0
        tokens = used.minute_tokens if is_this_minute else 0
        # The outage shares what was left of the minute when it began.
        known = self._known.get(scope)
        if known is not None and known.minute == admission.minute:
            known_requests, known_tokens = known.minute_requests[index], known.minute_tokens[index]
        else:
            known_requests, known_tokens = 0, 0
        if 0 <= limits.daily_requests <= admission.requests_today[index]:
            return "day"
        if limits.rpm >= 0 and requests >= share(max(0, limits.rpm - known_requests)):
            return "rpm"
        has_used = tokens > 0 or known_tokens > 0
        if limits.tpm == 0 or (
            limits.tpm > 0 and has_used and tokens + claim.tokens > share(limits.tpm - known_tokens)
        ):
            return "tpm"
        if claim.takes_slot and limits.concurrent_streams >= 0:
            return "streams" if claim.open_streams[index] >= share(limits.concurrent_streams) else ""
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


def _unavailable(admission: Admission, reason: str, *, retry_after_s: int = 1) -> LimiterUnavailable:
    return LimiterUnavailable(retry_after_s=retry_after_s, reason=reason, admission=admission)
