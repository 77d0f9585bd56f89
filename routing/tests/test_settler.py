"""Settlement of finished calls: the journal first, then the limiter."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis import ResponseError

from codexflow.lib.redis import RedisUnavailable
from logs.pipeline.events import UsageEvent, decode
from logs.pipeline.journal import Journal, read_segment
from routing.settler import Settler
from routing.tests.test_tracker import a_principal, an_intent


class RecordingLimiter:
    """A limiter that records what the journal held when it was called."""

    def __init__(self, folder: Path, error: Exception | None = None) -> None:
        self._folder = folder
        self._error = error
        self.journaled: list[UsageEvent] | None = None
        self.local = 0

    async def settle(self, *_arguments: object) -> bool:
        self.journaled = events_in(self._folder)
        if self._error is not None:
            raise self._error
        return True

    def settle_locally(self, *_arguments: object) -> None:
        self.local += 1


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
    def no_space(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "append", no_space)
    limiter, principal = RecordingLimiter(tmp_path), a_principal(0)
    await a_settler(tmp_path, limiter).settle(principal, an_intent(principal))
    assert limiter.journaled == []
    assert [each.message for each in caplog.records] == ["journal.append_failed"]
