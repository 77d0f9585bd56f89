"""Map LiteLLM's rows to Reports. Pure.

Formats: StandardLoggingPayload (which the generic_api callback posts), rows of `/spend/logs/v2` of all versions, rows
of the documented `/v1/logs`, and the simple documented webhook object. They differ in names, not in meaning, so one
reader knows all names; a field that is missing or of another type is unknown and never stops anything.
"""

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec.structs import replace

from billing.pricing import Usage
from billing.usage import count_of, read_usage, usage_of_call
from codexflow.catalogue.surfaces import COUNTED_UNITS, PATHS
from codexflow.lib.addresses import plain_address
from codexflow.lib.money import NANOS_PER_USD
from codexflow.lib.numbers import finite_number
from keys import secret
from logs.content.codec import REDACTED
from logs.litellm.report import Owner, Report, Source, attempt_of

# More is a counting error, and would not fit the columns.
MAX_NANOS = 10**15  # a million dollars for one call
MAX_MS = 2**31 - 1
TEXT_CHARS = 200
# Between 2001 and 2100; anything else is no time of a call.
_FIRST_MS, _LAST_MS = 978_307_200_000, 4_102_444_800_000
# Texts that may be API keys: never stored as they are.
_KEY = re.compile(r"(?:sk-|cf_|cfx_|pk-)\S{4,}|\S{40,}")
_HASH = re.compile(r"[0-9a-f]{64}")
MASTER_KEY = "litellm_proxy_master_key"
# LiteLLM's ids of responses without one.
_NO_ID = ("", "None", "null")
# LiteLLM's names of users without one.
NO_USER = (MASTER_KEY, "default_user_id")

# LiteLLM's `call_type` -> surface.
SURFACE_OF_CALL_TYPE = {
    "acompletion": "chat",
    "completion": "chat",
    "atext_completion": "completions",
    "text_completion": "completions",
    "aembedding": "embeddings",
    "embedding": "embeddings",
    "arerank": "rerank",
    "rerank": "rerank",
    "amoderation": "moderations",
    "moderation": "moderations",
    "anthropic_messages": "messages",
    "aresponses": "responses",
    "responses": "responses",
}
_SURFACE_OF_PATH = {path: surface for surface, path in PATHS.items()}
Fields = Mapping[str, Any]

_lines = msgspec.json.Decoder()


@dataclass(frozen=True, slots=True)
class MappedReport:
    """A report, and the row that it was mapped from."""

    report: Report
    row: Fields


class NotReports(ValueError):
    """The body is neither JSON nor lines of it."""


def elements(body: bytes) -> list[Any]:
    """Split a body into rows: the elements of an array, one object, or the lines of NDJSON. Raises NotReports."""
    if not body.strip():
        raise NotReports("The body is empty.")
    value = _read(body)
    rows = value if isinstance(value, list) else [value]
    return [each for row in rows for each in (row if isinstance(row, list) else [row])]


def _read(body: bytes) -> Any:
    readers: tuple[Callable[[bytes], Any], ...] = (msgspec.json.decode, _lines.decode_lines, _leniently)
    for read in readers:
        with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):
            return read(body)
    raise NotReports("The body is neither JSON nor lines of JSON.")


def _leniently(body: bytes) -> Any:
    """Parse JSON as Python's own writer makes it: lone surrogates, NaN. Raises ValueError, RecursionError.

    One caller's odd text in a report must not cost the other reports of the delivery, which are other callers'.
    """
    text = body.decode(errors="replace")
    try:
        return json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.split("\n") if line.strip()]


def reports_of(
    rows: Sequence[Any], *, source: Source, now_ms: int, delivery: str, salts: Sequence[str]
) -> tuple[Report, ...]:
    """Return the reports of `map_rows` without their rows."""
    reports = map_rows(rows, source=source, now_ms=now_ms, delivery=delivery, salts=salts)
    return tuple(each.report for each in reports)


def map_rows(
    rows: Sequence[Any], *, source: Source, now_ms: int, delivery: str, salts: Sequence[str], idempotency_key: str = ""
) -> list[MappedReport]:
    """Map rows to reports. Nulls and rows that describe no call are left out.

    `delivery` identifies this delivery: a row without any id counts once for it, or once for the caller's
    `idempotency_key`. A log is read again and again: there, such a row is identified by a digest of all its fields.
    """

    def fallback_identity(number: int, row: Fields) -> str:
        if source == "sync":
            return f"row:{hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()}"
        return f"once:{idempotency_key or delivery}:{number}"

    reports: list[MappedReport] = []
    for number, row in enumerate(rows):
        if isinstance(row, Mapping):
            identity = partial(fallback_identity, number, row)
            report = _report(row, source=source, now_ms=now_ms, fallback_identity=identity, salts=salts)
            if report is not None:
                reports.append(MappedReport(report, row))
    return reports


def content_of(row: Fields) -> tuple[bytes, bytes]:
    """Prompt and response of the row, in JSON; empty where it has none, or where LiteLLM redacted them."""
    return _json_of(row.get("messages")), _json_of(row.get("response"))


