"""Read what every component stored, as plain values: by SQL, Redis commands and files, with no code under test."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from redis import Redis

from billing.ledger_equations import findings_in
from codexflow.lib.redis import time_ms


class Row(NamedTuple):
    """A row of request_log."""

    request_id: UUID
    organization_id: UUID
    key_id: UUID
    user_id: int | None
    day: date
    started_at: datetime
    model: str
    stage: str
    status: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_nanos: int
    usage_rank: int
    source: str
    is_disconnected: bool
    is_degraded: bool
    revision: int
    planner: str | None = None

    @property
    def is_planned(self) -> bool:
        """True for a request that several calls answered, each charged by itself."""
        return self.planner == "planned"


class Part(NamedTuple):
    """A call of a planned request, as its row has it."""

    model: str
    kind: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    rank: int


class RollupKey(NamedTuple):
    """Group of a rollup row."""

    bucket: date | datetime
    organization_id: UUID
    key_id: UUID
    user_id: int
    model: str
    stage: str


class RollupSums(NamedTuple):
    """Sums of a rollup row; `seen` is the sum of its latency histogram."""

    requests: int
    errors: int
    disconnects: int
    prompt_tokens: int
    completion_tokens: int
    cost_nanos: int
    seen: int


class LedgerLine(NamedTuple):
    """A ledger entry; `request_id` is None for credit."""

    organization_id: UUID
    request_id: UUID | None
    revision: int
    kind: str
    amount_nanos: int


class AccountSums(NamedTuple):
    """An account's running sums."""

    credit_nanos: int
    spent_nanos: int


class Spend(NamedTuple):
    """Daily spend of a key."""

    requests: int
    cost_nanos: int


@dataclass(slots=True)
class Counters:
    """Counters of a limiter scope; `day` is the day that `requests` counts, `month` counts months since year 0."""

    day: int
    requests: int
    day_nanos: int
    month: int
    month_nanos: int
    spent_nanos: int
    held_nanos: int


@dataclass(slots=True)
class UpstreamCall:
    """A call as the upstream recorded it."""

    model: str
    prompt_tokens: int
    completion_tokens: int
    outcome: str
    status: int | None
    began_ms: float = 0.0  # Unix
    ended_ms: float = 0.0
    is_stream: bool = False
    characters: int = 0  # of the text, as far as it was written
    reported: tuple[int, int] | None = None  # usage as its response told it
    faults: frozenset[str] = frozenset()

    @property
    def tells_truth(self) -> bool:
        return self.reported in (None, (self.prompt_tokens, self.completion_tokens))


@dataclass(slots=True)
class Records:
    """Everything that was stored."""

    rows: list[Row] = field(default_factory=list)
    hours: dict[RollupKey, RollupSums] = field(default_factory=dict)
    days: dict[RollupKey, RollupSums] = field(default_factory=dict)
    ledger: list[LedgerLine] = field(default_factory=list)
    accounts: dict[UUID, AccountSums] = field(default_factory=dict)
    spend: dict[tuple[UUID, UUID, date], Spend] = field(default_factory=dict)
    parts: dict[UUID, dict[int, Part]] = field(default_factory=dict)  # of planned requests, by attempt
    won_attempts: dict[UUID, int] = field(default_factory=dict)  # request -> the attempt that succeeded
    lineages: dict[UUID, UUID] = field(default_factory=dict)  # key -> the first key of its lineage
    dead_letters: int = 0
    redis_day: int = 0
    scopes: dict[tuple[str, UUID], Counters] = field(default_factory=dict)  # ("o" or "k", id)
    leftovers: dict[str, int] = field(default_factory=dict)  # counts that must be zero when idle
    upstream: dict[str, UpstreamCall] = field(default_factory=dict)  # by call id
    unproven: list[str] = field(default_factory=list)  # sums that do not follow from the ledger's entries


class Cursor(Protocol):
    """The part of a database cursor used here, common to psycopg and Django."""

    def execute(self, sql: str) -> Any: ...
    def fetchall(self) -> list[Any]: ...


# Paths at which the upstream counts tokens.
COUNTS = frozenset({"/utils/token_counter", "/v1/messages/count_tokens"})
_ROLLUP_SQL = """
SELECT {bucket}, organization_id, key_id, user_id, model, stage, requests, errors, disconnects, prompt_tokens,
       completion_tokens, cost_nanos, (SELECT coalesce(sum(n), 0) FROM unnest(latency_histogram) AS n)
FROM {table}
"""


