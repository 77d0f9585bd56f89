"""Relay of a response to the caller: bytes untouched, metered as they pass, complete only when they are durable."""

import logging
from collections.abc import Iterable

from codexflow.lib.asgi import Header
from codexflow.lib.errors import AppError
from routing.call import Call
from routing.content_capture import Response
from routing.errors import ClientDisconnected, ShuttingDown, StreamBroken, UpstreamFailure
from routing.surfaces import sse
from routing.surfaces.opening import Opening
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
    await response.respond(200, [(b"content-type", b"application/json"), *headers], opened.body)


class StreamRelay:
    """One stream from the upstream to the caller."""

    def __init__(
        self,
        response: Response,
        call: Call,
        upstream: Upstream,
        opened: OpenedResponse,
        opening: Opening,
        *,
        response_format: ResponseFormat,
        wants_usage: bool,
        idle_s: float,
    ) -> None:
        self._response = response
        self._call = call
        self._upstream = upstream
        self._opened = opened
        self._opening = opening
        self._splitter = opening.splitter
        self._response_format = response_format
        self._wants_usage = wants_usage
        self._idle_s = idle_s
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
        splitter, response, meter, opening = self._splitter, self._response, self._call.meter, self._opening
        meter.begin(opening.output)
        if end := await self._pass(opening.events, counted=opening.counted):
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
            elif end := await self._pass(splitter.feed(chunk)):
                return end
        # A last event without its empty line may still be the end.
        if end := await self._pass(splitter.flush()):
            return end
        if self._response_format.missing_end and meter.stop_reason is not None:
            meter.end()
            return self._response_format.missing_end
        raise StreamBroken(reason="no end")

    async def _pass(self, events: Iterable[sse.Event], *, counted: int = 0) -> bytes:
        """Send events as far as the caller may see them, in one piece; the last one of the stream is returned instead.

        The first `counted` of them have been counted as output.
        """
        shown: list[bytes] = []
        try:
            for n, event in enumerate(events):
                if event.usage is not None:
                    self._call.meter.record_usage(event.usage)
                if event.kind in (sse.Kind.ERROR, sse.Kind.BROKEN):
                    # LiteLLM may close even a broken stream with [DONE]; ours stays without.
                    raise StreamBroken(reason="error event" if event.kind is sse.Kind.ERROR else "broken JSON")
                if event.kind is sse.Kind.END:
                    self._call.meter.end(event.raw if event.usage is None and n >= counted else b"")
                    return self._shown(event)
                if event.kind is sse.Kind.CONTENT and n >= counted:
                    self._call.meter.record_delivery(event.raw)
                shown.append(self._shown(event))
        finally:
            if any(shown):
                piece = b"".join(shown)
                await self._response.send(piece)
                self._is_mid_event = not piece.endswith(sse.ENDS)
        return b""

    def _shown(self, event: sse.Event) -> bytes:
        """Return an event as the caller may see it."""
        shown = self._response_format.for_caller(event, wants_usage=self._wants_usage)
        return self._response_format.named(shown, self._opened.attempt.model)

    async def _next(self) -> bytes | None:
        """Read the next piece from the upstream; None at its end, and when there is no more than the beginning."""
        connection, left_s = self._opened.connection, self._upstream.left_s
        if connection is None:
            return None
        try:
            return await connection.chunk_past(self._sent_at_once, idle_s=self._idle_s, left_s=left_s)
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
        await self._call.finish(status=int(error.status), error=error, is_disconnected=is_gone)
        if not is_gone:
            gap = b"\n\n" if self._is_mid_event else b""
            await self._response.send(gap + self._response_format.error_event(error), is_last=True)
