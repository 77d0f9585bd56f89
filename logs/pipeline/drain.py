"""The worker's way from the usage stream to PostgreSQL: row, attempts, ledger and rollups in one transaction.

Whatever is killed at whatever moment, redelivery is harmless: the row's primary key decides what is new, and only
what is new reaches ledger and rollups. Entries leave the stream after the commit.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import msgspec
from django.db import DataError, IntegrityError, connection, transaction
from redis import Redis, ResponseError

from billing.limiter.limits import ShardKeys
from billing.pricing import FrozenRates, Usage
from codexflow.lib import clock
from codexflow.lib.redis import SHARDS
from keys.services import mark_used
from logs.models import DeadLetter
from logs.pipeline.events import BadEvent, UsageEvent, decode, request_id_of
from logs.pipeline.merge import Told, merge, winner_of
from logs.pipeline.rollups import NOBODY, Folded, RollupKey, Sums, day_of, first_open_day
from logs.pipeline.streams import CLAIM_IDLE_MS, make_group, streams_in
from logs.tail.publisher import Announcer

logger = logging.getLogger(__name__)

GROUP = b"drain"
BATCH = 500


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a shard's stream."""

    shard: ShardKeys
    stream_id: bytes
    payload: bytes


@dataclass(slots=True)
class Drained:
    """What a drain did."""

    read: int = 0
    stored: int = 0
    corrected: int = 0
    repeated: int = 0
    dead: int = 0
    # The new and the corrected rows of a batch, for whoever watches; not of a whole drain.
    fresh: list[UsageEvent] = field(default_factory=list)
    changed: list[UsageEvent] = field(default_factory=list)

    def add(self, other: "Drained") -> None:
        for name in ("read", "stored", "corrected", "repeated", "dead"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.fresh += other.fresh
        self.changed += other.changed


def drain(redis: "Redis", *, prefix: str, consumer: str, max_batches: int = 200) -> Drained:
    """Take in everything that waits, at most `max_batches` batches. Raises what Redis and PostgreSQL raise."""
    shards = [ShardKeys.of(prefix, shard) for shard in range(SHARDS)]
    total, announcer = Drained(), Announcer(redis, prefix)
    for _ in range(max_batches):
        entries = list(_read(redis, shards, consumer))
        if not entries:
            break
        stored = _stored_somehow(entries)
        _acknowledge(redis, entries)
        announcer.announce(stored.fresh, stored.changed)
        stored.fresh, stored.changed = [], []
        total.add(stored)
    return total


def _read(redis: "Redis", shards: Sequence[ShardKeys], consumer: str) -> Iterator[Entry]:
    """Up to about BATCH entries: first those that a dead worker left behind, then new ones.

    An entry without our field becomes an empty payload, which is no event and is buried like any other nonsense.
    """
    pipe = redis.pipeline(transaction=False)
    for shard in shards:
        pipe.xautoclaim(shard.usage, GROUP, consumer, CLAIM_IDLE_MS, count=BATCH)
        pipe.xreadgroup(GROUP.decode(), consumer, {shard.usage.decode(): ">"}, count=BATCH)
    replies = pipe.execute(raise_on_error=False)
    for shard, claimed, fresh in zip(shards, replies[::2], replies[1::2], strict=True):
        for reply in (claimed, fresh):
            if isinstance(reply, ResponseError) and "NOGROUP" in str(reply):
                make_group(redis, shard.usage, GROUP)
            elif isinstance(reply, Exception):
                raise reply
        if not isinstance(claimed, Exception):
            yield from (Entry(shard, each[0], each[1].get(b"e", b"")) for each in claimed[1] if each[1])
        if not isinstance(fresh, Exception):
            for entries in streams_in(fresh):
                yield from (Entry(shard, each[0], each[1].get(b"e", b"")) for each in entries)


def _acknowledge(redis: "Redis", entries: Iterable[Entry]) -> None:
    ids: dict[bytes, list[bytes]] = {}
    for entry in entries:
        ids.setdefault(entry.shard.usage, []).append(entry.stream_id)
    pipe = redis.pipeline(transaction=False)
    for stream, batch in ids.items():
        pipe.xack(stream, GROUP, *batch)
        pipe.xdel(stream, *batch)
    pipe.execute()


def _stored_somehow(entries: Sequence[Entry]) -> Drained:
    """Store a batch. One entry that PostgreSQL refuses must not stop the others: it is searched for and buried."""
    try:
        return store(entries)
    except (DataError, IntegrityError) as exc:
        if len(entries) == 1:
            with transaction.atomic():
                _bury(entries[0], str(exc))
            return Drained(read=1, dead=1)
    middle = len(entries) // 2
    total = _stored_somehow(entries[:middle])
    total.add(_stored_somehow(entries[middle:]))
    return total


def store(entries: Sequence[Entry]) -> Drained:
    """Write a batch in one transaction. An entry that is no event goes to the dead letters in the same one."""
    result = Drained(read=len(entries))
    events: list[UsageEvent] = []
    with transaction.atomic():
        for entry in entries:
            try:
                events.append(decode(entry.payload))
            except BadEvent as exc:
                result.dead += 1
                _bury(entry, str(exc))
        _store_events(events, result)
    mark_used({event.key_id for event in events})
    _alarm_of_gifts([*result.fresh, *result.changed])
    return result


def _alarm_of_gifts(events: Sequence[UsageEvent]) -> None:
    """Tokens that cost nothing are a price that is missing or zero: said once a batch, with one of them to look at."""
    gifts = [event for event in events if event.usage.total_tokens and not event.cost_nanos]
    if gifts:
        logger.error(
            "drain.tokens_without_cost",
            extra={
                "count": len(gifts),
                "models": sorted({event.model for event in gifts}),
                "request_id": str(gifts[0].request_id),
            },
        )


def _bury(entry: Entry, reason: str) -> None:
    logger.error("drain.dead_letter", extra={"stream_id": entry.stream_id.decode(), "reason": reason})
    name = f"{entry.shard.usage.decode()}/{entry.stream_id.decode()}"
    try:
        request_id = request_id_of(entry.payload)
    except BadEvent:
        request_id = None
    about = {"request_id": request_id, "payload": entry.payload, "reason": reason}
    DeadLetter.objects.get_or_create(stream_id=name, defaults=about)


def _store_events(events: Sequence[UsageEvent], result: Drained) -> None:
    # Sorted, so that two drains never wait for each other's rows crosswise.
    by_rank = sorted(events, key=lambda event: (event.request_id.int, -event.rank))
    best = {event.request_id: event for event in reversed(by_rank)}
    ordered = sorted(best.values(), key=lambda event: event.request_id.int)
    books = Books()
    new_ids = insert_rows(ordered)
    new = [event for event in ordered if event.request_id in new_ids]
    for event in new:
        books.add(event)
    later = [event for event in events if not (event.request_id in new_ids and event is best[event.request_id])]
    corrections = _merge_reports(later, {event.request_id: event for event in new}, books) if later else []
    _insert_attempts(new + corrections)
    books.write()
    result.stored += len(new_ids)
    result.fresh = [event for event in ordered if event.request_id in new_ids]
    result.changed = corrections
    result.corrected += len(corrections)
    result.repeated += len(events) - len(new_ids) - len(corrections)


def _row(event: UsageEvent, revision: int) -> dict[str, Any]:
    """The event as a row of request_log, values as JSON carries them."""
    return {
        "request_id": event.request_id,
        "organization_id": event.organization_id,
        "key_id": event.key_id if event.key_id != NOBODY else None,
        "user_id": event.user_id,
        "day": day_of(event),
        "started_at": datetime.fromtimestamp(event.started_ms / 1000, UTC),
        "surface": event.surface,
        "endpoint": event.endpoint,
        "stage": event.stage,
        "stage_reason": event.stage_reason,
        "requested_model": event.requested_model,
        "model": event.model,
        "status": event.status,
        "error_code": event.error_code,
        "prompt_tokens": event.usage.prompt_tokens,
        "cached_tokens": event.usage.cached_tokens,
        "cache_write_tokens": event.usage.cache_write_tokens,
        "cache_write_1h_tokens": event.usage.cache_write_1h_tokens,
        "completion_tokens": event.usage.completion_tokens,
        "reasoning_tokens": event.usage.reasoning_tokens,
        "cost_nanos": event.cost_nanos,
        "upstream_cost_nanos": event.upstream_cost_nanos,
        "usage_rank": event.rank,
        "held_nanos": event.hold_nanos,
        "rate_input_nanos": event.rates.input_nanos,
        "rate_cached_nanos": event.rates.cached_nanos,
        "rate_cache_write_nanos": event.rates.cache_write_nanos,
        "rate_cache_write_1h_nanos": event.rates.cache_write_1h_nanos,
        "rate_output_nanos": event.rates.output_nanos,
        "margin_bp": event.rates.margin_bp,
        "catalogue_version": event.catalogue_version,
        "latency_ms": event.latency_ms,
        "ttft_ms": event.ttft_ms,
        "is_stream": event.is_stream,
        "is_disconnected": event.is_disconnected,
        "is_degraded": event.is_degraded,
        "attempts": len(event.attempts),
        "source": event.source,
        "client_address": event.client_address,
        "user_agent": event.user_agent,
        "revision": revision,
    }


def insert_rows(events: Sequence[UsageEvent]) -> set[UUID]:
    """Insert what is new. ON CONFLICT with RETURNING is the one statement that tells what was."""
    if not events:
        return set()
    rows = msgspec.json.encode([_row(event, 1) for event in events]).decode()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO request_log SELECT * FROM json_populate_recordset(NULL::request_log, %s::json)"
            " ON CONFLICT (request_id) DO NOTHING RETURNING request_id",
            [rows],
        )
        return {row[0] for row in cursor.fetchall()}


