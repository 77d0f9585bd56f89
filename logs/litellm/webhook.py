"""POST /api/webhook/litellm: usage as LiteLLM reports it. A raw ASGI application, like the gateway.

Django would take a stranger's body to disk before any view could refuse it. Here address, rate, key and length are
looked at before the first byte of the body is read; the body is mapped (which leaves prompts and answers behind) and
appended to a Redis stream, once a delivery, and that is all: no PostgreSQL. The worker does the rest (stream.py).

Where an organization wants prompts and answers kept (which is looked up every few seconds), theirs go to a stream of
their own after the answer, best effort: what goes wrong there is no matter of the delivery.
"""

import asyncio
import hmac
import logging
from collections.abc import Sequence
from http import HTTPStatus
from ipaddress import ip_address, ip_network
from typing import Any

import redis.asyncio
from django.db import DatabaseError
from redis import RedisError

from codexflow.env import Env
from codexflow.lib import clock
from codexflow.lib.asgi import Receive, Scope, Send
from codexflow.lib.db import in_database
from codexflow.lib.envelope import envelope
from codexflow.lib.errors import AppError, NotFound
from codexflow.lib.exchange import BodyAborted, BodyTimeout, BodyTooLarge, exceeds, read_body, send_json
from codexflow.lib.http import headers_of
from codexflow.lib.ids import new_id
from codexflow.lib.redis import async_client
from logs.content import store
from logs.litellm import content
from logs.litellm.errors import (
    NotADelivery,
    WebhookAddressRefused,
    WebhookBusy,
    WebhookKeyInvalid,
    WebhookTooLarge,
    WebhookUnavailable,
)
from logs.litellm.mapping import Fields, NotReports, elements, told_of
from logs.litellm.report import Delivery, Report, encode
from logs.litellm.stream import FIELD, name_of

logger = logging.getLogger(__name__)

PATH = "/api/webhook/litellm"
BODY_TIMEOUT_S = 30
REDIS_TIMEOUT_S = 3
# Addresses remembered within one minute; more than that is an attack, and all share what is left.
MAX_ADDRESSES = 10_000
# Longer than the minute they count, also where clocks differ.
COUNTED_FOR_S = 120
# How long it is believed that no organization wants prompts kept.
NOBODY_S = 5.0

# What a delivery came to, and the rows behind its reports.
Told = list[tuple[Report, Fields]]
Taken = tuple[dict[str, int], Told]


