"""POST /api/webhook/litellm: usage as LiteLLM reports it. A raw ASGI application, like the gateway.

Django would write a stranger's body to disk before any view could refuse it. Here address, rate, key and length are
checked before the first byte of the body is read; the body is mapped (which drops prompts and responses) and appended
to a Redis stream, one entry a delivery, without PostgreSQL. The worker does the rest (stream.py).

Prompts and responses of organizations that store them (looked up every few seconds) go to a stream of their own after
the webhook's response, best effort: a failure there does not fail the delivery.
"""

import asyncio
import contextlib
import hmac
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address, ip_network
from typing import Any

import redis.asyncio
from django.db import DatabaseError
from redis import RedisError

from codexflow.env import Env
from codexflow.lib import clock
from codexflow.lib.asgi import Receive, Scope, Send
from codexflow.lib.complexity import TooComplex, check_complexity
from codexflow.lib.db import in_database
from codexflow.lib.envelope import envelope
from codexflow.lib.errors import AppError, NotFound
from codexflow.lib.exchange import (
    BodyAborted,
    BodyBroken,
    BodyCodingUnknown,
    BodyTimeout,
    BodyTooLarge,
    exceeds,
    read_body,
    send_json,
    unpacked_body,
)
from codexflow.lib.http import headers_of
from codexflow.lib.ids import new_id
from codexflow.lib.memory import room_for_bodies
from codexflow.lib.packing import is_packed
from codexflow.lib.reception import Place, Reception, ReceptionFull, SenderFull
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
from logs.litellm.mapping import MappedReport, NotReports, elements, map_rows
from logs.litellm.report import Delivery, encode
from logs.litellm.stream import FIELD, name_of

logger = logging.getLogger(__name__)

PATH = "/api/webhook/litellm"
BODY_TIMEOUT_S = 30
REDIS_TIMEOUT_S = 3
# Addresses counted apart within one minute; more are an attack, and share one count.
MAX_ADDRESSES = 10_000
# The part of the room for bodies that deliveries have.
RECEPTION_SHARE = 4
# Lifetime of a minute's count: longer than the minute, also where clocks differ.
COUNT_TTL_S = 120
# Cache lifetime of "no organization stores content".
NO_CONTENT_TTL_S = 5.0


@dataclass(frozen=True, slots=True)
class _Accepted:
    """An accepted delivery: the counts of the response, the stream's payload (empty without reports), the reports."""

    counts: dict[str, int]
    payload: bytes
    reports: list[MappedReport]


