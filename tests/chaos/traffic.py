"""Load generator: callers of every manner at a steady rate, with a log of what each of them saw."""

import asyncio
import itertools
import json
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID

from codexflow.lib.clock import monotonic_s
from tests.chaos.manners import MANNERS, Approach, request

RESPONSE_WITHIN_S = 30.0
MAX_OPEN = 300
DONE = b"data: [DONE]"
# A caller who rotates its key does so after one in so many calls, and then tries to make another key.
ROTATES_ONE_IN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits of a key or an organization, as its owner set them. None: none."""

    daily_requests: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    streams: int | None = None
    credit_nanos: int | None = None
    day_nanos: int | None = None
    month_nanos: int | None = None

    @property
    def has_budget(self) -> bool:
        return (self.credit_nanos, self.day_nanos, self.month_nanos) != (None, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A key, with its limits and its share of the traffic. `key_id` is the first of its lineage."""

    name: str
    secret: str = field(repr=False)
    key_id: UUID
    organization_id: UUID
    margin_bp: int
    share: int
    bounds: Bounds = Bounds()
    organization_bounds: Bounds = Bounds()
    manner: str = "polite"
    rotates: bool = False


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
    has_wrong_key: bool = False
    code: str = ""  # of an error
    characters: int = 0  # of the text that was read
    body: bytearray = field(default_factory=bytearray, repr=False)


class Traffic:
    """Sends `rate` requests a second until stopped, whether or not they succeed."""

    def __init__(self, ports: Sequence[int], callers: list[Caller], *, rate: float, seed: int) -> None:
        self._ports = itertools.cycle(ports)  # the calls take turns
        self._callers = callers
        self._rate = rate
        self._draw = Random(seed)  # noqa: S311 - a repeatable mix
        self._stop = threading.Event()
        self.is_held = False  # sends nothing meanwhile
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        # The newest key of each lineage, by its first.
        self._newest = {each.key_id: (each.key_id, each.secret) for each in callers}
        self.seen: list[Seen] = []
        self.first_of: dict[UUID, UUID] = {}  # successor -> first key of its lineage
        self.keys_made_by_keys: list[UUID] = []
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
            if self.is_held or len(calls) >= MAX_OPEN:
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
        _, secret = self._newest[caller.key_id]
        approach = MANNERS[caller.manner](draw, number, secret)
        seen = Seen(caller, approach.is_stream, has_wrong_key=approach.has_wrong_key)
        self.seen.append(seen)
        rotates = caller.rotates and draw.randrange(ROTATES_ONE_IN) == 0
        try:
            async with asyncio.timeout(RESPONSE_WITHIN_S):
                await self._exchange(approach, seen)
                if rotates:
                    await self._change_keys(caller)
        except (OSError, EOFError, TimeoutError, ValueError):
            pass  # `seen` has what arrived until then
        finally:
            _set_outcome(seen)
            seen.body.clear()

    async def _exchange(self, approach: Approach, seen: Seen) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", next(self._ports))
        try:
            for piece in approach.pieces:
                await asyncio.sleep(piece.after_s)
                writer.write(piece.raw)
            if approach.reads_pieces == 0:
                seen.left_early = True
                return
            seen.status, headers = _parsed(await reader.readuntil(b"\r\n\r\n"))
            if (name := headers.get("x-cfx-request-id")) is not None:
                seen.request_id = UUID(name)
            pieces = 0
            while piece_read := await reader.read(65536):
                seen.body += piece_read
                pieces += 1
                if pieces == approach.reads_pieces:
                    seen.left_early = True
                    break
            seen.is_complete = (
                DONE in seen.body
                if seen.is_stream and seen.status == 200
                else len(seen.body) == int(headers.get("content-length", "-1"))
            )
        finally:
            writer.transport.abort()

    async def _change_keys(self, caller: Caller) -> None:
        """Rotate the key with itself, and try to make another one, which a limited key may not."""
        key_id, secret = self._newest[caller.key_id]
        issued = await self._post(f"/api/v1/keys/{key_id}/rotate", secret, {"overlap_s": 0})
        if issued is None:
            return
        self._newest[caller.key_id] = UUID(issued["id"]), issued["key"]
        self.first_of[UUID(issued["id"])] = caller.key_id
        made = await self._post("/api/v1/keys", issued["key"], {"name": "another"})
        if made is not None:
            self.keys_made_by_keys.append(UUID(made["id"]))

    async def _post(self, path: str, secret: str, value: dict[str, Any]) -> dict[str, Any] | None:
        """The response to a management call that created something, else None."""
        reader, writer = await asyncio.open_connection("127.0.0.1", next(self._ports))
        try:
            writer.write(request(secret, json.dumps(value).encode(), path=path))
            status, _ = _parsed(await reader.readuntil(b"\r\n\r\n"))
            created: dict[str, Any] | None = json.loads(await reader.read()) if status == 201 else None
            return created
        finally:
            writer.transport.abort()


def _parsed(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
    return int(first.split()[1]), headers


def _set_outcome(seen: Seen) -> None:
    """Set usage, code and text from the response read so far."""
    if seen.is_stream and seen.status == 200:
        # The last one may be cut.
        for line in seen.body.split(b"\n")[:-1]:
            if line.startswith(b"data: {"):
                _read_event(seen, bytes(line[6:]))
    elif seen.is_complete:
        response = _json(bytes(seen.body))
        if seen.status == 200 and response.get("usage"):
            seen.usage = _usage(response["usage"])
        elif isinstance(error := response.get("error"), dict):
            seen.code = str(error.get("code"))


def _read_event(seen: Seen, raw: bytes) -> None:
    event = _json(raw)
    if event.get("usage"):
        seen.usage = _usage(event["usage"])
    if isinstance(error := event.get("error"), dict):
        seen.code = str(error.get("code"))
    for choice in event.get("choices") or ():
        seen.characters += len((choice.get("delta") or {}).get("content") or "")


def _json(raw: bytes) -> dict[str, Any]:
    """The object, or an empty one where a provider has sent something else."""
    try:
        value = json.loads(raw)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _usage(usage: dict[str, int]) -> tuple[int, int]:
    return usage["prompt_tokens"], usage["completion_tokens"]