_STORED_COLUMNS = (
    "request_id", "organization_id", "key_id", "user_id", "day", "started_at", "surface", "endpoint", "stage",
    "stage_reason", "requested_model", "model", "status", "error_code", "prompt_tokens", "cached_tokens",
    "completion_tokens", "reasoning_tokens", "cost_nanos", "upstream_cost_nanos", "usage_rank", "held_nanos",
    "rate_input_nanos", "rate_cached_nanos", "rate_output_nanos", "margin_bp", "catalogue_version", "latency_ms",
    "ttft_ms", "is_stream", "is_disconnected", "is_degraded", "source", "client_address", "user_agent", "revision",
    "cache_write_tokens", "cache_write_1h_tokens", "rate_cache_write_nanos", "rate_cache_write_1h_nanos",
)  # fmt: skip


def stored_rows(ids: Sequence[UUID]) -> dict[UUID, tuple[UsageEvent, int]]:
    """The rows of some requests as events with their revision, locked until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join(_STORED_COLUMNS)} FROM request_log"  # noqa: S608 - a constant
            " WHERE request_id = ANY(%s) ORDER BY request_id FOR UPDATE",
            [list(ids)],
        )
        rows = [dict(zip(_STORED_COLUMNS, row, strict=True)) for row in cursor.fetchall()]
    return {row["request_id"]: (_event_of(row), row["revision"]) for row in rows}


def _event_of(row: dict[str, Any]) -> UsageEvent:
    day: date = row["day"]
    address = row["client_address"]
    return UsageEvent(
        request_id=row["request_id"],
        organization_id=row["organization_id"],
        key_id=row["key_id"] or NOBODY,
        user_id=row["user_id"],
        day=(day - date(1970, 1, 1)).days,
        started_ms=round(row["started_at"].timestamp() * 1000),
        surface=row["surface"],
        endpoint=row["endpoint"],
        stage=row["stage"],
        stage_reason=row["stage_reason"],
        requested_model=row["requested_model"],
        model=row["model"],
        status=row["status"],
        error_code=row["error_code"],
        usage=Usage(
            prompt_tokens=row["prompt_tokens"],
            cached_tokens=row["cached_tokens"],
            cache_write_tokens=row["cache_write_tokens"] or 0,
            cache_write_1h_tokens=row["cache_write_1h_tokens"] or 0,
            completion_tokens=row["completion_tokens"],
            reasoning_tokens=row["reasoning_tokens"],
        ),
        rank=row["usage_rank"],
        rates=FrozenRates(
            input_nanos=row["rate_input_nanos"],
            cached_nanos=row["rate_cached_nanos"],
            cache_write_nanos=row["rate_cache_write_nanos"],
            cache_write_1h_nanos=row["rate_cache_write_1h_nanos"],
            output_nanos=row["rate_output_nanos"],
            margin_bp=row["margin_bp"],
        ),
        cost_nanos=row["cost_nanos"],
        upstream_cost_nanos=row["upstream_cost_nanos"],
        hold_nanos=row["held_nanos"],
        catalogue_version=row["catalogue_version"],
        latency_ms=row["latency_ms"],
        ttft_ms=row["ttft_ms"],
        is_stream=row["is_stream"],
        is_disconnected=row["is_disconnected"],
        is_degraded=row["is_degraded"],
        source=row["source"],
        client_address=str(address) if address is not None else None,
        user_agent=row["user_agent"],
    )


def _merge_reports(events: Sequence[UsageEvent], new: Mapping[UUID, UsageEvent], books: "Books") -> list[UsageEvent]:
    """Further reports about requests that have a row: what they change is counted as a difference."""
    ids = sorted({event.request_id for event in events}, key=lambda each: each.int)
    known, attempts = stored_rows(ids), attempts_told(ids)
    changed: dict[UUID, UsageEvent] = {}
    for report in sorted(events, key=lambda event: (event.request_id.int, event.rank)):
        request_id = report.request_id
        row, revision = known[request_id]
        heard = attempts.get(request_id, AttemptsTold())
        # The attempts of a row made a moment ago are not stored yet.
        winner = heard.winner if request_id not in new else winner_of(new[request_id].attempts)
        merged = merge(row, report, heard.told, winner)
        if merged is None:
            continue
        books.change(row, merged, revision=revision + 1)
        known[request_id] = (merged, revision + 1)
        changed[request_id] = merged
    update_rows({request_id: known[request_id] for request_id in changed})
    return list(changed.values())


@dataclass(slots=True)
class AttemptsTold:
    """A request's attempts: which one answered, and what LiteLLM told of each."""

    winner: int | None = None
    told: dict[int, Told] = field(default_factory=dict)


