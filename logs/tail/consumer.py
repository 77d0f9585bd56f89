"""The live tail: new requests of one organization over a WebSocket, as the drain commits them.

Two things run for each client. Messages of the channel layer go at once into a queue of a few rows, so nothing piles up
behind a slow client; the rows that it drops are counted. One task alone writes to the client, at most once a second.
Access is checked again at every heartbeat. Database queries run on threads: the gateway shares this event loop.
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
from billing.selectors import retention_days_of
from codexflow.lib.clock import monotonic_s, now
from codexflow.lib.db import in_database
from codexflow.lib.envelope import envelope
from codexflow.lib.errors import NotFound
from codexflow.lib.ids import started_at, uuid7_floor
from codexflow.lib.origin import is_own_origin
from codexflow.lib.redis import sync_client
from codexflow.lib.session import user_of_session
from logs.models import RequestLog
from logs.requests.conditions import Condition
from logs.requests.selectors import Filters, requests_before
from logs.requests.sentences import names_of
from logs.requests.serializers import RequestRowSerializer
from logs.tail.publisher import group_of, mark_watched
from logs.tail.rows import ROWS_PER_S, InvalidFilter, Row, RowQueue, TailFilter, filter_from_query, parse_filter

logger = logging.getLogger(__name__)

SEND_INTERVAL_S = 1.0
MAX_CLIENTS = 500  # of one process
MAX_CLIENTS_PER_USER = 25  # or one person could keep all others out
MAX_FILTER_CHANGES = 60  # between two heartbeats
# Rows that a reconnecting client gets of the time it was away, and how many are read to find them.
MAX_RESUMED = 200
MAX_SCANNED = 2000
# A request that began so long before another may end after it.
MAX_DURATION = timedelta(minutes=15)

# WebSocket close codes: two of ours, and two of RFC 6455's registry.
INVALID_FILTER, NOT_FOUND = 4400, 4404
POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013


@dataclass(frozen=True, slots=True)
class MissedRows:
    """Rows of the time that a client was away, oldest first. `has_more`: there were more than these."""

    rows: list[Row]
    has_more: bool


class LiveTail(AsyncWebsocketConsumer):  # type: ignore[misc] # channels has no types
    """`/ws/o/<slug>/logs/`. Non-members get a 404 before the upgrade, as for an organization that does not exist."""

    # Connections by user, of this process.
    clients: ClassVar[Counter[int]] = Counter()
    # One query for missed rows at a time: the gateway needs the same few threads to look up a key.
    resuming: ClassVar[asyncio.Semaphore] = asyncio.Semaphore(1)

    @override
    async def connect(self) -> None:
        self.sender: asyncio.Task[None] | None = None
        organization_id = await self._organization() if is_own_origin(self.scope) else None
        if organization_id is None:
            await refuse(self)
            return
        self.organization_id = organization_id
        await self.accept()
        self.user_id: int = self.scope["user"].pk
        if self.clients.total() >= MAX_CLIENTS or self.clients[self.user_id] >= MAX_CLIENTS_PER_USER:
            await self.close(code=TRY_AGAIN_LATER)
            return
        try:
            self.filter: TailFilter = filter_from_query(dict(parse_qsl(self.scope["query_string"].decode("latin-1"))))
            self.conditions = await in_database(conditions_for, self.organization_id, self.filter)
        except InvalidFilter as exc:
            await self.close(code=INVALID_FILTER, reason=str(exc)[:100])
            return
        self.queue, self.wake_up = RowQueue(), asyncio.Event()
        self.unconfirmed: TailFilter | None = self.filter
        self.wake_up.set()
        self.filter_changes = 0
        # Subscribe before reading missed rows: nothing falls between the two, and duplicates are known by their ids.
        await self.channel_layer.group_add(group_of(self.organization_id), self.channel_name)
        self.clients[self.user_id] += 1
        self.sender = asyncio.get_running_loop().create_task(self._send_or_close())

    @override
    async def disconnect(self, code: int) -> None:
        if self.sender is None:
            return
        self.clients[self.user_id] -= 1
        if not self.clients[self.user_id]:
            del self.clients[self.user_id]
        self.sender.cancel()
        await asyncio.gather(self.sender, return_exceptions=True)
        await self.channel_layer.group_discard(group_of(self.organization_id), self.channel_name)

    @override
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Replace the filter. The sending task confirms it: nothing may wait for the client here."""
        if self.sender is None:
            return
        self.filter_changes += 1
        if self.filter_changes > MAX_FILTER_CHANGES:
            await self.close(code=POLICY_VIOLATION)
            return
        try:
            wanted = parse_filter(text_data or "")
            conditions = await in_database(conditions_for, self.organization_id, wanted)
        except InvalidFilter as exc:
            await self.close(code=INVALID_FILTER, reason=str(exc)[:100])
            return
        self.filter, self.conditions = wanted, conditions
        self.queue = RowQueue()
        self.unconfirmed = self.filter
        self.wake_up.set()

    async def tail_rows(self, message: dict[str, Any]) -> None:
        """Queue the rows of a message of the channel layer that match the filter."""
        if self.sender is None:
            return
        for row in message["rows"]:
            if self.filter.matches(row, self.conditions):
                self.queue.put(row)
        if message["skipped"]:
            self.queue.skip(message["skipped"])
        if self.queue:
            self.wake_up.set()

    async def _send_or_close(self) -> None:
        """Send until something fails, then close: an open but silent socket would look like a quiet log."""
        try:
            await self._send_until_closed()
        except OSError:
            return  # the client has left
        except Exception:
            logger.exception("live.failed")
            await self.close(code=TRY_AGAIN_LATER)

    async def _send_until_closed(self) -> None:
        heartbeat_at_s = monotonic_s() + settings.ENV.live_heartbeat_s
        resumed_ids: frozenset[str] = frozenset()
        while True:
            if monotonic_s() >= heartbeat_at_s:
                if await self._organization() is None:
                    await self.close(code=NOT_FOUND)
                    return
                heartbeat_at_s = monotonic_s() + settings.ENV.live_heartbeat_s
                self.filter_changes = 0
                await self._send(type="ping", at=now())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(heartbeat_at_s - monotonic_s(), 0)):
                    await self.wake_up.wait()
            self.wake_up.clear()
            if (wanted := self.unconfirmed) is not None:
                self.unconfirmed = None
                resumed_ids = await self._confirm(wanted)
            rows, skipped = self.queue.take()
            rows = [row for row in rows if row["id"] not in resumed_ids or row["revision"] > 1]
            if rows or skipped:
                await self._send(type="rows", rows=rows, skipped=skipped)
                await asyncio.sleep(SEND_INTERVAL_S)

    async def _confirm(self, wanted: TailFilter) -> frozenset[str]:
        """Confirm a filter, and send the rows since the request that it names. Returns their ids."""
        await self._send(type="ready", filter=wanted, rows_per_s=ROWS_PER_S, heartbeat_s=settings.ENV.live_heartbeat_s)
        if wanted.after is None:
            return frozenset()
        async with self.resuming:
            missed = await in_database(missed_rows, self.organization_id, wanted)
        await self._send(type="rows", rows=missed.rows, skipped=0, resumed=True, has_more=missed.has_more)
        return frozenset(row["id"] for row in missed.rows)

    async def _send(self, **message: Any) -> None:
        await self.send(text_data=msgspec.json.encode(message).decode())

    async def _organization(self) -> UUID | None:
        """Id of the organization while the client may watch it, else None. Marks it as watched for the publisher."""
        session = self.scope["session"].session_key
        user_id = self.scope["user"].pk
        if session is None or user_id is None:
            return None
        return await in_database(watched_organization, self.scope["url_route"]["kwargs"]["slug"], user_id, session)


