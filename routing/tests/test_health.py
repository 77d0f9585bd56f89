"""Readiness follows what the settings promise while something is away."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
from django.conf import settings
from redis import ResponseError

from codexflow.lib import clock
from keys.selectors import SaltCounts
from routing import health as health_module
from routing.health import Health

UP = {"config": True, "database": True, "redis": True}


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set the monotonic clock."""

    def set_clock(now_s: float) -> None:
        monkeypatch.setattr(clock, "monotonic_s", lambda: now_s)

    set_clock(0)
    return set_clock


class Redis:
    """Connections of which those of some shards are up."""

    def __init__(self, shards: range) -> None:
        self._shards = shards

    def shards_up(self) -> range:
        return self._shards


def health(*, shards_up: range = range(0), **changes: Any) -> Health:
    parts: Any = [Redis(shards_up), *[None] * 5]
    return Health(replace(settings.ENV, **changes), *parts)


@pytest.mark.parametrize(("stale_s", "until_s"), [(900.0, 899), (60.0, 59), (0.0, -1)])
def test_without_the_database_a_process_is_ready_as_long_as_known_keys_work(
    at: Any, stale_s: float, until_s: float
) -> None:
    subject = health(key_cache_stale_s=stale_s)
    assert subject._can_admit(UP)
    for now_s in (1, 59, 61, 899, 901, 5000):
        at(now_s)
        assert subject._can_admit({**UP, "database": False}) is (now_s <= until_s), now_s
    assert subject._can_admit(UP)  # and is ready again


@pytest.mark.parametrize(("policy", "is_ready"), [("bounded", True), ("closed", False)])
def test_without_redis_a_process_is_ready_as_the_limiter_goes_on(at: Any, policy: str, is_ready: bool) -> None:
    assert health(limiter_fail=policy)._can_admit({**UP, "redis": False}) is is_ready


def test_without_a_part_of_a_cluster_a_process_stays_ready_for_the_others(at: Any) -> None:
    subject = health(limiter_fail="closed", shards_up=range(11))
    assert subject._can_admit({**UP, "redis": False})
    assert not health(limiter_fail="closed", shards_up=range(16))._can_admit({**UP, "redis": False})


@pytest.mark.parametrize("drained_s", [None, 0, 59])
def test_a_worker_that_has_not_stored_anything_yet_is_late_after_a_minute(at: Any, drained_s: int | None) -> None:
    subject = health()
    assert not subject._is_drain_late(drained_s)
    subject._undrained_s = 0.0
    for now_s in (30, 60, 61, 5000):
        at(now_s)
        assert subject._is_drain_late(drained_s) is (drained_s is None and now_s > 60), now_s
    assert subject._is_drain_late(61)


class Progress:
    """A Redis that knows when the last drain was, or not."""

    def __init__(self) -> None:
        self.found: bytes | None = None

    async def call(self, *_words: bytes) -> bytes | None:
        return self.found


async def test_redis_that_was_emptied_does_not_hide_a_worker_that_stands_still(at: Any) -> None:
    subject = health()
    progress = subject._redis = cast(Any, Progress())
    await subject._read_progress()
    at(40)
    await subject._read_progress()
    assert subject._undrained_s == 0, "the first look counts"
    progress.found = b"1"
    await subject._read_progress()
    assert subject._drained_ms == 1
    assert cast(Any, subject)._undrained_s is None


@pytest.mark.parametrize(
    ("counts", "is_foreign"),
    [
        (SaltCounts(0, 0, foreign=3), True),
        (SaltCounts(0, 0), False),  # there are no keys
        (SaltCounts(1, 0, foreign=3), False),  # old keys that nobody wants any more
        (SaltCounts(0, 1, foreign=3), False),
        (SaltCounts(0, 0, unknown=1, foreign=3), False),  # of an older release, known at its first use
    ],
)
async def test_a_salt_that_no_key_is_stored_under_is_no_good_health(
    counts: SaltCounts, is_foreign: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def found(*_arguments: object) -> SaltCounts:
        return counts

    monkeypatch.setattr(health_module, "in_database", found)
    subject = health()
    for _ in range(2):
        await subject._read_salts()
    assert subject._is_salt_foreign is is_foreign
    assert caplog.messages == (["health.hash_salt_changed"] if is_foreign else [])


class Full:
    """A Redis without room: it answers, and takes no write."""

    async def ping(self) -> None:
        return

    async def call_all(self, commands: Iterable[Sequence[Any]]) -> list[Any]:
        assert {words[0] for words in commands} == {b"SET"}
        raise ResponseError("OOM command not allowed when used memory > 'maxmemory'.")


async def test_a_redis_that_takes_no_writes_is_no_good_health(at: Any) -> None:
    subject = health()
    subject._redis = cast(Any, Full())
    assert not await health_module._succeeds(subject._ping)