def _json_of(value: Any) -> bytes:
    if not value:
        return b""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return b""
    is_redacted = text == REDACTED or f'"{REDACTED}"' in text or f"'{REDACTED}'" in text
    return b"" if is_redacted else text.encode(errors="replace")


def _report(
    row: Fields, *, source: Source, now_ms: int, fallback_identity: Callable[[], str], salts: Sequence[str]
) -> Report | None:
    metadata = _object(row.get("metadata"))
    response = _object(row.get("response"))
    call_id = _text(row.get("litellm_call_id")) or _text(metadata.get("litellm_call_id"))
    row_id = _text(_id_of(row))
    if not call_id and attempt_of(row_id):
        call_id = row_id  # a failed call has no other id
    usage = usage_of(row, metadata, response)
    model = _first_text(row.get("model_group"), row.get("model"), response.get("model"))
    if not (call_id or model or usage.total_tokens):
        return None  # an alert, or another kind of object
    started_ms = _ms(row.get("startTime")) or _ms(row.get("created_at")) or _ms(row.get("timestamp"))
    ended_ms = _ms(row.get("endTime"))
    latency_ms = _latency_ms(row, response, started_ms, ended_ms)
    begun_ms = started_ms if started_ms is not None else (ended_ms or now_ms) - latency_ms
    status, error_code = _outcome(row, metadata)
    surface, endpoint = _surface_and_endpoint(row, metadata)
    first_ms = _ms(row.get("completionStartTime"))
    is_stream = row.get("stream") is True
    return Report(
        identities=_identities(row, call_id) or (fallback_identity(),),
        source=source,
        call_id=call_id,
        response_id=row_id,
        model=model,
        usage=usage,
        cost_nanos=_cost_nanos(row, response),
        started_ms=begun_ms,
        ended_ms=ended_ms or min(begun_ms + latency_ms, _LAST_MS),
        ttft_ms=_between(first_ms, started_ms) if is_stream and first_ms else None,
        latency_ms=latency_ms,
        status=status,
        error_code=error_code,
        is_stream=is_stream,
        surface=surface,
        endpoint=endpoint,
        owner=owner_of(row, metadata, salts),
        client_address=_address(row.get("requester_ip_address") or metadata.get("requester_ip_address")),
        user_agent=_text(row.get("user_agent")) or _text(metadata.get("user_agent")),
    )


def _identities(row: Fields, call_id: str) -> tuple[str, ...]:
    """Identities of the call. Every source has the row's id, only newer ones the call id: the row's id comes first."""
    row_id = _id_of(row)
    if len(row_id) > TEXT_CHARS:
        row_id = hashlib.sha256(row_id.encode(errors="replace")).hexdigest()
    return tuple(f"{kind}:{name}" for kind, name in (("row", row_id), ("call", call_id)) if name)


def _id_of(row: Fields) -> str:
    ids = (_whole_text(row.get(name)) for name in ("id", "request_id"))
    return next((text for text in ids if text not in _NO_ID), "")


# Tokens


def usage_of(row: Fields, metadata: Fields, response: Fields) -> Usage:
    """Tokens by class, from wherever the row has them; counts of the row itself override those of its usage object."""
    reported = _object(metadata.get("usage_object")) or _object(row.get("usage")) or _object(response.get("usage"))
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    own = {name: row[name] for name in names if count_of(row.get(name))}
    surface = SURFACE_OF_CALL_TYPE.get(_text(row.get("call_type")), "")
    if surface not in COUNTED_UNITS:
        return read_usage({**reported, **own}).usage
    told = read_usage(usage_of_call(response.get("meta"), {**reported, **own})).usage
    if _outcome(row, metadata)[0] >= HTTPStatus.BAD_REQUEST:
        return told
    # The response, which alone has the units, is often redacted: every call is of one of each at least.
    return replace(told, details={**dict.fromkeys(COUNTED_UNITS[surface], 1), **(told.details or {})})


def _cost_nanos(row: Fields, response: Fields) -> int | None:
    for value in (row.get("response_cost"), row.get("spend"), row.get("cost"), response.get("cost")):
        nanos = nanos_of(value)
        if nanos is not None:
            return nanos
    return None


