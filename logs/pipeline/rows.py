"""The request log's columns, described once, and the only SQL that reads and writes them as events.

`COLUMNS` says for each column of `request_log` which field of the event it carries, how the value is stored, and whose
report may change it. Inserting, reading back and correcting all go through it, so that a new column cannot be written
by one of them and reset by another.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from ipaddress import ip_address
from operator import attrgetter
from typing import Any
from uuid import UUID

import msgspec
from django.db import connection

from billing.pricing import FrozenRates, Usage
from codexflow.catalogue.entries import PriceDetails
from logs.models import RequestLog, UpstreamAttempt
from logs.pipeline.events import AttemptFact, PlannedPart, UsageEvent
from logs.pipeline.merge import ReportedUsage
from logs.pipeline.rollups import EPOCH, NO_KEY


class Writer(Enum):
    """Source of the reports that may change a column of an existing row."""

    NONE = "none"  # identity: fixed when the row is inserted
    OWNER = "owner"  # the gateway's report; for calls that went past the gateway, LiteLLM's
    USAGE = "usage"  # any report that knows usage and cost better


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Column:
    """One column of request_log.

    `field` is the event's attribute, dotted inside `usage` and `rates`. `store` turns its value into what JSON carries
    into PostgreSQL, `load` turns the column's value back.
    """

    name: str
    field: str
    writer: Writer = Writer.OWNER
    store: Callable[[Any], Any] = _same
    load: Callable[[Any], Any] = _same


def _from_json(value: Any) -> Any:
    """Return a jsonb column's value: text over a bare cursor, plain values over a model."""
    return msgspec.json.decode(value) if isinstance(value, str) else value


COLUMNS = (
    Column("request_id", "request_id", Writer.NONE),
    Column("organization_id", "organization_id", Writer.NONE),
    # The day of admission decides quota, ledger and daily rollup, so no report moves it.
    Column(
        "day",
        "day",
        Writer.NONE,
        store=lambda day: EPOCH + timedelta(days=day),
        load=lambda day: (day - EPOCH).days,
    ),
    Column(
        "key_id",
        "key_id",
        store=lambda key_id: key_id if key_id != NO_KEY else None,
        load=lambda key_id: key_id or NO_KEY,
    ),
    Column("user_id", "user_id"),
    Column(
        "started_at",
        "started_ms",
        store=lambda started_ms: datetime.fromtimestamp(started_ms / 1000, UTC),
        load=lambda moment: round(moment.timestamp() * 1000),
    ),
    Column("surface", "surface"),
    Column("endpoint", "endpoint"),
    Column("stage", "stage"),
    Column("stage_reason", "stage_reason"),
    Column("requested_model", "requested_model"),
    Column("model", "model"),
    Column("status", "status"),
    Column("error_code", "error_code"),
    Column("prompt_tokens", "usage.prompt_tokens", Writer.USAGE),
    Column("cached_tokens", "usage.cached_tokens", Writer.USAGE),
    # NULL in rows from before these columns were there.
    Column("cache_write_tokens", "usage.cache_write_tokens", Writer.USAGE, load=lambda tokens: tokens or 0),
    Column("cache_write_1h_tokens", "usage.cache_write_1h_tokens", Writer.USAGE, load=lambda tokens: tokens or 0),
    Column("completion_tokens", "usage.completion_tokens", Writer.USAGE),
    Column("reasoning_tokens", "usage.reasoning_tokens", Writer.USAGE),
    Column("usage_details", "usage.details", Writer.USAGE, load=_from_json),
    Column("usage_rank", "rank", Writer.USAGE),
    Column("cost_nanos", "cost_nanos", Writer.USAGE),
    Column("upstream_cost_nanos", "upstream_cost_nanos", Writer.USAGE),
    Column("held_nanos", "hold_nanos"),
    Column("rate_input_nanos", "rates.input_nanos"),
    Column("rate_cached_nanos", "rates.cached_nanos"),
    Column("rate_cache_write_nanos", "rates.cache_write_nanos"),
    Column("rate_cache_write_1h_nanos", "rates.cache_write_1h_nanos"),
    Column("rate_output_nanos", "rates.output_nanos"),
    Column(
        "rate_details",
        "rates.details",
        load=lambda value: msgspec.convert(_from_json(value), PriceDetails | None),
    ),
    Column("margin_bp", "rates.margin_bp"),
    Column("catalogue_version", "catalogue_version"),
    Column("latency_ms", "latency_ms"),
    Column("ttft_ms", "ttft_ms"),
    Column("is_stream", "is_stream"),
    Column("is_disconnected", "is_disconnected"),
    Column("is_degraded", "is_degraded"),
    Column("source", "source"),
    Column(
        "client_address",
        "client_address",
        load=lambda address: str(ip_address(address)) if address is not None else None,
    ),
    Column("user_agent", "user_agent"),
    # NULL where there is none: most rows, and those of a worker of the release before.
    Column("tag", "tag", store=lambda tag: tag or None, load=lambda tag: tag or ""),
    # NULL where there was nothing to decide: nearly all rows.
    Column("planner", "planner", store=lambda planner: planner or None, load=lambda planner: planner or ""),
)
# Columns that no single field of the event holds: the number of attempts, whose facts have a table of their own, and
# how often the row was written.
COUNTED = ("attempts", "revision")
# Fields of the event that a row does not keep: they matter only until the call is settled.
NOT_STORED = (
    "minute",
    "tokens_reserved",
    "prompt_tokens_guess",
    "units_guess",
    "least_units",
    "attempts",
    "first_key_id",
    "tag_budget_id",
)

