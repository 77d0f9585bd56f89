"""Keeping the usage pipeline whole: shipping journals and finishing orphans."""

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from django.db import connection
from redis import Redis

from billing.limiter.limits import Payer, Settlement, ShardKeys, read_intent, settle_sync
from codexflow.lib import clock
from codexflow.lib.redis import SHARDS
from logs.pipeline import journal
from logs.pipeline.events import BadEvent, UsageEvent, decode, encode, is_intent, orphaned, request_id_of

logger = logging.getLogger(__name__)

# After its lease has ended, a call's own process may still hand its event in (a paused process, a journal that a
# sibling adopts). What it says is better than what a sweeper can know, so it gets this much more time.
ORPHAN_PATIENCE_S = 20


def settlement_of(event: UsageEvent) -> Settlement:
    """What the limiter needs of a finished event."""
    return Settlement(
        request_id=event.request_id,
        event=encode(event),
        cost_nanos=event.cost_nanos,
        hold_nanos=event.hold_nanos,
        tokens_used=event.usage.total_tokens,
        tokens_reserved=event.tokens_reserved,
        day=event.day,
        minute=event.minute,
    )


def settle_event(redis: "Redis", prefix: str, event: UsageEvent) -> bool:
    """Settle an event again, or for its dead process. Harmless however often. Raises redis.RedisError."""
    return settle_sync(redis, Payer.of(prefix, event.organization_id, event.key_id), settlement_of(event))


def intent_of(stored: bytes) -> UsageEvent:
    """A stored intent as the event it would become. Raises BadEvent."""
    day, minute, payload = read_intent(stored)
    return msgspec.structs.replace(decode(payload), day=day, minute=minute)


_MISSING_SQL = """
SELECT wanted.id FROM unnest(%s::uuid[]) AS wanted (id)
WHERE NOT EXISTS (
    SELECT FROM request_log
    WHERE request_id = wanted.id AND request_id BETWEEN %s AND %s AND (source <> 'sweeper' OR %s)
) AND NOT EXISTS (SELECT FROM usage_dead_letter WHERE request_id = wanted.id)
"""


def missing_requests(ids: Iterable[UUID]) -> set[UUID]:
    """Those of `ids` that have neither a row yet nor a dead letter."""
    return _missing(set(ids), counts_estimates=True)


def unreported_requests(ids: Iterable[UUID]) -> set[UUID]:
    """Those of `ids` without the gateway's own word in PostgreSQL: no row and no dead letter, or only an estimate."""
    return _missing(set(ids), counts_estimates=False)


def _missing(wanted: set[UUID], *, counts_estimates: bool) -> set[UUID]:
    if not wanted:
        return wanted
    # As one literal: the gateway ships thousands at a time beside its calls, and the driver takes its time with lists.
    literal = "{" + ",".join(map(str, wanted)) + "}"
    with connection.cursor() as cursor:
        # Bounded on both sides, so that only the partitions of these days are looked into.
        cursor.execute(_MISSING_SQL, [literal, min(wanted), max(wanted), counts_estimates])
        return {row[0] for row in cursor.fetchall()}


class Shipper:
    """Hands the closed segments of a journal's folder over, look by look. One a process."""

    def __init__(self, redis: "Redis", prefix: str, folder: Path) -> None:
        self._redis = redis
        self._prefix = prefix
        self._folder = folder
        # When each segment was seen first, in Redis's time (ms).
        self._seen_ms: dict[Path, int] = {}

    def ship(self) -> int:
        """Adopt what dead processes left, and ship every segment whose events have had their turn.

        While the drain is behind, a segment's events may only wait in the stream: to settle them again would put it
        further behind. So a segment waits until the stream holds nothing older than the first look at it. Returns how
        many are done. Raises what Redis and PostgreSQL raise.
        """
        journal.adopt_orphans(self._folder)
        segments = journal.closed_segments(self._folder)
        if not segments:
            self._seen_ms = {}
            return 0
        now_ms, drained_ms = self._progress()
        self._seen_ms = {path: self._seen_ms.get(path, now_ms) for path in segments}
        return sum(self._ship(path) for path in segments if self._seen_ms[path] < drained_ms)

    def _ship(self, path: Path) -> bool:
        settle = _settle_again if journal.is_owner_alive(path) else _settle_of_the_dead
        return journal.ship_segment(
            path, id_of=request_id_of, missing=_lacking, settle=partial(settle, self._redis, self._prefix)
        )

    def _progress(self) -> tuple[int, int]:
        """Redis's time, and the time until which nothing waits in the usage streams. Both in ms."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.time()
        for number in range(SHARDS):
            pipe.xrange(ShardKeys.of(self._prefix, number).usage, count=1)
        (seconds, micros), *oldest = pipe.execute()
        now_ms = seconds * 1000 + micros // 1000
        waiting_ms = [int(entries[0][0].partition(b"-")[0]) for entries in oldest if entries]
        return now_ms, min(waiting_ms, default=now_ms)


def _lacking(payloads: Mapping[UUID, bytes]) -> set[UUID]:
    """An intent has nothing to add to whatever row there is; an event has, to a sweeper's estimate."""
    intents = {request_id for request_id, payload in payloads.items() if is_intent(payload)}
    return missing_requests(intents) | unreported_requests(payloads.keys() - intents)


def _settle_again(redis: "Redis", prefix: str, payload: bytes) -> None:
    """What a living process wrote: its event again; whatever has not ended, it will end itself."""
    if not is_intent(payload):
        settle_event(redis, prefix, decode(payload))


def _settle_of_the_dead(redis: "Redis", prefix: str, payload: bytes) -> None:
    """What a dead process wrote: its event again, or the end of a call that it let in while Redis was away.

    How much of that call was delivered nobody knows: it is recorded and charges nothing. Where Redis was back in time
    to hear of it, the sweeper knows more.
    """
    event = decode(payload)
    if is_intent(payload):
        shard = Payer.of(prefix, event.organization_id, event.key_id).shard
        if redis.hexists(shard.intents.decode(), str(event.request_id)):
            return
        event = orphaned(event, delivered_tokens=None, now_ms=clock.now_ms())
    settle_event(redis, prefix, event)


def sweep_orphans(redis: "Redis", prefix: str) -> int:
    """Finish calls whose process died: their lease has ended and nobody settled them. Returns how many."""
    swept = 0
    for number in range(SHARDS):
        shard = ShardKeys.of(prefix, number)
        # By the clock that leases are written by: one that runs ahead would find living calls dead.
        time: Any = redis.time()
        latest_ms = time[0] * 1000 + time[1] // 1000 - ORPHAN_PATIENCE_S * 1000
        ended: list[Any] = redis.zrangebyscore(shard.alive, "-inf", latest_ms, start=0, num=1000)
        for raw_id in ended:
            stored: Any = redis.hget(shard.intents, raw_id)
            progress = redis.hget(shard.progress, raw_id)
            if stored is None:
                redis.zrem(shard.alive, raw_id)  # settled, or lost with Redis and then settled from a journal
                continue
            try:
                event = intent_of(stored)
            except BadEvent:
                logger.exception("sweep.bad_intent", extra={"request_id": raw_id.decode(errors="replace")})
                continue
            delivered = int(progress) if progress else None
            swept += settle_event(redis, prefix, orphaned(event, delivered_tokens=delivered, now_ms=clock.now_ms()))
    if swept:
        logger.warning("sweep.orphans_settled", extra={"count": swept})
    return swept
