"""Attempts in order until one gives content. Failures of the upstream are mapped to our own errors here."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from random import Random
from types import MappingProxyType
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from billing.limiter.limits import Payer
from codexflow.catalogue.entries import ModelEntry
from codexflow.catalogue.schema import BreakerConfig
from codexflow.catalogue.surfaces import PATHS
from codexflow.lib.asgi import Header
from codexflow.lib.clock import monotonic_s, now_s
from codexflow.lib.ids import text_of
from logs.pipeline.events import AttemptFact, UsageEvent
from routing.call import NOTHING, ShutdownSignal
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
from routing.meter import Meter
from routing.surfaces.body import upstream_body
from routing.surfaces.opening import ERROR_EVENT, Opening
from routing.surfaces.responses import Identity, ResponseFormat
from routing.upstream import refusals
from routing.upstream.alarms import Alarms
from routing.upstream.attempts import Attempt, RetryBudget
from routing.upstream.breaker_store import Breakers
from routing.upstream.pool import Connection, Pool
from routing.upstream.retry_after import retry_after_s

logger = logging.getLogger(__name__)

# Of responses: some servers say of every POST that it has created something, and proxies that they changed one. With
# 202 there is none yet.
SUCCESSES = frozenset({HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.NON_AUTHORITATIVE_INFORMATION})
# Codings of content that nothing here unpacks. Names of other kinds, such as a character set, mean nothing: as clients
# do, the content is taken as it is.
PACKED = frozenset({b"gzip", b"x-gzip", b"deflate", b"br", b"zstd", b"compress", b"x-compress", b"dcb", b"dcz"})
# With these an upstream, or a proxy before it, tells that its own upstream took too long.
SLOW_STATUSES = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.GATEWAY_TIMEOUT, 524})
# Spread, so that callers who failed together do not come back together.
RETRY_PAUSE_S = (0.05, 0.25)
_jitter = Random()  # noqa: S311 - spreading load, not keeping secrets
_alarms = Alarms()


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
    payer: Payer  # a circuit may be open for one alone
    entries: Mapping[str, ModelEntry] = MappingProxyType({})

    def silence_s(self, model: str, otherwise_s: float) -> float:
        """Return how long to wait for a byte of a model: longer than otherwise if it is known to think for longer."""
        entry = self.entries.get(model)
        return max(otherwise_s, entry.silence_s) if entry and entry.silence_s else otherwise_s


@dataclass(slots=True)
class OpenedResponse:
    """Response that has begun: the beginning of a stream, or the whole body as the caller may see it."""

    attempt: Attempt
    identity: Identity
    connection: Connection | None = None  # None: nothing follows
    opening: Opening | None = None  # of a stream
    body: bytes = b""


class AttemptedCall(Protocol):
    """Call as its attempts need it: a `Call`, or one of several of a planned request."""

    attempts: list[AttemptFact]
    meter: Meter

    @property
    def request_id(self) -> UUID: ...
    @property
    def intent(self) -> UsageEvent: ...
    @property
    def shutdown(self) -> ShutdownSignal: ...
    def elapsed_ms(self) -> int: ...


class Upstream:
    """Attempts of one call; `abort` may be called at any moment from outside."""

    def __init__(
        self, pool: Pool, breakers: Breakers, retries: RetryBudget, call: AttemptedCall, request: UpstreamRequest
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
        # Models that were asked and of whose state the call proved nothing yet, and the one that failed last.
        self._unresolved: set[str] = set()
        self._failed_model: str | None = None
        # It failed by being slow, which a request can bring about.
        self._is_slow = False

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
        waits_s: dict[str, int] = {}  # until each failed model may work again
        self._retries.earn()
        try:
            for attempt in attempts:
                if attempt.is_retry:
                    if failure is None or not failure.may_retry or not self._retries.spend(monotonic_s()):
                        continue
                    await asyncio.sleep(min(_jitter.uniform(*RETRY_PAUSE_S), self.left_s))
                if self._is_aborted:
                    raise self._aborted()
                if self.left_s <= 0:
                    break
                if self._failed_model not in (None, attempt.model):
                    await self._count_failed_call(waits_s)
                is_on_record = self._breakers.is_on_record(attempt.model)  # hardly ever
                if is_on_record and not attempt.is_retry and not await self._may_call(attempt.model):
                    waits_s[attempt.model] = self._breakers.wait_s(attempt.model, request.payer)
                    continue
                self.model = attempt.model
                try:
                    return await self._try(attempt)
                except UpstreamFailure as exc:
                    if self._is_aborted:
                        raise self._aborted() from exc
                    failure = exc
                    waits_s[attempt.model] = exc.retry_after_s or 1
                    self._report(attempt, exc)
            await self._count_failed_call(waits_s)
        finally:
            # The caller may have left, or the answer said nothing about the model.
            for model in self._unresolved:
                await self._breakers.give_back_trial(model, request.breaker, request.payer)
        models = tuple(dict.fromkeys(each.model for each in attempts))
        raise _final(failure, models, min(waits_s.values(), default=1))

    async def _may_call(self, model: str) -> bool:
        """Return whether the model's circuit lets the call through."""
        request = self._request
        is_allowed = await self._breakers.allow_request(model, request.breaker, request.payer)
        if is_allowed:
            self._unresolved.add(model)
        return is_allowed

    def _report(self, attempt: Attempt, failure: UpstreamFailure) -> None:
        """Log a failed attempt; what trips the breaker is counted once the call is done with the model."""
        facts = {"n": attempt.n, "model": attempt.model, "code": failure.code, "status": failure.upstream_status}
        logger.warning(
            "upstream.attempt_failed", extra={"request_id": str(self._call.request_id), **facts, **failure.facts}
        )
        if isinstance(failure, UpstreamFaulty) and failure.cause is not None:
            _alarms.report(failure.cause, attempt.model, status=failure.upstream_status, now_s=monotonic_s())
        self._failed_model = attempt.model if failure.trips_breaker else None
        self._is_slow = isinstance(failure, UpstreamSilent) or failure.upstream_status in SLOW_STATUSES

    async def _count_failed_call(self, waits_s: dict[str, int]) -> None:
        """Count the call as failed at the model that it has given up, however many attempts it made there."""
        model, self._failed_model = self._failed_model, None
        if model is not None:
            request = self._request
            self._unresolved.discard(model)
            # Slow: it concerns this caller alone.
            payer = replace(request.payer, owner="") if self._is_slow else request.payer
            wait_s = await self._breakers.record_failure(model, request.breaker, payer)
            waits_s[model] = max(waits_s.get(model, 1), wait_s or 1)

    def _record_success(self, model: str) -> Awaitable[None]:
        """Record that a model works. Of one with a record, this may have been the trial."""
        request = self._request
        if model in self._unresolved:
            self._unresolved.discard(model)
            return self._breakers.record_success(model, request.breaker, request.payer)
        self._breakers.remember_success(model, request.payer)
        return NOTHING

    async def _try(self, attempt: Attempt) -> OpenedResponse:
        """Make one attempt and record it, however it ends."""
        call = self._call
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
                await self._record_success(attempt.model)
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
                response_id=opened.identity.id,
            )
        )
        await self._record_success(attempt.model)
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
        wait_s = min(wait_s, self.left_s)
        ends_s = monotonic_s() + wait_s
        status = await connection.head(wait_s)
        if status not in SUCCESSES:
            error = await _error_of(connection, status, max(0.0, ends_s - monotonic_s()))
            if isinstance(error, UpstreamRefused) and error.code == refusals.CONTEXT_TOO_LONG:
                error = self._too_long(attempt.model, error)
            raise error
        coding = connection.headers.get(b"content-encoding")
        if coding is not None and not PACKED.isdisjoint(coding.lower().replace(b" ", b"").split(b",")):
            raise UpstreamInvalid(reason="packed content")
        if request.is_stream:
            return await self._opened_stream(attempt, connection, ends_s)
        return await self._opened_body(attempt, connection, ends_s)

    def _too_long(self, model: str, error: UpstreamRefused) -> UpstreamRefused:
        """Return the refusal of a context that is too long in the words that its surface's clients compact on."""
        request = self._request
        if request.path != PATHS["messages"]:
            return error
        entry = request.entries.get(model)
        message = refusals.too_long_for_anthropic(
            error.message,
            estimated_tokens=self._call.intent.prompt_tokens_guess,
            context_tokens=(entry.context_tokens if entry else None) or 0,
        )
        return UpstreamRefused(HTTPStatus.BAD_REQUEST, message, code=error.code, param=error.param)

    async def _opened_stream(self, attempt: Attempt, connection: Connection, ends_s: float) -> OpenedResponse:
        """Read a stream up to its first content. Its first event has a limit of its own, as has the next one."""
        if not _is_of_type(connection, b"text/event-stream"):
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
        return OpenedResponse(attempt, opening.identity, self._connection, opening)

    async def _opened_body(self, attempt: Attempt, connection: Connection, ends_s: float) -> OpenedResponse:
        request, call = self._request, self._call
        if not _is_of_type(connection, b"application/json"):
            raise UpstreamInvalid(reason="not JSON")
        body = await connection.body(max(0.0, ends_s - monotonic_s()), limit_bytes=request.response_limit_bytes)
        # It is back in the pool and may serve another call by now, which `abort` must not cut off.
        self._connection = None
        summary = request.response_format.summarize(body)
        if summary is None:
            raise UpstreamInvalid(reason="broken JSON")
        call.meter.record_response(summary, connection.headers.get(b"x-litellm-response-cost"))
        shown = request.response_format.body_for_caller(body, summary)
        return OpenedResponse(attempt, summary.identity, body=shown)


