"""Reads by key from the event loop, several by one statement.

What is asked for while others are being read waits and is read together: after a restart every key of an installation
is unknown at once, and a statement for each of them would take a minute.
"""

import asyncio
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from codexflow.lib import db
from codexflow.lib.db import DatabaseTimeout, look_up

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MOST_KEYS = 200
# More at once would only compete for the interpreter.
MOST_READS = 2


@dataclass(slots=True)
class _Wanted(Generic[V]):
    found: "asyncio.Future[V | None]"
    callers: int = 0


class Batched(Generic[K, V]):
    """Reads with `read`, which is given keys and returns what there is of them. Belongs to one event loop."""

    def __init__(self, read: Callable[[list[K]], Mapping[K, V]]) -> None:
        self._read = read
        self._waiting: dict[K, _Wanted[V]] = {}
        self._reads: set[asyncio.Task[None]] = set()
        self._is_due = False

    async def get(self, key: K) -> V | None:
        """Return the value of a key, read by a statement that begins after this call; None if there is none.

        Raises what `read` raises, and DatabaseTimeout after LOOKUP_TIMEOUT_S. A key for which nobody waits any more is
        not read.
        """
        wanted = self._waiting.get(key)
        if wanted is None:
            wanted = self._waiting[key] = _Wanted(asyncio.get_running_loop().create_future())
            wanted.found.add_done_callback(_retrieve)
            self._begin_soon()
        wanted.callers += 1
        try:
            return await asyncio.wait_for(asyncio.shield(wanted.found), db.LOOKUP_TIMEOUT_S)
        except TimeoutError:
            raise DatabaseTimeout("no response in time") from None
        finally:
            wanted.callers -= 1
            if not wanted.callers and self._waiting.get(key) is wanted:
                del self._waiting[key]

    def _begin_soon(self) -> None:
        """Begin at the end of the loop's iteration: calls that came together are read together."""
        if not self._is_due and len(self._reads) < MOST_READS:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._is_due = False
        if not self._waiting or len(self._reads) >= MOST_READS:
            return
        taken = {key: self._waiting.pop(key) for key in list(self._waiting)[:MOST_KEYS]}
        task = asyncio.get_running_loop().create_task(self._run(taken))
        self._reads.add(task)
        task.add_done_callback(self._ended)
        if self._waiting:
            self._begin_soon()

    async def _run(self, taken: dict[K, _Wanted[V]]) -> None:
        try:
            found = await look_up(self._read, list(taken))
        except Exception as exc:  # noqa: BLE001 - each caller gets it
            for wanted in taken.values():
                wanted.found.set_exception(exc)
            return
        for key, wanted in taken.items():
            wanted.found.set_result(found.get(key))

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._reads.discard(task)
        if self._waiting and not task.cancelled():
            self._begin_soon()


def _retrieve(found: "asyncio.Future[V | None]") -> None:
    """Take the error, for which nobody may be waiting any more."""
    if not found.cancelled():
        found.exception()
