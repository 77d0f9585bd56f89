"""The live tail: new requests of one organization over a WebSocket, as the drain commits them.

Two things run for each client. Messages of the channel layer are taken at once and kept in a queue of a few rows, so
nothing piles up behind a slow client; what had to make room is counted. One task alone writes to the client, once a
second at most. Whether the client may still watch is asked again at every heartbeat. The database is met on threads:
the gateway shares this event loop.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from typing_extensions import override

from accounts.models import Organization
from accounts.selectors import membership_of
from billing.selectors import account_of
from codexflow.lib.clock import monotonic_s, now
from codexflow.lib.db import in_database
from codexflow.lib.envelope import envelope
from codexflow.lib.errors import NotFound
from codexflow.lib.ids import started_at, uuid7_floor
from codexflow.lib.origin import is_own_origin
from codexflow.lib.redis import sync_client
from codexflow.lib.session import user_of_session
from logs.models import RequestLog
from logs.requests.selectors import Filters, requests_before
from logs.requests.serializers import RequestRowSerializer
from logs.tail.publisher import group_of, listen
from logs.tail.rows import ROWS_PER_S, BadWish, Row, Waiting, Wish, wish_in, wish_of

logger = logging.getLogger(__name__)

PAUSE_S = 1.0
MAX_CLIENTS = 500  # of one process
MAX_OF_ONE = 25  # or one person could keep all others out
MAX_WISHES = 60  # between two heartbeats
# What a client that comes back is told of the time it was away.
MAX_RESUMED = 200
# A request that began so long before another may end after it.
LONGEST = timedelta(minutes=15)
LOOKED_AT = 2000

BAD_WISH, GONE = 4400, 4404
TOO_MUCH, TRY_LATER = 1008, 1013


@dataclass(frozen=True, slots=True)
class Resumed:
    """What came while a client was away, oldest first. `has_more`: there was more than is told."""

    rows: list[Row]
    has_more: bool


class LiveTail(AsyncWebsocketConsumer):  # type: ignore[misc] # channels has no types
    """`/ws/o/<slug>/logs/`. For whoever is not a member it does not exist: refused before it is accepted."""

    # How many each person has.
    clients: ClassVar[Counter[int]] = Counter()
    # One looks back at a time: the gateway waits for the same few threads when it meets a key.
    looking_back: ClassVar[asyncio.Semaphore] = asyncio.Semaphore(1)

    @override
    async def connect(self) -> None:
        self.sender: asyncio.Task[None] | None = None
        organization_id = await self._organization() if is_own_origin(self.scope) else None
        if organization_id is None:
            await refuse(self)
            return
        self.organization_id = organization_id
        await self.accept()
        self.person: int = self.scope["user"].pk
        if self.clients.total() >= MAX_CLIENTS or self.clients[self.person] >= MAX_OF_ONE:
            await self.close(code=TRY_LATER)
            return
        try:
            self.wish: Wish = wish_in(dict(parse_qsl(self.scope["query_string"].decode("latin-1"))))
        except BadWish as exc:
            await self.close(code=BAD_WISH, reason=str(exc)[:100])
            return
        self.waiting, self.something = Waiting(), asyncio.Event()
        self.wished: Wish | None = self.wish
        self.something.set()
        self.wishes = 0
        # Listening comes before looking back: nothing falls between the two, and what comes twice is known by its id.
        await self.channel_layer.group_add(group_of(self.organization_id), self.channel_name)
        self.clients[self.person] += 1
        self.sender = asyncio.get_running_loop().create_task(self._send_while_it_goes())

    @override
    async def disconnect(self, code: int) -> None:
        if self.sender is None:
            return
        self.clients[self.person] -= 1
        if not self.clients[self.person]:
            del self.clients[self.person]
        self.sender.cancel()
        await asyncio.gather(self.sender, return_exceptions=True)
        await self.channel_layer.group_discard(group_of(self.organization_id), self.channel_name)

    @override
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """A new wish replaces the one before. The writing task answers it: here nothing may wait for the client."""
        if self.sender is None:
            return
        self.wishes += 1
        if self.wishes > MAX_WISHES:
            await self.close(code=TOO_MUCH)
            return
        try:
            self.wish = wish_of(text_data or "")
        except BadWish as exc:
            await self.close(code=BAD_WISH, reason=str(exc)[:100])
            return
        self.waiting = Waiting()
        self.wished = self.wish
        self.something.set()

    async def tail_rows(self, message: dict[str, Any]) -> None:
        """From the channel layer: what a batch of the drain brought."""
        if self.sender is None:
            return
        for row in message["rows"]:
            if self.wish.wants(row):
                self.waiting.put(row)
        if message["skipped"]:
            self.waiting.skip(message["skipped"])
        if self.waiting:
            self.something.set()

    async def _send_while_it_goes(self) -> None:
        """A client that nobody writes to any more must not believe that nothing happens."""
        try:
            await self._send_forever()
        except OSError:
            return  # the client has left
        except Exception:
            logger.exception("live.failed")
            await self.close(code=TRY_LATER)

    async def _send_forever(self) -> None:
        heartbeat_at_s = monotonic_s() + settings.ENV.live_heartbeat_s
        told: frozenset[str] = frozenset()
        while True:
            if monotonic_s() >= heartbeat_at_s:
                if await self._organization() is None:
                    await self.close(code=GONE)
                    return
                heartbeat_at_s = monotonic_s() + settings.ENV.live_heartbeat_s
                self.wishes = 0
                await self._say(type="ping", at=now())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(heartbeat_at_s - monotonic_s(), 0)):
                    await self.something.wait()
            self.something.clear()
            if (wish := self.wished) is not None:
                self.wished = None
                told = await self._begin(wish)
            rows, skipped = self.waiting.take()
            rows = [row for row in rows if row["id"] not in told or row["revision"] > 1]
            if rows or skipped:
                await self._say(type="rows", rows=rows, skipped=skipped)
                await asyncio.sleep(PAUSE_S)

    async def _begin(self, wish: Wish) -> frozenset[str]:
        """Confirm a wish, and tell what came since the request it names. Returns the ids told."""
        await self._say(type="ready", filter=wish, rows_per_s=ROWS_PER_S, heartbeat_s=settings.ENV.live_heartbeat_s)
        if wish.after is None:
            return frozenset()
        async with self.looking_back:
            found = await in_database(since, self.organization_id, wish)
        await self._say(type="rows", rows=found.rows, skipped=0, resumed=True, has_more=found.has_more)
        return frozenset(row["id"] for row in found.rows)

    async def _say(self, **message: Any) -> None:
        await self.send(text_data=msgspec.json.encode(message).decode())

    async def _organization(self) -> UUID | None:
        """The organization, as long as the client may watch it; says beside that somebody does."""
        session = self.scope["session"].session_key
        user_id = self.scope["user"].pk
        if session is None or user_id is None:
            return None
        return await in_database(watched, self.scope["url_route"]["kwargs"]["slug"], user_id, session)


class Nowhere(AsyncWebsocketConsumer):  # type: ignore[misc] # channels has no types
    """Every other address."""

    @override
    async def connect(self) -> None:
        await refuse(self)


async def refuse(consumer: Any) -> None:
    """404 instead of an upgrade, whatever the reason; a server that cannot say so closes with 4404."""
    if "websocket.http.response" not in consumer.scope.get("extensions", {}):
        await consumer.close(code=GONE)
        return
    headers = [(b"content-type", b"application/json")]
    await consumer.base_send({"type": "websocket.http.response.start", "status": 404, "headers": headers})
    body = msgspec.json.encode(envelope(NotFound()))
    await consumer.base_send({"type": "websocket.http.response.body", "body": body})
    raise StopConsumer


def watched(slug: str, user_id: int, session_key: str) -> UUID | None:
    """The id of the organization, when the session still is one of a member's. Blocks: not for the event loop."""
    user = user_of_session(session_key)
    if user is None or user.pk != user_id:
        return None
    membership = membership_of(user, slug)
    if membership is None:
        return None
    organization_id: UUID = membership.organization_id
    listen(sync_client(settings.ENV.redis_url), settings.ENV.redis_prefix, organization_id)
    return organization_id