_NAMES = tuple(column.name for column in COLUMNS)
_values_of = attrgetter(*(column.field for column in COLUMNS))
_STORE = {column.name: column.store for column in COLUMNS if column.store is not _same}
_CORRECTED = tuple(column.name for column in COLUMNS if column.writer is not Writer.NONE)
_PLAIN = [column for column in COLUMNS if "." not in column.field]


def _inside(struct: str) -> list[tuple[str, Column]]:
    """Columns of a struct inside the event, each with the name of the struct's field."""
    return [(column.field.partition(".")[2], column) for column in COLUMNS if column.field.startswith(f"{struct}.")]


_USAGE, _RATES = _inside("usage"), _inside("rates")


def row_of(event: UsageEvent, revision: int) -> dict[str, Any]:
    """Return the event as a row of request_log, values as JSON carries them."""
    row = dict(zip(_NAMES, _values_of(event), strict=True))
    for name, store in _STORE.items():
        row[name] = store(row[name])
    row["attempts"] = len(event.attempts)
    row["revision"] = revision
    return row


def event_of(row: Mapping[str, Any]) -> UsageEvent:
    """Return a row of request_log as the event it was stored from, without the fields of NOT_STORED."""
    fields: dict[str, Any] = {column.field: column.load(row[column.name]) for column in _PLAIN}
    return UsageEvent(
        **fields,
        usage=Usage(**{name: column.load(row[column.name]) for name, column in _USAGE}),
        rates=FrozenRates(**{name: column.load(row[column.name]) for name, column in _RATES}),
    )


def usage_of(row: RequestLog) -> Usage:
    """Return the tokens of a request as the log has them."""
    return Usage(**{name: column.load(getattr(row, column.name)) for name, column in _USAGE})


def rates_of(row: RequestLog) -> FrozenRates:
    """Return the price that was frozen at the request's admission."""
    return FrozenRates(**{name: column.load(getattr(row, column.name)) for name, column in _RATES})


def part_of(attempt: UpstreamAttempt) -> PlannedPart | None:
    """Return what an attempt of a planned request did, used and cost; None for all other attempts."""
    return msgspec.convert(attempt.part, PlannedPart) if attempt.part is not None else None


def insert_rows(events: Sequence[UsageEvent]) -> set[UUID]:
    """Insert the rows that are new and return their ids.

    ON CONFLICT with RETURNING is the one statement that tells which were new, and so what may be counted and charged.
    """
    if not events:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO request_log SELECT * FROM json_populate_recordset(NULL::request_log, %s::json)"
            " ON CONFLICT (request_id) DO NOTHING RETURNING request_id",
            [_json(row_of(event, 1) for event in events)],
        )
        return {row[0] for row in cursor.fetchall()}


def stored_rows(ids: Sequence[UUID]) -> dict[UUID, tuple[UsageEvent, int]]:
    """Return the rows of some requests as events with their revision, locked until the transaction ends."""
    names = (*_NAMES, "revision")
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join(names)} FROM request_log"  # noqa: S608 - constants
            " WHERE request_id = ANY(%s) ORDER BY request_id FOR UPDATE",
            [list(ids)],
        )
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return {row["request_id"]: (event_of(row), row["revision"]) for row in rows}


def update_rows(rows: Mapping[UUID, tuple[UsageEvent, int]]) -> None:
    """Write corrected events over their rows, each with its new revision."""
    if not rows:
        return
    assignments = ", ".join(f"{name} = new.{name}" for name in (*_CORRECTED, "revision"))
    # Only the gateway reports attempts; a correction of usage has none.
    assignments += ", attempts = greatest(request_log.attempts, new.attempts)"
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE request_log SET {assignments}"  # noqa: S608 - constants
            " FROM json_populate_recordset(NULL::request_log, %s::json) AS new"
            " WHERE request_log.request_id = new.request_id"
            # Said once more as a span, so that only the partitions of these days are read.
            " AND request_log.request_id BETWEEN %s AND %s",
            [_json(row_of(event, revision) for event, revision in rows.values()), min(rows), max(rows)],
        )


