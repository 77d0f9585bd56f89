"""Consumer groups on real Valkey."""

from typing import Any

from django.conf import settings

from codexflow.lib.ids import random_id
from codexflow.lib.redis import sync_client
from logs.pipeline.streams import forget_consumers, read_waiting


def test_only_silent_consumers_that_hold_nothing_are_forgotten() -> None:
    redis = sync_client(settings.ENV.redis_url)
    stream = f"{settings.ENV.redis_prefix}:{random_id().hex}:stream"
    assert forget_consumers(redis, stream, "group", idle_ms=0) == 0  # there is none yet
    redis.xadd(stream, {"e": b"x"})

    def read(consumer: str) -> list[Any]:
        return read_waiting(redis, stream, group="group", consumer=consumer, field=b"e", count=9)

    assert len(read("busy")) == 1
    assert [read(consumer) for consumer in ("ended", "other")] == [[], []]
    assert forget_consumers(redis, stream, "group", idle_ms=60_000) == 0
    assert forget_consumers(redis, stream, "group", idle_ms=0) == 2
    (left,) = redis.xinfo_consumers(stream, "group")
    assert (left["name"], left["pending"]) == (b"busy", 1)
    redis.delete(stream)
