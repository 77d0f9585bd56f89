"""HTTP server for stand-ins: on loopback, on its own thread, without log output."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from typing_extensions import override


class QuietHandler(BaseHTTPRequestHandler):
    """A request handler that logs nothing; stand-ins keep their own records."""

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


class LoopbackServer:
    """Serves from construction until `close`."""

    def __init__(self, handler: type[QuietHandler]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(timeout=5)
        self._server.server_close()
