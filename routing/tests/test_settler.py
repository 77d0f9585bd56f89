"""Settlement of finished calls: the journal first, then the limiter."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis import ResponseError

from codexflow.lib.redis import RedisUnavailable
from logs.pipeline.events import UsageEvent, decode
from logs.pipeline.journal import Journal, read_segment
from routing import settler as settler_module
from routing.settler import Settler
from routing.tests.test_tracker import a_principal, an_intent


class RecordingLimiter:
    """A limiter that records what the journal held when it was called."""

    def __init__(self, folder: Path, error: Exception | None = None) -> None:
        self._folder = folder
        self.error = error
        self.journaled: list[UsageEvent] | None = None
        self.local = 0

    async def settle(self, *_arguments: object) -> bool:
        self.journaled = events_in(self._folder)
        if self.error is not None:
            raise self.error
        return True

    def settle_locally(self, *_arguments: object) -> None:
        self.local += 1


def no_space(*_arguments: object) -> None:
    raise OSError(28, "No space left on device")


def events_in(folder: Path) -> list[UsageEvent]:
    (segment,) = folder.glob("*.open")
    return [decode(payload) for payload in read_segment(segment)]


def a_settler(folder: Path, limiter: Any) -> Settler:
    return Settler(Journal(folder, segment_s=60), limiter)


@pytest.mark.parametrize("error", [None, RedisUnavailable(), ResponseError("READONLY")])
async def test_the_event_is_in_the_journal_before_it_is_settled(tmp_path: Path, error: Exception | None) -> None:
    limiter, principal = RecordingLimiter(tmp_path, error), a_principal(0)
    event = msgspec.structs.replace(an_intent(principal), status=200)
    await a_settler(tmp_path, limiter).settle(principal, event)
    assert limiter.journaled == [event]


@pytest.mark.parametrize("is_degraded", [False, True])
async def test_only_calls_admitted_locally_are_settled_locally(tmp_path: Path, is_degraded: bool) -> None:
    limiter, principal = RecordingLimiter(tmp_path), a_principal(0)
    event = msgspec.structs.replace(an_intent(principal), status=200, is_degraded=is_degraded)
    await a_settler(tmp_path, limiter).settle(principal, event)
    assert limiter.local == is_degraded


async def test_a_full_disk_leaves_the_event_to_redis(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal, "append", no_space)
    limiter, principal = RecordingLimiter(tmp_path), a_principal(0)
    await a_settler(tmp_path, limiter).settle(principal, an_intent(principal))
    assert limiter.journaled == []
    assert [each.message for each in caplog.records] == ["journal.append_failed"]


async def test_the_journal_is_failing_until_it_takes_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    principal, settler = a_principal(0), a_settler(tmp_path, RecordingLimiter(tmp_path))
    assert not settler.is_journal_failing
    with monkeypatch.context() as full:
        full.setattr(Journal, "append", no_space)
        await settler.settle(principal, an_intent(principal))
    assert settler.is_journal_failing
    await settler.settle(principal, an_intent(principal))
    assert not settler.is_journal_failing


@pytest.mark.parametrize("returns", ["disk", "Redis"])
async def test_an_event_that_nothing_takes_is_kept_until_something_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, returns: str
) -> None:
    monkeypatch.setattr(settler_module, "RETRY_S", 0)
    limiter, principal = RecordingLimiter(tmp_path, RedisUnavailable()), a_principal(0)
    settler, append = a_settler(tmp_path, limiter), Journal.append
    monkeypatch.setattr(Journal, "append", no_space)
    event = msgspec.structs.replace(an_intent(principal), status=200)
    await settler.settle(principal, event)
    retrying = asyncio.create_task(settler.retry_kept())
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(settler._kept) == 1
    if returns == "disk":
        monkeypatch.setattr(Journal, "append", append)
    else:
        limiter.error = None
    while settler._kept:  # noqa: ASYNC110 - of another task
        await asyncio.sleep(0)
    assert events_in(tmp_path) == ([event] if returns == "disk" else [])
    retrying.cancel()


def test_an_intent_that_was_not_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settler, intent = a_settler(tmp_path, RecordingLimiter(tmp_path)), an_intent(a_principal(0))
    assert settler.record_intent(intent)
    monkeypatch.setattr(Journal, "append", no_space)
    assert not settler.record_intent(intent)
