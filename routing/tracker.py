"""Registry of the calls in flight of this process: admission, heartbeat."""

import asyncio
import logging

import msgspec
from redis import ResponseError

from billing.errors import InsufficientQuota, LimiterUnavailable
from billing.limiter.fallback import Scopes
from billing.limiter.holds import CallSize, no_dearer_than_first
from billing.limiter.limits import Pulse
from billing.pricing import FrozenRates
from codexflow.lib import clock
from codexflow.lib.errors import AppError
from keys.principal import Principal
from logs.pipeline.events import UsageEvent
from routing.call import Call, MostTokens
from routing.meter import Meter
from routing.settler import Settler
from routing.sharded_limiter import AnyLimiter

logger = logging.getLogger(__name__)


class CallTracker:
    """Admits calls, tracks those in flight, keeps their leases alive. One instance per process."""

    def __init__(self, limiter: AnyLimiter, settler: Settler, *, heartbeat_s: float) -> None:
        self._limiter = limiter
        self._settler = settler
        self._heartbeat_s = heartbeat_s
        self._calls: set[Call] = set()

    @property
    def calls(self) -> list[Call]:
        return list(self._calls)

    @property
    def is_degraded(self) -> bool:
        """Redis is away: calls are admitted by the local limiter, and no hold can be extended."""
        return self._limiter.is_degraded

    async def check(self, principal: Principal) -> None:
        """Raise what `admit` would raise even for the smallest call, as far as Redis can say. Counts nothing."""
        await self._limiter.check(principal)

    async def admit(
        self,
        principal: Principal,
        intent: UsageEvent,
        rates: dict[str, FrozenRates],
        *,
        size: CallSize,
        most_tokens: MostTokens,
    ) -> Call:
        """Pass every limit or raise what `Limiter.admit` raises, having changed nothing.

        A call that the money does not cover is tried once more without the models that are dearer than the first:
        `Call.rates` are those that may be tried.
        """
        started_s = clock.monotonic_s()
        try:
            admission = await self._limiter.admit(principal, intent, now_s=started_s, count_streams=self._count_streams)
        except InsufficientQuota:
            rates, hold_nanos = no_dearer_than_first(size, rates)
            if hold_nanos >= intent.hold_nanos:
                raise
            intent = msgspec.structs.replace(intent, hold_nanos=hold_nanos)
            admission = await self._limiter.admit(principal, intent, now_s=started_s, count_streams=self._count_streams)
        if admission.is_degraded:  # Redis keeps day and minute in front of an intent, a journal keeps them within
            intent = msgspec.structs.replace(intent, day=admission.day, minute=admission.minute, is_degraded=True)
        call = Call(
            principal=principal,
            intent=intent,
            rates=rates,
            admission=admission,
            meter=Meter(size.completion_tokens),
            started_s=started_s,
            settler=self._settler,
            leave=self._calls.discard,
            most_tokens=most_tokens,
        )
        if admission.is_degraded and not self._settler.record_intent(call.intent):
            self._limiter.settle_locally(principal, intent)
            raise LimiterUnavailable(retry_after_s=1, reason="neither Redis nor the journal", admission=admission)
        self._calls.add(call)
        return call

    async def amend(self, call: Call, intent: UsageEvent) -> None:
        """Replace the intent of a call in flight; a larger hold must be covered. Raises as `Limiter.amend`.

        Without a larger hold or more tokens the new intent holds in any case: heartbeats restore it.
        """
        before = call.intent
        is_larger = intent.hold_nanos > before.hold_nanos or intent.tokens_reserved > before.tokens_reserved
        if not is_larger:
            call.amend(intent)
        try:
            await self._limiter.amend(call.principal, before, intent, call.admission)
        except LimiterUnavailable as exc:
            if is_larger:
                raise
            logger.warning("planner.not_amended", extra={"request_id": str(call.request_id), "reason": repr(exc)})
        call.amend(intent)

    def _count_streams(self, scopes: Scopes) -> tuple[int, int]:
        streams = [call.principal.payer.scopes for call in self._calls if call.intent.is_stream]
        return sum(each[0] == scopes[0] for each in streams), sum(each[1] == scopes[1] for each in streams)

    async def send_heartbeats(self) -> None:
        """Keep all calls in flight alive, forever."""
        while True:
            await asyncio.sleep(self._heartbeat_s)
            calls = self.calls
            pulses = [
                Pulse(call.request_id, call.principal.payer, call.intent.is_stream, call.progress) for call in calls
            ]
            if not pulses:
                continue
            for call in calls:
                call.record_lease()
            try:
                lost = await self._limiter.heartbeat(pulses)
                for call in calls:
                    if call.request_id in lost and not call.is_finished:
                        await self._limiter.restore(call.principal, call.intent)
                        logger.warning("heartbeat.restored", extra={"request_id": str(call.request_id)})
            except (AppError, ResponseError) as exc:
                logger.warning("heartbeat.failed", extra={"reason": repr(exc)})
