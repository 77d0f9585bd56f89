"""Settlement of finished calls: usage event -> journal -> limiter."""

import asyncio
import logging
from collections import deque
from uuid import UUID

from redis import ResponseError

from billing.limiter.limits import Settlement
from codexflow.lib.redis import RedisUnavailable
from keys.principal import Principal
from logs.pipeline.events import UsageEvent, encode
from logs.pipeline.journal import Journal
from logs.pipeline.settlement import settlement_of
from routing.sharded_limiter import AnyLimiter

logger = logging.getLogger(__name__)

# Events that neither the journal nor Redis took: more than a process serves in the seconds until it refuses calls.
MAX_KEPT = 10_000
RETRY_S = 1.0


class Settler:
    """Makes usage events durable and settles them. One instance per process."""

    def __init__(self, journal: Journal, limiter: AnyLimiter) -> None:
        self._journal = journal
        self._limiter = limiter
        self._kept: deque[tuple[Principal, Settlement]] = deque(maxlen=MAX_KEPT)
        self._has_kept = asyncio.Event()
        # Until the journal takes a record again: for /health.
        self.is_journal_failing = False

    async def settle(self, principal: Principal, event: UsageEvent, *, is_leased: bool = True) -> None:
        """Journal first, then settle. While Redis is unavailable the journal's shipper settles later.

        `is_leased` False: no heartbeat has told Redis of the call.
        """
        settlement = settlement_of(event, is_leased=is_leased)
        is_journaled = self._append(settlement.event, event.request_id)
        if event.is_degraded:
            self._limiter.settle_locally(principal, event)
        try:
            await self._limiter.settle(principal, settlement)
        except (RedisUnavailable, ResponseError) as exc:
            logger.warning("settle.deferred", extra={"request_id": str(event.request_id), "reason": repr(exc)})
            if not is_journaled:
                self._kept.append((principal, settlement))
                self._has_kept.set()
        if event.cost_nanos > event.hold_nanos:
            logger.error(
                "settle.above_hold",
                extra={"request_id": str(event.request_id), "cost": event.cost_nanos, "hold": event.hold_nanos},
            )

    def record_intent(self, intent: UsageEvent) -> bool:
        """Journal the intent of a call that was admitted without Redis. Returns False when nothing holds it."""
        return self._append(encode(intent), intent.request_id)

    async def retry_kept(self) -> None:
        """Make the events durable that nothing took, forever: the disk was full while Redis was away."""
        while True:
            if not self._kept:
                self._has_kept.clear()
                await self._has_kept.wait()
            await asyncio.sleep(RETRY_S)
            for _ in range(len(self._kept)):
                principal, settlement = self._kept[0]
                if not self._append(settlement.event, settlement.request_id):
                    try:
                        await self._limiter.settle(principal, settlement)
                    except (RedisUnavailable, ResponseError):
                        break
                self._kept.popleft()

    def _append(self, payload: bytes, request_id: UUID) -> bool:
        """Append to the journal. Returns False when the disk is full or gone: Redis alone then carries the record."""
        try:
            self._journal.append(payload)
        except OSError:
            logger.exception("journal.append_failed", extra={"request_id": str(request_id)})
            self.is_journal_failing = True
            return False
        self.is_journal_failing = False
        return True
