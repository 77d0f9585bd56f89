"""Ship closed journal segments: settle again what PostgreSQL lacks, then delete the segment."""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from uuid import UUID

from redis import Redis

from billing.limiter.intents import intent_in
from billing.limiter.limits import ShardKeys
from codexflow.lib import clock
from codexflow.lib.redis import SHARDS, ms_of, queue_time
from logs.pipeline import journal
from logs.pipeline.events import decode, is_intent, orphaned, request_id_of
from logs.pipeline.settlement import missing_requests, settle_event, unreported_requests


class JournalShipper:
    """Ships the closed segments of a journal's folder. One instance per process, called every few seconds."""

    def __init__(self, redis: "Redis", prefix: str, folder: Path) -> None:
        self._redis = redis
        self._prefix = prefix
        self._folder = folder
        # When each segment was seen first, in Redis's time (ms).
        self._seen_ms: dict[Path, int] = {}

    def ship(self) -> int:
        """Adopt segments of dead processes, and ship every segment whose events the drain has had time for.

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
        # A clock that was ahead and has gone back must not hold them up until it is there again.
        self._seen_ms = {path: min(self._seen_ms.get(path, now_ms), now_ms) for path in segments}
        return sum(self._ship(path) for path in segments if self._seen_ms[path] < drained_ms)

    def _ship(self, path: Path) -> bool:
        settle = _settle_again if journal.is_owner_alive(path) else _settle_for_dead
        return journal.ship_segment(
            path, id_of=request_id_of, missing=_missing, settle=partial(settle, self._redis, self._prefix)
        )

    def _progress(self) -> tuple[int, int]:
        """Redis's time, and the time until which nothing waits in the usage streams. Both in ms."""
        pipe = self._redis.pipeline(transaction=False)
        queue_time(pipe, ShardKeys.of(self._prefix, 0).usage)
        for number in range(SHARDS):
            pipe.xrange(ShardKeys.of(self._prefix, number).usage, count=1)
        time, *oldest = pipe.execute()
        now_ms = ms_of(time)
        waiting_ms = [int(entries[0][0].partition(b"-")[0]) for entries in oldest if entries]
        return now_ms, min(waiting_ms, default=now_ms)


def _missing(payloads: Mapping[UUID, bytes]) -> set[UUID]:
    """Find payloads to settle again. An intent adds nothing to any row; an event corrects a sweeper's estimate."""
    intents = {request_id for request_id, payload in payloads.items() if is_intent(payload)}
    return missing_requests(intents) | unreported_requests(payloads.keys() - intents)


def settle_lacking(redis: "Redis", prefix: str, path: Path, *, is_alive: bool) -> int:
    """Settle what PostgreSQL lacks of a segment, whose process may be alive. Returns how many events that were."""
    try:
        payloads = journal.payloads_of(path, request_id_of)
    except ValueError:
        return 0  # the shipper puts it aside
    lacking = _missing(payloads)
    settle = _settle_again if is_alive else _settle_for_dead
    for request_id in lacking:
        with suppress(ValueError):
            settle(redis, prefix, payloads[request_id])
    return len(lacking)


def _settle_again(redis: "Redis", prefix: str, payload: bytes) -> None:
    """Settle a living process's event again. It ends its running calls itself."""
    if not is_intent(payload):
        settle_event(redis, prefix, decode(payload))


def _settle_for_dead(redis: "Redis", prefix: str, payload: bytes) -> None:
    """Settle a dead process's event again, or end a call that it admitted while Redis was away.

    Such a call is recorded without a charge, because how much was delivered is unknown. If Redis has its intent, it is
    left to the sweeper, which knows its progress.
    """
    event = decode(payload)
    if is_intent(payload):
        if intent_in(redis, prefix, event.organization_id, event.request_id) is not None:
            return
        event = orphaned(event, progress=None, now_ms=clock.now_ms())
    settle_event(redis, prefix, event)
