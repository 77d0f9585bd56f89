"""A sandbox for third-party clients: an empty home directory, loopback only, a timeout, no processes left behind."""

import contextlib
import os
import signal
import socketserver
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from typing_extensions import override


class RefusingProxy(socketserver.ThreadingTCPServer):
    """An HTTP proxy that refuses every request and records the requested hosts."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Refusal)
        self.hosts: set[str] = set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Refusal(socketserver.StreamRequestHandler):
    server: RefusingProxy

    @override
    def handle(self) -> None:
        words = self.rfile.readline(4096).decode("latin-1").split()
        if len(words) > 1:
            self.server.hosts.add(words[1].removeprefix("http://").partition("/")[0].partition(":")[0])
        with contextlib.suppress(OSError):
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


class Box:
    """Runs one client. `work` is its working directory, `home` its HOME."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.work = folder / "work"
        self.home.mkdir()
        self.work.mkdir()
        self.proxy = RefusingProxy()
        self._environment = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "TMPDIR": str(folder),
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), self.proxy.url),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
        }

    def run(self, command: Sequence[str | Path], *, within_s: float = 90, **environment: str) -> str:
        """Run a command and return its standard output. Raises ClientFailed with the end of its output."""
        with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=self.work,
                env={**self._environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
            try:
                code: int | str = process.wait(within_s)
            except subprocess.TimeoutExpired:
                code = f"none within {within_s:g} s"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # its session, which includes processes that it left behind
                process.wait()
            stdout.seek(0)
            stderr.seek(0)
            output, errors = stdout.read(), stderr.read()
        if code != 0:
            raise ClientFailed(f"exit code {code}\n{output[-1500:]}\n{errors[-1500:]}")
        return output


class ClientFailed(Exception):
    """A client did not do what it should."""


@contextlib.contextmanager
def boxed() -> Iterator[Box]:
    """A Box in a temporary directory, outside this repository: agents read and write the files around them."""
    with tempfile.TemporaryDirectory(prefix="cfx-client-", ignore_cleanup_errors=True) as folder:
        box = Box(Path(folder))
        try:
            yield box
        finally:
            box.proxy.shutdown()
            box.proxy.server_close()
