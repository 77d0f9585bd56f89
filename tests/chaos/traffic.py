"""Load generator: a steady mix of streamed and whole responses, with a log of what each caller saw."""

import asyncio
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

from codexflow.lib.clock import monotonic_s

MODELS = ("gpt-6-luna", "deepseek-v4.1-flash", "claude-haiku-5.5", "cfx-code", "cfx-auto")
RESPONSE_WITHIN_S = 30.0
MAX_OPEN = 300
DONE = b"data: [DONE]"


@dataclass(frozen=True, slots=True)
class Caller:
    """A key, with its limits and its share of the traffic."""

    name: str
    secret: str = field(repr=False)
    key_id: UUID
    organization_id: UUID
    margin_bp: int
    share: int
    daily_requests: int | None
    has_budget: bool = False


@dataclass(slots=True)
class Seen:
    """One request as its caller saw it. `status` 0: no response began. Complete: [DONE], or the whole JSON body."""

    caller: Caller
    is_stream: bool
    status: int = 0
    request_id: UUID | None = None
    is_complete: bool = False
    usage: tuple[int, int] | None = None
    left_early: bool = False
    body: bytearray = field(default_factory=bytearray, repr=False)


class Traffic:
    """Sends `rate` requests a second until stopped, whether or not they succeed."""

    def __init__(self, port: int, callers: list[Caller], *, rate: float, seed: int) -> None:
        self._port = port
        self._callers = callers
        self._rate = rate
        self._draw = Random(seed)  # noqa: S311 - a repeatable mix
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.seen: list[Seen] = []
        self.skipped = 0
        self.seconds = 0.0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send no new requests; returns when those in flight have ended, each within its deadline."""
        self._stop.set()
        self._thread.join(RESPONSE_WITHIN_S + 10)

    def statuses(self) -> dict[str, int]:
        """Number of requests by status; "cut" marks incomplete responses."""
        return dict(Counter(f"{each.status}{'' if each.is_complete else ' cut'}" for each in self.seen).most_common())

    async def _run(self) -> None:
        started_s = monotonic_s()
        calls: set[asyncio.Task[None]] = set()
        number = 0
        while not self._stop.is_set():
            number += 1
            await asyncio.sleep(max(0.0, started_s + number / self._rate - monotonic_s()))
            if len(calls) >= MAX_OPEN:
                self.skipped += 1
                continue
            task = asyncio.create_task(self._call(number))
            calls.add(task)
            task.add_done_callback(calls.discard)
        self.seconds = monotonic_s() - started_s
        if calls:
            await asyncio.wait(calls)

    async def _call(self, number: int) -> None:
        draw = self._draw
        caller = draw.choices(self._callers, weights=[each.share for each in self._callers])[0]
        seen = Seen(caller, is_stream=draw.random() < 0.5)
        self.seen.append(seen)
        leaves_after = draw.randint(1, 5) if draw.random() < 0.03 else 0
        request = self._request(number, seen)
        try:
            async with asyncio.timeout(RESPONSE_WITHIN_S):
                await self._exchange(request, seen, leaves_after)
        except (OSError, EOFError, TimeoutError, ValueError):
            pass  # `seen` has what arrived until then
        finally:
            seen.body.clear()

    def _request(self, number: int, seen: Seen) -> bytes:
        draw = self._draw
        words = f"[[fault:chunks n={draw.randint(3, 40)} gap_ms={draw.choice((0, 10, 40))}]]"
        if not seen.is_stream:
            words += f"[[fault:slow first_ms={draw.choice((0, 0, 30, 300))}]]"
        if draw.random() < 0.01:
            words += "[[fault:models=deepseek-v4.1-flash 503]]"
        body: dict[str, object] = {
            "model": draw.choice(MODELS),
            "messages": [{"role": "user", "content": f"Chaos, request {number}. {words}"}],
            "max_tokens": 64,
            "stream": seen.is_stream,
        }
        if seen.is_stream and draw.random() < 0.5:
            body["stream_options"] = {"include_usage": True}
        text = json.dumps(body).encode()
        return (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Authorization: Bearer {seen.caller.secret}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(text)}\r\n\r\n"
        ).encode() + text

    async def _exchange(self, request: bytes, seen: Seen, leaves_after: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            status, headers = _parsed(head)
            seen.status = status
            seen.request_id = UUID(headers["x-cfx-request-id"])
            pieces = 0
            while piece := await reader.read(65536):
                seen.body += piece
                pieces += 1
                if leaves_after and pieces >= leaves_after and seen.is_stream:
                    seen.left_early = True
                    break
            _set_outcome(seen, headers)
        finally:
            writer.transport.abort()


def _parsed(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
    return int(first.split()[1]), headers


def _set_outcome(seen: Seen, headers: dict[str, str]) -> None:
    """Set completeness and usage from the response read so far."""
    if seen.is_stream and seen.status == 200:
        seen.is_complete = DONE in seen.body
        for line in seen.body.split(b"\n"):
            if line.startswith(b"data: {") and b'"usage":' in line:
                seen.usage = _usage(json.loads(line[6:]))
        return
    seen.is_complete = len(seen.body) == int(headers["content-length"])
    if seen.status == 200 and seen.is_complete:
        seen.usage = _usage(json.loads(seen.body))


def _usage(response: dict[str, dict[str, int]]) -> tuple[int, int]:
    return response["usage"]["prompt_tokens"], response["usage"]["completion_tokens"]