def _final(failure: UpstreamFailure | None, models: tuple[str, ...], wait_s: int) -> Exception:
    """Return the caller's error when every attempt failed; `wait_s` is when the first model may work again."""
    if isinstance(failure, UpstreamBusy):
        return UpstreamBusy.of(models, retry_after_s=wait_s)
    if isinstance(failure, UpstreamSilent):
        return UpstreamTimeout(retry_after_s=wait_s)
    is_operators = isinstance(failure, UpstreamFaulty) and failure.cause is not None
    return UpstreamUnavailable.of(models, retry_after_s=wait_s, is_operators=is_operators)


def _is_of_type(connection: Connection, media_type: bytes) -> bool:
    """Return whether the body is of this type, whatever its parameters. Case does not matter (RFC 9110, 8.3.1)."""
    written = connection.headers.get(b"content-type", b"")
    if written == media_type:
        return True
    first = written.partition(b",")[0]  # a header that was given twice
    return first.partition(b";")[0].strip().lower() == media_type


async def _error_of(connection: Connection, status: int, timeout_s: float) -> UpstreamFailure | UpstreamRefused:
    """Map the upstream's error response to our own error."""
    after_s = retry_after_s(connection.headers, now_s())
    if status == 408:
        return UpstreamSilent(reason="status 408")
    if status >= 500:
        return UpstreamFaulty(status, retry_after_s=after_s)
    if status < 400:
        return UpstreamInvalid(reason=f"unexpected status {status}")
    refusal = refusals.read(await _beginning(connection, timeout_s))
    cause = refusals.cause_of(status, refusal)
    if cause is not None:
        # Words may quote the caller, so only a status may trip the breaker.
        return UpstreamFaulty(status, cause=cause, trips_breaker=status in (401, 402), retry_after_s=after_s)
    if status == 429:
        return UpstreamBusy(retry_after_s=after_s)
    message = refusals.scrub(refusal.message, host=connection.host)
    return UpstreamRefused(status, message, code=refusals.code_of(refusal), param=refusal.param)


async def _beginning(connection: Connection, timeout_s: float) -> bytes:
    """Read the beginning of an error's body; what has arrived counts. The connection is closed afterwards."""
    ends_s = monotonic_s() + timeout_s
    pieces: list[bytes] = []
    size = 0
    with contextlib.suppress(UpstreamFailure):
        while size < refusals.MAX_BODY_BYTES:
            piece = await connection.chunk(max(0.0, ends_s - monotonic_s()))
            if piece is None:
                break
            pieces.append(piece)
            size += len(piece)
    return b"".join(pieces)
