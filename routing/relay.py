"""The answer on its way to the caller: bytes untouched, counted as they pass, complete only when they are durable."""

import logging

from codexflow.lib.errors import AppError
from codexflow.lib.http import Header, body_of
from routing import sse
from routing.errors import ClientDisconnected, ShuttingDown, StreamBroken, UpstreamFailure
from routing.incoming import Incoming
from routing.live import LiveCall
from routing.upstream import Opened, Upstream

logger = logging.getLogger(__name__)

SSE_HEADERS: list[Header] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx would otherwise hold events back.
    (b"x-accel-buffering", b"no"),
]
# How long the end of the upstream's answer may take after its last event, before its connection is given up.
LAST_CHUNK_S = 1.0


async def send_body(incoming: Incoming, call: LiveCall, opened: Opened, headers: list[Header]) -> None:
    """A whole JSON answer: settled first, then sent."""
    await call.finish(status=200)
    await incoming.respond(200, [(b"content-type", b"application/json"), *headers], opened.first)


class StreamRelay:
    """One stream from the upstream to the caller."""

    def __init__(
        self,
        incoming: Incoming,
        call: LiveCall,
        upstream: Upstream,
        opened: Opened,
        *,
        wants_usage: bool,
        idle_s: float,
    ) -> None:
        self._incoming = incoming
        self._call = call
        self._upstream = upstream
        self._opened = opened
        self._wants_usage = wants_usage
        self._idle_s = idle_s
        self._must_go = False

    async def send(self, headers: list[Header]) -> None:
        """Relay to the end. What goes wrong from here on travels inside the stream."""
        self._call.on_shutdown = self._shut_down
        await self._incoming.start(200, [*SSE_HEADERS, *headers])
        try:
            await self._relay()
        except AppError as error:
            await self._break_off(error)
            return
        # Settled before [DONE] goes out: a caller that saw it has its request on record.
        await self._call.finish(status=200)
        await self._incoming.send(sse.DONE, is_last=True)
        await self._opened.connection.read_to_end(LAST_CHUNK_S)

    async def _relay(self) -> None:
        """Pass events until [DONE]. Raises ClientDisconnected, ShuttingDown or StreamBroken."""
        connection, splitter, meter = self._opened.connection, sse.Splitter(), self._call.meter
        chunk: bytes | None = self._opened.first
        while True:
            for event in splitter.feed(chunk) if chunk is not None else splitter.flush():
                if event.kind is sse.Kind.DONE:
                    return
                if event.kind is sse.Kind.ERROR:
                    # LiteLLM may close even a broken stream with [DONE]; ours stays without.
                    raise StreamBroken(reason="error event")
                if event.kind is sse.Kind.CONTENT:
                    meter.delivered(event.raw)
                if event.usage is None:
                    await self._incoming.send(event.raw)
                    continue
                meter.reported(event.usage)
                if raw := sse.for_caller(event, wants_usage=self._wants_usage):
                    await self._incoming.send(raw)
            if self._incoming.is_gone:
                raise ClientDisconnected
            if chunk is None:
                raise StreamBroken(reason="no [DONE]")
            try:
                chunk = await connection.chunk(min(self._idle_s, self._upstream.left_s))
            except UpstreamFailure as exc:
                if self._incoming.is_gone:
                    raise ClientDisconnected from exc
                if self._must_go:
                    raise ShuttingDown from exc
                raise StreamBroken(reason=exc.code) from exc

    def _shut_down(self) -> None:
        self._must_go = True
        self._upstream.abort()

    async def _break_off(self, error: AppError) -> None:
        """End a stream that is not complete: record it, then say so in an error event, without [DONE]."""
        self._upstream.abort()
        is_gone = isinstance(error, ClientDisconnected)
        logger.warning(
            "relay.broken", extra={"request_id": str(self._call.request_id), "code": error.code, **error.facts}
        )
        await self._call.finish(status=int(error.status), error=error, is_disconnected=is_gone)
        if not is_gone:
            await self._incoming.send(sse.error_event(body_of(error)), is_last=True)