def attempts_told(ids: Sequence[UUID]) -> dict[UUID, AttemptsTold]:
    """Of the requests that have any; to be asked while their rows are locked."""
    found: dict[UUID, AttemptsTold] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT request_id, n, first_byte_ms, told_prompt_tokens, told_cached_tokens, told_cache_write_tokens,"
            " told_cache_write_1h_tokens, told_completion_tokens, told_reasoning_tokens, told_cost_nanos,"
            " told_is_success, told_ended_ms FROM upstream_attempt"
            " WHERE request_id = ANY(%s) AND request_id BETWEEN %s AND %s ORDER BY request_id, n",
            [list(ids), min(ids), max(ids)],
        )
        for request_id, n, first_byte_ms, *tokens, cost, is_success, ended_ms in cursor:
            attempts = found.setdefault(request_id, AttemptsTold())
            if first_byte_ms is not None:
                attempts.winner = n
            if ended_ms is None:
                continue
            prompt, cached, written, written_1h, completion, reasoning = tokens
            usage = Usage(
                prompt_tokens=prompt,
                cached_tokens=cached,
                cache_write_tokens=written or 0,
                cache_write_1h_tokens=written_1h or 0,
                completion_tokens=completion,
                reasoning_tokens=reasoning,
            )
            attempts.told[n] = Told(usage=usage, cost_nanos=cost, is_success=is_success, ended_ms=ended_ms)
    return found