def since(organization_id: UUID, wish: Wish) -> Resumed:
    """Requests that ended after the one named, oldest first. Blocks: not for the event loop.

    Those that began earlier and ended later are among them. Two that ended almost together may come twice: a client
    knows them by their ids.
    """
    assert wish.after is not None  # noqa: S101 - asked by the caller
    known = RequestLog.objects.filter(organization_id=organization_id, request_id=wish.after).first()
    # A client may name any id; what is older than the plan shows is not told here either.
    kept_days = account_of(Organization.objects.get(pk=organization_id)).plan.log_retention_days
    oldest, newest = now() - timedelta(days=kept_days), now()
    named = min(max(wish.after, uuid7_floor(oldest)), uuid7_floor(newest))
    begun = max(known.started_at, oldest) if known else started_at(named)
    ended = begun + timedelta(milliseconds=known.latency_ms if known else 0)
    filters = Filters(
        start=max(begun - LONGEST, oldest),
        end=now() + timedelta(minutes=1),
        stage=wish.stage,
        model=wish.model,
        status=wish.status,
        key_id=wish.key,
        user_id=wish.user,
        id_prefix=wish.id,
    )
    found = [
        row
        for row in requests_before(organization_id, filters, before=None)[:LOOKED_AT]
        if row.request_id != wish.after and row.started_at + timedelta(milliseconds=row.latency_ms) >= ended
    ]
    shown = found[:MAX_RESUMED][::-1]
    rows = msgspec.json.decode(msgspec.json.encode(list(RequestRowSerializer(shown, many=True).data)))
    return Resumed(rows, has_more=len(found) > MAX_RESUMED)
