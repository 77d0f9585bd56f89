"""Headers of a request."""

import pytest

from codexflow.lib.asgi import Header
from routing.errors import BadHeader
from routing.incoming import Incoming, _presented_key
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


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "presented"),
    [
        (b"Bearer cfx_a", None, "cfx_a"), (b"bearer\tcfx_a ", None, "cfx_a"), (b"Bearer   cfx_a b", None, "cfx_a b"),
        (b"Bearer ", None, None), (b"Bearer", None, None), (b"Basic cfx_a", None, None), (None, None, None),
        (b"Bearer sk-1", b" sk-2 ", "sk-1"), (b"Basic eA==", b"sk-2", "sk-2"), (None, b"", ""),
        (b"Bearer " + b"a" * 30_000, None, "a" * 30_000),
    ],
)  # fmt: skip
def test_the_presented_key_is_a_bearer_token_or_x_api_key(
    authorization: bytes | None, x_api_key: bytes | None, presented: str | None
) -> None:
    assert _presented_key(authorization, x_api_key) == presented
