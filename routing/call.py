"""Calls in flight: their heartbeat, and the one way each of them ends.

However a call ends (answer, error, disconnect, shutdown), `finish` runs once: event into the journal, then settle.
Only after that do the last bytes go out, so what a caller saw complete is durable. What dies before `finish` is
found by the sweeper, through the intent that admission wrote.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Self
from uuid import UUID

import msgspec
from redis import ResponseError

from billing.errors import InsufficientQuota, LimiterAway, RateLimitExceeded
from billing.limiter.fallback import LocalClaim, LocalLimiter, OutageTerms, RedisBreaker
from billing.limiter.holds import CallSize, no_dearer_than_first
from billing.limiter.limits import Admission, Claim, LoadTotals, Pulse, admit, heartbeat, settle
from billing.pricing import FrozenRates, cost_nanos
from codexflow.lib import clock
from codexflow.lib.errors import AppError
from codexflow.lib.redis import Pipeline, RedisUnavailable
from keys.principal import Principal
from logs.pipeline.events import AttemptFact, UsageEvent, encode
from logs.pipeline.journal import Journal
from logs.pipeline.settlement import settlement_of
from routing.content_capture import Copy, Keeper
from routing.errors import ClientDisconnected
from routing.meter import Meter

logger = logging.getLogger(__name__)

# As many as are kept of it when LiteLLM tells of the same attempt.
MAX_RESPONSE_ID_CHARS = 200


class LiveCall:
    """One admitted call until it is settled."""

    __slots__ = (
        "_desk", "admission", "attempts", "content", "intent", "is_finished", "meter", "on_shutdown", "principal",
        "rates", "started_s", "ttft_ms",
    )  # fmt: skip

    def __init__(
        self,
        desk: "FrontDesk",
        principal: Principal,
        intent: UsageEvent,
        rates: dict[str, FrozenRates],
        size: CallSize | None,
    ) -> None:
        self._desk = desk
        # The models that may be tried, with their prices: what was held covers each of them.
        self.rates = rates
        self.principal = principal
        self.intent = intent
        # Prompt and answer, where the organization wants them kept.
        self.content: Copy | None = None
        self.admission: Admission | None = None
        self.meter = Meter(size.completion_tokens) if size else Meter()
        self.attempts: list[AttemptFact] = []
        self.started_s = clock.monotonic_s()
        self.ttft_ms: int | None = None
        self.is_finished = False
        # Called when the process must go: ends the stream with an error event.
        self.on_shutdown: Callable[[], None] | None = None

    @property
    def request_id(self) -> UUID:
        return self.intent.request_id

    def elapsed_ms(self) -> int:
        return int((clock.monotonic_s() - self.started_s) * 1000)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _kind: object, exc: BaseException | None, _traceback: object) -> None:
        """Whoever leaves without having finished the call has failed; even a cancellation must not lose it."""
        if not self.is_finished:
            error = exc if isinstance(exc, AppError) else AppError(reason=repr(exc))
            is_gone = isinstance(exc, ClientDisconnected)
            await asyncio.shield(self.finish(status=int(error.status), error=error, is_disconnected=is_gone))
        if self.content is not None:
            self._desk.keep(self, self.content)

    async def finish(self, *, status: int, error: AppError | None = None, is_disconnected: bool = False) -> None:
        """Record and settle the call. The first time counts; every later one does nothing."""
        if self.is_finished:
            return
        self.is_finished = True
        self.on_shutdown = None  # whoever would be called knows this call: no ring for the garbage collector
        self._desk.leave(self)
        usage, rank = self.meter.usage(self.intent.prompt_tokens_guess)
        attempts = list(self.attempts)
        if attempts and attempts[-1].first_byte_ms is not None:
            won = attempts[-1]
            attempts[-1] = msgspec.structs.replace(
                won,
                duration_ms=self.elapsed_ms() - won.started_offset_ms,
                # PostgreSQL knows no NUL; a provider might, and might write more than the journal takes.
                response_id=(won.response_id or self.meter.response_id).replace("\0", "")[:MAX_RESPONSE_ID_CHARS],
            )
        model = attempts[-1].model if attempts else self.intent.model
        rates = self.rates.get(model, self.intent.rates)
        event = msgspec.structs.replace(
            self.intent,
            model=model,
            status=status,
            error_code=error.code if error else "",
            usage=usage,
            rank=rank,
            rates=rates,
            cost_nanos=cost_nanos(usage, rates),
            upstream_cost_nanos=self.meter.upstream_cost_nanos,
            latency_ms=self.elapsed_ms(),
            ttft_ms=self.ttft_ms,
            is_disconnected=is_disconnected,
            attempts=tuple(attempts),
        )
        await self._desk.record(self.principal, event)


class FrontDesk:
    """Lets calls in and sees them out. One a process."""

    def __init__(
        self,
        *,
        redis: Pipeline,
        journal: Journal,
        load_totals: LoadTotals,
        lease_ms: int,
        heartbeat_s: float,
        terms: OutageTerms,
        fails_closed: bool = False,
        keeper: Keeper | None = None,
    ) -> None:
        self._redis = redis
        self._journal = journal
        self._keeper = keeper
        self._load_totals = load_totals
        self._lease_ms = lease_ms
        self._heartbeat_s = heartbeat_s
        self._live: dict[UUID, LiveCall] = {}
        self._fails_closed = fails_closed
        self._breaker = RedisBreaker()
        self._rations = LocalLimiter(terms)
        # Redis's clock (ms) as it was told last, and when that was on ours: the day goes on without Redis.
        self._redis_clock: tuple[int, float] | None = None

    @property
    def live(self) -> list[LiveCall]:
        return list(self._live.values())

    @property
    def is_degraded(self) -> bool:
        """Whether this process answers for the limits alone."""
        return self._breaker.is_blocking(clock.monotonic_s(), is_up=self._redis.is_up)

    async def admit(
        self,
        principal: Principal,
        intent: UsageEvent,
        rates: dict[str, FrozenRates],
        *,
        size: CallSize | None = None,
    ) -> LiveCall:
        """Pass every limit or raise what `billing.limiter.limits.admit` raises, having changed nothing.

        With `size`, a call for which the money does not suffice is asked for once more without the models that are
        dearer than the first: `LiveCall.rates` are those that may be tried.
        """
        try:
            return await self._let_in(principal, intent, rates, size)
        except InsufficientQuota:
            if size is None:
                raise
            fewer, hold_nanos = no_dearer_than_first(size, rates)
            if hold_nanos >= intent.hold_nanos:
                raise
        return await self._let_in(principal, msgspec.structs.replace(intent, hold_nanos=hold_nanos), fewer, size)

    async def _let_in(
        self, principal: Principal, intent: UsageEvent, rates: dict[str, FrozenRates], size: CallSize | None
    ) -> LiveCall:
        call = LiveCall(self, principal, intent, rates, size)
        admission = await self._admission(call)
        call.admission = admission
        call.intent = msgspec.structs.replace(
            intent, day=admission.day, minute=admission.minute, is_degraded=admission.is_degraded
        )
        self._live[intent.request_id] = call
        if admission.is_degraded:
            self._write_down(encode(call.intent), call.request_id)
        return call

    async def _admission(self, call: LiveCall) -> Admission:
        """From Redis; from this process alone while Redis is away."""
        breaker = self._breaker
        if breaker.failures and not breaker.allow_request(clock.monotonic_s(), is_up=self._redis.is_up):
            return self._admitted_alone(call)
        try:
            admission = await self._admitted(call, is_forced=False)
        except LimiterAway as exc:
            self._missed(exc)
            return self._admitted_alone(call)
        except (RateLimitExceeded, InsufficientQuota) as exc:
            self._heard(call, exc.facts["admission"])
            raise
        self._heard(call, admission)
        return admission

    def _heard(self, call: LiveCall, admission: Admission) -> None:
        """Redis answered: whatever it said is the last that is known, should it go away."""
        self._rations.remember(call.principal.payer.scopes, admission)
        self._redis_clock = (admission.now_ms, call.started_s)
        if self._breaker.failures:
            self._breaker.record_success()
        if self._rations.is_on:
            self._rations.end(clock.monotonic_s())
            logger.warning("limiter.back", extra={"admitted": self._rations.admitted, "refused": self._rations.refused})

    def _missed(self, exc: LimiterAway) -> None:
        now_s = clock.monotonic_s()
        self._breaker.record_failure(now_s, is_up=self._redis.is_up)
        if not self._rations.is_on:
            self._rations.begin(now_s)
            logger.error("limiter.away", extra={"reason": exc.facts.get("reason")})

    def _admitted_alone(self, call: LiveCall) -> Admission:
        """Raises LimiterUnavailable for whatever must not be guessed at."""
        principal, intent = call.principal, call.intent
        scopes = principal.payer.scopes
        streams = [each.principal.payer.scopes for each in self._live.values() if each.intent.is_stream]
        wish = LocalClaim(
            tokens=intent.tokens_reserved,
            hold_nanos=intent.hold_nanos,
            takes_slot=intent.is_stream,
            open_streams=(
                sum(each[0] == scopes[0] for each in streams),
                sum(each[1] == scopes[1] for each in streams),
            ),
        )
        return self._rations.admit(
            scopes,
            principal.limits,
            wish,
            now_ms=self._redis_now_ms(),
            is_closed=self._fails_closed or principal.fails_closed,
        )

    def _redis_now_ms(self) -> int:
        if self._redis_clock is None:
            return clock.now_ms()
        heard_ms, at_s = self._redis_clock
        return heard_ms + int((clock.monotonic_s() - at_s) * 1000)

    def _admitted(self, call: LiveCall, *, is_forced: bool) -> Coroutine[Any, Any, Admission]:
        intent = call.intent
        claim = Claim(
            request_id=intent.request_id,
            takes_slot=intent.is_stream,
            hold_nanos=intent.hold_nanos,
            tokens=intent.tokens_reserved,
            intent=encode(intent),
        )
        return admit(
            self._redis,
            call.principal.payer,
            call.principal.limits,
            claim,
            lease_ms=self._lease_ms,
            load_totals=self._load_totals,
            is_forced=is_forced,
        )

    def leave(self, call: LiveCall) -> None:
        """Before settling, so that no heartbeat brings a settled call back to life."""
        self._live.pop(call.request_id, None)

    def keep(self, call: LiveCall, content: Copy) -> None:
        """After settling: prompt and answer are no part of the books."""
        if self._keeper is not None:
            self._keeper.hand_on(call.request_id, call.principal.organization_id, content)

    async def record(self, principal: Principal, event: UsageEvent) -> None:
        """Journal first, then settle. Redis may be away: the journal's shipper settles later."""
        settlement = settlement_of(event)
        if event.is_degraded:
            self._rations.settle(principal.payer.scopes, hold_nanos=event.hold_nanos, cost_nanos=event.cost_nanos)
        self._write_down(settlement.event, event.request_id)
        try:
            await settle(self._redis, principal.payer, settlement)
        except (RedisUnavailable, ResponseError) as exc:
            logger.warning("settle.deferred", extra={"request_id": str(event.request_id), "reason": repr(exc)})
        if event.cost_nanos > event.hold_nanos:
            logger.error(
                "settle.above_hold",
                extra={"request_id": str(event.request_id), "cost": event.cost_nanos, "hold": event.hold_nanos},
            )

    def _write_down(self, payload: bytes, request_id: UUID) -> None:
        """Into the journal, unless the disk is full or gone: Redis alone then carries it."""
        try:
            self._journal.append(payload)
        except OSError:
            logger.exception("journal.append_failed", extra={"request_id": str(request_id)})

    async def beat(self) -> None:
        """Keep all live calls alive, forever."""
        while True:
            await asyncio.sleep(self._heartbeat_s)
            calls = self.live
            pulses = [
                Pulse(call.request_id, call.principal.payer, call.intent.is_stream, call.meter.progress)
                for call in calls
            ]
            if not pulses:
                continue
            try:
                lost = await heartbeat(self._redis, pulses, lease_ms=self._lease_ms)
                for call in calls:
                    if call.request_id in lost and not call.is_finished:
                        await self._admitted(call, is_forced=True)
                        logger.warning("heartbeat.restored", extra={"request_id": str(call.request_id)})
            except (AppError, ResponseError) as exc:
                logger.warning("heartbeat.failed", extra={"reason": repr(exc)})
