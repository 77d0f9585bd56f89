"""Silent upstreams behind nginx: the signs of life keep streams alive that nginx would give up.

`make silence` is the same with nginx's own minute and the gateway's own settings.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from keys.tests.factories import a_key
from tests.silence import broken_streams
from tests.support.installation import Gateway, Installation
from tests.support.nginx import running_nginx

pytestmark = pytest.mark.nginx
READ_TIMEOUT_MS = 600
# Longer than nginx waits, shorter than this installation's limits of a silent model.
SILENT_MS = 1_200


@pytest.fixture(params=["0.2", "60"], ids=["pings", "no pings"])
def gateway(running: Installation, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    gateway = running.new_gateway(CFX_STREAM_PING_S=request.param)
    yield gateway
    gateway.stop()


def test_only_pings_keep_silent_streams_alive(
    running: Installation, gateway: Gateway, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    key = a_key(concurrent_streams=20).plain
    with running_nginx(gateway.url, tmp_path, read_timeout_ms=READ_TIMEOUT_MS) as url:
        broken = asyncio.run(broken_streams(url, key, first_ms=SILENT_MS, gap_ms=SILENT_MS))
    is_pinging = "no pings" not in request.node.name
    assert len(broken) == (0 if is_pinging else 8), broken
