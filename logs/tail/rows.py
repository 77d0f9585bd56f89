"""What a live tail shows of the requests that arrive: filters, rows, and how many of them a second. Pure."""

from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from codexflow.lib.money import format_usd
from logs.pipeline.events import UsageEvent, is_estimated
from logs.pipeline.rollups import NOBODY

# A screen shows no more, and nobody reads faster.
ROWS_PER_S = 20

Row = dict[str, Any]


class BadWish(ValueError):
    """The message is not one that a tail understands; the text says why."""


class Wish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client wants to see. Empty means any; `after` also asks for what came since that request."""

    type: Annotated[str, Meta(pattern="^filter$")] = "filter"
    stage: Annotated[str, Meta(max_length=20)] = ""
    model: Annotated[str, Meta(max_length=200)] = ""
    status: Annotated[str, Meta(pattern=r"^(|ok|errors|[1-5][0-9][0-9])$")] = ""
    key: UUID | None = None
    user: Annotated[int, Meta(ge=1, le=2**63 - 1)] | None = None
    # How the request id begins.
    id: Annotated[str, Meta(pattern="^[0-9a-fA-F-]{0,36}$")] = ""
    after: UUID | None = None

    def wants(self, row: Row) -> bool:
        return (
            (not self.stage or row["stage"] == self.stage)
            and (not self.model or row["model"] == self.model)
            and (self.key is None or row["key_id"] == str(self.key))
            and (self.user is None or row["user_id"] == self.user)
            and (not self.id or row["id"].replace("-", "").startswith(self.id.replace("-", "").lower()))
            and self._wants_status(row["status"])
        )

    def _wants_status(self, status: int) -> bool:
        if self.status in ("ok", "errors"):
            return (status < 400) == (self.status == "ok")
        return not self.status or status == int(self.status)


def wish_of(text: str) -> Wish:
    """A client's message. Raises BadWish."""
    try:
        return msgspec.json.decode(text, type=Wish)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise BadWish(str(exc)) from exc


def wish_in(query: Mapping[str, str]) -> Wish:
    """The same out of the address. Raises BadWish."""
    try:
        return msgspec.convert(dict(query), Wish, strict=False)
    except msgspec.ValidationError as exc:
        raise BadWish(str(exc)) from exc


def row_of(event: UsageEvent) -> Row:
    """A new request as the list of requests shows it, in values that every format carries."""
    usage = event.usage
    return {
        "id": str(event.request_id),
        "started_at": datetime.fromtimestamp(event.started_ms / 1000, UTC).isoformat().replace("+00:00", "Z"),
        "surface": event.surface,
        "key_id": str(event.key_id) if event.key_id != NOBODY else None,
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
        "revision": 1,
    }


class Waiting:
    """Rows on their way to one client: the newest few; what had to make room is only counted."""

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
        """Rows that were left out before they came here."""
        self._skipped += count

    def take(self) -> tuple[list[Row], int]:
        """Everything that waits, oldest first, and how many had to make room."""
        taken = list(self._rows), self._skipped
        self._rows.clear()
        self._skipped = 0
        return taken
