"""Calls in flight: their heartbeat, and the one way each of them ends.

However a call ends (answer, error, disconnect, shutdown), `finish` runs once: event into the journal, then settle.
Only after that do the last bytes go out, so what a caller saw complete is durable. What dies before `finish` is
found by the sweeper, through the intent that admission wrote.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Self
from uuid import UUID

import msgspec
from redis import ResponseError

from billing.limits import Admission, Claim, LoadTruth, Pulse, admit, heartbeat, settle
from billing.pricing import FrozenRates, cost_nanos
from codexflow.lib import clock
from codexflow.lib.errors import AppError
from codexflow.lib.redis import Pipeline, RedisUnavailable
from keys.principal import Principal
from logs.events import AttemptFact, UsageEvent, encode
from logs.intake import Journal
from logs.services import settlement_of
from routing.errors import ClientDisconnected
from routing.meter import Meter

logger = logging.getLogger(__name__)


class LiveCall:
    """One admitted call until it is settled."""

    __slots__ = (
        "_desk", "_rates", "admission", "attempts", "intent", "is_finished", "meter", "on_shutdown", "principal",
        "started_s", "ttft_ms",
    )  # fmt: skip

    def __init__(
        self, desk: "FrontDesk", principal: Principal, intent: UsageEvent, rates: dict[str, FrozenRates]
    ) -> None:
        self._desk = desk
        self._rates = rates
        self.principal = principal
        self.intent = intent
        self.admission: Admission | None = None
        self.meter = Meter()
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
        if self.is_finished:
            return
        error = exc if isinstance(exc, AppError) else AppError(reason=repr(exc))
        is_gone = isinstance(exc, ClientDisconnected)
        await asyncio.shield(self.finish(status=int(error.status), error=error, is_disconnected=is_gone))

    async def finish(self, *, status: int, error: AppError | None = None, is_disconnected: bool = False) -> None:
        """Record and settle the call. The first time counts; every later one does nothing."""
        if self.is_finished:
            return
        self.is_finished = True
        self._desk.leave(self)
        usage, rank = self.meter.usage(self.intent.prompt_tokens_guess)
        attempts = list(self.attempts)
        if attempts and attempts[-1].first_byte_ms is not None:
            won = attempts[-1]
            attempts[-1] = msgspec.structs.replace(
                won,
                duration_ms=self.elapsed_ms() - won.started_ms,
                # PostgreSQL knows no NUL; a provider might.
                response_id=(won.response_id or self.meter.response_id).replace("\0", ""),
            )
        model = attempts[-1].model if attempts else self.intent.model
        rates = self._rates.get(model, self.intent.rates)
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
        self, *, redis: Pipeline, journal: Journal, load_truth: LoadTruth, lease_ms: int, heartbeat_s: float
    ) -> None:
        self._redis = redis
        self._journal = journal
        self._load_truth = load_truth
        self._lease_ms = lease_ms
        self._heartbeat_s = heartbeat_s
        self._live: dict[UUID, LiveCall] = {}

    @property
    def live(self) -> list[LiveCall]:
        return list(self._live.values())

    async def admit(self, principal: Principal, intent: UsageEvent, rates: dict[str, FrozenRates]) -> LiveCall:
        """Pass every limit or raise what `billing.limits.admit` raises, having changed nothing."""
        call = LiveCall(self, principal, intent, rates)
        admission = await self._admitted(call, is_forced=False)
        call.admission = admission
        call.intent = msgspec.structs.replace(intent, day=admission.day, minute=admission.minute)
        self._live[intent.request_id] = call
        return call

    async def _admitted(self, call: LiveCall, *, is_forced: bool) -> Admission:
        intent = call.intent
        claim = Claim(
            request_id=intent.request_id,
            takes_slot=intent.is_stream,
            hold_nanos=intent.hold_nanos,
            tokens=intent.tokens_reserved,
            intent=encode(intent),
        )
        return await admit(
            self._redis,
            call.principal.payer,
            call.principal.limits,
            claim,
            lease_ms=self._lease_ms,
            load_truth=self._load_truth,
            is_forced=is_forced,
        )

    def leave(self, call: LiveCall) -> None:
        """Before settling, so that no heartbeat brings a settled call back to life."""
        self._live.pop(call.request_id, None)

    async def record(self, principal: Principal, event: UsageEvent) -> None:
        """Journal first, then settle. Redis may be away: the journal's shipper settles later."""
        settlement = settlement_of(event)
        try:
            self._journal.append(settlement.event)
        except OSError:
            # The disk is full or gone: Redis alone then carries the event.
            logger.exception("journal.append_failed", extra={"request_id": str(event.request_id)})
        try:
            await settle(self._redis, principal.payer, settlement)
        except (RedisUnavailable, ResponseError) as exc:
            logger.warning("settle.deferred", extra={"request_id": str(event.request_id), "reason": repr(exc)})
        if event.cost_nanos > event.hold_nanos:
            logger.error(
                "settle.above_hold",
                extra={"request_id": str(event.request_id), "cost": event.cost_nanos, "hold": event.hold_nanos},
            )

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
