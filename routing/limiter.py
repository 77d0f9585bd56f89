"""The gateway's rate limiter: Redis, or `LocalLimiter` while Redis is unavailable (degraded mode)."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any
from uuid import UUID

from redis import ResponseError

from billing.errors import InsufficientQuota, LimiterAway, RateLimitExceeded
from billing.limiter.admission import SECONDS_PER_DAY, SECONDS_PER_MINUTE
from billing.limiter.fallback import LocalClaim, LocalLimiter, OutageTerms, RedisBreaker, Scopes
from billing.limiter.limits import (
    ADMIT_STARVED_WITHIN_MS,
    ADMIT_WITHIN_MS,
    Admission,
    Amendment,
    Claim,
    Doubt,
    Epochs,
    LoadTotals,
    Pulse,
    Settlement,
    admit,
    amend,
    check,
    heartbeat,
    settle,
    void,
)
from codexflow.lib import clock
from codexflow.lib.errors import AppError
from codexflow.lib.redis import RedisUnavailable, ShardRedis
from keys.principal import Principal
from logs.pipeline.events import UsageEvent, encode

logger = logging.getLogger(__name__)

# Calls that an outage of seconds refuses. Any that do not fit are found by the sweeper.
MAX_DOUBTS = 20_000
VOID_EVERY_S = 0.5

# Scopes of a caller -> streams in flight in this process, of its organization and of its key.
CountStreams = Callable[[Scopes], tuple[int, int]]


class Limiter:
    """Admits and settles calls. One instance per process.

    Owns the circuit breaker for Redis, the local limiter that stands in for it, and the last known reading of Redis's
    clock, by which the day continues during an outage.
    """

    def __init__(
        self,
        redis: ShardRedis,
        *,
        load_totals: LoadTotals,
        lease_ms: int,
        terms: OutageTerms,
        fails_closed: bool = False,
        epochs: Epochs | None = None,
    ) -> None:
        self._redis = redis
        self._load_totals = load_totals
        self._lease_ms = lease_ms
        self._fails_closed = fails_closed
        self._epochs = epochs
        self._breaker = RedisBreaker()
        self._local = LocalLimiter(terms, born_ms=clock.now_ms())
        # Redis's clock (ms) at its last reply, and our monotonic clock then.
        self._redis_clock: tuple[int, float] | None = None
        # Refused calls that Redis may have admitted: its reply was lost.
        self._doubts: deque[Doubt] = deque(maxlen=MAX_DOUBTS)
        self._has_doubts = asyncio.Event()

    @property
    def is_degraded(self) -> bool:
        """Degraded mode: this process admits calls by the local limiter."""
        return self._breaker.is_blocking(clock.monotonic_s(), is_up=self._redis.is_up)

    @property
    def is_recovering(self) -> bool:
        """Redis was emptied, and nothing is admitted until it has been told what it lost."""
        return self._epochs is not None and bool(self._epochs.closed)

    async def admit(
        self, principal: Principal, intent: UsageEvent, *, now_s: float, count_streams: CountStreams
    ) -> Admission:
        """Pass every limit in Redis, or locally while Redis is unavailable.

        Raises what `billing.limiter.limits.admit` and `LocalLimiter.admit` raise, having changed nothing.
        `count_streams` is called only without Redis.
        """
        breaker = self._breaker
        if breaker.failures and not breaker.allow_request(clock.monotonic_s(), is_up=self._redis.is_up):
            return self._admit_locally(principal, intent, count_streams)
        try:
            admission = await self._admit_in_redis(principal, intent, is_forced=False)
        except LimiterAway as exc:
            self._record_failure(exc)
            try:
                return self._admit_locally(principal, intent, count_streams)
            except AppError:
                self._doubts.append(_doubt(principal, intent, self._deadline_ms(ADMIT_STARVED_WITHIN_MS)))
                self._has_doubts.set()
                raise
        except (RateLimitExceeded, InsufficientQuota) as exc:
            self._record_reply(principal, exc.facts["admission"], now_s)
            raise
        self._record_reply(principal, admission, now_s)
        return admission

    async def check(self, principal: Principal) -> None:
        """Raise what `admit` would raise even for the smallest call, unless Redis is unavailable. Counts nothing."""
        if not self.is_degraded:
            await check(self._redis, principal.payer, principal.limits, epochs=self._epochs)

    async def restore(self, principal: Principal, intent: UsageEvent) -> None:
        """Count a call in flight that Redis has forgotten, whatever the limits say. Raises as `limits.admit`."""
        await self._admit_in_redis(principal, intent, is_forced=True)

    def amend(
        self, principal: Principal, before: UsageEvent, after: UsageEvent, admission: Admission
    ) -> Coroutine[Any, Any, None]:
        """Replace the intent of a call in flight, with its hold and reserved tokens. Raises as `limits.amend`."""
        amendment = Amendment(
            request_id=after.request_id,
            intent=encode(after),
            hold_nanos=(before.hold_nanos, after.hold_nanos),
            tokens=(before.tokens_reserved, after.tokens_reserved),
        )
        return amend(
            self._redis,
            principal.payer,
            principal.limits,
            amendment,
            admission=admission,
            tag=principal.tags[after.tag] if after.tag_budget_id is not None else None,
        )

    def settle(self, principal: Principal, settlement: Settlement) -> Coroutine[Any, Any, bool]:
        """Settle in Redis. Raises RedisUnavailable and ResponseError."""
        return settle(self._redis, principal.payer, settlement, epochs=self._epochs)

    def settle_locally(self, principal: Principal, event: UsageEvent) -> None:
        """Settle in the local limiter, for a call that it admitted."""
        self._local.settle(principal.payer.scopes, hold_nanos=event.hold_nanos, cost_nanos=event.cost_nanos)

    def heartbeat(self, pulses: Sequence[Pulse]) -> Coroutine[Any, Any, set[UUID]]:
        """Renew the leases of calls in flight. Returns those that Redis has forgotten. Raises RedisUnavailable."""
        return heartbeat(self._redis, pulses, lease_ms=self._lease_ms)

    def minute_counts(self) -> tuple[int, dict[bytes, tuple[int, int]]]:
        """The running minute, and what this process knows of it: requests and tokens of each limited scope."""
        minute = self._redis_now_ms() // 1000 // SECONDS_PER_MINUTE
        return minute, self._local.minute_counts(minute)

    def latest_day(self) -> int:
        """Day (since 1970) by Redis's clock as this process knows it; 0 before its first reply."""
        return self._redis_now_ms() // 1000 // SECONDS_PER_DAY if self._redis_clock is not None else 0

    async def void_refused(self) -> None:
        """Undo the admissions of refused calls, forever: without it they would count until the sweeper finds them."""
        while True:
            if not self._doubts:
                self._has_doubts.clear()
                await self._has_doubts.wait()
            await asyncio.sleep(VOID_EVERY_S)
            try:
                for _ in range(len(self._doubts)):
                    doubt = self._doubts.popleft()
                    try:
                        is_settled = await void(self._redis, doubt)
                    except (RedisUnavailable, ResponseError):
                        self._doubts.appendleft(doubt)
                        raise
                    if not is_settled:
                        self._doubts.append(doubt)
            except (RedisUnavailable, ResponseError) as exc:
                logger.debug("limiter.not_voided", extra={"reason": repr(exc)})

    def _deadline_ms(self, within_ms: int = ADMIT_WITHIN_MS) -> int:
        """Until when Redis may carry out an admission that is asked for now, by its clock; 0 before its first reply."""
        return self._redis_now_ms() + within_ms if self._redis_clock is not None else 0

    def _admit_in_redis(
        self, principal: Principal, intent: UsageEvent, *, is_forced: bool
    ) -> Coroutine[Any, Any, Admission]:
        claim = Claim(
            request_id=intent.request_id,
            takes_slot=intent.is_stream,
            hold_nanos=intent.hold_nanos,
            tokens=intent.tokens_reserved,
            intent=encode(intent),
        )
        return admit(
            self._redis,
            principal.payer,
            principal.limits,
            claim,
            lease_ms=self._lease_ms,
            load_totals=self._load_totals,
            epochs=self._epochs,
            is_forced=is_forced,
            deadline_ms=0 if is_forced else self._deadline_ms(),
            tag=principal.tags[intent.tag] if intent.tag_budget_id is not None else None,
        )

    def _admit_locally(self, principal: Principal, intent: UsageEvent, count_streams: CountStreams) -> Admission:
        """Admit by the local limiter. Raises LimiterUnavailable where only Redis could decide."""
        scopes = principal.payer.scopes
        claim = LocalClaim(
            tokens=intent.tokens_reserved,
            hold_nanos=intent.hold_nanos,
            takes_slot=intent.is_stream,
            open_streams=count_streams(scopes),
        )
        return self._local.admit(
            scopes,
            principal.limits,
            claim,
            now_ms=self._redis_now_ms(),
            is_closed=self._fails_closed or principal.fails_closed or intent.tag_budget_id is not None,
        )

    def _record_reply(self, principal: Principal, admission: Admission, asked_at_s: float) -> None:
        """Remember the counts and the clock of a reply, be it a refusal: an outage starts from the last ones."""
        self._local.remember(principal.payer.scopes, admission)
        self._redis_clock = (admission.now_ms, asked_at_s)
        if self._breaker.failures:
            self._breaker.record_success()
        if self._local.is_on:
            self._local.end(clock.monotonic_s())
            counts = {"admitted": self._local.admitted, "refused": self._local.refused}
            logger.warning("limiter.recovered", extra=counts)

    def _record_failure(self, exc: LimiterAway) -> None:
        now_s = clock.monotonic_s()
        self._breaker.record_failure(now_s, is_up=self._redis.is_up)
        if not self._local.is_on:
            self._local.begin(now_s)
            logger.error("limiter.degraded", extra={"reason": exc.facts.get("reason")})

    def _redis_now_ms(self) -> int:
        """Estimate Redis's clock."""
        if self._redis_clock is None:
            return clock.now_ms()
        redis_ms, at_s = self._redis_clock
        return redis_ms + int((clock.monotonic_s() - at_s) * 1000)


def _doubt(principal: Principal, intent: UsageEvent, deadline_ms: int) -> Doubt:
    return Doubt(
        payer=principal.payer,
        request_id=intent.request_id,
        hold_nanos=intent.hold_nanos,
        tokens=intent.tokens_reserved,
        deadline_ms=deadline_ms,
        tag_budget_id=intent.tag_budget_id,
    )