class UnknownSocket(AsyncWebsocketConsumer):  # type: ignore[misc] # channels has no types
    """Refuses every other address."""

    @override
    async def connect(self) -> None:
        await refuse(self)


async def refuse(consumer: Any) -> None:
    """Respond 404 instead of upgrading, whatever the reason; a server that cannot closes with 4404."""
    if "websocket.http.response" not in consumer.scope.get("extensions", {}):
        await consumer.close(code=NOT_FOUND)
        return
    headers = [(b"content-type", b"application/json")]
    await consumer.base_send({"type": "websocket.http.response.start", "status": 404, "headers": headers})
    body = msgspec.json.encode(envelope(NotFound()))
    await consumer.base_send({"type": "websocket.http.response.body", "body": body})
    raise StopConsumer


def watched_organization(slug: str, user_id: int, session_key: str) -> UUID | None:
    """Id of the organization while the session is a member's; marks it as watched. Blocks: not for the event loop."""
    user = user_of_session(session_key)
    if user is None or user.pk != user_id:
        return None
    membership = membership_of(user, slug)
    if membership is None:
        return None
    organization_id: UUID = membership.organization_id
    mark_watched(sync_client(settings.ENV.redis_shared_url), settings.ENV.redis_prefix, organization_id)
    return organization_id


def conditions_for(organization_id: UUID, wanted: TailFilter) -> tuple[Condition, ...]:
    """Conditions of a filter's search, by ids. Raises InvalidFilter. Blocks: not for the event loop."""
    return wanted.conditions(lambda: names_of(Organization.objects.get(pk=organization_id)))


def missed_rows(organization_id: UUID, wanted: TailFilter) -> MissedRows:
    """Requests that ended after `wanted.after`, oldest first. Blocks: not for the event loop.

    Includes those that began earlier and ended later. Two that ended almost together may come twice: a client knows
    them by their ids.
    """
    assert wanted.after is not None  # noqa: S101 - checked by the caller
    known = RequestLog.objects.filter(organization_id=organization_id, request_id=wanted.after).first()
    # A client may name any id; the plan's retention bounds this list, too.
    kept_days = retention_days_of(Organization.objects.get(pk=organization_id))
    oldest, newest = now() - timedelta(days=kept_days), now()
    named = min(max(wanted.after, uuid7_floor(oldest)), uuid7_floor(newest))
    begun = max(known.started_at, oldest) if known else started_at(named)
    ended = begun + timedelta(milliseconds=known.latency_ms if known else 0)
    filters = Filters(
        start=max(begun - MAX_DURATION, oldest),
        end=now() + timedelta(minutes=1),
        stage=wanted.stage,
        model=wanted.model,
        status=wanted.status,
        key_id=wanted.key,
        user_id=wanted.user,
        tag=wanted.tag,
        error_code=wanted.code,
        id_part=wanted.id,
    ).narrowed(conditions_for(organization_id, wanted))
    found = [
        row
        for row in requests_before(organization_id, filters, before=None)[:MAX_SCANNED]
        if row.request_id != wanted.after and row.started_at + timedelta(milliseconds=row.latency_ms) >= ended
    ]
    shown = found[:MAX_RESUMED][::-1]
    rows = msgspec.json.decode(msgspec.json.encode(list(RequestRowSerializer(shown, many=True).data)))
    return MissedRows(rows, has_more=len(found) > MAX_RESUMED)