def read_database(cursor: Cursor, records: Records) -> None:
    """Read rows, rollups, ledger, accounts and spend; consistent if the caller's transaction is a snapshot."""
    cursor.execute(f"SELECT {', '.join(Row._fields)} FROM request_log")  # noqa: S608 - our own field names
    records.rows = [Row(*each) for each in cursor.fetchall()]
    records.hours = dict(_rollup(cursor, "usage_hourly", "hour"))
    records.days = dict(_rollup(cursor, "usage_daily", "day"))
    cursor.execute("SELECT organization_id, request_id, revision, kind, amount_nanos FROM billing_ledgerentry")
    records.ledger = [LedgerLine(*each) for each in cursor.fetchall()]
    cursor.execute("SELECT organization_id, credit_nanos, spent_nanos FROM billing_account")
    records.accounts = {each[0]: AccountSums(*each[1:]) for each in cursor.fetchall()}
    records.unproven = [str(each) for each in findings_in(cursor)]
    cursor.execute("SELECT organization_id, key_id, day, requests, cost_nanos FROM billing_spend_daily")
    records.spend = {each[:3]: Spend(*each[3:]) for each in map(tuple, cursor.fetchall())}
    cursor.execute("SELECT request_id, n FROM upstream_attempt WHERE status = 200")
    records.won_attempts = dict(cursor.fetchall())
    cursor.execute("SELECT request_id, n, model, part FROM upstream_attempt WHERE part IS NOT NULL")
    for request_id, n, model, part in cursor.fetchall():
        usage = part.get("usage", {})
        prompt, cached, completion = (usage.get(f"{name}_tokens", 0) for name in ("prompt", "cached", "completion"))
        found = Part(model, part["kind"], prompt, cached, completion, part.get("rank", 0))
        records.parts.setdefault(request_id, {})[n] = found
    cursor.execute("SELECT id, coalesce(first_id, id) FROM keys_apikey")
    records.lineages = dict(cursor.fetchall())
    cursor.execute("SELECT count(*) FROM usage_dead_letter")
    records.dead_letters = cursor.fetchall()[0][0]


def _rollup(cursor: Cursor, table: str, bucket: str) -> Iterator[tuple[RollupKey, RollupSums]]:
    cursor.execute(_ROLLUP_SQL.format(table=table, bucket=bucket))
    width = len(RollupKey._fields)
    for each in cursor.fetchall():
        yield RollupKey(*each[:width]), RollupSums(*map(int, each[width:]))


def read_redis(redis: "Redis", prefix: str, records: Records) -> None:
    """Read the limiter's counters, and count events, leases and intents that are still there."""
    client: Any = redis  # the stubs do not distinguish the client from its asynchronous form
    records.redis_day = time_ms(client, prefix) // 86_400_000
    names = ("stream", "pending", "leases", "slots", "intents", "progress", "held", "reports")
    counts = dict.fromkeys(names, 0)
    for key in client.scan_iter(match=f"{prefix}:{{s*", count=1000):
        name = key.decode().split("}:", 1)[1]
        if name.startswith("scope:"):
            fields = client.hgetall(key)
            if b"d" not in fields:
                continue  # only the counts of a minute: it is loaded when it is asked for
            scope = _counters(fields)
            _, kind, owner = name.split(":")
            records.scopes[kind, UUID(owner)] = scope
            counts["held"] += scope.held_nanos != 0
        elif name == "usage":
            counts["stream"] += client.xlen(key)
            counts["pending"] += sum(group["pending"] for group in client.xinfo_groups(key))
        elif name == "reports":
            counts["reports"] += client.xlen(key)
        elif name in ("intents", "progress"):
            counts[name] += client.hlen(key)
        elif name == "alive":
            counts["leases"] += client.zcard(key)
        elif name.startswith("slots:"):
            counts["slots"] += client.zcard(key)
    records.leftovers |= counts


def _counters(fields: dict[bytes, bytes]) -> Counters:
    day, requests, day_nanos, month, month_nanos, spent, held = (
        int(fields.get(name, b"0")) for name in (b"d", b"n", b"ds", b"mo", b"ms", b"spent", b"held")
    )
    return Counters(day, requests, day_nanos, month, month_nanos, spent, held)


def read_journal(folder: Path, records: Records) -> None:
    """Add the segments that are not shipped yet. A running process keeps one open, which is empty when idle."""
    unshipped = [*folder.glob("*.closed"), *(each for each in folder.glob("*.open") if _has_records(each))]
    found = {"journal": len(unshipped), "unreadable journal": len([*folder.glob("*.bad")])}
    for name, count in found.items():
        records.leftovers[name] = records.leftovers.get(name, 0) + count


def _has_records(segment: Path) -> bool:
    try:
        return segment.stat().st_size > 0
    except FileNotFoundError:
        return True  # it has been closed since it was listed


def read_upstream(entries: Iterable[dict[str, Any]], records: Records) -> None:
    """Read the upstream's own ledger, but for counts of prompts: nobody is charged for them, and they have no row."""
    for each in entries:
        if each["call_id"] and each["path"].partition("?")[0] not in COUNTS:
            records.upstream[each["call_id"]] = UpstreamCall(
                each["model"],
                each["prompt_tokens"],
                each["completion_tokens"],
                each["outcome"],
                each["status"],
                began_ms=1000 * each["at_s"],
                ended_ms=1000 * each["at_s"] + (each["duration_ms"] or 0.0),
                is_stream=each["stream"],
                characters=each["characters"],
                reported=tuple(each["reported"]) if each["reported"] else None,
                faults=frozenset(each["faults"]),
            )
