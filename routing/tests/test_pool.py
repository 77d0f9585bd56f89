"""The pool against a real server: what is reused, and what is not."""

from collections.abc import Iterator

import pytest

from codexflow.testing.upstream import DEMO_API_KEY, Upstream, running_upstream
from routing.pool import Pool

BODY = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello%b"}]%b}'
PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running_upstream() as running:
        yield running


@pytest.mark.parametrize("more", [b"", b',"stream":true'], ids=["whole", "stream"])
async def test_a_connection_that_was_read_to_its_end_serves_again(upstream: Upstream, more: bytes) -> None:
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


async def test_a_connection_whose_answer_never_ended_serves_nobody(upstream: Upstream) -> None:
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
