"""Settlement of finished calls: usage event -> journal -> limiter."""

import logging
from uuid import UUID

from redis import ResponseError

from codexflow.lib.redis import RedisUnavailable
from keys.principal import Principal
from logs.pipeline.events import UsageEvent, encode
from logs.pipeline.journal import Journal
from logs.pipeline.settlement import settlement_of
from routing.limiter import Limiter

logger = logging.getLogger(__name__)


class Settler:
    """Makes usage events durable and settles them. One instance per process."""

    def __init__(self, journal: Journal, limiter: Limiter) -> None:
        self._journal = journal
        self._limiter = limiter

    async def settle(self, principal: Principal, event: UsageEvent) -> None:
        """Journal first, then settle. While Redis is unavailable the journal's shipper settles later."""
        settlement = settlement_of(event)
        self._append(settlement.event, event.request_id)
        if event.is_degraded:
            self._limiter.settle_locally(principal, event)
        try:
            await self._limiter.settle(principal, settlement)
        except (RedisUnavailable, ResponseError) as exc:
            logger.warning("settle.deferred", extra={"request_id": str(event.request_id), "reason": repr(exc)})
        if event.cost_nanos > event.hold_nanos:
            logger.error(
                "settle.above_hold",
                extra={"request_id": str(event.request_id), "cost": event.cost_nanos, "hold": event.hold_nanos},
            )

    def record_intent(self, intent: UsageEvent) -> None:
        """Journal the intent of a call that was admitted without Redis: nothing else knows of it."""
        self._append(encode(intent), intent.request_id)

    def _append(self, payload: bytes, request_id: UUID) -> None:
        """Append to the journal, unless the disk is full or gone: Redis alone then carries the record."""
        try:
            self._journal.append(payload)
        except OSError:
            logger.exception("journal.append_failed", extra={"request_id": str(request_id)})