def nanos_of(value: Any) -> int | None:
    """Nanos of USD as LiteLLM writes them (1.2e-07, "0.001"); None for anything that is not an amount."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        nanos = Decimal(str(value)) * NANOS_PER_USD
        if not nanos.is_finite() or not 0 <= nanos <= MAX_NANOS:
            return None
        return int(nanos.to_integral_value(rounding=ROUND_HALF_EVEN))
    except ArithmeticError:
        return None


# Times


def _ms(value: Any) -> int | None:
    """Unix milliseconds of epoch seconds, epoch milliseconds or ISO 8601 (without a zone: UTC)."""
    ms: float | None = None
    number = None if isinstance(value, str) and "-" in value else finite_number(value)
    if number is not None:
        ms = number if number > _FIRST_MS / 10 else number * 1000
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
        ms = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000
    return math.floor(ms) if ms is not None and _FIRST_MS <= ms <= _LAST_MS else None


def _latency_ms(row: Fields, response: Fields, started_ms: int | None, ended_ms: int | None) -> int:
    latency_ms = _between(ended_ms, started_ms) if started_ms and ended_ms else None
    if latency_ms is None:
        latency_ms = _within(finite_number(row.get("request_duration_ms")))
    for value in (row.get("response_time"), response.get("response_time")):
        seconds = finite_number(value)
        if latency_ms is None and seconds is not None:
            latency_ms = _within(seconds * 1000)
    return latency_ms or 0


def _between(later_ms: int | None, earlier_ms: int | None) -> int | None:
    if later_ms is None or earlier_ms is None:
        return None
    return min(max(0, later_ms - earlier_ms), MAX_MS)


def _within(ms: float | None) -> int | None:
    return round(ms) if ms is not None and 0 <= ms <= MAX_MS else None


# Outcome, surface and endpoint


def _outcome(row: Fields, metadata: Fields) -> tuple[int, str]:
    """HTTP status and error code. A call whose client disconnected is 499, though LiteLLM calls it a success."""
    error = _object(row.get("error_information")) or _object(metadata.get("error_information"))
    code = finite_number(error.get("error_code"))
    outcome = _first_text(row.get("status"), metadata.get("status")).lower()
    status_code = finite_number(row.get("status_code"))
    failed = outcome in ("failure", "failed", "error") or bool(_text(row.get("error_str")) and outcome != "success")
    if code == 499:
        return 499, "client_disconnected"
    if status_code is not None and 100 <= status_code <= 599:
        status = int(status_code)
    elif failed:
        status = int(code) if code is not None and 400 <= code <= 599 else 500
    else:
        status = 200
    return status, ("litellm_failure" if status >= 400 else "")


def _surface_and_endpoint(row: Fields, metadata: Fields) -> tuple[str, str]:
    surface = SURFACE_OF_CALL_TYPE.get(_text(row.get("call_type")), "chat")
    route = _first_text(row.get("path"), metadata.get("user_api_key_request_route"))
    if not route.startswith("/"):
        return surface, PATHS[surface]
    path = route.partition("?")[0]
    return _SURFACE_OF_PATH.get(path if path.startswith("/v1") else f"/v1{path}", surface), path


# Owner


def owner_of(row: Fields, metadata: Fields, salts: Sequence[str]) -> Owner:
    """Candidates for the call's owner: LiteLLM's key, its names, a key of ours, a user."""
    litellm_key = _named_key(
        _first_text(row.get("api_key"), metadata.get("user_api_key_hash"), row.get("user_api_key"))
    )
    values = [row.get("user_id"), row.get("user_api_key"), metadata.get("user_api_key_user_id"), row.get("user")]
    values += [metadata.get("user_api_key_alias"), metadata.get("user_id")]
    texts = [text for text in (_whole_text(value) for value in values) if text and text not in NO_USER]
    public_id = next((found for text in texts if (found := secret.split(text))), "")
    ours = next((text for text in texts if secret.split(text)), "")
    names = {name for text in texts for name in _names(text)} | ({litellm_key} - {"", MASTER_KEY})
    return Owner(
        litellm_key=litellm_key,
        names=tuple(sorted(names)),
        public_id=public_id,
        digests=tuple(secret.digest(ours, salt) for salt in salts) if ours else (),
        user_id=_laravel_user(row, metadata),
    )


def _names(text: str) -> Iterator[str]:
    """Names to look an owner up by: the text itself unless it may be a key, and its digest."""
    if _HASH.fullmatch(text):
        yield text
        return
    yield hashlib.sha256(text.encode()).hexdigest()
    if not _KEY.search(text) and len(text) <= TEXT_CHARS:
        yield text


def _named_key(text: str) -> str:
    """LiteLLM's id of a key. Where the row has the key itself, the id is its hash."""
    if not text or text == MASTER_KEY or _HASH.fullmatch(text):
        return text
    return hashlib.sha256(text.encode()).hexdigest()


def _laravel_user(row: Fields, metadata: Fields) -> int | None:
    places = (metadata, _object(metadata.get("requester_metadata")), _object(metadata.get("spend_logs_metadata")), row)
    for place in places:
        number = finite_number(place.get("laravel_user_id"))
        if number is not None and number == int(number) and 0 < number < 2**53:
            return int(number)
    return None


# Untrusted values


def _object(value: Any) -> Fields:
    """A JSON object; some versions write it as text."""
    if isinstance(value, str) and value[:1] == "{":
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, Mapping) else {}


def _whole_text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) < 2**63 else ""
    return value.replace("\0", "").encode(errors="replace").decode().strip() if isinstance(value, str) else ""


def _text(value: Any) -> str:
    """Text that fits a column. PostgreSQL has no NUL, and UTF-8 no lone surrogates."""
    return _whole_text(value)[:TEXT_CHARS]


def _first_text(*values: Any) -> str:
    return next((text for text in map(_text, values) if text), "")


def _address(value: Any) -> str | None:
    return plain_address(_text(value))
