"""Prompt and answer of calls whose organization wants them kept: copied as they pass, handed on once the call is over.

Everybody else's calls meet none of this but two attribute tests. Handing on is best effort, beside the call: what
cannot be handed on is lost, said in the log without a word of it, and changes nothing for the caller.
"""

import asyncio
import logging
from typing import Protocol
from uuid import UUID

from redis import RedisError

from codexflow.lib.http import Header
from codexflow.lib.redis import async_client
from logs.content.codec import MAX_BYTES, Content, encode, pack
from logs.content.store import FIELD, MAX_WAITING, name_of

logger = logging.getLogger(__name__)

# On their way at once, in this process: more are lost, because memory and Redis belong to the calls.
MAX_UNDERWAY = 32
REDIS_TIMEOUT_S = 2.0


class Copy:
    """What is kept of one call: the beginning of its body, and of the answer as it went out."""

    __slots__ = ("_room_bytes", "answer", "is_answer_cut", "is_request_cut", "request")

    def __init__(self, body: bytes) -> None:
        self.request = body[:MAX_BYTES]
        self.is_request_cut = len(body) > MAX_BYTES
        self.answer: list[bytes] = []
        self.is_answer_cut = False
        self._room_bytes = MAX_BYTES

    def add(self, chunk: bytes) -> None:
        """A piece of the answer went out."""
        if len(chunk) > self._room_bytes:
            chunk, self.is_answer_cut = chunk[: self._room_bytes], True
        if chunk:
            self.answer.append(chunk)
            self._room_bytes -= len(chunk)


class Outgoing(Protocol):
    """The half of `Incoming` that an answer goes out by."""

    @property
    def is_gone(self) -> bool: ...
    async def start(self, status: int, headers: list[Header]) -> None: ...
    async def send(self, chunk: bytes, *, is_last: bool = False) -> None: ...
    def send_at_once(self, chunk: bytes) -> bool: ...
    async def respond(self, status: int, headers: list[Header], body: bytes) -> None: ...


class Copying:
    """An `Outgoing` whose answer is copied."""

    __slots__ = ("_copy", "_out")

    def __init__(self, out: Outgoing, copy: Copy) -> None:
        self._out = out
        self._copy = copy

    @property
    def is_gone(self) -> bool:
        return self._out.is_gone

    async def start(self, status: int, headers: list[Header]) -> None:
        await self._out.start(status, headers)

    async def send(self, chunk: bytes, *, is_last: bool = False) -> None:
        self._copy.add(chunk)
        await self._out.send(chunk, is_last=is_last)

    def send_at_once(self, chunk: bytes) -> bool:
        is_sent = self._out.send_at_once(chunk)
        if is_sent:
            self._copy.add(chunk)
        return is_sent

    async def respond(self, status: int, headers: list[Header], body: bytes) -> None:
        self._copy.add(body)
        await self._out.respond(status, headers, body)


class Keeper:
    """Hands copies on to the worker, by a connection of its own. One a process."""

    def __init__(self, redis_url: str, prefix: str) -> None:
        self._redis = async_client(redis_url)
        self._stream = name_of(prefix)
        self._underway: set[asyncio.Task[None]] = set()
        self.lost = 0

    def hand_on(self, request_id: UUID, organization_id: UUID, copy: Copy) -> None:
        """Take the copy of a call that is over. Returns at once."""
        if len(self._underway) >= MAX_UNDERWAY:
            self._lose(request_id, "busy")
            return
        task = asyncio.get_running_loop().create_task(self._hand_on(request_id, organization_id, copy))
        self._underway.add(task)
        task.add_done_callback(self._underway.discard)

    async def close(self) -> None:
        """Give what is underway a moment."""
        if self._underway:
            await asyncio.wait(self._underway, timeout=REDIS_TIMEOUT_S)
        await self._redis.aclose()

    async def _hand_on(self, request_id: UUID, organization_id: UUID, copy: Copy) -> None:
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                payload = await asyncio.to_thread(_packed, request_id, organization_id, copy)
                await self._redis.xadd(self._stream, {FIELD: payload}, maxlen=MAX_WAITING, approximate=True)
        except (RedisError, OSError, TimeoutError) as exc:
            self._lose(request_id, type(exc).__name__)

    def _lose(self, request_id: UUID, reason: str) -> None:
        self.lost += 1
        logger.warning(
            "content.not_handed_on", extra={"request_id": str(request_id), "reason": reason, "lost": self.lost}
        )


def _packed(request_id: UUID, organization_id: UUID, copy: Copy) -> bytes:
    return encode(
        Content(
            request_id,
            organization_id,
            pack(copy.request, is_cut=copy.is_request_cut),
            pack(b"".join(copy.answer), is_cut=copy.is_answer_cut),
        )
    )
