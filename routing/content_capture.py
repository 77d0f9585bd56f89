"""Content capture: copy prompt and response of a call as they pass, publish them to the worker when it is over.

Only for organizations that have it switched on; every other call costs two tests. Publishing is best effort, beside the
call: content that cannot be published is lost, logged without any of its text, and changes nothing for the caller.
"""

import asyncio
import logging
from typing import Protocol
from uuid import UUID

from redis import RedisError

from codexflow.lib.asgi import Header
from codexflow.lib.redis import async_client
from logs.content.codec import MAX_BYTES, Content, encode, pack
from logs.content.store import FIELD, MAX_WAITING, name_of

logger = logging.getLogger(__name__)

# Publications at once in this process: more are lost, because memory and Redis belong to the calls.
MAX_PUBLISHING = 32
REDIS_TIMEOUT_S = 2.0


class CapturedContent:
    """Beginning of a call's request body, and of its response as it was sent."""

    __slots__ = ("_left_bytes", "is_request_cut", "is_response_cut", "request", "response")

    def __init__(self, body: bytes) -> None:
        self.request = body[:MAX_BYTES]
        self.is_request_cut = len(body) > MAX_BYTES
        self.response: list[bytes] = []
        self.is_response_cut = False
        self._left_bytes = MAX_BYTES

    def add(self, chunk: bytes) -> None:
        """Append a piece of the response."""
        if len(chunk) > self._left_bytes:
            chunk, self.is_response_cut = chunk[: self._left_bytes], True
        if chunk:
            self.response.append(chunk)
            self._left_bytes -= len(chunk)


class Response(Protocol):
    """The half of `Incoming` that sends the response."""

    @property
    def is_gone(self) -> bool: ...
    async def start(self, status: int, headers: list[Header]) -> None: ...
    async def send(self, chunk: bytes, *, is_last: bool = False) -> None: ...
    def send_at_once(self, chunk: bytes) -> bool: ...
    async def respond(self, status: int, headers: list[Header], body: bytes) -> None: ...


class CapturingResponse:
    """A `Response` that copies what it sends into `content`."""

    __slots__ = ("_response", "content")

    def __init__(self, response: Response, body: bytes) -> None:
        self._response = response
        self.content = CapturedContent(body)

    @property
    def is_gone(self) -> bool:
        return self._response.is_gone

    async def start(self, status: int, headers: list[Header]) -> None:
        await self._response.start(status, headers)

    async def send(self, chunk: bytes, *, is_last: bool = False) -> None:
        self.content.add(chunk)
        await self._response.send(chunk, is_last=is_last)

    def send_at_once(self, chunk: bytes) -> bool:
        is_sent = self._response.send_at_once(chunk)
        if is_sent:
            self.content.add(chunk)
        return is_sent

    async def respond(self, status: int, headers: list[Header], body: bytes) -> None:
        self.content.add(body)
        await self._response.respond(status, headers, body)


class ContentPublisher:
    """Publishes captured content to the worker, on a connection of its own. One instance per process."""

    def __init__(self, redis_url: str, prefix: str) -> None:
        self._redis = async_client(redis_url)
        self._stream = name_of(prefix)
        self._publishing: set[asyncio.Task[None]] = set()
        self.lost = 0

    def publish(self, request_id: UUID, organization_id: UUID, content: CapturedContent) -> None:
        """Publish the content of a finished call in the background. Returns at once."""
        if len(self._publishing) >= MAX_PUBLISHING:
            self._lose(request_id, "busy")
            return
        task = asyncio.get_running_loop().create_task(self._publish(request_id, organization_id, content))
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)

    async def close(self) -> None:
        """Wait briefly for publications in progress."""
        if self._publishing:
            await asyncio.wait(self._publishing, timeout=REDIS_TIMEOUT_S)
        await self._redis.aclose()

    async def _publish(self, request_id: UUID, organization_id: UUID, content: CapturedContent) -> None:
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                payload = await asyncio.to_thread(_packed, request_id, organization_id, content)
                await self._redis.xadd(self._stream, {FIELD: payload}, maxlen=MAX_WAITING, approximate=True)
        except (RedisError, OSError, TimeoutError) as exc:
            self._lose(request_id, type(exc).__name__)

    def _lose(self, request_id: UUID, reason: str) -> None:
        self.lost += 1
        logger.warning(
            "content.not_published", extra={"request_id": str(request_id), "reason": reason, "lost": self.lost}
        )


def _packed(request_id: UUID, organization_id: UUID, content: CapturedContent) -> bytes:
    return encode(
        Content(
            request_id,
            organization_id,
            pack(content.request, is_cut=content.is_request_cut),
            pack(b"".join(content.response), is_cut=content.is_response_cut),
        )
    )
