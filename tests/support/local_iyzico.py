"""The local iyzico on a loopback port, in a thread of the test's process."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

from codexflow.dev.iyzico.__main__ import serve
from codexflow.dev.iyzico.server import Server
from codexflow.dev.iyzico.state import LocalIyzico

__all__ = ["API_KEY", "SECRET_KEY", "Server", "local_iyzico"]

API_KEY, SECRET_KEY = "sandbox-local-0123456789", "sandbox-secret-0123456789"


@contextmanager
def local_iyzico() -> Iterator[Server]:
    """Run one for the block."""
    server = Server(LocalIyzico(), API_KEY, SECRET_KEY)
    listening = serve(server)
    thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()