# Columns of upstream_attempt that the gateway writes: the fields of AttemptFact, by their own names.
ATTEMPT_COLUMNS = ("request_id", *AttemptFact.__struct_fields__)
_attempt_values_of = attrgetter(*AttemptFact.__struct_fields__)


def insert_attempts(events: Iterable[UsageEvent]) -> None:
    """Store the gateway's facts of the events' attempts; what LiteLLM reported of them earlier stays."""
    attempts = [
        dict(zip(ATTEMPT_COLUMNS, (event.request_id, *_attempt_values_of(fact)), strict=True))
        for event in events
        for fact in event.attempts
    ]
    if not attempts:
        return
    facts = [name for name in ATTEMPT_COLUMNS if name not in ("request_id", "n")]
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO upstream_attempt SELECT * FROM json_populate_recordset(NULL::upstream_attempt, %s::json)"  # noqa: S608 - constants
            f" ON CONFLICT (request_id, n) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in facts)}",
            [_json(attempts)],
        )


@dataclass(slots=True)
class ReportedAttempts:
    """A request's attempts: which one won, and the usage that LiteLLM reported for each, by number."""

    winner: int | None = None
    reported: dict[int, ReportedUsage] = field(default_factory=dict)


_REPORTED = tuple((name, f"reported_{name}") for name in Usage.__struct_fields__)


def reported_attempts(ids: Sequence[UUID]) -> dict[UUID, ReportedAttempts]:
    """Return the attempts of the requests that have any. Ask while the requests' rows are locked."""
    found: dict[UUID, ReportedAttempts] = {}
    columns = ", ".join(column for _, column in _REPORTED)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT request_id, n, first_byte_ms, reported_cost_nanos, reported_is_success, reported_ended_ms,"  # noqa: S608 - constants
            f" {columns} FROM upstream_attempt"
            " WHERE request_id = ANY(%s) AND request_id BETWEEN %s AND %s ORDER BY request_id, n",
            [list(ids), min(ids), max(ids)],
        )
        for request_id, n, first_byte_ms, cost_nanos, is_success, ended_ms, *values in cursor:
            attempts = found.setdefault(request_id, ReportedAttempts())
            if first_byte_ms is not None:
                attempts.winner = n
            if ended_ms is None:
                continue
            *tokens, details = values
            names = [name for name, _ in _REPORTED if name != "details"]
            counts = {name: count or 0 for name, count in zip(names, tokens, strict=True)}
            usage = Usage(**counts, details=_from_json(details))
            attempts.reported[n] = ReportedUsage(
                usage=usage, cost_nanos=cost_nanos, is_success=is_success, ended_ms=ended_ms
            )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptReport:
    """LiteLLM's report of one attempt, for `write_reported`."""

    model: str
    response_id: str
    usage: ReportedUsage


def write_reported(reports: Mapping[tuple[UUID, int], AttemptReport]) -> None:
    """Store LiteLLM's reports of attempts, by request and number, beside the gateway's facts.

    An attempt that the gateway has not stored yet gets a row, whose facts its event fills in.
    """
    if not reports:
        return
    rows = [_reported_row(key, report) for key, report in sorted(reports.items(), key=lambda item: item[0])]
    reported = [name for name in rows[0] if name.startswith("reported_")]
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO upstream_attempt SELECT * FROM json_populate_recordset(NULL::upstream_attempt, %s::json)"  # noqa: S608 - constants
            f" ON CONFLICT (request_id, n) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in reported)}",
            [_json(rows)],
        )


def _reported_row(key: tuple[UUID, int], report: AttemptReport) -> dict[str, Any]:
    request_id, n = key
    unknown = {"status": 0, "error_code": "", "started_offset_ms": 0, "duration_ms": 0}
    return {
        "request_id": request_id,
        "n": n,
        "model": report.model,
        "response_id": report.response_id,
        **unknown,
        "reported_model": report.model,
        **{column: getattr(report.usage.usage, name) for name, column in _REPORTED},
        "reported_cost_nanos": report.usage.cost_nanos,
        "reported_is_success": report.usage.is_success,
        "reported_ended_ms": report.usage.ended_ms,
    }


def _json(rows: Iterable[dict[str, Any]]) -> str:
    return msgspec.json.encode(list(rows)).decode()
