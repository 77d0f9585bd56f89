"""File formats of exports: requests as lines of CSV and JSON. Pure.

Times are UTC in ISO 8601, money is in nano-USD and in USD; nothing depends on a user's language.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from codexflow.lib.money import format_usd
from codexflow.lib.spreadsheets import csv_bytes, escape_formulas

# Name in the file -> column of the log.
COLUMNS = {
    "id": "request_id",
    "started_at": "started_at",
    "endpoint": "endpoint",
    "surface": "surface",
    "key_id": "key_id",
    "user_id": "user_id",
    "stage": "stage",
    "stage_reason": "stage_reason",
    "requested_model": "requested_model",
    "model": "model",
    "status": "status",
    "error_code": "error_code",
    "is_stream": "is_stream",
    "client_disconnected": "is_disconnected",
    "prompt_tokens": "prompt_tokens",
    "cached_tokens": "cached_tokens",
    "completion_tokens": "completion_tokens",
    "reasoning_tokens": "reasoning_tokens",
    "held_nanos": "held_nanos",
    "cost_nanos": "cost_nanos",
    "latency_ms": "latency_ms",
    "ttft_ms": "ttft_ms",
    "attempts": "attempts",
    "source": "source",
    "client_address": "client_address",
    "user_agent": "user_agent",
    # What makes the cost checkable: the other classes of tokens, and the price at admission.
    "cache_write_tokens": "cache_write_tokens",
    "cache_write_1h_tokens": "cache_write_1h_tokens",
    "usage_details": "usage_details",
    "rate_input_nanos": "rate_input_nanos",
    "rate_cached_nanos": "rate_cached_nanos",
    "rate_cache_write_nanos": "rate_cache_write_nanos",
    "rate_cache_write_1h_nanos": "rate_cache_write_1h_nanos",
    "rate_output_nanos": "rate_output_nanos",
    "rate_details": "rate_details",
    "margin_bp": "margin_bp",
    "tag": "tag",
    "planner": "planner",
}
NAMES = (*COLUMNS, "cost_usd")
_COST = list(COLUMNS).index("cost_nanos")

Row = Sequence[Any]


def csv_head() -> bytes:
    """Header line."""
    return csv_bytes([NAMES])


def csv_lines(rows: Iterable[Row]) -> bytes:
    """Rows in the order of COLUMNS, as lines of RFC 4180."""
    return csv_bytes([_cell(value) for value in _with_usd(row)] for row in rows)


def json_lines(rows: Iterable[Row]) -> bytes:
    """Rows in the order of COLUMNS, one JSON object a line."""
    return b"".join(_encode(dict(zip(NAMES, _with_usd(row), strict=True))) + b"\n" for row in rows)


LINES: dict[str, tuple[Callable[[], bytes], Callable[[Iterable[Row]], bytes]]] = {
    "csv": (csv_head, csv_lines),
    "jsonl": (lambda: b"", json_lines),
}
_encode = msgspec.json.Encoder().encode


def _with_usd(row: Row) -> Row:
    return (*row, format_usd(row[_COST], decimals=9))


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return escape_formulas(value)
    if isinstance(value, dict):
        return _encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else value