def update_rows(rows: dict[UUID, tuple[UsageEvent, int]]) -> None:
    if not rows:
        return
    columns = [name for name in _STORED_COLUMNS if name not in ("request_id", "organization_id", "day")]
    values = msgspec.json.encode([_row(event, revision) for event, revision in rows.values()]).decode()
    assignments = ", ".join(f"{name} = new.{name}" for name in columns)
    # Only the gateway reports attempts; whoever corrects its usage knows of none.
    assignments += ", attempts = greatest(request_log.attempts, new.attempts)"
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE request_log SET {assignments}"  # noqa: S608 - constants
            " FROM json_populate_recordset(NULL::request_log, %s::json) AS new"
            " WHERE request_log.request_id = new.request_id"
            # Said once more as a span, so that only the partitions of these days are looked into.
            " AND request_log.request_id BETWEEN %s AND %s",
            [values, min(rows), max(rows)],
        )


def _insert_attempts(events: Iterable[UsageEvent]) -> None:
    attempts = [
        {
            "request_id": event.request_id,
            "n": fact.n,
            "model": fact.model,
            "status": fact.status,
            "error_code": fact.error_code,
            "started_ms": fact.started_ms,
            "first_byte_ms": fact.first_byte_ms,
            "duration_ms": fact.duration_ms,
            "response_id": fact.response_id,
        }
        for event in events
        for fact in event.attempts
    ]
    if not attempts:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO upstream_attempt SELECT * FROM json_populate_recordset(NULL::upstream_attempt, %s::json)"
            # LiteLLM may have told of an attempt before the gateway's own word came.
            " ON CONFLICT (request_id, n) DO UPDATE SET model = excluded.model, status = excluded.status,"
            " error_code = excluded.error_code, started_ms = excluded.started_ms,"
            " first_byte_ms = excluded.first_byte_ms, duration_ms = excluded.duration_ms,"
            " response_id = excluded.response_id",
            [msgspec.json.encode(attempts).decode()],
        )


