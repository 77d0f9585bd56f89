"""Drain the usage stream into PostgreSQL: row, attempts, ledger and rollups in one transaction.

Redelivery is harmless, whatever is killed at whatever moment: the row's primary key decides what is new, and only
what is new is counted and charged. Entries leave the stream after the commit.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from uuid import UUID

from django.db import transaction
from redis import Redis, ResponseError

from billing.limiter.epochs import shards_of
from billing.limiter.limits import ShardKeys
from keys.services import mark_used
from logs.pipeline.dead_letters import add_dead_letter, store_bisecting
from logs.pipeline.events import BadEvent, UsageEvent, decode, request_id_of
from logs.pipeline.merge import merge, winner_of
from logs.pipeline.nodes import at_each, nodes_of
from logs.pipeline.postings import Postings
from logs.pipeline.rows import (
    ReportedAttempts,
    insert_attempts,
    insert_rows,
    reported_attempts,
    stored_rows,
    update_rows,
)
from logs.pipeline.streams import CLAIM_IDLE_MS, claim_after_ms, make_group, streams_in

logger = logging.getLogger(__name__)

GROUP = b"drain"
BATCH = 500
# Shards of a server -> after how many ms what a worker has read there is claimed.
ClaimAfter = Callable[[Sequence[ShardKeys]], int]


def progress_key(prefix: str) -> str:
    """Return the key with the Unix time in ms at which usage was drained last."""
    return f"{prefix}:progress:drain"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a shard's stream."""

    shard: ShardKeys
    stream_id: bytes
    payload: bytes


