"""Raw applications outside Django's middleware: documented, closed to strangers, and closed at shutdown."""

import asyncio
import inspect
from typing import Any

import pytest

from codexflow.asgi import RAW, application
from codexflow.env import REPOSITORY
from codexflow.lib.asgi import Message

# Refused without a key or token: 404 where the endpoint does not exist for strangers.
REFUSED = {401, 403, 404}


async def status_of(path: str, method: str) -> int:
    """Status of a request without credentials, whose body must not be read."""
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError(f"{path} reads the body of a stranger")

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http", "method": method, "path": path, "headers": [], "client": ("203.0.113.9", 1), "extensions": {},
    }  # fmt: skip
    await application(scope, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize("path", RAW)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_raw_application_refuses_strangers_before_reading(path: str, method: str) -> None:
    assert asyncio.run(status_of(path, method)) in REFUSED, f"{path}: {method} without credentials"


@pytest.mark.parametrize("path", RAW)
def test_a_raw_application_is_documented(path: str) -> None:
    documents = [each.read_text() for each in (REPOSITORY / "docs").glob("*.md")]
    assert any(path in text for text in documents), f"{path} is in no document of docs/"


@pytest.mark.parametrize("path", RAW)
def test_a_raw_application_can_be_closed(path: str) -> None:
    assert inspect.iscoroutinefunction(RAW[path].close), f"{path}: its application has no async close()"
