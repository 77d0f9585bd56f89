"""Reading bodies: complete, in any chunks, and never beyond the limit."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexflow.lib.asgi import Message
from codexflow.lib.exchange import BodyAborted, BodyTimeout, BodyTooLarge, exceeds, read_body, send_json


class Client:
    """Sends the given messages, then nothing; counts the messages received."""

    def __init__(self, *messages: Message) -> None:
        self.messages = list(messages)
        self.taken = 0

    async def receive(self) -> Message:
        if self.taken == len(self.messages):
            await asyncio.Event().wait()
        self.taken += 1
        return self.messages[self.taken - 1]


def piece(body: bytes, *, more: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def read(client: Client, *, limit_bytes: int = 100, timeout_s: float = 5.0) -> bytes:
    return asyncio.run(read_body(client.receive, limit_bytes=limit_bytes, timeout_s=timeout_s))


@given(pieces=st.lists(st.binary(max_size=30), min_size=1, max_size=6), limit_bytes=st.integers(0, 120))
def test_a_body_is_read_whole_or_refused_at_its_limit(pieces: list[bytes], limit_bytes: int) -> None:
    client = Client(*(piece(each, more=n < len(pieces)) for n, each in enumerate(pieces, start=1)))
    body = b"".join(pieces)
    if len(body) <= limit_bytes:
        assert read(client, limit_bytes=limit_bytes) == body
        return
    with pytest.raises(BodyTooLarge):
        read(client, limit_bytes=limit_bytes)
    taken = sum(map(len, pieces[: client.taken - 1]))
    assert taken <= limit_bytes  # nothing is read after the chunk that exceeds the limit


def test_a_disconnected_client_sends_no_body() -> None:
    with pytest.raises(BodyAborted):
        read(Client(piece(b"half", more=True), {"type": "http.disconnect"}))


def test_a_body_that_does_not_arrive_times_out() -> None:
    with pytest.raises(BodyTimeout):
        read(Client(piece(b"half", more=True)), timeout_s=0.01)


@pytest.mark.parametrize(
    ("announced", "is_too_much"),
    [
        (None, False),
        (b"0", False),
        (b"100", False),
        (b" 7 ", False),
        (b"101", True),
        (b"-1", True),
        (b"1e3", True),
        (b"", False),
        (b"9" * 5000, True),
    ],
)
def test_the_content_length_is_checked_before_reading(announced: bytes | None, is_too_much: bool) -> None:
    assert exceeds(announced, 100) is is_too_much


def test_a_json_response_has_one_content_type_and_its_length() -> None:
    sent: list[Any] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(send_json(send, 201, {"a": 1}, [(b"x-test", b"1")]))
    start, body = sent
    assert (start["status"], body["body"]) == (201, b'{"a":1}')
    assert dict(start["headers"]) == {
        b"content-type": b"application/json", b"x-test": b"1", b"content-length": b"7",
    }  # fmt: skip
