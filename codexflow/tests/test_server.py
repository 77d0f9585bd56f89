"""The corked transport: one write a turn, nothing lost, nothing out of order."""

import asyncio
from typing import Any

from codexflow.server import Corked


class Wire:
    """A transport that remembers."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def close(self) -> None:
        self.sent.append(b"(closed)")

    def is_closing(self) -> bool:
        return False


def corked(wire: Any) -> Corked:
    return Corked(wire, asyncio.get_running_loop())


async def test_writes_of_one_turn_go_out_as_one() -> None:
    wire = Wire()
    transport = corked(wire)
    transport.write(b"head")
    transport.write(b"body")
    assert wire.sent == []
    await asyncio.sleep(0)
    transport.write(b"more")
    await asyncio.sleep(0)
    assert wire.sent == [b"headbody", b"more"]


async def test_closing_comes_after_what_was_written() -> None:
    wire = Wire()
    transport = corked(wire)
    transport.write(b"last words")
    transport.close()
    await asyncio.sleep(0)
    assert wire.sent == [b"last words", b"(closed)"]


async def test_everything_else_is_the_transports_own() -> None:
    assert corked(Wire()).is_closing() is False
