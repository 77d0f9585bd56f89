"""Answer of a planned request to its caller: a chat stream with signs of life, or one JSON body."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from billing.pricing import Usage
from codexflow.lib.asgi import Header
from codexflow.lib.clock import monotonic_s
from codexflow.lib.errors import AppError
from logs.pipeline.events import sum_of
from routing.call import Call
from routing.content_capture import Response
from routing.errors import ClientDisconnected
from routing.relay import SSE_HEADERS
from routing.surfaces import sse
from routing.surfaces.table import CHAT

Headers = Callable[[], list[Header]]
_encode = msgspec.json.encode


class Writer(Protocol):
    """Receiver of the text of an answer."""

    async def text(self, text: str) -> None:
        """Take a piece of the answer."""

    def forget(self) -> bool:
        """Begin the answer anew. Returns False when the caller has seen some of it."""

    async def end(self, finish_reason: str, model: str, facts: dict[str, Any]) -> None:
        """Settle the call, then end the answer."""

    async def break_off(self, error: AppError) -> bool:
        """Settle the call and end what has begun with an error. Returns False when nothing has been sent yet."""

    async def close(self) -> None:
        """Stop what runs beside the answer, however it ended."""


def usage_of(call: Call) -> dict[str, Any]:
    """Usage of all calls of a planned request, in chat's form."""
    usage: Usage = sum_of([each.part for each in call.attempts if each.part is not None])[0]
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


class BodyWriter:
    """Collects the answer, and sends it whole."""

    def __init__(self, response: Response, call: Call, headers: Headers) -> None:
        self._response = response
        self._call = call
        self._headers = headers
        self._pieces: list[str] = []

    async def text(self, text: str) -> None:
        self._pieces.append(text)

    def forget(self) -> bool:
        self._pieces.clear()
        return True

    async def end(self, finish_reason: str, model: str, facts: dict[str, Any]) -> None:
        await self._call.finish(status=200)
        message = {"role": "assistant", "content": "".join(self._pieces), "refusal": None}
        answer = {
            "id": f"{CHAT.response_format.id_prefix}{self._call.request_id.hex}",
            "object": "chat.completion",
            "created": self._call.intent.started_ms // 1000,
            "model": model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}],
            "usage": usage_of(self._call),
            "cfx_planner": facts,
        }
        await self._response.respond(200, [(b"content-type", b"application/json"), *self._headers()], _encode(answer))

    async def break_off(self, error: AppError) -> bool:
        return False

    async def close(self) -> None:
        return


class StreamWriter:
    """Streams the answer. Clients that see nothing for long give up, so an empty delta is sent in silence."""

    def __init__(self, response: Response, call: Call, headers: Headers, *, wants_usage: bool, ping_s: float) -> None:
        self._response = response
        self._call = call
        self._headers = headers
        self._wants_usage = wants_usage
        self._ping_s = ping_s
        self._model = call.intent.model
        self._is_started = False
        self._has_text = False
        self._sent_s = monotonic_s()
        self._sending = asyncio.Lock()
        self._pinging = asyncio.get_running_loop().create_task(self._ping())

    async def text(self, text: str) -> None:
        if text:
            self._has_text = True
            await self._send(
                self._chunk({"content": text} if self._is_started else {"role": "assistant", "content": text})
            )

    def forget(self) -> bool:
        return not self._has_text

    async def end(self, finish_reason: str, model: str, facts: dict[str, Any]) -> None:
        await self._stop_pinging()
        await self._call.finish(status=200)
        last = self._chunk({}, finish_reason, cfx_planner=facts)
        if self._wants_usage:
            last += self._chunk(None, usage=usage_of(self._call))
        await self._send(last + sse.DONE, is_last=True)

    async def break_off(self, error: AppError) -> bool:
        await self._stop_pinging()
        if not self._is_started:
            return False
        is_gone = isinstance(error, ClientDisconnected)
        await self._call.finish(status=int(error.status), error=error, is_disconnected=is_gone)
        if not is_gone:
            await self._send(CHAT.response_format.error_event(error), is_last=True)
        return True

    async def close(self) -> None:
        await self._stop_pinging()

    async def _stop_pinging(self) -> None:
        self._pinging.cancel()
        await asyncio.gather(self._pinging, return_exceptions=True)

    async def _ping(self) -> None:
        while not self._response.is_gone:
            await asyncio.sleep(max(0.01, self._sent_s + self._ping_s - monotonic_s()))
            if self._sent_s + self._ping_s <= monotonic_s():
                await self._send(self._chunk({}))

    async def _send(self, chunk: bytes, *, is_last: bool = False) -> None:
        async with self._sending:
            if not self._is_started:
                self._is_started = True
                await self._response.start(200, [*SSE_HEADERS, *self._headers()])
            await self._response.send(chunk, is_last=is_last)
            self._sent_s = monotonic_s()

    def _chunk(self, delta: dict[str, str] | None, finish_reason: str | None = None, **more: Any) -> bytes:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
        chunk = {
            "id": f"{CHAT.response_format.id_prefix}{self._call.request_id.hex}",
            "object": "chat.completion.chunk",
            "created": self._call.intent.started_ms // 1000,
            "model": self._model,
            "choices": choices,
            **more,
        }
        return b"data: " + _encode(chunk) + b"\n\n"
