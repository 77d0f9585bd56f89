"""Deadline of pages and of the management API, in front of Django.

A PostgreSQL that hangs accepts queries and does not respond, which no driver notices: without a deadline pages would
load for ever.
"""

import asyncio
from typing import Any

from django.conf import settings
from django.utils import translation

from codexflow.lib.asgi import Header, Message, Receive, Scope, Send
from codexflow.lib.envelope import envelope
from codexflow.lib.errors import DatabaseUnavailable
from codexflow.lib.exchange import send_json, send_response
from codexflow.lib.http import RETRY_DATABASE_AFTER_S, headers_of
from codexflow.lib.ids import new_id
from codexflow.pages.errors import API, unavailable_page

# Far above what any page takes.
RESPONSE_WITHIN_S = 15.0


class Deadline:
    """ASGI middleware that responds with 503 when the application has not begun to respond in time.

    The thread of a view that waits for PostgreSQL goes on waiting; what it then responds is dropped.
    """

    def __init__(self, application: Any, *, within_s: float = RESPONSE_WITHIN_S) -> None:
        self._application = application
        self._within_s = within_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_started = False

        async def send_in_time(message: Message) -> None:
            nonlocal is_started
            is_started = True
            deadline.reschedule(None)
            await send(message)

        try:
            async with asyncio.timeout(self._within_s) as deadline:
                await self._application(scope, receive, send_in_time)
        except TimeoutError:
            if is_started:
                raise
            await _refuse(scope, send)


async def _refuse(scope: Scope, send: Send) -> None:
    error, request_id = DatabaseUnavailable(retry_after_s=RETRY_DATABASE_AFTER_S), str(new_id())
    own: list[Header] = [(b"x-cfx-request-id", request_id.encode())]
    if scope["path"].startswith(API):
        await send_json(send, int(error.status), envelope(error), [*headers_of(error), *own])
        return
    headers = [each for each in headers_of(error) if each[0] != b"content-type"]
    with translation.override(settings.LANGUAGE_CODE):
        page = unavailable_page(request_id).encode()
    await send_response(send, int(error.status), page, [(b"content-type", b"text/html; charset=utf-8"), *headers, *own])
