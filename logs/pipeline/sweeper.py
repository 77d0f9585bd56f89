"""Settle calls whose process died."""

import logging
from collections.abc import Sequence
from functools import partial

from django.conf import settings
from redis import Redis

from billing.limiter.epochs import shards_of
from billing.limiter.intents import expired_leases, give_leases
from billing.limiter.limits import ShardKeys
from codexflow.lib import clock
from logs.pipeline.events import BadEvent, orphaned, read_progress
from logs.pipeline.nodes import at_each, nodes_of
from logs.pipeline.settlement import intent_of, settle_event

logger = logging.getLogger(__name__)

# After a lease has ended, the call's own process may still settle it (a paused process, a journal that a sibling
# adopts). Its report is better than the sweeper's estimate, so it gets this much more time.
ORPHAN_PATIENCE_S = 20


def sweep_orphans(redis: "Redis", prefix: str) -> int:
    """Settle calls whose lease has ended unsettled, as far as servers respond. Returns how many."""
    swept = sum(at_each(nodes_of(redis, shards_of(prefix)), partial(_sweep, redis, prefix)))
    if swept:
        logger.warning("sweep.orphans_settled", extra={"count": swept})
    return swept


def _sweep(redis: "Redis", prefix: str, shards: Sequence[ShardKeys]) -> int:
    swept = 0
    for shard in shards:
        give_leases(redis, shard, lease_ms=settings.ENV.lease_ms)
        for lease in expired_leases(redis, shard, patience_s=ORPHAN_PATIENCE_S):
            try:
                intent = intent_of(lease.intent)
            except BadEvent:
                logger.exception("sweep.bad_intent", extra={"request_id": lease.request_id})
                continue
            event = orphaned(intent, progress=read_progress(lease.progress), now_ms=clock.now_ms())
            swept += settle_event(redis, prefix, event)
    return swept
