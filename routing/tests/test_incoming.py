"""Headers of a request."""

import pytest

from codexflow.lib.asgi import Header
from routing.errors import BadHeader
from routing.incoming import MAX_REMEMBERED_BYTES, Incoming, _presented_key
from routing.surfaces.table import MESSAGES


def incoming(*headers: Header) -> Incoming:
    async def nothing(*_: object) -> None: ...

    found = Incoming({"method": "POST", "path": "/v1/messages", "headers": list(headers)}, nothing, nothing)  # type: ignore[arg-type] # never called
    found.check_headers()
    return found


def test_lines_of_one_header_are_joined_on_their_way_upstream() -> None:
    found = incoming(
        (b"anthropic-beta", b"interleaved-thinking-2025-05-14"),
        (b"anthropic-version", b"2023-06-01"),
        (b"anthropic-beta", b"context-management-2025-06-27"),
        (b"cookie", b"a=1"),
        (b"cookie", b"b=2"),
    )
    assert dict(MESSAGES.headers(found.headers)) == {
        b"anthropic-version": b"2023-06-01",
        b"anthropic-beta": b"interleaved-thinking-2025-05-14, context-management-2025-06-27",
    }
    assert found.header(b"cookie") == "a=1; b=2"


@pytest.mark.parametrize("name", [b"authorization", b"x-api-key", b"x-cfx-stage", b"content-length", b"host"])
def test_a_decisive_header_is_given_once(name: bytes) -> None:
    with pytest.raises(BadHeader, match=name.decode()):
        incoming((name, b"1"), (b"x", b"y"), (name, b"1"))


async def test_what_is_too_long_for_a_key_is_not_remembered() -> None:
    """Nobody is known yet: such headers must not stay in the memory."""
    presented: list[str | None] = []

    class Keys:
        async def authenticate(self, key: str | None, _address: str | None) -> None:
            presented.append(key)

    for size in (10, 10, MAX_REMEMBERED_BYTES, 30_000):
        before = _presented_key.cache_info().currsize
        value = b"%d-" % size + b"a" * size
        await incoming((b"authorization", b"Bearer " + value)).principal(Keys())  # type: ignore[arg-type] # stands in
        assert presented.pop() == value.decode()
        assert _presented_key.cache_info().currsize <= before + (size == 10)
