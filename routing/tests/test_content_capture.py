"""Copies of what passes: in order, bounded, and nobody's trouble when they cannot be handed on."""

import logging
import os
from typing import Any

import pytest
from django.conf import settings
from redis import Redis

from codexflow.lib.asgi import Header
from codexflow.lib.ids import new_id, random_id
from codexflow.lib.redis import sync_client
from logs.content.codec import MAX_BYTES, MAX_PACKED_BYTES, Content, decode, text_of
from logs.content.store import FIELD, name_of
from routing import content_capture
from routing.content_capture import Copy, Copying, Keeper


class Caller:
    """Takes pieces at once until it is slow."""

    is_gone = False

    def __init__(self) -> None:
        self.got = b""
        self.is_slow = False

    async def start(self, status: int, headers: list[Header]) -> None:
        self.got += b"%d " % status

    async def send(self, chunk: bytes, *, is_last: bool = False) -> None:
        self.got += chunk

    def send_at_once(self, chunk: bytes) -> bool:
        if not self.is_slow:
            self.got += chunk
        return not self.is_slow

    async def respond(self, status: int, headers: list[Header], body: bytes) -> None:
        self.got += body


async def test_what_goes_out_is_copied_once_and_in_order() -> None:
    caller, copy = Caller(), Copy(b"a body")
    out = Copying(caller, copy)
    await out.start(200, [])
    await out.send(b"1")
    assert out.send_at_once(b"2")
    caller.is_slow = True
    assert not out.send_at_once(b"3")
    await out.send(b"3")
    await out.respond(200, [], b"4")
    assert (b"".join(copy.answer), caller.got) == (b"1234", b"200 1234")
    assert not out.is_gone
    caller.is_gone = True
    assert out.is_gone


def test_no_more_is_held_than_is_kept() -> None:
    copy = Copy(b"b" * (MAX_BYTES + 1))
    assert (len(copy.request), copy.is_request_cut, copy.is_answer_cut) == (MAX_BYTES, True, False)
    copy.add(b"a" * (MAX_BYTES - 1))
    copy.add(b"b")
    assert not copy.is_answer_cut
    for _ in range(1_000):
        copy.add(b"more")
    assert copy.is_answer_cut
    assert (sum(map(len, copy.answer)), len(copy.answer)) == (MAX_BYTES, 2)


@pytest.fixture
def redis() -> Redis:
    return sync_client(settings.ENV.redis_url)


def waiting(redis: Redis, prefix: str) -> list[Content]:
    entries: Any = redis.xrange(name_of(prefix))
    return [decode(fields[FIELD]) for _, fields in entries]


async def test_a_copy_is_one_bounded_entry(redis: Redis) -> None:
    prefix, request_id, organization_id = f"keep_{random_id().hex}", new_id(), random_id()
    copy = Copy(b"a prompt")
    copy.add(os.urandom(MAX_BYTES))
    keeper = Keeper(settings.ENV.redis_url, prefix)
    keeper.hand_on(request_id, organization_id, copy)
    await keeper.close()
    (content,) = waiting(redis, prefix)
    assert (content.request_id, content.organization_id, keeper.lost) == (request_id, organization_id, 0)
    assert (text_of(content.request.packed), content.request.is_cut) == ("a prompt", False)
    assert content.response.is_cut
    assert len(content.response.packed) <= MAX_PACKED_BYTES


async def test_the_stream_forgets_the_oldest(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_capture, "MAX_WAITING", 3)
    prefix = f"keep_{random_id().hex}"
    for number in range(20):
        copy = Copy(os.urandom(5_000))  # an entry larger than a node of the stream, as they are trimmed by nodes
        copy.add(b"%d" % number)
        keeper = Keeper(settings.ENV.redis_url, prefix)
        keeper.hand_on(new_id(), random_id(), copy)
        await keeper.close()
    assert [text_of(each.response.packed) for each in waiting(redis, prefix)][-3:] == ["17", "18", "19"]
    assert len(waiting(redis, prefix)) < 10


async def test_without_redis_it_is_lost_and_said_without_a_word_of_it(caplog: pytest.LogCaptureFixture) -> None:
    keeper = Keeper("redis://127.0.0.1:1/0", "nowhere")
    request_id = new_id()
    with caplog.at_level(logging.DEBUG):
        keeper.hand_on(request_id, random_id(), Copy(b"the-prompt"))
        await keeper.close()
    assert keeper.lost == 1
    (record,) = [each for each in caplog.records if each.message == "content.not_handed_on"]
    assert record.__dict__["request_id"] == str(request_id)
    assert "the-prompt" not in repr([each.__dict__ for each in caplog.records])


async def test_more_than_a_few_at_once_are_lost(redis: Redis) -> None:
    prefix = f"keep_{random_id().hex}"
    keeper = Keeper(settings.ENV.redis_url, prefix)
    for _ in range(content_capture.MAX_UNDERWAY + 5):
        keeper.hand_on(new_id(), random_id(), Copy(b"a prompt"))
    await keeper.close()
    assert (keeper.lost, len(waiting(redis, prefix))) == (5, content_capture.MAX_UNDERWAY)
