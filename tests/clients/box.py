"""A box for a program that is not ours: an empty home, loopback only, a limit of time, nobody left behind."""

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


class PhonedOut(socketserver.ThreadingTCPServer):
    """A proxy that lets nobody through and remembers where they wanted to go."""

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
    server: PhonedOut

    @override
    def handle(self) -> None:
        words = self.rfile.readline(4096).decode("latin-1").split()
        if len(words) > 1:
            self.server.hosts.add(words[1].removeprefix("http://").partition("/")[0].partition(":")[0])
        with contextlib.suppress(OSError):
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


class Box:
    """Runs one client. `work` is its working folder, `home` its HOME."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.work = folder / "work"
        self.home.mkdir()
        self.work.mkdir()
        self.outside = PhonedOut()
        self._environment = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "TMPDIR": str(folder),
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), self.outside.url),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
        }

    def run(self, command: Sequence[str | Path], *, within_s: float = 90, **environment: str) -> str:
        """Its standard output. Raises ClientFailed with the end of what it said."""
        with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complained:
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=self.work,
                env={**self._environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=complained,
                start_new_session=True,
            )
            try:
                code: int | str = process.wait(within_s)
            except subprocess.TimeoutExpired:
                code = f"none within {within_s:g} s"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # its session: also what it started and left
                process.wait()
            said.seek(0)
            complained.seek(0)
            output, complaints = said.read(), complained.read()
        if code != 0:
            raise ClientFailed(f"exit code {code}\n{output[-1500:]}\n{complaints[-1500:]}")
        return output


class ClientFailed(Exception):
    """A client did not do what it should."""


@contextlib.contextmanager
def boxed() -> Iterator[Box]:
    """A Box in a new folder, gone afterwards. Far from this repository: agents read and write what lies around them."""
    with tempfile.TemporaryDirectory(prefix="cfx-client-", ignore_cleanup_errors=True) as folder:
        box = Box(Path(folder))
        try:
            yield box
        finally:
            box.outside.shutdown()
            box.outside.server_close()
