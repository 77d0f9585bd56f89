"""Reuse of upstream connections, against a real server."""

from collections.abc import AsyncIterator, Iterator

import pytest

from routing.errors import UpstreamSilent
from routing.upstream.pool import Connection, Pool, Sink
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


async def _past(
    connection: Connection, sink: Sink, *, idle_s: float = 5.0, left_s: float = 5.0
) -> AsyncIterator[bytes]:
    while (piece := await connection.chunk_past(sink, idle_s=idle_s, left_s=left_s)) is not None:
        yield piece
