"""Record of the requests that the demo upstream received: the other side of every reconciliation in a test."""

import asyncio
from collections import deque
from typing import Any

import msgspec

from codexflow.lib import clock


class Entry(msgspec.Struct):
    """One request. `outcome`: open, finished, broken (by a fault), aborted (by the caller)."""

    seq: int
    at_s: float
    method: str
    path: str
    call_id: str | None
    header_names: list[str]
    litellm_headers: dict[str, str]  # the values of x-litellm-*
    anthropic_headers: dict[str, str]  # the values of anthropic-*
    body_keys: list[str] = []
    model: str | None = None
    stream: bool = False
    selected: dict[str, Any] = {}  # max_tokens, temperature, stream_options and the like, as sent
    body: str | None = None  # only with --record-bodies
    faults: list[str] = []
    status: int | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0  # written to the socket, regardless of the reported usage
    characters: int = 0  # of the text, written to the socket
    reported: tuple[int, int] | None = None  # input and output as the response tells them; None: it tells none
    chunks: int = 0  # data events written to the socket, without [DONE] or message_stop
    outcome: str = "open"
    duration_ms: float | None = None


class Ledger:
    """The newest `limit` entries, and the callers that wait for one."""

    def __init__(self, limit: int = 100_000) -> None:
        self.entries: deque[Entry] = deque(maxlen=limit)
        self.last_seq = 0
        self.open = 0
        self._changed: asyncio.Event | None = None

    def begin(self, *, method: str, path: str, headers: dict[str, str]) -> Entry:
        # Questions about the demo upstream itself are no traffic.
        is_kept = not path.startswith(("/demo/ledger", "/demo/faults"))
        self.last_seq += is_kept
        entry = Entry(
            seq=self.last_seq,
            at_s=clock.now_s(),
            method=method,
            path=path,
            call_id=headers.get("x-litellm-call-id"),
            header_names=list(headers),
            litellm_headers={name: value for name, value in headers.items() if name.startswith("x-litellm-")},
            anthropic_headers={name: value for name, value in headers.items() if name.startswith("anthropic-")},
        )
        if is_kept:
            self.entries.append(entry)
            self.open += 1
        else:
            entry.outcome = "finished"
        return entry

    def finish(self, entry: Entry, outcome: str) -> None:
        """Record the first outcome only: closing a connection after its response is not an abort."""
        if entry.outcome != "open":
            return
        entry.outcome = outcome
        entry.duration_ms = (clock.now_s() - entry.at_s) * 1000
        self.open -= 1
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def select(self, *, since: int = 0, call_id: str | None = None, model: str | None = None) -> list[Entry]:
        return [
            entry
            for entry in self.entries
            if entry.seq > since
            and (call_id is None or entry.call_id == call_id)
            and (model is None or entry.model == model)
        ]

    async def wait(
        self,
        *,
        count: int,
        timeout_s: float,
        since: int = 0,
        call_id: str | None = None,
        model: str | None = None,
    ) -> list[Entry]:
        """Wait until `count` entries have ended or the time is up, then `select`."""
        deadline_s = clock.monotonic_s() + timeout_s
        while True:
            found = self.select(since=since, call_id=call_id, model=model)
            left_s = deadline_s - clock.monotonic_s()
            if sum(entry.outcome != "open" for entry in found) >= count or left_s <= 0:
                return found
            self._changed = self._changed or asyncio.Event()
            try:
                await asyncio.wait_for(self._changed.wait(), left_s)
            except TimeoutError:
                continue

    def clear(self) -> None:
        self.entries.clear()
