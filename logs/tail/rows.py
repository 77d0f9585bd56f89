"""Filters, rows and the bounded queue of the live tail. Pure."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from codexflow.lib.money import format_usd
from logs.pipeline.events import UsageEvent, is_estimated
from logs.pipeline.rollups import NO_KEY
from logs.requests.conditions import Condition, Names, conditions_of
from logs.requests.terms import MAX_TEXT, BadSearch, parse

# Rows a second that a client gets: a screen shows no more, and people read no faster.
ROWS_PER_S = 20

Row = dict[str, Any]


class InvalidFilter(ValueError):
    """The message or the query is not a filter; the text says why."""


class TailFilter(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Filter of one client. Empty means any; `after` also asks for the requests that ended since that one."""

    type: Annotated[str, Meta(pattern="^filter$")] = "filter"
    stage: Annotated[str, Meta(max_length=20)] = ""
    model: Annotated[str, Meta(max_length=200)] = ""
    status: Annotated[str, Meta(pattern=r"^(|ok|errors|[1-5][0-9][0-9])$")] = ""
    key: UUID | None = None
    user: Annotated[int, Meta(ge=1, le=2**63 - 1)] | None = None
    tag: Annotated[str, Meta(max_length=64)] = ""
    code: Annotated[str, Meta(max_length=100)] = ""
    # A part of the request id.
    id: Annotated[str, Meta(pattern="^[0-9a-fA-F-]{0,36}$")] = ""
    # A search, as in the log's bar.
    q: Annotated[str, Meta(max_length=MAX_TEXT, pattern=r"^[^\x00]*$")] = ""
    after: UUID | None = None

    def conditions(self, names: Callable[[], Names]) -> tuple[Condition, ...]:
        """Conditions of the search. Raises InvalidFilter."""
        try:
            return conditions_of(parse(self.q), names)
        except BadSearch as exc:
            raise InvalidFilter(str(exc)) from exc

    def matches(self, row: Row, conditions: Iterable[Condition] = ()) -> bool:
        """Return whether a row passes the filter, and the conditions of its search."""
        return (
            (not self.stage or row["stage"] == self.stage)
            and (not self.model or row["model"] == self.model)
            and (self.key is None or row["key_id"] == str(self.key))
            and (self.user is None or row["user_id"] == self.user)
            and (not self.tag or row["tag"] == self.tag)
            and (not self.code or row["error_code"] == self.code)
            and (not self.id or self.id.replace("-", "").lower() in row["id"].replace("-", ""))
            and self._matches_status(row["status"])
            and all(condition.matches(row) for condition in conditions)
        )

    def _matches_status(self, status: int) -> bool:
        if self.status in ("ok", "errors"):
            return (status < 400) == (self.status == "ok")
        return not self.status or status == int(self.status)


def parse_filter(text: str) -> TailFilter:
    """Parse a client's message. Raises InvalidFilter."""
    try:
        return msgspec.json.decode(text, type=TailFilter)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise InvalidFilter(str(exc)) from exc


def filter_from_query(query: Mapping[str, str]) -> TailFilter:
    """Parse the query of the socket's address. Raises InvalidFilter."""
    try:
        return msgspec.convert(dict(query), TailFilter, strict=False)
    except msgspec.ValidationError as exc:
        raise InvalidFilter(str(exc)) from exc


def row_of(event: UsageEvent) -> Row:
    """Row of a new request, as the list of requests has it, in values that JSON carries."""
    usage = event.usage
    return {
        "id": str(event.request_id),
        "started_at": datetime.fromtimestamp(event.started_ms / 1000, UTC).isoformat().replace("+00:00", "Z"),
        "surface": event.surface,
        "endpoint": event.endpoint,
        "key_id": str(event.key_id) if event.key_id != NO_KEY else None,
        "user_id": event.user_id,
        "stage": event.stage,
        "stage_reason": event.stage_reason,
        "requested_model": event.requested_model,
        "model": event.model,
        "status": event.status,
        "error_code": event.error_code,
        "is_stream": event.is_stream,
        "client_disconnected": event.is_disconnected,
        "attempts": len(event.attempts),
        "tokens": {
            "prompt": usage.prompt_tokens,
            "cached": usage.cached_tokens,
            "cache_write": usage.cache_write_tokens,
            "completion": usage.completion_tokens,
            "reasoning": usage.reasoning_tokens,
            "details": usage.details,
            "total": usage.total_tokens,
            "is_estimated": is_estimated(event.rank),
        },
        "cost": {
            "nanos": event.cost_nanos,
            "usd": format_usd(event.cost_nanos, decimals=9),
            "held_nanos": event.hold_nanos,
        },
        "latency_ms": event.latency_ms,
        "ttft_ms": event.ttft_ms,
        "source": event.source,
        "user_agent": event.user_agent,
        "tag": event.tag or None,
        "planner": event.planner or None,
        "revision": 1,
    }


class RowQueue:
    """Bounded queue of rows for one client: it holds the newest few and only counts those it drops."""

    __slots__ = ("_rows", "_skipped")

    def __init__(self, size: int = ROWS_PER_S) -> None:
        self._rows: deque[Row] = deque(maxlen=size)
        self._skipped = 0

    def __bool__(self) -> bool:
        return bool(self._rows or self._skipped)

    def put(self, row: Row) -> None:
        self._skipped += len(self._rows) == self._rows.maxlen
        self._rows.append(row)

    def skip(self, count: int) -> None:
        """Count rows that were left out by the publisher."""
        self._skipped += count

    def take(self) -> tuple[list[Row], int]:
        """Empty the queue: its rows, oldest first, and how many were dropped since the last time."""
        taken = list(self._rows), self._skipped
        self._rows.clear()
        self._skipped = 0
        return taken
