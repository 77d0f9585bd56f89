"""HTTP server of the local payment providers: a thread for each request, and no log."""

from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from typing_extensions import override


class ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}"


class _Quiet(WSGIRequestHandler):
    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def listen(application: Any, host: str, port: int) -> ThreadingServer:
    """Listen; port 0 is any free one. The caller runs `serve_forever`."""
    return make_server(host, port, application, ThreadingServer, _Quiet)