_SUM_COLUMNS = (
    "requests", "errors", "disconnects", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens",
    "cost_nanos", "upstream_cost_nanos",
)  # fmt: skip
_HISTOGRAMS = ("latency_histogram", "ttft_histogram")


def _add_to_rollups(table: str, bucket: str, sums: dict[tuple[Any, RollupKey], Sums]) -> None:
    if not sums:
        return
    keys = ("organization_id", "key_id", "user_id", "model", "stage")
    rows = [
        {
            bucket: moment,
            **{name: getattr(key, name) for name in keys},
            **{name: getattr(total, name) for name in (*_SUM_COLUMNS, *_HISTOGRAMS)},
        }
        for (moment, key), total in sorted(sums.items(), key=lambda item: (item[0][1], item[0][0]))
    ]
    names = ", ".join((bucket, *keys, *_SUM_COLUMNS, *_HISTOGRAMS))
    added = ", ".join(
        [f"{name} = {table}.{name} + excluded.{name}" for name in _SUM_COLUMNS]
        + [f"{name} = cfx_add_histograms({table}.{name}, excluded.{name})" for name in _HISTOGRAMS]
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({names})"  # noqa: S608 - constants
            f" SELECT {names} FROM json_populate_recordset(NULL::{table}, %s::json)"
            f" ON CONFLICT (organization_id, {bucket}, key_id, user_id, model, stage) DO UPDATE SET {added}",
            [msgspec.json.encode(rows).decode()],
        )


class Books:
    """What one transaction adds to rollups, ledger, spend and accounts."""

    def __init__(self) -> None:
        self._folded = Folded()
        self._ledger = _Ledger()

    def add(self, event: UsageEvent) -> None:
        """A request that is new."""
        self._folded.count(event)
        self._ledger.charge(event, revision=1, amount_nanos=event.cost_nanos, requests=1)

    def change(self, row: UsageEvent, merged: UsageEvent, *, revision: int) -> None:
        """A request that a better report changes: the difference."""
        self._folded.count(row, -1)
        self._folded.count(merged)
        self._ledger.charge(merged, revision=revision, amount_nanos=merged.cost_nanos - row.cost_nanos, requests=0)

    def write(self) -> None:
        _add_to_rollups("usage_hourly", "hour", self._folded.hours)
        _add_to_rollups("usage_daily", "day", self._folded.days)
        self._ledger.write()