@dataclass(slots=True)
class Drained:
    """Counts of a drain or of one batch, and the batch's rows."""

    read: int = 0
    stored: int = 0
    corrected: int = 0
    repeated: int = 0
    dead: int = 0
    # Rows of a batch, for the live tail; empty in a drain's total.
    new_rows: list[UsageEvent] = field(default_factory=list)
    corrected_rows: list[UsageEvent] = field(default_factory=list)

    def add(self, other: "Drained") -> None:
        for name in ("read", "stored", "corrected", "repeated", "dead"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.new_rows += other.new_rows
        self.corrected_rows += other.corrected_rows


def drain(
    redis: "Redis",
    *,
    prefix: str,
    consumer: str,
    max_batches: int = 200,
    on_batch: Callable[[Drained], None] | None = None,
) -> Drained:
    """Store everything that waits in the stream, at most `max_batches` batches.

    `on_batch` is called after each batch's commit, with its rows. What shards hold whose server is away waits there.
    Raises what Redis and PostgreSQL raise.
    """
    nodes = nodes_of(redis, shards_of(prefix))
    total = Drained()
    claim_after: ClaimAfter = partial(_claim_after, redis)
    for _ in range(max_batches):
        entries = list(chain(*at_each(nodes, partial(_read, redis, consumer, claim_after))))
        claim_after = _usual_claim_after
        if not entries:
            break
        batch = store_all(entries)
        at_each(nodes, partial(_acknowledge, redis, entries))
        if on_batch is not None:
            on_batch(batch)
        batch.new_rows, batch.corrected_rows = [], []
        total.add(batch)
    return total


def _claim_after(redis: "Redis", shards: Sequence[ShardKeys]) -> int:
    return claim_after_ms(redis, f"{shards[0].prefix}clock:drain")


def _usual_claim_after(_shards: Sequence[ShardKeys]) -> int:
    return CLAIM_IDLE_MS


def _read(redis: "Redis", consumer: str, claim_after: ClaimAfter, shards: Sequence[ShardKeys]) -> list[Entry]:
    """Return up to about BATCH entries of each shard: first those that a dead worker left behind, then new ones.

    An entry without our field becomes an empty payload, which is no event and so becomes a dead letter.
    """
    idle_ms = claim_after(shards)
    found: list[Entry] = []
    pipe = redis.pipeline(transaction=False)
    for shard in shards:
        pipe.xautoclaim(shard.usage, GROUP, consumer, idle_ms, count=BATCH)
        pipe.xreadgroup(GROUP.decode(), consumer, {shard.usage.decode(): ">"}, count=BATCH)
    replies = pipe.execute(raise_on_error=False)
    for shard, claimed, fresh in zip(shards, replies[::2], replies[1::2], strict=True):
        for reply in (claimed, fresh):
            if isinstance(reply, ResponseError) and "NOGROUP" in str(reply):
                make_group(redis, shard.usage, GROUP)
            elif isinstance(reply, Exception):
                raise reply
        if not isinstance(claimed, Exception):
            found += [Entry(shard, each[0], each[1].get(b"e", b"")) for each in claimed[1] if each[1]]
        if not isinstance(fresh, Exception):
            for entries in streams_in(fresh):
                found += [Entry(shard, each[0], each[1].get(b"e", b"")) for each in entries]
    return found


def _acknowledge(redis: "Redis", entries: Iterable[Entry], shards: Sequence[ShardKeys]) -> None:
    """Take the entries of these shards off their streams."""
    ids: dict[bytes, list[bytes]] = {}
    for entry in entries:
        if entry.shard in shards:
            ids.setdefault(entry.shard.usage, []).append(entry.stream_id)
    pipe = redis.pipeline(transaction=False)
    for stream, batch in ids.items():
        pipe.xack(stream, GROUP, *batch)
        pipe.xdel(stream, *batch)
    pipe.execute()


def store_all(entries: Sequence[Entry]) -> Drained:
    """Store a batch; entries that PostgreSQL rejects become dead letters and stop nothing else."""
    total = Drained()
    for part in store_bisecting(entries, store, _dead_letter):
        total.add(part)
    return total


def _dead_letter(entry: Entry, reason: str) -> Drained:
    try:
        request_id = request_id_of(entry.payload)
    except BadEvent:
        request_id = None
    add_dead_letter(entry.shard.usage.decode(), entry.stream_id, entry.payload, reason, request_id=request_id)
    return Drained(read=1, dead=1)


def store(entries: Sequence[Entry]) -> Drained:
    """Write a batch in one transaction; an entry that is no event becomes a dead letter in the same one.

    Raises DataError or IntegrityError when PostgreSQL rejects a value; then nothing was written.
    """
    result = Drained()
    events: list[UsageEvent] = []
    with transaction.atomic():
        for entry in entries:
            try:
                events.append(decode(entry.payload))
            except BadEvent as exc:
                result.add(_dead_letter(entry, str(exc)))
            else:
                result.read += 1
        _store_events(events, result)
    mark_used({event.key_id for event in events})
    _warn_zero_cost([*result.new_rows, *result.corrected_rows])
    return result


def _warn_zero_cost(events: Sequence[UsageEvent]) -> None:
    """Log an error, once per batch, when usage was charged at zero: a price is missing or zero."""
    uncharged = [event for event in events if event.usage.total_tokens and not event.cost_nanos]
    if uncharged:
        logger.error(
            "drain.tokens_without_cost",
            extra={
                "count": len(uncharged),
                "models": sorted({event.model for event in uncharged}),
                "request_id": str(uncharged[0].request_id),
            },
        )


def _store_events(events: Sequence[UsageEvent], result: Drained) -> None:
    # Sorted, so that two drains never wait for each other's rows crosswise.
    by_rank = sorted(events, key=lambda event: (event.request_id.int, -event.rank))
    best = {event.request_id: event for event in reversed(by_rank)}
    ordered = sorted(best.values(), key=lambda event: event.request_id.int)
    postings = Postings()
    new_ids = insert_rows(ordered)
    new = [event for event in ordered if event.request_id in new_ids]
    for event in new:
        postings.add(event)
    later = [event for event in events if not (event.request_id in new_ids and event is best[event.request_id])]
    corrected = _merge_reports(later, {event.request_id: event for event in new}, postings) if later else []
    insert_attempts(new + corrected)
    postings.write()
    result.stored += len(new)
    result.new_rows = new
    result.corrected_rows = corrected
    result.corrected += len(corrected)
    result.repeated += len(events) - len(new) - len(corrected)


def _merge_reports(
    events: Sequence[UsageEvent], new: Mapping[UUID, UsageEvent], postings: Postings
) -> list[UsageEvent]:
    """Merge further reports into the rows of their requests and post the differences. Returns the rows that changed."""
    ids = sorted({event.request_id for event in events}, key=lambda each: each.int)
    known, attempts = stored_rows(ids), reported_attempts(ids)
    changed: dict[UUID, UsageEvent] = {}
    for report in sorted(events, key=lambda event: (event.request_id.int, event.rank)):
        request_id = report.request_id
        row, revision = known[request_id]
        stored = attempts.get(request_id, ReportedAttempts())
        # The attempts of a row made a moment ago are not stored yet.
        winner = stored.winner if request_id not in new else winner_of(new[request_id].attempts)
        merged = merge(row, report, stored.reported, winner)
        if merged is None:
            continue
        postings.correct(row, merged, revision=revision + 1)
        known[request_id] = (merged, revision + 1)
        changed[request_id] = merged
    update_rows({request_id: known[request_id] for request_id in changed})
    return list(changed.values())
