"""Settle calls whose process died."""

import logging

from redis import Redis

from billing.limiter.intents import expired_leases
from billing.limiter.limits import ShardKeys
from codexflow.lib import clock
from codexflow.lib.redis import SHARDS
from logs.pipeline.events import BadEvent, orphaned
from logs.pipeline.settlement import intent_of, settle_event

logger = logging.getLogger(__name__)

# After a lease has ended, the call's own process may still settle it (a paused process, a journal that a sibling
# adopts). Its report is better than the sweeper's estimate, so it gets this much more time.
ORPHAN_PATIENCE_S = 20


def sweep_orphans(redis: "Redis", prefix: str) -> int:
    """Settle calls whose lease has ended unsettled. Returns how many."""
    swept = 0
    for number in range(SHARDS):
        for lease in expired_leases(redis, ShardKeys.of(prefix, number), patience_s=ORPHAN_PATIENCE_S):
            try:
                intent = intent_of(lease.intent)
            except BadEvent:
                logger.exception("sweep.bad_intent", extra={"request_id": lease.request_id})
                continue
            event = orphaned(intent, delivered_tokens=lease.delivered_tokens, now_ms=clock.now_ms())
            swept += settle_event(redis, prefix, event)
    if swept:
        logger.warning("sweep.orphans_settled", extra={"count": swept})
    return swept