class _Ledger:
    """Ledger lines, spend by key and day, and account sums of one batch.

    Money is booked on the day of admission, until that day's month is closed: what a closed month cost stands, and
    what comes later is booked today, with the request and its day in the line. Requests stay on their day.
    """

    def __init__(self) -> None:
        now = clock.now()
        self._today, self._first_open_day = now.date(), first_open_day(now)
        self._lines: list[dict[str, Any]] = []
        self._days: dict[tuple[UUID, UUID, date], list[int]] = {}
        self._accounts: dict[UUID, int] = {}

    def charge(self, event: UsageEvent, *, revision: int, amount_nanos: int, requests: int) -> None:
        """A request's cost, or the difference that a better report makes."""
        day = day_of(event)
        booked = day if day >= self._first_open_day else self._today
        if amount_nanos or requests:
            self._lines.append(
                {
                    "organization_id": event.organization_id,
                    "kind": "settle" if requests else "adjustment",
                    "amount_nanos": -amount_nanos,
                    "held_nanos": event.hold_nanos,
                    "request_id": event.request_id,
                    "revision": revision,
                    "key_id": event.key_id,
                    "day": booked,
                    "note": "" if booked == day else f"Usage of {day}, whose month is closed",
                }
            )
        self._spend(event, day)[0] += requests
        self._spend(event, booked)[1] += amount_nanos
        self._accounts[event.organization_id] = self._accounts.get(event.organization_id, 0) + amount_nanos

    def _spend(self, event: UsageEvent, day: date) -> list[int]:
        return self._days.setdefault((event.organization_id, event.key_id, day), [0, 0])

    def write(self) -> None:
        """Accounts last: their row locks are the ones that others wait for."""
        if not self._days:
            return
        days = [
            {"organization_id": organization, "key_id": key, "day": day, "requests": spend[0], "cost_nanos": spend[1]}
            for (organization, key, day), spend in sorted(self._days.items())
        ]
        accounts = [{"organization_id": each, "spent_nanos": n} for each, n in sorted(self._accounts.items()) if n]
        with connection.cursor() as cursor:
            if self._lines:
                cursor.execute(
                    "INSERT INTO billing_ledgerentry (organization_id, kind, amount_nanos, held_nanos, request_id,"
                    " revision, key_id, day, reference, note, created_at)"
                    " SELECT organization_id, kind, amount_nanos, held_nanos, request_id, revision, key_id, day,"
                    " '', note, clock_timestamp()"
                    " FROM json_populate_recordset(NULL::billing_ledgerentry, %s::json)",
                    [msgspec.json.encode(self._lines).decode()],
                )
            cursor.execute(
                "INSERT INTO billing_spend_daily (organization_id, key_id, day, requests, cost_nanos)"
                " SELECT organization_id, key_id, day, requests, cost_nanos"
                " FROM json_populate_recordset(NULL::billing_spend_daily, %s::json)"
                " ON CONFLICT (organization_id, key_id, day) DO UPDATE SET"
                " requests = billing_spend_daily.requests + excluded.requests,"
                " cost_nanos = billing_spend_daily.cost_nanos + excluded.cost_nanos",
                [msgspec.json.encode(days).decode()],
            )
            if accounts:
                cursor.execute(
                    "SELECT 1 FROM billing_account WHERE organization_id = ANY(%s) ORDER BY organization_id FOR UPDATE",
                    [[each["organization_id"] for each in accounts]],
                )
                cursor.execute(
                    "UPDATE billing_account SET spent_nanos = billing_account.spent_nanos + new.spent_nanos"
                    " FROM json_populate_recordset(NULL::billing_account, %s::json) AS new"
                    " WHERE billing_account.organization_id = new.organization_id",
                    [msgspec.json.encode(accounts).decode()],
                )
