"""Relay of a response to the caller: bytes untouched, metered as they pass, complete only when they are durable."""

import logging
from collections.abc import Iterable

from codexflow.lib.asgi import Header
from codexflow.lib.errors import AppError
from routing.call import Call
from routing.content_capture import Response
from routing.errors import ClientDisconnected, ShuttingDown, StreamBroken, UpstreamFailure
from routing.surfaces import sse
from routing.surfaces.responses import ResponseFormat
from routing.upstream.open import OpenedResponse, Upstream

logger = logging.getLogger(__name__)

SSE_HEADERS: list[Header] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx would otherwise hold events back.
    (b"x-accel-buffering", b"no"),
]
# How long the end of the upstream's response may take after its last event, before its connection is given up.
LAST_CHUNK_S = 1.0


async def send_body(response: Response, call: Call, opened: OpenedResponse, headers: list[Header]) -> None:
    """Settle the call, then send its JSON response."""
    await call.finish(status=200)
    await response.respond(200, [(b"content-type", b"application/json"), *headers], opened.first)


class StreamRelay:
    """One stream from the upstream to the caller."""

    def __init__(
        self,
        response: Response,
        call: Call,
        upstream: Upstream,
        opened: OpenedResponse,
        *,
        response_format: ResponseFormat,
        wants_usage: bool,
        idle_s: float,
    ) -> None:
        self._response = response
        self._call = call
        self._upstream = upstream
        self._opened = opened
        self._response_format = response_format
        self._splitter = sse.Splitter(response_format)
        self._wants_usage = wants_usage
        self._idle_s = idle_s
        self._has_content = False
        self._has_usage = False
        # Whether a piece of a very long event was the last that went out.
        self._is_mid_event = False

    async def send(self, headers: list[Header]) -> None:
        """Relay to the end. A failure from here on travels inside the stream."""
        await self._response.start(200, [*SSE_HEADERS, *headers])
        try:
            end = await self._relay()
        except AppError as error:
            await self._break_off(error)
            return
        # Settled before the end is sent: a caller that saw it has its request on record.
        await self._call.finish(status=200)
        await self._response.send(end, is_last=True)
        if self._opened.connection is not None:
            await self._opened.connection.read_to_end(LAST_CHUNK_S)

    async def _relay(self) -> bytes:
        """Pass events until the last one, and return that. Raises ClientDisconnected, ShuttingDown or StreamBroken."""
        splitter, response = self._splitter, self._response
        self._call.meter.begin(self._response_format.output())
        chunk: bytes | None = self._opened.first
        while chunk is not None:
            if self._has_content and splitter.is_plain(chunk):
                self._call.meter.record_delivery(chunk)
                await response.send(chunk)
            elif end := await self._pass(splitter.feed(chunk)):
                return end
            if response.is_gone:
                raise ClientDisconnected
            chunk = await self._next()
        # A last event without its empty line may still be the end; half an event is of no use to a caller.
        if end := await self._pass(event for event in splitter.flush() if event.kind is sse.Kind.END):
            return end
        raise StreamBroken(reason="no end")

    async def _pass(self, events: Iterable[sse.Event]) -> bytes:
        """Send events as far as the caller may see them; the last one of the stream is returned instead."""
        call, response_format, model = self._call, self._response_format, self._opened.attempt.model
        for event in events:
            if event.kind is sse.Kind.ERROR:
                if event.usage is not None:
                    call.meter.record_usage(event.usage)
                # LiteLLM may close even a broken stream with [DONE]; ours stays without.
                raise StreamBroken(reason="error event")
            if event.usage is not None:
                call.meter.record_usage(event.usage)
                if not self._has_content and not self._has_usage:
                    self._has_usage = event.usage.produced > 0
            if event.kind is sse.Kind.END:
                call.meter.end(event.raw if event.usage is None else b"")
                if not self._has_content and not self._has_usage:
                    raise StreamBroken(reason="empty success")
                return response_format.with_model(
                    response_format.for_caller(event, wants_usage=self._wants_usage), model
                )
            is_beginning = not self._has_content
            if event.kind is sse.Kind.CONTENT and (self._has_content or response_format.is_content(event.raw)):
                self._has_content = True
                call.meter.record_delivery(event.raw)
            shown = response_format.for_caller(event, wants_usage=self._wants_usage) if event.usage else event.raw
            if is_beginning:
                shown = response_format.with_model(shown, model)
            if shown:
                await self._response.send(shown)
                self._is_mid_event = not shown.endswith((b"\n\n", b"\r\n\r\n"))
        return b""

    async def _next(self) -> bytes | None:
        """Read the next piece from the upstream; None at its end, and when there is no more than the first."""
        connection, left_s = self._opened.connection, self._upstream.left_s
        if connection is None:
            return None
        try:
            if self._has_content:
                return await connection.chunk_past(self._sent_at_once, idle_s=self._idle_s, left_s=left_s)
            return await connection.chunk(min(self._idle_s, left_s))
        except UpstreamFailure as exc:
            if self._response.is_gone:
                raise ClientDisconnected from exc
            if self._call.shutdown.is_set:
                raise ShuttingDown from exc
            raise StreamBroken(reason=exc.code) from exc

    def _sent_at_once(self, chunk: bytes) -> bool:
        """Send a piece without a task switch: plain content, as nearly all are, to a caller that keeps up."""
        if not self._splitter.is_plain(chunk) or not self._response.send_at_once(chunk):
            return False
        self._call.meter.record_delivery(chunk)
        return True

    async def _break_off(self, error: AppError) -> None:
        """End an incomplete stream: settle it, then send an error event, after which no end follows."""
        self._upstream.abort()
        is_gone = isinstance(error, ClientDisconnected)
        logger.warning(
            "relay.broken", extra={"request_id": str(self._call.request_id), "code": error.code, **error.facts}
        )
        if not self._has_content and not self._has_usage and not is_gone:
            # No output, so no charge; the usage that LiteLLM reports of an empty stream is made up.
            self._call.meter.discard()
        await self._call.finish(status=int(error.status), error=error, is_disconnected=is_gone)
        if not is_gone:
            gap = b"\n\n" if self._is_mid_event else b""
            await self._response.send(gap + self._response_format.error_event(error), is_last=True)
