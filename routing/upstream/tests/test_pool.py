"""Reuse of upstream connections, against a real server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from unittest.mock import Mock

import pytest

from routing.errors import UpstreamBroken, UpstreamSilent
from routing.upstream.pool import MAX_HEAD_BYTES, Connection, Pool, Sink
from tests.support.upstream import DEMO_API_KEY, Upstream, running_upstream

BODY = b'{"model":"gpt-6-luna","messages":[{"role":"user","content":"Hello%b"}]%b}'
PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running_upstream() as running:
        yield running


@pytest.mark.parametrize("more", [b"", b',"stream":true'], ids=["whole", "stream"])
async def test_a_connection_that_was_read_to_its_end_is_reused(upstream: Upstream, more: bytes) -> None:
    pool = Pool(upstream.url, api_key=DEMO_API_KEY, connect_s=5)
    connections = []
    for _ in range(3):
        connection = await pool.post(PATH, BODY % (b"", more))
        assert await connection.head(5) == 200
        while await connection.chunk(5) is not None:
            pass
        connections.append(connection)
    assert connections[0] is connections[1] is connections[2]
    pool.close()


async def test_a_connection_whose_response_never_ended_is_not_reused(upstream: Upstream) -> None:
    pool = Pool(upstream.url, api_key=DEMO_API_KEY, connect_s=5)
    broken = await pool.post(PATH, BODY % (b" [[fault:hang after=2]]", b',"stream":true'))
    assert await broken.head(5) == 200
    assert await broken.chunk(5)
    broken.abort()
    other = await pool.post(PATH, BODY % (b"", b""))
    assert other is not broken
    assert await other.head(5) == 200
    other.abort()
    pool.close()


async def test_pieces_keep_their_order_when_a_sink_consumes_some(upstream: Upstream) -> None:
    pool = Pool(upstream.url, api_key=DEMO_API_KEY, connect_s=5)
    connection = await pool.post(
        PATH, BODY % (b" [[say:one two three four five six]] [[fault:slow gap_ms=10]]", b',"stream":true')
    )
    assert await connection.head(5) == 200
    first = await connection.chunk(5)
    assert first is not None
    taken: list[bytes] = []

    def takes_two(piece: bytes) -> bool:
        if len(taken) == 2:
            return False
        taken.append(piece)
        return True

    left = [piece async for piece in _past(connection, takes_two)]
    whole = first + b"".join(taken) + b"".join(left)
    assert len(taken) == 2
    assert whole.endswith(b"data: [DONE]\n\n")
    numbers = [whole.index(word) for word in (b"one", b"two", b"three", b"four", b"five", b"six")]
    assert numbers == sorted(numbers)
    pool.close()


async def test_what_came_in_one_read_is_consumed_in_one_piece() -> None:
    pool = Pool("http://upstream.test", api_key=DEMO_API_KEY, connect_s=5)
    connection = Connection(pool)
    connection.connection_made(Mock())
    connection.send(b"", b"")
    connection.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    taken: list[bytes] = []

    def take(piece: bytes) -> bool:
        taken.append(piece)
        return len(taken) < 4

    reading = asyncio.create_task(connection.chunk_past(take, idle_s=5, left_s=5))
    await asyncio.sleep(0)
    one, two = b"3\r\none\r\n", b"3\r\ntwo\r\n"
    connection.data_received(one)
    connection.data_received(one + two + b"3\r\nt")
    connection.data_received(b"wo\r\n")
    assert taken == [b"one", b"onetwot", b"wo"]
    connection.data_received(one + two + b"no chunk\r\n")
    assert await reading == b"onetwo"  # which came before the fault
    with pytest.raises(UpstreamBroken):
        await connection.chunk(5)
    pool.close()


async def test_consumed_pieces_extend_the_idle_timeout_but_not_the_total_one(upstream: Upstream) -> None:
    pool = Pool(upstream.url, api_key=DEMO_API_KEY, connect_s=5)
    for words, idle_s, left_s in (
        (b" [[fault:hang after=2]]", 0.2, 60.0),
        (b" [[fault:chunks n=1000 gap_ms=20]]", 60.0, 0.2),
    ):
        connection = await pool.post(PATH, BODY % (words, b',"stream":true'))
        assert await connection.head(5) == 200
        with pytest.raises(UpstreamSilent):
            [piece async for piece in _past(connection, lambda _piece: True, idle_s=idle_s, left_s=left_s)]
    pool.close()


async def _read(connection: Connection) -> None:
    await connection.head(20)
    while await connection.chunk(20) is not None:
        pass


async def _past(
    connection: Connection, sink: Sink, *, idle_s: float = 5.0, left_s: float = 5.0
) -> AsyncIterator[bytes]:
    while (piece := await connection.chunk_past(sink, idle_s=idle_s, left_s=left_s)) is not None:
        yield piece


_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
# Responses of an upstream that have no end.
ENDLESS = {
    "status line": (b"HTTP/1.1 200 ", b"a"),
    "header value": (_OK + b"X-A: ", b"a"),
    "header name": (_OK, b"a"),
    "header lines": (_OK, b"X-A: b\r\n"),
    "lines of one header": (_OK, b"X:\r\n"),
    "interim responses": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "trailer lines": (_CHUNKED + b"0\r\n", b"X-A: b\r\n"),
    "trailer": (_CHUNKED + b"0\r\nX-A: ", b"a"),
    "chunk extension": (_CHUNKED + b"1;a=", b"b"),
}


@contextlib.asynccontextmanager
async def saying(begin: bytes, rest: bytes, *, pieces: int = 1_000) -> AsyncIterator[tuple[Pool, list[int]]]:
    """Upstream that responds with these bytes, the rest again and again; with how many of it were sent."""
    sent = [0]

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(begin)
        piece = rest * (2_000 // len(rest) or 1)
        with contextlib.suppress(OSError):
            for _ in range(pieces):
                writer.write(piece)
                await writer.drain()
                sent[0] += len(piece)
        writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    pool = Pool(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", api_key="k", connect_s=5)
    try:
        yield pool, sent
    finally:
        pool.close()
        server.close()


@pytest.mark.parametrize("name", ENDLESS)
async def test_what_has_no_end_fails_the_attempt(name: str) -> None:
    async with saying(*ENDLESS[name], pieces=100_000) as (pool, sent):
        connection = await pool.post(PATH, b"{}")
        with pytest.raises(UpstreamBroken):
            await _read(connection)
        assert not connection.is_open
        assert sent[0] < 100 * MAX_HEAD_BYTES  # what the sockets' buffers hold


async def test_a_long_head_that_comes_at_once_fails_the_attempt() -> None:
    async with saying(_OK + b"X-A: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n", b"a", pieces=1) as (pool, _):
        connection = await pool.post(PATH, b"{}")
        with pytest.raises(UpstreamBroken):
            await connection.head(20)


async def test_a_long_body_that_comes_with_its_head_is_read() -> None:
    size = 3 * MAX_HEAD_BYTES
    begin = b"HTTP/1.1 100 Continue\r\n\r\n%bContent-Length: %d\r\n\r\n%b" % (_OK, size, bytes(size))
    async with saying(begin, b"a", pieces=0) as (pool, _):
        connection = await pool.post(PATH, b"{}")
        assert await connection.head(20) == 200
        assert await connection.body(20, limit_bytes=size) == bytes(size)


async def test_trailers_are_no_headers() -> None:
    async with saying(_CHUNKED + b"0\r\nRetry-After: 9\r\n\r\n", b"a", pieces=0) as (pool, _):
        connection = await pool.post(PATH, b"{}")
        await connection.head(20)
        await connection.read_to_end(20)
        assert connection.headers == {b"transfer-encoding": b"chunked"}


async def test_a_response_that_goes_on_without_end_is_given_up() -> None:
    endless = _OK + b"Content-Type: text/event-stream\r\n\r\n"
    async with saying(endless, b": ping\n\n", pieces=10**9) as (pool, _):
        connection = await pool.post(PATH, b"{}")
        await connection.head(20)
        await connection.read_to_end(0.01)
        assert not connection.is_open


async def test_an_upstream_that_switches_protocols_fails_the_attempt() -> None:
    switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nPRI"
    async with saying(switching, b"a", pieces=0) as (pool, _):
        connection = await pool.post(PATH, b"{}")
        with pytest.raises(UpstreamBroken) as raised:
            await connection.head(20)
        assert raised.value.facts["reason"] == "not HTTP: HttpParserUpgrade"
