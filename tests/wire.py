"""A raw HTTP/1.1 connection: sends any bytes, valid or not, and reads any response."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for each, value in self.headers if each == name), "")


def request(path: str, key: str, body: bytes, *more: str, method: str = "POST") -> bytes:
    """Build a valid request; `more` are further header lines."""
    lines = (f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {key}", *more)
    return ("\r\n".join(lines) + f"\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, url: str) -> Self:
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port, limit=1024 * 1024))

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def head(self) -> tuple[int, tuple[tuple[str, str], ...]]:
        """Read status and headers, names in lower case. Raises EOFError."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = (line.partition(": ") for line in lines[1:] if line)
        return int(lines[0].split(" ")[1]), tuple((name.lower(), value) for name, _, value in fields)

    async def response(self) -> Response:
        """Read the next response. Raises EOFError when it is incomplete."""
        status, headers = await self.head()
        return Response(status, headers, await self.body(headers))

    async def body(self, headers: tuple[tuple[str, str], ...]) -> bytes:
        """Read the body that these headers announce. Raises EOFError when it is incomplete."""
        named = dict(headers)
        if named.get("transfer-encoding") == "chunked":
            return b"".join([piece async for piece in self._chunks()])
        if "content-length" in named:
            return await self.reader.readexactly(int(named["content-length"]))
        return await self.reader.read()

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            yield (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def abort(self) -> None:
        """Close the connection at once, without a shutdown."""
        self._writer.transport.abort()
