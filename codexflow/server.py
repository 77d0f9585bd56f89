"""uvicorn's HTTP protocol, but for one thing: what one turn of the loop writes to a connection goes out in one piece.

uvicorn writes head and body of an answer on their own, which costs a system call and a packet more for every request.
"""

import asyncio
from typing import Any

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Corked:
    """A transport whose writes wait for the end of the turn. Everything else is the transport's own."""

    __slots__ = ("_loop", "_pieces", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)

    def close(self) -> None:
        """After everything that was written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._pieces:
            self._transport.write(self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces))
            self._pieces.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Protocol(HttpToolsProtocol):
    """For `uvicorn --http codexflow.server:Protocol`."""

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        super().connection_made(Corked(transport, self.loop))  # type: ignore[arg-type] # it is one in all that matters
