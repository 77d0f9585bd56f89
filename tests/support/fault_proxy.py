"""A proxy of TCP or unix sockets that injects faults: delayed replies, silence, or connection resets.

with fault_proxy(host, port) as proxy:
    proxy.delay(2.0)     # every reply is two seconds late
    proxy.swallow()      # connections stay open, but no bytes pass
    proxy.reset()        # every connection, old and new, is reset
    proxy.heal()
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

LOOPBACK = "127.0.0.1"
CHUNK_BYTES = 65_536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: the peer gets RST instead of FIN


class FaultProxy:
    """Runs in its own thread, so that tests may block."""

    def __init__(self, target: tuple[str, int] | Path, *, listens_at: Path | None = None) -> None:
        """A path is a unix socket. Without `listens_at` it listens on a TCP port of its own."""
        self._target = target
        self._listens_at = listens_at
        self._delay_s = 0.0
        self._is_silent = False
        self._is_resetting = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self.port = 0
        self.accepted = 0

    def start(self) -> None:
        self._thread.start()
        assert self._listening.wait(5), "the proxy does not listen"

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def address_of(self, url: str) -> str:
        """Rewrite `url` to go through this proxy."""
        parts = urlsplit(url)
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}{LOOPBACK}:{self.port}"))

    def delay(self, seconds: float) -> None:
        """Delay every chunk of every reply from now on."""
        self._do(lambda: setattr(self, "_delay_s", seconds))

    def swallow(self) -> None:
        """Drop all bytes silently from now on."""
        self._do(lambda: setattr(self, "_is_silent", True))

    def reset(self) -> None:
        """Reset every connection, and from now on every new one."""
        self._do(self._reset)

    def heal(self) -> None:
        """Stop injecting faults. Connections that may have lost bytes are closed."""
        self._do(self._heal)

    def _do(self, change: Callable[[], None]) -> None:
        """Apply a change on the event loop and wait for it."""
        is_done = threading.Event()

        def run() -> None:
            change()
            is_done.set()

        self._loop.call_soon_threadsafe(run)
        assert is_done.wait(5), "the proxy hangs"

    def _reset(self) -> None:
        self._is_resetting = True
        for writer in list(self._writers):
            _reset_connection(writer)

    def _heal(self) -> None:
        was_faulty = self._is_silent or self._delay_s > 0
        self._delay_s, self._is_silent, self._is_resetting = 0.0, False, False
        for writer in list(self._writers) if was_faulty else ():
            _reset_connection(writer)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        if self._listens_at is None:
            server = self._loop.run_until_complete(asyncio.start_server(self._serve, LOOPBACK, 0))
            self.port = server.sockets[0].getsockname()[1]
        else:
            server = self._loop.run_until_complete(asyncio.start_unix_server(self._serve, self._listens_at))
        self._listening.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        for writer in list(self._writers):
            writer.transport.abort()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._is_resetting:
            _reset_connection(writer)
            return
        self._writers.add(writer)
        far_writer: asyncio.StreamWriter | None = None
        try:
            far_reader, far_writer = await self._connected()
            await asyncio.gather(
                self._forward(reader, far_writer, is_reply=False), self._forward(far_reader, writer, is_reply=True)
            )
        except (OSError, asyncio.CancelledError):
            pass  # one side is closed: close the other
        finally:
            self._writers.discard(writer)
            for each in (writer, far_writer):
                if each is not None:
                    each.transport.abort()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection(*self._target)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_reply: bool) -> None:
        """Forward one direction, in order. Ends with an error when a side closes, which ends both directions."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def send() -> None:
            while True:
                due_s, chunk = await waiting.get()
                await asyncio.sleep(max(0.0, due_s - self._loop.time()))
                if not self._is_silent:
                    writer.write(chunk)
                    await writer.drain()

        sender = self._loop.create_task(send())
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                waiting.put_nowait((self._loop.time() + (self._delay_s if is_reply else 0.0), chunk))
        finally:
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sender
        raise ConnectionResetError


def _reset_connection(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):  # a unix socket knows no reset
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()


@contextmanager
def fault_proxy(host: str, port: int) -> Iterator[FaultProxy]:
    """A FaultProxy in front of host:port for the length of a `with` block."""
    with _running(FaultProxy((host, port))) as proxy:
        yield proxy


@contextmanager
def unix_fault_proxy(target: Path, listens_at: Path) -> Iterator[FaultProxy]:
    """A FaultProxy in front of a unix socket for the length of a `with` block."""
    with _running(FaultProxy(target, listens_at=listens_at)) as proxy:
        yield proxy


@contextmanager
def _running(proxy: FaultProxy) -> Iterator[FaultProxy]:
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
