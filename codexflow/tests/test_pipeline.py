"""The hot path's connection to Redis: a process without CPU is no sign of a slow Redis."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvloop
from django.conf import settings

from codexflow.lib import redis
from codexflow.lib.clock import monotonic_s
from codexflow.lib.redis import MAX_PATIENCE_S, NOT_PRIMARY, Pipeline, RedisUnavailable

TIMEOUT_S = 60.0  # real timers never fire here


@pytest.fixture
async def pipeline() -> AsyncIterator[Pipeline]:
    made = Pipeline(settings.ENV.redis_url, timeout_s=TIMEOUT_S)
    await made.start()
    yield made
    await made.close()


class Clock:
    """A clock that is put forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return monotonic_s() + self.ahead_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(redis, "monotonic_s", made)
    return made


def watch(pipeline: Pipeline, *, times: int = 2) -> None:
    """Let the watchdog look; it gives a late reply a second look."""
    for _ in range(times):
        pipeline._watch_due_s = pipeline._loop.time()  # on time
        pipeline._watch()


async def test_time_before_a_command_is_written_does_not_count(pipeline: Pipeline, clock: Clock) -> None:
    """A thousand callers in one iteration of the event loop keep it busy for longer than the timeout."""
    reply = pipeline.call("PING")
    clock.ahead_s = 10 * TIMEOUT_S
    watch(pipeline)
    assert pipeline.is_up
    assert await reply == b"PONG"


async def test_a_silent_redis_is_given_up(pipeline: Pipeline, clock: Clock) -> None:
    reply = pipeline.call("BLPOP", "nothing", 5)
    await asyncio.sleep(0)
    clock.ahead_s = TIMEOUT_S + 0.01
    watch(pipeline)
    assert not pipeline.is_up
    with pytest.raises(RedisUnavailable):
        await reply


@pytest.mark.parametrize(("lag_s", "is_patient"), [(0.0, False), (0.2, True), (60.0, False)])
async def test_a_process_that_lags_waits_longer(
    pipeline: Pipeline, clock: Clock, lag_s: float, is_patient: bool
) -> None:
    """But not for ever: the last has waited for the longest that any lag excuses."""
    reply = pipeline.call("BLPOP", "nothing", 5)
    await asyncio.sleep(0)
    clock.ahead_s = TIMEOUT_S + (MAX_PATIENCE_S if lag_s > 1 else 0.1) + 0.01
    pipeline._lag_s = 8 * lag_s  # it halves with each look
    watch(pipeline)
    assert pipeline.is_up is is_patient
    if not is_patient:
        with pytest.raises(RedisUnavailable):
            await reply
    reply.cancel()


def test_a_watch_after_less_than_a_millisecond_is_one() -> None:
    """On uvloop its handle is no timer's: reading its time off it ended the watch for good."""

    async def play() -> None:
        pipeline = Pipeline(settings.ENV.redis_url, timeout_s=0.05)
        await pipeline.start()
        reply = pipeline.call("BLPOP", "nothing", 5)
        assert pipeline._watchdog is not None
        pipeline._watchdog.cancel()
        pipeline._watch_after(0.0001)
        with pytest.raises(RedisUnavailable):
            await reply
        await pipeline.close()

    uvloop.run(play())


@pytest.mark.parametrize("word", NOT_PRIMARY)
async def test_a_server_that_is_the_primary_no_more_is_left(pipeline: Pipeline, word: str) -> None:
    """The next connection asks the sentinels anew."""
    with pytest.raises(RedisUnavailable):
        await pipeline.call("EVAL", f"return redis.error_reply('{word} said the server')", 0)
    assert not pipeline.is_up
    assert await pipeline.until_up(TIMEOUT_S)
    assert await pipeline.call("PING") == b"PONG"
