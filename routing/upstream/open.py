"""Attempts in order until one gives content. Failures of the upstream are mapped to our own errors here."""

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import MappingProxyType

import msgspec
from msgspec import Struct

from codexflow.catalogue.entries import ModelEntry
from codexflow.catalogue.schema import BreakerConfig
from codexflow.lib.asgi import Header
from codexflow.lib.clock import monotonic_s
from codexflow.lib.ids import text_of
from codexflow.lib.log import redact
from logs.pipeline.events import AttemptFact
from routing.call import Call
from routing.errors import (
    ClientDisconnected,
    ShuttingDown,
    UpstreamBroken,
    UpstreamBusy,
    UpstreamFailure,
    UpstreamFaulty,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamSilent,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from routing.surfaces.body import upstream_body
from routing.surfaces.opening import ERROR_EVENT, Opening
from routing.surfaces.responses import ResponseFormat
from routing.upstream.attempts import Attempt, RetryBudget
from routing.upstream.breaker_store import Breakers
from routing.upstream.pool import Connection, Pool

logger = logging.getLogger(__name__)

BEGINNING_BYTES = 4_096
ERROR_BODY_LIMIT_BYTES = 64 * 1024
# Spread, so that callers who failed together do not come back together.
RETRY_PAUSE_S = (0.05, 0.25)
_jitter = Random()  # noqa: S311 - spreading load, not keeping secrets


class UpstreamRequest(Struct, frozen=True, kw_only=True):
    """Request that the attempts of a call send upstream, with its time limits."""

    path: str
    headers: tuple[Header, ...] = ()  # of the caller, for the provider
    tail_of: Callable[[str], bytes]  # model -> its body, but for the model's name
    response_format: ResponseFormat
    is_stream: bool
    first_byte_s: float
    idle_s: float  # between two pieces of a stream
    total_s: float
    response_limit_bytes: int
    breaker: BreakerConfig
    organization: bytes = b""  # a circuit may be open for one alone
    entries: Mapping[str, ModelEntry] = MappingProxyType({})

    def silence_s(self, model: str, otherwise_s: float) -> float:
        """Return how long to wait for a byte of a model: longer than otherwise if it is known to think for longer."""
        entry = self.entries.get(model)
        return max(otherwise_s, entry.silence_s) if entry and entry.silence_s else otherwise_s


@dataclass(slots=True)
class OpenedResponse:
    """Response that has begun: the beginning of a stream, or the whole body as the caller may see it."""

    attempt: Attempt
    connection: Connection | None = None  # None: nothing follows
    opening: Opening | None = None  # of a stream
    body: bytes = b""

    @property
    def first(self) -> bytes:
        """The whole body, or the beginnings of the stream's first events."""
        if self.opening is None:
            return self.body
        return b"".join([event.raw[:BEGINNING_BYTES] for event in self.opening.events])

    @property
    def response_id(self) -> str:
        return self.opening.response_id if self.opening is not None else ""


class Upstream:
    """Attempts of one call; `abort` may be called at any moment from outside."""

    def __init__(
        self, pool: Pool, breakers: Breakers, retries: RetryBudget, call: Call, request: UpstreamRequest
    ) -> None:
        self._pool = pool
        self._breakers = breakers
        self._retries = retries
        self._call = call
        self._request = request
        self._ends_s = monotonic_s() + request.total_s
        self._connection: Connection | None = None
        self._is_aborted = False
        # The model that is tried, or was last.
        self.model = call.intent.model

    def abort(self) -> None:
        """Stop the attempt in progress: the caller has left, or the process is shutting down."""
        self._is_aborted = True
        if self._connection is not None:
            self._connection.abort()

    def release(self) -> None:
        """Leave the connection alone: it is read to its end, and may serve another call by now."""
        self._connection = None

    def _aborted(self) -> ClientDisconnected | ShuttingDown:
        return ShuttingDown(retry_after_s=1) if self._call.shutdown.is_set else ClientDisconnected()

    @property
    def left_s(self) -> float:
        return max(0.0, self._ends_s - monotonic_s())

    async def open_first(self, attempts: Sequence[Attempt]) -> OpenedResponse:
        """Run attempts until one succeeds.

        A retry of the same model is made only when its failure says that it may help. Raises UpstreamRefused when the
        request itself is at fault; when all failed, UpstreamTimeout, UpstreamBusy or UpstreamUnavailable;
        ClientDisconnected or ShuttingDown after `abort`.
        """
        request = self._request
        failure: UpstreamFailure | None = None
        self._retries.earn()
        for attempt in attempts:
            if attempt.is_retry:
                if failure is None or not failure.may_retry or not self._retries.spend(monotonic_s()):
                    continue
                await asyncio.sleep(min(_jitter.uniform(*RETRY_PAUSE_S), self.left_s))
            if self._is_aborted:
                raise self._aborted()
            if self.left_s <= 0:
                break
            if not await self._breakers.allow_request(attempt.model, request.breaker, request.organization):
                continue
            self.model = attempt.model
            try:
                return await self._try(attempt)
            except UpstreamFailure as exc:
                if self._is_aborted:
                    raise self._aborted() from exc
                failure = exc
                logger.warning(
                    "upstream.attempt_failed",
                    extra={
                        "request_id": str(self._call.request_id),
                        "n": attempt.n,
                        "model": attempt.model,
                        "code": exc.code,
                        "status": exc.upstream_status,
                        **exc.facts,
                    },
                )
                if exc.trips_breaker:
                    await self._breakers.record_failure(attempt.model, request.breaker, request.organization)
        raise _final(failure)

    async def _try(self, attempt: Attempt) -> OpenedResponse:
        """Make one attempt and record it, however it ends."""
        call, request = self._call, self._request
        started_offset_ms = call.elapsed_ms()
        try:
            opened = await self._open(attempt)
        except (UpstreamFailure, UpstreamRefused) as exc:
            status = exc.upstream_status if isinstance(exc, UpstreamFailure) else int(exc.status)
            duration_ms = call.elapsed_ms() - started_offset_ms
            call.attempts.append(
                AttemptFact(
                    n=attempt.n,
                    model=attempt.model,
                    status=status,
                    error_code=exc.code,
                    started_offset_ms=started_offset_ms,
                    duration_ms=duration_ms,
                )
            )
            if self._connection is not None:
                self._connection.abort()
            if isinstance(exc, UpstreamRefused):
                # A refusal is a valid response: the model works.
                await self._breakers.record_success(attempt.model, request.breaker, request.organization)
            raise
        first_byte_ms = call.elapsed_ms() - started_offset_ms
        call.attempts.append(
            AttemptFact(
                n=attempt.n,
                model=attempt.model,
                status=200,
                started_offset_ms=started_offset_ms,
                first_byte_ms=first_byte_ms,
                duration_ms=first_byte_ms,
                response_id=opened.response_id,
            )
        )
        await self._breakers.record_success(attempt.model, request.breaker, request.organization)
        return opened

    async def _open(self, attempt: Attempt) -> OpenedResponse:
        request = self._request
        call_id = f"{text_of(self._call.request_id)}.{attempt.n}".encode()
        body = upstream_body(attempt.model, request.tail_of(attempt.model))
        headers = [(b"x-litellm-call-id", call_id), *request.headers]
        connection = await self._pool.post(request.path, body, headers=headers)
        self._connection = connection
        if self._is_aborted:
            connection.abort()
            raise self._aborted()
        wait_s = request.silence_s(attempt.model, request.first_byte_s) if request.is_stream else request.total_s
        ends_s = monotonic_s() + min(wait_s, self.left_s)
        status = await connection.head(max(0.0, ends_s - monotonic_s()))
        if status != 200:
            raise await _error_of(connection, status, max(0.0, ends_s - monotonic_s()))
        if connection.headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
            raise UpstreamInvalid(reason="packed content")
        if request.is_stream:
            return await self._opened_stream(attempt, connection, ends_s)
        return await self._opened_body(attempt, connection, ends_s)

    async def _opened_stream(self, attempt: Attempt, connection: Connection, ends_s: float) -> OpenedResponse:
        """Read a stream up to its first content. Its first event has a limit of its own, as has the next one."""
        if _media_type(connection) != b"text/event-stream":
            raise UpstreamInvalid(reason="not an event stream")
        opening = Opening(self._request.response_format)
        while not opening.is_response:
            chunk = await connection.chunk(max(0.0, ends_s - monotonic_s()))
            before = len(opening.events)
            if chunk is None:
                self._connection = None  # back in the pool
                opening.end()
            else:
                opening.feed(chunk)
            if len(opening.events) > before:
                idle_s = self._request.silence_s(attempt.model, self._request.idle_s)
                ends_s = max(ends_s, monotonic_s() + min(idle_s, self.left_s))
            if opening.failure:
                raise (UpstreamBroken if opening.failure == ERROR_EVENT else UpstreamInvalid)(reason=opening.failure)
        return OpenedResponse(attempt, self._connection, opening)

    async def _opened_body(self, attempt: Attempt, connection: Connection, ends_s: float) -> OpenedResponse:
        request, call = self._request, self._call
        if _media_type(connection) != b"application/json":
            raise UpstreamInvalid(reason="not JSON")
        body = await connection.body(max(0.0, ends_s - monotonic_s()), limit_bytes=request.response_limit_bytes)
        # It is back in the pool and may serve another call by now, which `abort` must not cut off.
        self._connection = None
        summary = request.response_format.summarize(body)
        if summary is None:
            raise UpstreamInvalid(reason="broken JSON")
        call.meter.record_response(summary, connection.headers.get(b"x-litellm-response-cost"))
        return OpenedResponse(attempt, body=request.response_format.body_for_caller(body, summary))


def _final(failure: UpstreamFailure | None) -> Exception:
    """Return the caller's error when every attempt failed."""
    if isinstance(failure, UpstreamBusy):
        return failure
    if isinstance(failure, UpstreamSilent):
        return UpstreamTimeout(retry_after_s=1)
    return UpstreamUnavailable(retry_after_s=1)


def _media_type(connection: Connection) -> bytes:
    """Return the body's type without parameters. Its case does not matter (RFC 9110, 8.3.1)."""
    return connection.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()


class _ErrorFields(Struct):
    message: str | None = None
    code: str | int | None = None
    param: str | None = None
    type: str | int | None = None


class _ErrorBody(Struct):
    error: _ErrorFields | None = None


_error_decoder = msgspec.json.Decoder(_ErrorBody)


async def _error_of(connection: Connection, status: int, timeout_s: float) -> UpstreamFailure | UpstreamRefused:
    """Map the upstream's error response to our own error."""
    if status == 429:
        headers = connection.headers
        after = headers.get(b"retry-after") or headers.get(b"llm_provider-retry-after") or b""
        return UpstreamBusy(retry_after_s=int(after) if after.isdigit() else 1)
    if status == 408:
        return UpstreamSilent(reason="status 408")
    if status >= 500 or status in (401, 402):
        return UpstreamFaulty(status)
    if status < 400:
        return UpstreamInvalid(reason=f"unexpected status {status}")
    try:
        body = await connection.body(timeout_s, limit_bytes=ERROR_BODY_LIMIT_BYTES)
        fields = _error_decoder.decode(body).error or _ErrorFields()
    except (msgspec.MsgspecError, UnicodeError, RecursionError, UpstreamFailure):
        fields = _ErrorFields()
    message = (fields.message or "")[:MAX_READ_CHARS]
    if {fields.type, str(fields.code)} & _OWN_ACCOUNT_CODES or _OWN_ACCOUNT_MESSAGE.search(message):
        # The message may quote the caller, so it must not trip the breaker.
        return UpstreamFaulty(status, trips_breaker=False)
    param = fields.param if fields.param and _PARAM.fullmatch(fields.param) else None
    return UpstreamRefused(status, scrub(message, host=connection.host), code=_code_of(fields, message), param=param)


# Errors about our own key or account, with LiteLLM or with the provider: types, codes and messages.
_OWN_ACCOUNT_CODES = frozenset({
    "account_deactivated", "auth_error", "authentication_error", "billing_hard_limit_reached", "billing_not_active",
    "budget_exceeded", "expired_key", "insufficient_quota", "invalid_api_key", "key_model_access_denied",
    "no_db_connection", "team_model_access_denied", "token_not_found_in_db",
})  # fmt: skip
_OWN_ACCOUNT_MESSAGE = re.compile(
    r"incorrect api key|invalid_api_key|api key not valid|invalid x-api-key|credit balance is too low", re.IGNORECASE
)
_PARAM = re.compile(r"[\w.\[\]-]{1,100}")

# The message may quote the caller, so each of these patterns takes linear time: they begin at a word boundary, and
# their repetitions are bounded.
# LiteLLM wraps the provider's message in its own class names and routing notes.
_LITELLM_PREFIX = re.compile(
    r"\b(?:litellm\.)?[A-Z]\w{0,60}(?:Error|Exception)(?::\s{0,2}| - )"
    r"|\blitellm\.\w{1,60}:?\s{0,2}|\b\w{0,60}Exception - "
)
_LITELLM_SUFFIX = re.compile(
    r"(?:\. |\.? ?\n{0,2})"
    r"(?:Received Model Group=|LiteLLM: |No fallback|Available Model Group|model=[^\n]{0,200}litellm).*",
    re.DOTALL,
)
_ADDRESS = re.compile(r"https?://[^\s\"'<>]+|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b")
MAX_READ_CHARS = 8_000
MAX_MESSAGE_CHARS = 2_000


def scrub(message: str, *, host: str = "") -> str:
    """Remove keys, hosts and LiteLLM's wrappings from an upstream's message; `host` is the upstream's own."""
    text = _LITELLM_SUFFIX.sub("", message[:MAX_READ_CHARS])
    text = _LITELLM_PREFIX.sub("", text)
    text = _ADDRESS.sub("[upstream]", redact(text))
    if host:
        text = text.replace(host, "[upstream]")
    return text.strip()[:MAX_MESSAGE_CHARS] or "The model refused this request."


_KNOWN_CODES = (
    (
        "context_length_exceeded",
        re.compile(r"context_length_exceeded|maximum context length|context ?window|prompt is too long", re.IGNORECASE),
    ),
    ("model_not_found", re.compile(r"model_not_found|does not exist", re.IGNORECASE)),
    ("content_filter", re.compile(r"content_filter", re.IGNORECASE)),
    (
        "content_policy_violation",
        re.compile(r"content_?policy|content management policy", re.IGNORECASE),
    ),
)


def _code_of(fields: _ErrorFields, message: str) -> str:
    """Return OpenAI's error code. LiteLLM replaces it by the status as text, so it is recovered from the message."""
    code = str(fields.code or "")
    if code and not code.isdigit() and re.fullmatch(r"[a-z0-9_]{1,64}", code):
        return code
    return next((name for name, pattern in _KNOWN_CODES if pattern.search(message)), UpstreamRefused.code)
