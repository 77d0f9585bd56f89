"""A PostgreSQL that hangs: look-ups, pages and the management API end in time and say so."""

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError, connection
from django.test import Client

from codexflow.lib import db
from codexflow.lib.asgi import Message, Receive, Scope, Send
from codexflow.lib.db import DatabaseTimeout, in_database, look_up
from codexflow.pages.deadline import Deadline
from keys.tests.factories import a_key
from tests.support.cast import Cast


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Queries wait for this event."""
    monkeypatch.setattr(db, "LOOKUP_TIMEOUT_S", 0.01)
    monkeypatch.setattr(db, "close_old_connections", lambda: None)
    resumed = threading.Event()
    yield resumed
    resumed.set()


async def test_a_look_up_ends_in_time(hanging: threading.Event) -> None:
    for _ in range(20):  # more than there are threads
        with pytest.raises(DatabaseTimeout):
            await look_up(hanging.wait)


async def test_queued_look_ups_are_not_made_afterwards(hanging: threading.Event) -> None:
    made: list[int] = []

    def query(number: int) -> None:
        hanging.wait()
        made.append(number)

    for number in range(50):
        with pytest.raises(DatabaseTimeout):
            await look_up(query, number)
    hanging.set()
    assert await look_up_at_last() == "found"
    assert max(made, default=0) < 10


async def look_up_at_last() -> str:
    while True:
        try:
            return await look_up(lambda: "found")
        except DatabaseTimeout:
            continue


async def test_jobs_that_hang_keep_no_call_waiting(hanging: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [asyncio.create_task(in_database(hanging.wait)) for _ in range(10)]
    monkeypatch.setattr(db, "LOOKUP_TIMEOUT_S", 30)
    assert await look_up(lambda: "found") == "found"
    hanging.set()
    await asyncio.gather(*jobs)


async def never(_scope: Scope, _receive: Receive, _send: Send) -> None:
    await asyncio.Event().wait()


async def exchanged(application: Any, path: str) -> tuple[int, dict[bytes, bytes], bytes]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    await application({"type": "http", "path": path, "headers": []}, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(each.get("body", b"") for each in sent[1:])


async def test_a_page_that_hangs_is_a_plain_503() -> None:
    status, headers, body = await exchanged(Deadline(never, within_s=0), "/o/acme/")
    assert (status, headers[b"content-type"], headers[b"retry-after"]) == (503, b"text/html; charset=utf-8", b"5")
    assert b"The database does not respond" in body
    assert headers[b"x-cfx-request-id"] in body


async def test_the_management_api_says_it_in_its_envelope() -> None:
    status, headers, body = await exchanged(Deadline(never, within_s=0), "/api/v1/usage")
    assert (status, headers[b"content-type"]) == (503, b"application/json")
    assert json.loads(body)["error"]["code"] == "database_unavailable"


async def test_a_response_that_has_begun_may_take_long() -> None:
    async def streaming(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(5):
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"all of it"})

    assert await exchanged(Deadline(streaming, within_s=0), "/export") == (200, {}, b"all of it")


@pytest.mark.django_db
@pytest.mark.parametrize("error", [OperationalError("the connection was refused"), InterfaceError("closed")])
def test_without_a_database_pages_and_api_are_a_503(cast: Cast, error: Exception) -> None:
    def refuse(*_query: Any) -> None:
        raise error

    client, key = Client(raise_request_exception=False), a_key().plain
    client.force_login(cast.ada)
    with connection.execute_wrapper(refuse):
        page = client.get(f"/o/{cast.slug}/keys/")
        api = Client(raise_request_exception=False).get("/api/v1/usage", headers={"authorization": f"Bearer {key}"})
    assert (page.status_code, api.status_code) == (503, 503)
    assert "The database does not respond" in page.content.decode()
    assert api.json()["error"]["code"] == "database_unavailable"
    assert (page["Retry-After"], api["Retry-After"]) == ("5", "5")
