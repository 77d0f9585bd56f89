"""Upstream attempts."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest

from billing.limiter.limits import Payer
from codexflow.catalogue.schema import BreakerConfig
from codexflow.lib.ids import random_id
from routing.call import ShutdownSignal
from routing.errors import UpstreamUnavailable
from routing.meter import Meter
from routing.surfaces.table import CHAT
from routing.upstream.attempts import Attempt, RetryBudget
from routing.upstream.open import Upstream, UpstreamRequest
from routing.upstream.pool import Pool
from tests.support.upstream import DEMO_API_KEY, running_upstream


class _ClosedCircuits:
    """Circuits that are closed."""

    def is_on_record(self, _model: str) -> bool:
        return False

    def remember_success(self, *_facts: object) -> None: ...

    async def record_failure(self, *_facts: object) -> None: ...


class _Call:
    """The part of a call in flight that an attempt needs."""

    def __init__(self) -> None:
        self.request_id = random_id()
        self.intent = SimpleNamespace(model="gpt-6-luna")
        self.meter = Meter()
        self.attempts: list[object] = []
        self.shutdown = ShutdownSignal()

    def elapsed_ms(self) -> int:
        return 0


def an_upstream(pool: Pool, text: bytes, *, is_stream: bool = False) -> Upstream:
    request = UpstreamRequest(
        path="/v1/chat/completions",
        response_format=CHAT.response_format,
        tail_of=lambda _model: b'"messages":[{"role":"user","content":"%b"}]}' % text,
        is_stream=is_stream,
        first_byte_s=5,
        idle_s=5,
        total_s=5,
        response_limit_bytes=1_000_000,
        breaker=BreakerConfig(failure_threshold=5, recovery_timeout_s=1),
        payer=Payer.of("test", random_id(), random_id()),
    )
    return Upstream(pool, _ClosedCircuits(), RetryBudget(), _Call(), request)  # type: ignore[arg-type] # stand-ins


async def test_an_abort_after_the_response_does_not_cut_off_the_next_call() -> None:
    attempts = [Attempt(1, "gpt-6-luna", is_retry=False)]
    with running_upstream() as upstream:
        pool = Pool(upstream.url, api_key=DEMO_API_KEY, connect_s=5)
        first, second = an_upstream(pool, b"Hello"), an_upstream(pool, b"[[fault:slow first_ms=300]]")
        await first.open_first(attempts)
        running = asyncio.create_task(second.open_first(attempts))
        while not upstream.state()["open"]:  # noqa: ASYNC110 - another process, polled
            await asyncio.sleep(0)
        assert upstream.state()["last_seq"] == 2
        first.abort()
        assert (await running).body
        pool.close()


async def test_a_stream_that_may_be_empty_is_read_up_to_a_limit() -> None:
    """Its first event looks like the last, and then it goes on without end."""
    sent_bytes = 0

    async def stream_without_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent_bytes
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        writer.write(b'data: {"id":"x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n')
        with contextlib.suppress(ConnectionError):
            while sent_bytes < 50_000_000:
                writer.write(b": " + b"x" * 65_000 + b"\n\n")
                await writer.drain()
                sent_bytes += 65_000
        writer.close()

    server = await asyncio.start_server(stream_without_end, "127.0.0.1", 0)
    pool = Pool(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", api_key=DEMO_API_KEY, connect_s=5)
    with pytest.raises(UpstreamUnavailable):
        await an_upstream(pool, b"Hello", is_stream=True).open_first([Attempt(1, "gpt-6-luna", is_retry=False)])
    pool.close()
    server.close()
    assert sent_bytes < 20_000_000