class MinuteCount:
    """Requests of this minute by address, in this process: the rate limit that costs no round trip to Redis."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._minute = 0
        self._counts: dict[str, int] = {}

    def admit(self, address: str, now_s: float) -> int:
        """Count a request. Returns 0, or the seconds to wait when the address is over its limit."""
        minute = int(now_s // 60)
        if minute != self._minute:
            self._minute, self._counts = minute, {}
        if address not in self._counts and len(self._counts) >= MAX_ADDRESSES:
            address = ""
        count = self._counts.get(address, 0)
        if count >= self._limit:
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
        room_bytes = room_for_bodies(env.reception_bytes, env.web_processes) // RECEPTION_SHARE
        self._reception = Reception(room_bytes, largest_bytes=env.webhook_body_limit_bytes)
        self._redis: redis.asyncio.Redis | None = None
        # No organization stores content, as looked up last.
        self._no_content_until_s = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reports: list[MappedReport] = []
        try:
            accepted = await self._accept(scope, receive)
        except AppError as error:
            await send_json(send, int(error.status), envelope(error), headers_of(error))
        except Exception:
            logger.exception("webhook.failed")
            await send_json(send, 500, envelope(AppError()), headers_of(AppError()))
        else:
            reports = accepted.reports
            await send_json(send, HTTPStatus.ACCEPTED, accepted.counts, [])
        # After the response, which must not wait for PostgreSQL.
        if reports:
            await self._publish_content(reports)

    async def close(self) -> None:
        if self._redis is not None:
            await self._redis.aclose()
            self._redis = None

    async def _accept(self, scope: Scope, receive: Receive) -> _Accepted:
        if not self._keys or scope["method"] != "POST":
            raise NotFound
        headers = dict(scope["headers"])
        address = (scope.get("client") or ("", 0))[0]
        self._check_caller(address, headers)
        await self._count_delivery(address)
        with self._place_for(headers):
            body = await self._read_body(headers, receive)
            accepted = await self._map(body, headers)
        if accepted.payload:
            await self._append(accepted.payload)
        return accepted

    def _check_caller(self, address: str, headers: dict[bytes, bytes]) -> None:
        """Raises WebhookAddressRefused (403), WebhookBusy (429), WebhookKeyInvalid (401)."""
        if self._allowed and not self._is_allowed(address):
            raise WebhookAddressRefused(address=address)
        if wait_s := self._counts.admit(address, clock.now_s()):
            raise WebhookBusy(retry_after_s=wait_s)
        if not _is_one_of(headers.get(b"x-api-key", b""), self._keys):
            raise WebhookKeyInvalid

    async def _count_delivery(self, address: str) -> None:
        """Count a delivery of this minute over all processes. Raises WebhookBusy (429), WebhookUnavailable (503)."""
        now_s = clock.now_s()
        minute = int(now_s // 60)
        key = f"{self._env.redis_prefix}:webhook:{minute}:{address}"
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                pipe: Any = self._client.pipeline(transaction=False)
                pipe.incr(key)
                pipe.expire(key, COUNT_TTL_S)
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
            parsed = ip_address(address)
        except ValueError:
            return False  # a socket file has no address
        ipv4 = getattr(parsed, "ipv4_mapped", None)
        return any((ipv4 or parsed) in network for network in self._allowed)

    @contextlib.contextmanager
    def _place_for(self, headers: dict[bytes, bytes]) -> Iterator[None]:
        """Hold room for a body: what it announces, or the most where that is not known.

        Raises WebhookTooLarge (413) before reading one that announces more, and WebhookBusy (429).
        """
        limit_bytes, announced = self._env.webhook_body_limit_bytes, headers.get(b"content-length")
        if exceeds(announced, limit_bytes):
            raise self._too_large()
        is_known = announced is not None and not is_packed(headers.get(b"content-encoding"))
        place = Place(self._reception, new_id())  # LiteLLM is one sender
        try:
            place.hold(int(announced or 0) if is_known else limit_bytes)
        except (SenderFull, ReceptionFull) as exc:
            raise WebhookBusy(retry_after_s=5) from exc
        try:
            yield
        finally:
            place.give_back()

    async def _read_body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """Read the body. Raises WebhookTooLarge (413), NotADelivery (400)."""
        limit_bytes = self._env.webhook_body_limit_bytes
        try:
            body = await read_body(receive, limit_bytes=limit_bytes, timeout_s=BODY_TIMEOUT_S)
            return await unpacked_body(body, headers.get(b"content-encoding"), limit_bytes=limit_bytes)
        except BodyTooLarge as exc:
            raise self._too_large() from exc
        except BodyTimeout as exc:
            raise NotADelivery("The body did not arrive in time.") from exc
        except BodyCodingUnknown as exc:
            raise NotADelivery("The body's content coding is none of gzip, deflate and zstd.") from exc
        except (BodyAborted, BodyBroken) as exc:
            raise NotADelivery from exc

    def _too_large(self) -> WebhookTooLarge:
        return WebhookTooLarge(f"The delivery is larger than {self._env.webhook_body_limit_bytes} bytes.")

    async def _map(self, body: bytes, headers: dict[bytes, bytes]) -> _Accepted:
        """Map the body on a thread, since the event loop serves the gateway's calls. Raises NotADelivery (400)."""
        idempotency_key = headers.get(b"idempotency-key", b"").decode("latin-1")[:200]
        try:
            return await asyncio.to_thread(self._map_body, body, idempotency_key)
        except TooComplex as exc:
            raise NotADelivery(str(exc)) from exc
        except NotReports as exc:
            raise NotADelivery from exc

    def _map_body(self, body: bytes, idempotency_key: str) -> _Accepted:
        check_complexity(body)
        rows = [row for row in elements(body) if row is not None]
        if not any(isinstance(row, dict) for row in rows):
            raise NotReports  # texts, numbers, an empty list: nothing that could be a call
        reports = map_rows(
            rows,
            source="webhook",
            now_ms=clock.now_ms(),
            delivery=str(new_id()),
            salts=self._env.salts,
            idempotency_key=idempotency_key,
        )
        counts = {"accepted": len(reports), "ignored": len(rows) - len(reports)}
        payload = encode(Delivery(reports=tuple(each.report for each in reports))) if reports else b""
        return _Accepted(counts, payload, reports)

    async def _publish_content(self, reports: list[MappedReport]) -> None:
        """Append prompts and responses of organizations that store them to the content stream. Best effort."""
        if clock.monotonic_s() < self._no_content_until_s:
            return
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                if not await in_database(content.is_wanted):
                    self._no_content_until_s = clock.monotonic_s() + NO_CONTENT_TTL_S
                    return
                pipe: Any = self._client.pipeline(transaction=False)
                for payload in await in_database(content.payloads_of, reports):
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
    """Compare with every active key in constant time: the duration does not depend on which one matches."""
    matches = [hmac.compare_digest(given, key) for key in keys]
    return any(matches)
