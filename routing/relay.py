"""The answer on its way to the caller: bytes untouched, counted as they pass, complete only when they are durable."""

import logging
from collections.abc import Iterable

from codexflow.lib.errors import AppError
from codexflow.lib.http import Header
from routing.call import LiveCall
from routing.content_capture import Outgoing
from routing.errors import ClientDisconnected, ShuttingDown, StreamBroken, UpstreamFailure
from routing.meter import Meter
from routing.surfaces import sse
from routing.surfaces.responses import Dialect
from routing.upstream.open import Opened, Upstream

logger = logging.getLogger(__name__)

SSE_HEADERS: list[Header] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx would otherwise hold events back.
    (b"x-accel-buffering", b"no"),
]
# How long the end of the upstream's answer may take after its last event, before its connection is given up.
LAST_CHUNK_S = 1.0


async def send_body(incoming: Outgoing, call: LiveCall, opened: Opened, headers: list[Header]) -> None:
    """A whole JSON answer: settled first, then sent."""
    await call.finish(status=200)
    await incoming.respond(200, [(b"content-type", b"application/json"), *headers], opened.first)


class StreamRelay:
    """One stream from the upstream to the caller."""

    def __init__(
        self,
        incoming: Outgoing,
        call: LiveCall,
        upstream: Upstream,
        opened: Opened,
        *,
        dialect: Dialect,
        wants_usage: bool,
        idle_s: float,
    ) -> None:
        self._incoming = incoming
        self._call = call
        self._upstream = upstream
        self._opened = opened
        self._dialect = dialect
        self._splitter = sse.Splitter(dialect)
        self._wants_usage = wants_usage
        self._idle_s = idle_s
        self._must_go = False
        self._has_content = False
        self._has_usage = False
        # Whether a piece of a very long event was the last that went out.
        self._is_mid_event = False

    async def send(self, headers: list[Header]) -> None:
        """Relay to the end. What goes wrong from here on travels inside the stream."""
        self._call.on_shutdown = self._shut_down
        await self._incoming.start(200, [*SSE_HEADERS, *headers])
        try:
            end = await self._relay()
        except AppError as error:
            await self._break_off(error)
            return
        # Settled before the end goes out: a caller that saw it has its request on record.
        await self._call.finish(status=200)
        await self._incoming.send(end, is_last=True)
        if self._opened.connection is not None:
            await self._opened.connection.read_to_end(LAST_CHUNK_S)

    async def _relay(self) -> bytes:
        """Pass events until the last one, and return that. Raises ClientDisconnected, ShuttingDown or StreamBroken."""
        splitter, incoming = self._splitter, self._incoming
        self._call.meter.has_begun = True
        chunk: bytes | None = self._opened.first
        while chunk is not None:
            if self._has_content and splitter.is_plain(chunk):
                self._call.meter.delivered(chunk)
                await incoming.send(chunk)
            elif end := await self._pass(splitter.feed(chunk)):
                return end
            if incoming.is_gone:
                raise ClientDisconnected
            chunk = await self._next()
        # A last event without its empty line may still be the end; half an event is nothing that a caller could use.
        if end := await self._pass(event for event in splitter.flush() if event.kind is sse.Kind.END):
            return end
        raise StreamBroken(reason="no end")

    async def _pass(self, events: Iterable[sse.Event]) -> bytes:
        """Send events on as far as the caller may see them; the last one of the stream is returned instead."""
        call, dialect, model = self._call, self._dialect, self._opened.attempt.model
        for event in events:
            if event.kind is sse.Kind.ERROR:
                # LiteLLM may close even a broken stream with [DONE]; ours stays without.
                raise StreamBroken(reason="error event")
            if event.usage is not None:
                call.meter.reported(event.usage)
                self._has_usage = self._has_usage or event.usage.produced > 0
            if event.kind is sse.Kind.END:
                if not self._has_content and not self._has_usage:
                    raise StreamBroken(reason="empty success")
                return dialect.named(dialect.for_caller(event, wants_usage=self._wants_usage), model)
            is_beginning = not self._has_content
            if event.kind is sse.Kind.CONTENT and (self._has_content or dialect.is_content(event.raw)):
                self._has_content = True
                call.meter.delivered(event.raw)
            shown = dialect.for_caller(event, wants_usage=self._wants_usage) if event.usage else event.raw
            if is_beginning:
                shown = dialect.named(shown, model)
            if shown:
                await self._incoming.send(shown)
                self._is_mid_event = not shown.endswith((b"\n\n", b"\r\n\r\n"))
        return b""

    async def _next(self) -> bytes | None:
        """The next piece from the upstream; None at its end, and when there is no more than the first."""
        connection, left_s = self._opened.connection, self._upstream.left_s
        if connection is None:
            return None
        try:
            if self._has_content:
                return await connection.chunk_past(self._sent_at_once, idle_s=self._idle_s, left_s=left_s)
            return await connection.chunk(min(self._idle_s, left_s))
        except UpstreamFailure as exc:
            if self._incoming.is_gone:
                raise ClientDisconnected from exc
            if self._must_go:
                raise ShuttingDown from exc
            raise StreamBroken(reason=exc.code) from exc

    def _sent_at_once(self, chunk: bytes) -> bool:
        """Nearly every piece: plain content for a caller who takes it. It goes out where it came in."""
        if not self._splitter.is_plain(chunk) or not self._incoming.send_at_once(chunk):
            return False
        self._call.meter.delivered(chunk)
        return True

    def _shut_down(self) -> None:
        self._must_go = True
        self._upstream.abort()

    async def _break_off(self, error: AppError) -> None:
        """End a stream that is not complete: record it, then say so in an error event; no end follows it."""
        self._upstream.abort()
        is_gone = isinstance(error, ClientDisconnected)
        logger.warning(
            "relay.broken", extra={"request_id": str(self._call.request_id), "code": error.code, **error.facts}
        )
        if not self._has_content and not self._has_usage and not is_gone:
            # Nothing was said, so nothing is charged; what LiteLLM counts of an empty stream is its invention.
            self._call.meter = Meter()
        await self._call.finish(status=int(error.status), error=error, is_disconnected=is_gone)
        if not is_gone:
            gap = b"\n\n" if self._is_mid_event else b""
            await self._incoming.send(gap + self._dialect.error_event(error), is_last=True)
