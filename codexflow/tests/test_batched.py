"""Keys that are asked for at once are read together; each caller gets its own, and nobody waits for too long."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from django.db import OperationalError
from hypothesis import given
from hypothesis import strategies as st

from codexflow.lib import batched, db
from codexflow.lib.batched import Batched
from codexflow.lib.db import DatabaseTimeout


class Table:
    """Numbers and their squares, those below 100; notes which were read together."""

    def __init__(self) -> None:
        self.reads: list[list[int]] = []
        self.has_begun = threading.Event()
        self.resumed = threading.Event()
        self.resumed.set()
        self.error: Exception | None = None

    def read(self, keys: list[int]) -> dict[int, int]:
        self.reads.append(keys)
        self.has_begun.set()
        self.resumed.wait()
        if self.error is not None:
            raise self.error
        return {key: key * key for key in keys if key < 100}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[Table]:
    monkeypatch.setattr(db, "close_old_connections", lambda: None)
    made = Table()
    yield made
    made.resumed.set()


async def test_what_is_asked_for_at_once_is_read_by_one_statement(table: Table) -> None:
    of = Batched(table.read)
    wanted = [3, 5, 300, 3]
    assert await asyncio.gather(*map(of.get, wanted)) == [9, 25, None, 9]
    assert table.reads == [[3, 5, 300]]
    assert await of.get(3) == 9
    assert table.reads[1:] == [[3]]  # a read that has ended tells nothing about now


async def test_what_is_asked_for_meanwhile_is_read_afterwards_and_together(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batched, "MOST_READS", 1)
    of = Batched(table.read)
    table.resumed.clear()
    first = asyncio.create_task(of.get(1))
    await asyncio.to_thread(table.has_begun.wait)
    later = [asyncio.create_task(of.get(key)) for key in (1, 2, 3, 2)]
    await asyncio.sleep(0)
    table.resumed.set()
    assert await first == 1
    assert await asyncio.gather(*later) == [1, 4, 9, 4]
    assert table.reads == [[1], [1, 2, 3]]


async def test_an_error_reaches_every_caller_and_ends_with_its_read(table: Table) -> None:
    of = Batched(table.read)
    table.error = OperationalError("gone")
    found = await asyncio.gather(*map(of.get, (1, 2)), return_exceptions=True)
    assert [type(each) for each in found] == [OperationalError] * 2
    table.error = None
    assert await of.get(2) == 4


async def test_callers_of_a_database_that_hangs_leave_in_time_and_leave_nothing(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "LOOKUP_TIMEOUT_S", 0.05)
    of = Batched(table.read)
    table.resumed.clear()
    found = await asyncio.gather(*map(of.get, range(1_000)), return_exceptions=True)
    assert {type(each) for each in found} == {DatabaseTimeout}
    assert not of._waiting
    table.resumed.set()
    await asyncio.gather(*of._reads, return_exceptions=True)
    monkeypatch.setattr(db, "LOOKUP_TIMEOUT_S", 30)
    assert await of.get(4) == 16


@given(st.lists(st.lists(st.integers(0, 200), max_size=30), max_size=8), st.integers(1, 5), st.integers(1, 3))
def test_everybody_gets_their_own(waves: list[list[int]], most_keys: int, most_reads: int) -> None:
    reads: list[int] = []

    def read(keys: list[int]) -> dict[int, int]:
        reads.append(len(keys))
        return {key: -key for key in keys if key < 100}

    async def run() -> None:
        of = Batched(read)
        asked = []
        for wave in waves:
            asked += [(key, asyncio.create_task(of.get(key))) for key in wave]
            await asyncio.sleep(0)
        for key, task in asked:
            assert await task == (-key if key < 100 else None)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(db, "close_old_connections", lambda: None)
        patched.setattr(batched, "MOST_KEYS", most_keys)
        patched.setattr(batched, "MOST_READS", most_reads)
        asyncio.run(run())
    assert max(reads, default=0) <= most_keys