class MinuteCount:
    """Requests of this minute by address, of this process: what a stranger gets before anybody asks Redis."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._minute = 0
        self._counts: dict[str, int] = {}

    def admit(self, address: str, now_s: float) -> int:
        """0, or the seconds to wait."""
        minute = int(now_s // 60)
        if minute != self._minute:
            self._minute, self._counts = minute, {}
        if address not in self._counts and len(self._counts) >= MAX_ADDRESSES:
            address = ""
        count = self._counts.get(address, 0)
        if count >= self._most:
            return max(1, int((minute + 1) * 60 - now_s))
        self._counts[address] = count + 1
        return 0


class Webhook:
    """The endpoint. One a process."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._allowed = [ip_network(each) for each in env.webhook_allow]
        self._keys = [key.encode() for key in env.webhook_keys]
        self._counts = MinuteCount(env.webhook_rpm)
        self._redis: redis.asyncio.Redis | None = None
        # Nobody wanted prompts kept when it was asked last.
        self._nobody_until_s = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        told: Told = []
        try:
            taken, told = await self._take(scope, receive)
        except AppError as error:
            await send_json(send, int(error.status), envelope(error), headers_of(error))
        except Exception:
            logger.exception("webhook.failed")
            await send_json(send, 500, envelope(AppError()), headers_of(AppError()))
        else:
            await send_json(send, HTTPStatus.ACCEPTED, taken, [])
        # After the answer, which waits for no PostgreSQL.
        if told:
            await self._hand_on(told)

    async def close(self) -> None:
        if self._redis is not None:
            await self._redis.aclose()
            self._redis = None

    async def _take(self, scope: Scope, receive: Receive) -> Taken:
        if not self._keys or scope["method"] != "POST":
            raise NotFound
        headers = dict(scope["headers"])
        address = (scope.get("client") or ("", 0))[0]
        self._let_in(address, headers)
        await self._count(address)
        body = await self._read(headers, receive)
        return await self._keep(body, headers)

    def _let_in(self, address: str, headers: dict[bytes, bytes]) -> None:
        """Raises WebhookAddressRefused (403), WebhookBusy (429), WebhookKeyInvalid (401)."""
        if self._allowed and not self._is_allowed(address):
            raise WebhookAddressRefused(address=address)
        if wait_s := self._counts.admit(address, clock.now_s()):
            raise WebhookBusy(retry_after_s=wait_s)
        if not _is_one_of(headers.get(b"x-api-key", b""), self._keys):
            raise WebhookKeyInvalid

    async def _count(self, address: str) -> None:
        """Count a delivery of this minute over all processes. Raises WebhookBusy (429), WebhookUnavailable (503)."""
        now_s = clock.now_s()
        minute = int(now_s // 60)
        key = f"{self._env.redis_prefix}:webhook:{minute}:{address}"
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                pipe: Any = self._client.pipeline(transaction=False)
                pipe.incr(key)
                pipe.expire(key, COUNTED_FOR_S)
                count, _ = await pipe.execute()
        except (RedisError, OSError, TimeoutError) as exc:
            raise WebhookUnavailable(retry_after_s=5, reason=repr(exc)) from exc
        if count > self._env.webhook_rpm:
            raise WebhookBusy(retry_after_s=max(1, int((minute + 1) * 60 - now_s)))

    @property
    def _client(self) -> "redis.asyncio.Redis":
        if self._redis is None:
            self._redis = async_client(self._env.redis_url)
        return self._redis

    def _is_allowed(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:
            return False  # a socket file has no address
        mapped = getattr(found, "ipv4_mapped", None)
        return any((mapped or found) in network for network in self._allowed)

    async def _read(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """Read the body. Raises WebhookTooLarge (413) before reading one that announces more, NotADelivery (400)."""
        limit_bytes = self._env.webhook_body_limit_bytes
        too_large = WebhookTooLarge(f"The delivery is larger than {limit_bytes} bytes.")
        if exceeds(headers.get(b"content-length"), limit_bytes):
            raise too_large
        try:
            return await read_body(receive, limit_bytes=limit_bytes, timeout_s=BODY_TIMEOUT_S)
        except BodyTooLarge as exc:
            raise too_large from exc
        except BodyTimeout as exc:
            raise NotADelivery("The body did not arrive in time.") from exc
        except BodyAborted as exc:
            raise NotADelivery from exc

    async def _keep(self, body: bytes, headers: dict[bytes, bytes]) -> Taken:
        """Map the body and append what it reports. Large ones are mapped beside the event loop, which serves calls."""
        given_id = headers.get(b"idempotency-key", b"").decode("latin-1")[:200]
        try:
            found, payload, told = await asyncio.to_thread(self._mapped, body, given_id)
        except NotReports as exc:
            raise NotADelivery from exc
        if payload:
            await self._append(payload)
        return found, told

    def _mapped(self, body: bytes, given_id: str) -> tuple[dict[str, int], bytes, Told]:
        rows = [row for row in elements(body) if row is not None]
        told = told_of(
            rows,
            source="webhook",
            now_ms=clock.now_ms(),
            delivery=str(new_id()),
            salts=self._env.salts,
            given_id=given_id,
        )
        counts = {"accepted": len(told), "ignored": len(rows) - len(told)}
        return counts, encode(Delivery(reports=tuple(report for report, _ in told))) if told else b"", told

    async def _hand_on(self, told: Told) -> None:
        """Prompts and answers, of those who want them kept."""
        if clock.monotonic_s() < self._nobody_until_s:
            return
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                if not await in_database(content.is_any_kept):
                    self._nobody_until_s = clock.monotonic_s() + NOBODY_S
                    return
                pipe: Any = self._client.pipeline(transaction=False)
                for payload in await in_database(content.wanted, told):
                    stream = store.name_of(self._env.redis_prefix)
                    pipe.xadd(stream, {store.FIELD: payload}, maxlen=store.MAX_WAITING)
                await pipe.execute()
        except (DatabaseError, RedisError, OSError, TimeoutError) as exc:
            logger.warning("webhook.content_lost", extra={"reason": type(exc).__name__})

    async def _append(self, payload: bytes) -> None:
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                await self._client.xadd(name_of(self._env.redis_prefix), {FIELD: payload})
        except (RedisError, OSError, TimeoutError) as exc:
            raise WebhookUnavailable(retry_after_s=5, reason=repr(exc)) from exc


def _is_one_of(given: bytes, keys: Sequence[bytes]) -> bool:
    """Compared with every active key in constant time: how long it takes says nothing about which fits."""
    matches = [hmac.compare_digest(given, key) for key in keys]
    return any(matches)
