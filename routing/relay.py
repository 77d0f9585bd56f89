"""Relay of a response to the caller: bytes untouched, metered as they pass, complete only when they are durable."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator

from codexflow.lib.asgi import Header
from codexflow.lib.clock import monotonic_s
from codexflow.lib.errors import AppError
from routing.call import Call
from routing.content_capture import Response
from routing.errors import ClientDisconnected, ShuttingDown, StreamBroken, UpstreamFailure
from routing.surfaces import sse
from routing.surfaces.responses import ResponseFormat
from routing.upstream.open import OpenedResponse, Upstream
from routing.upstream.pool import Sink

logger = logging.getLogger(__name__)

SSE_HEADERS: list[Header] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx would otherwise hold events back.
    (b"x-accel-buffering", b"no"),
]
# How long the end of the upstream's response may take after its last event, before its connection is given up.
LAST_CHUNK_S = 1.0
# How much is read after the last event for usage that comes late.
MAX_LATE_BYTES = 16 * 1024
# Timers may fire a little early.
TIMER_SLACK_S = 0.01


async def send_body(response: Response, call: Call, opened: OpenedResponse, headers: list[Header]) -> None:
    """Settle the call, then send its JSON response."""
    await call.finish(status=200)
    await response.respond(200, [(b"content-type", b"application/json"), *headers], opened.body)


class StreamRelay:
    """One stream from the upstream to the caller, who gets a sign of life whenever the upstream is silent for long."""

    def __init__(
        self,
        response: Response,
        call: Call,
        upstream: Upstream,
        *,
        response_format: ResponseFormat,
        wants_usage: bool,
        ping_s: float,
        headers: Callable[[str], list[Header]],
    ) -> None:
        self._response = response
        self._call = call
        self._upstream = upstream
        self._response_format = response_format
        self._wants_usage = wants_usage
        self._headers = headers
        self._opened: OpenedResponse | None = None
        self._idle_s = 0.0
        self.is_started = False
        # Whether a piece of a very long event was the last that went out.
        self._is_mid_event = False
        # Whether the upstream is awaited; else the caller is the slow side, and needs no ping.
        self._is_waiting = True
        self._ping_s = ping_s
        self._sent_s = monotonic_s()
        # The id that the caller has seen, if a ping came before the response.
        self._pinged_id = ""
        self._pinging: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(ping_s, self._check_silence)

    async def send(self, opened: OpenedResponse, *, idle_s: float) -> None:
        """Relay to the end. A failure from here on travels inside the stream."""
        self._opened, self._idle_s, self._is_waiting = opened, idle_s, False
        try:
            await self._start(opened.attempt.model)
            end = await self._relay(opened)
            if not self._call.meter.is_output_told:
                await self._read_late_usage(opened)
        except AppError as error:
            await self.break_off(error)
            return
        await self._stop_pings()
        # Settled before the end is sent: a caller that saw it has its request on record.
        await self._call.finish(status=200)
        await self._response.send(end, is_last=True)
        if opened.connection is not None:
            await opened.connection.read_to_end(LAST_CHUNK_S)

    def close(self) -> None:
        """Stop pinging, however the call ended."""
        self._timer.cancel()

    async def _start(self, model: str) -> None:
        if self._pinging is not None:
            await self._pinging
        if not self.is_started:
            self.is_started = True
            await self._response.start(200, [*SSE_HEADERS, *self._headers(model)])

    async def _relay(self, opened: OpenedResponse) -> bytes:
        """Pass events until the last one, and return that. Raises ClientDisconnected, ShuttingDown or StreamBroken."""
        assert opened.opening is not None  # noqa: S101 - streams have one
        opening, response, meter = opened.opening, self._response, self._call.meter
        splitter = opening.splitter
        self._send_at_once = self._at_once(splitter)
        meter.begin(opening.output)
        events, opening.events = iter(opening.events), []  # up to megabytes, which a long stream must not keep
        if end := await self._pass(events, counted=opening.counted):
            return end
        while True:
            if response.is_gone:
                raise ClientDisconnected
            try:
                chunk = await self._next()
            except StreamBroken:
                if meter.stop_reason is None:
                    raise
                chunk = None
            if chunk is None:
                break
            if splitter.is_plain(chunk):
                meter.record_delivery(chunk)
                await response.send(chunk)
                self._sent_s = monotonic_s()
            elif end := await self._pass(splitter.feed(chunk)):
                return end
        # A last event without its empty line may still be the end.
        if end := await self._pass(splitter.flush()):
            return end
        if self._response_format.missing_end and meter.stop_reason is not None:
            meter.end()
            return self._response_format.missing_end
        raise StreamBroken(reason="no end")

    async def _read_late_usage(self, opened: OpenedResponse) -> None:
        """Take usage that comes after the last event, as some providers send it."""
        if opened.connection is None or opened.opening is None:
            return
        ends_s, left_bytes = monotonic_s() + LAST_CHUNK_S, MAX_LATE_BYTES
        with contextlib.suppress(UpstreamFailure):
            while left_bytes > 0 and (left_s := ends_s - monotonic_s()) > 0:
                chunk = await opened.connection.chunk(left_s)
                if chunk is None:
                    opened.connection = None  # back in the pool
                    self._upstream.release()
                    self._take_late_usage(opened.opening.splitter.flush())
                    return
                left_bytes -= len(chunk)
                self._take_late_usage(opened.opening.splitter.feed(chunk[:MAX_LATE_BYTES]))
                if self._call.meter.is_output_told:
                    return

    def _take_late_usage(self, events: Iterator[sse.Event]) -> None:
        meter = self._call.meter
        for event in events:
            if event.usage is not None and not meter.is_output_told:
                meter.record_usage(event.usage)

    async def _pass(self, events: Iterator[sse.Event], *, counted: int = 0) -> bytes:
        """Send events as far as the caller may see them, in one piece; the last one of the stream is returned instead.

        The first `counted` of them have been counted as output.
        """
        shown: list[bytes] = []
        event: sse.Event | None = None
        try:
            for n, event in enumerate(events):
                if event.usage is not None:
                    self._call.meter.record_usage(event.usage)
                if event.kind in (sse.Kind.ERROR, sse.Kind.BROKEN):
                    # LiteLLM may close even a broken stream with [DONE]; ours stays without.
                    raise StreamBroken(reason="error event" if event.kind is sse.Kind.ERROR else "broken JSON")
                if event.kind is sse.Kind.END:
                    self._call.meter.end(event.raw if event.usage is None and n >= counted else b"")
                    self._take_late_usage(events)
                    return self._shown(event)
                if event.kind is sse.Kind.CONTENT and n >= counted:
                    self._call.meter.record_delivery(event.raw)
                shown.append(self._shown(event))
        finally:
            piece, event = b"".join(shown), None
            shown.clear()  # a slow caller must not keep long events twice
            if piece:
                self._is_mid_event = not piece.endswith(sse.ENDS)
                await self._response.send(piece)
                if b"data:" in piece:  # clients take no comment for life
                    self._sent_s = monotonic_s()
        return b""

    def _shown(self, event: sse.Event) -> bytes:
        """Return an event as the caller may see it."""
        shown = self._response_format.for_caller(event, wants_usage=self._wants_usage)
        return self._response_format.named(shown, self._upstream.model, self._pinged_id)

    async def _next(self) -> bytes | None:
        """Read the next piece from the upstream; None at its end, and when there is no more than the beginning."""
        opened, left_s = self._opened, self._upstream.left_s
        if opened is None or opened.connection is None:
            return None
        self._is_waiting = True
        try:
            chunk = await opened.connection.chunk_past(self._send_at_once, idle_s=self._idle_s, left_s=left_s)
        except UpstreamFailure as exc:
            if self._response.is_gone:
                raise ClientDisconnected from exc
            if self._call.shutdown.is_set:
                raise ShuttingDown from exc
            raise StreamBroken(reason=exc.code) from exc
        finally:
            self._is_waiting = False
        if chunk is None:  # its connection is back in the pool, and may serve another call from now on
            opened.connection = None
            self._upstream.release()
        return chunk

    def _at_once(self, splitter: sse.Splitter) -> Sink:
        """Return what sends a piece without a task switch: plain content, as nearly all are, to a caller that keeps up.

        A closure, because it runs for every event: each attribute that it need not look up is felt.
        """
        is_plain, are_plain = self._response_format.is_plain, self._response_format.are_plain
        send_at_once, record_delivery = self._response.send_at_once, self._call.meter.record_delivery

        def send(chunk: bytes) -> bool:
            if splitter.has_rest or not (is_plain(chunk) or are_plain(chunk)) or not send_at_once(chunk):
                return False
            record_delivery(chunk)
            return True

        return send

    def _check_silence(self) -> None:
        """Ping after `_ping_s` without an event. Called by a timer: a stream that is not silent costs nothing more."""
        connection = self._opened.connection if self._opened is not None else None
        if self._response_format.hides_content:
            connection = None  # what it delivers does not reach the caller yet
        sent_s = max(self._sent_s, connection.consumed_s) if connection is not None else self._sent_s
        left_s = sent_s + self._ping_s - monotonic_s()
        if left_s <= TIMER_SLACK_S:
            left_s = self._ping_s
            if self._is_waiting and not self._is_mid_event and not self._response.is_gone:
                self._sent_s = monotonic_s()
                self._pinging = asyncio.get_running_loop().create_task(self._ping())
        self._timer = asyncio.get_running_loop().call_later(left_s, self._check_silence)

    async def _ping(self) -> None:
        is_first = not self.is_started
        if is_first:
            self.is_started = True
            self._pinged_id = f"{self._response_format.id_prefix}{self._call.request_id.hex}"
            await self._response.start(200, [*SSE_HEADERS, *self._headers(self._upstream.model)])
        opened_id = self._opened.identity.id if self._opened is not None else ""
        ping = self._response_format.ping(
            response_id=self._pinged_id or opened_id,
            model=self._upstream.model,
            created_s=self._call.intent.started_ms // 1000,
            is_first=is_first,
        )
        if not self._is_mid_event:
            await self._response.send(ping)

    async def _stop_pings(self) -> None:
        self._timer.cancel()
        if self._pinging is not None:
            await self._pinging

    async def break_off(self, error: AppError) -> None:
        """End an incomplete stream: settle it, then send an error event, after which no end follows."""
        await self._stop_pings()
        self._upstream.abort()
        is_gone = isinstance(error, ClientDisconnected)
        logger.warning(
            "relay.broken", extra={"request_id": str(self._call.request_id), "code": error.code, **error.facts}
        )
        await self._call.finish(status=int(error.status), error=error, is_disconnected=is_gone)
        if not is_gone:
            gap = b"\n\n" if self._is_mid_event else b""
            await self._response.send(gap + self._response_format.error_event(error), is_last=True)
