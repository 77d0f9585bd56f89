"""Content capture: in order, bounded, and harmless when publishing fails."""

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
from routing.content_capture import CapturedContent, CapturingResponse, ContentPublisher


class Caller:
    """A response that takes pieces at once until the caller is slow."""

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


async def test_every_sent_piece_is_copied_once_and_in_order() -> None:
    caller = Caller()
    out = CapturingResponse(caller, b"a body")
    await out.start(200, [])
    await out.send(b"1")
    assert out.send_at_once(b"2")
    caller.is_slow = True
    assert not out.send_at_once(b"3")
    await out.send(b"3")
    await out.respond(200, [], b"4")
    assert (b"".join(out.content.response), caller.got) == (b"1234", b"200 1234")
    assert not out.is_gone
    caller.is_gone = True
    assert out.is_gone


def test_captured_content_is_bounded() -> None:
    content = CapturedContent(b"b" * (MAX_BYTES + 1))
    assert (len(content.request), content.is_request_cut, content.is_response_cut) == (MAX_BYTES, True, False)
    content.add(b"a" * (MAX_BYTES - 1))
    content.add(b"b")
    assert not content.is_response_cut
    for _ in range(1_000):
        content.add(b"more")
    assert content.is_response_cut
    assert (sum(map(len, content.response)), len(content.response)) == (MAX_BYTES, 2)


@pytest.fixture
def redis() -> Redis:
    return sync_client(settings.ENV.redis_url)


def published(redis: Redis, prefix: str) -> list[Content]:
    entries: Any = redis.xrange(name_of(prefix))
    return [decode(fields[FIELD]) for _, fields in entries]


async def test_published_content_is_one_bounded_entry(redis: Redis) -> None:
    prefix, request_id, organization_id = f"keep_{random_id().hex}", new_id(), random_id()
    captured = CapturedContent(b"a prompt")
    captured.add(os.urandom(MAX_BYTES))
    publisher = ContentPublisher(settings.ENV.redis_url, prefix)
    publisher.publish(request_id, organization_id, captured)
    await publisher.close()
    (content,) = published(redis, prefix)
    assert (content.request_id, content.organization_id, publisher.lost) == (request_id, organization_id, 0)
    assert (text_of(content.request.packed), content.request.is_cut) == ("a prompt", False)
    assert content.response.is_cut
    assert len(content.response.packed) <= MAX_PACKED_BYTES


async def test_the_stream_drops_the_oldest_entries(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_capture, "MAX_WAITING", 3)
    prefix = f"keep_{random_id().hex}"
    for number in range(20):
        # An entry larger than a node of the stream, which is trimmed by whole nodes.
        captured = CapturedContent(os.urandom(5_000))
        captured.add(b"%d" % number)
        publisher = ContentPublisher(settings.ENV.redis_url, prefix)
        publisher.publish(new_id(), random_id(), captured)
        await publisher.close()
    assert [text_of(each.response.packed) for each in published(redis, prefix)][-3:] == ["17", "18", "19"]
    assert len(published(redis, prefix)) < 10


async def test_without_redis_content_is_lost_and_the_log_shows_none_of_it(caplog: pytest.LogCaptureFixture) -> None:
    publisher = ContentPublisher("redis://127.0.0.1:1/0", "nowhere")
    request_id = new_id()
    with caplog.at_level(logging.DEBUG):
        publisher.publish(request_id, random_id(), CapturedContent(b"the-prompt"))
        await publisher.close()
    assert publisher.lost == 1
    (record,) = [each for each in caplog.records if each.message == "content.not_published"]
    assert record.__dict__["request_id"] == str(request_id)
    assert "the-prompt" not in repr([each.__dict__ for each in caplog.records])


async def test_publications_beyond_the_bound_are_lost(redis: Redis) -> None:
    prefix = f"keep_{random_id().hex}"
    publisher = ContentPublisher(settings.ENV.redis_url, prefix)
    for _ in range(content_capture.MAX_PUBLISHING + 5):
        publisher.publish(new_id(), random_id(), CapturedContent(b"a prompt"))
    await publisher.close()
    assert (publisher.lost, len(published(redis, prefix))) == (5, content_capture.MAX_PUBLISHING)
