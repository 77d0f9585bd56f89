"""Redis: shards, clients, scripts, and the auto-pipelined connection of the hot path.

Code off the hot path uses redis-py (`sync_client`, `async_client`). The gateway uses `Pipeline`: one connection per
process on which all commands of one event loop iteration share one write. It costs about a tenth of redis-py's CPU per
command and fails fast: a slow Redis hurts more than a dead one.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import hiredis
import redis
import redis.asyncio
from hiredis import ReplyError
from redis.connection import parse_url
from typing_extensions import override

from codexflow.lib.clock import monotonic_s
from codexflow.lib.errors import AppError

logger = logging.getLogger(__name__)

SHARDS = 16
# Time in which a received reply can still be read after the timeout has fired.
LATE_REPLY_GRACE_S = 0.01
# A process that gets no CPU is no sign of a slow Redis, which probably shares the machine: by how much of its own lag
# it waits longer, and for how long at most.
LAG_FACTOR, MAX_PATIENCE_S = 4, 1.0


class RedisUnavailable(AppError):
    """Redis did not respond in time. The caller decides what follows."""

    code = "redis_unavailable"


def shard_of(organization_id: UUID) -> int:
    """Shard of an organization: the last hexadecimal digit of its id, which is random in UUIDv4 and v7."""
    return organization_id.int & (SHARDS - 1)


def tag(shard: int) -> str:
    """Hash tag that keeps all keys of a shard in one cluster slot."""
    return f"{{s{shard:02d}}}"


def database_url(url: str, offset: int) -> str:
    """URL with the database number raised by `offset`: Celery and caches use other databases than the limiter."""
    parts = urlsplit(url)
    number = int(parts.path.strip("/") or 0) + offset
    return urlunsplit(parts._replace(path=f"/{number}"))


@cache
def sync_client(url: str) -> "redis.Redis":
    """redis-py client shared within a process, one per URL, for commands, tasks and pages."""
    return redis.Redis.from_url(url, socket_timeout=10, socket_connect_timeout=3, health_check_interval=30)


def async_client(url: str) -> "redis.asyncio.Redis":
    """New redis-py client of this event loop, for subscriptions and other commands off the hot path."""
    return redis.asyncio.Redis.from_url(url, socket_connect_timeout=3, health_check_interval=10)


class Script:
    """Lua script that is called by its SHA-1 and sent in full only if the server does not know it."""

    __slots__ = ("sha", "text")

    def __init__(self, path: Path) -> None:
        self.text = path.read_bytes()
        self.sha = hashlib.sha1(self.text).hexdigest().encode()  # noqa: S324 - Redis's own naming, not security
        _texts[self.sha] = self.text

    def run(self, client: "redis.Redis", keys: list[bytes], args: list[Any]) -> Any:
        """Run on a redis-py client."""
        try:
            return client.evalsha(self.sha.decode(), len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            return client.eval(self.text.decode(), len(keys), *keys, *args)


# Texts of all scripts by their digest.
_texts: dict[bytes, bytes] = {}


Reply = Any
Argument = bytes | str | int | float
# When the commands of one event loop iteration were written; empty until they are.
_Written = list[float]


class Pipeline(asyncio.Protocol):
    """One connection on which all commands of one event loop iteration share one write.

    `call` raises RedisUnavailable at once while the connection is down. When the oldest command has waited for
    `timeout_s` since it was written, all pending commands fail with it; while this process lags, it waits longer.
    Reconnects by itself; up only after a PING succeeded in time.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader()
        self._pending: deque[tuple[asyncio.Future[Reply], _Written, tuple[Argument, ...]]] = deque()
        self._out: list[bytes] = []  # of this loop iteration
        self._written: _Written = []
        self._is_up = False
        self._up = asyncio.Event()  # for those that wait until it is up
        self._is_closed = False
        self._watchdog: asyncio.TimerHandle | None = None
        self._watch_due_s = 0.0
        # How late timers of this loop have fired of late.
        self._lag_s = 0.0
        self._connecting: asyncio.Task[None] | None = None
        self._suspect: asyncio.Future[Reply] | None = None

    @property
    def is_up(self) -> bool:
        return self._is_up

    async def until_up(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s` for the connection to come up. Returns whether it is up."""
        try:
            await asyncio.wait_for(self._up.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def start(self) -> None:
        """Try once to connect; further attempts continue in the background."""
        self._connecting = self._loop.create_task(self._connect_until_up())
        await asyncio.wait({self._connecting}, timeout=self._timeout_s * 5)

    async def close(self) -> None:
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        if self._transport is not None:
            self._transport.close()

    def call(self, *command: Argument) -> "asyncio.Future[Reply]":
        """Queue one command. The future yields the reply or raises RedisUnavailable or redis.ResponseError."""
        if not self._is_up:
            raise RedisUnavailable(reason="not connected")
        return self._queue(command)

    async def call_all(self, commands: Iterable[Sequence[Argument]]) -> list[Reply]:
        """Queue several commands at once. Returns their replies; raises as `call`, the first of their errors."""
        futures = [self.call(*each) for each in commands]
        with contextlib.suppress(RedisUnavailable, redis.ResponseError):
            await futures[-1]  # replies come in order: then all are here
        errors = [each.exception() for each in futures]  # all taken, or asyncio would log the others as forgotten
        for error in errors:
            if error is not None:
                raise error
        return [each.result() for each in futures]

    def run(self, script: Script, keys: Sequence[bytes], args: Sequence[Argument]) -> "asyncio.Future[Reply]":
        """Run a script by its digest, as `call`; its text is sent only if the server does not know it."""
        if not self._is_up:
            raise RedisUnavailable(reason="not connected")
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._send(future, (b"EVALSHA", script.sha, len(keys), *keys, *args))
        return future

    def _queue(self, command: tuple[Argument, ...]) -> "asyncio.Future[Reply]":
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._send(future, command)
        return future

    def _send(self, future: "asyncio.Future[Reply]", command: tuple[Argument, ...]) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(hiredis.pack_command(command))  # type: ignore[arg-type] # its stub means a 1-tuple
        self._pending.append((future, self._written, command))

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and out:
            self._transport.write(b"".join(out))
        self._written.append(monotonic_s())
        self._written = []
        if self._watchdog is None:
            self._watch_after(self._timeout_s)

    def _watch_after(self, delay_s: float) -> None:
        # Noted here: uvloop's handle of a delay below a millisecond does not tell when it is due.
        self._watch_due_s = self._loop.time() + delay_s
        self._watchdog = self._loop.call_later(delay_s, self._watch)

    def _watch(self) -> None:
        """Check the oldest command's deadline. One timer serves all commands, because replies arrive in order."""
        self._lag_s = max(self._loop.time() - self._watch_due_s, self._lag_s / 2)
        self._watchdog = None
        if not self._pending:
            return
        oldest, written, _ = self._pending[0]
        patience_s = self._timeout_s + min(self._lag_s * LAG_FACTOR, MAX_PATIENCE_S)
        left_s = patience_s - (monotonic_s() - written[0]) if written else self._timeout_s
        if left_s > 0:
            self._watch_after(min(left_s, self._timeout_s))
        elif oldest is not self._suspect:
            # The event loop itself may have been blocked with the reply unread: check again after reading.
            self._suspect = oldest
            self._watch_after(LATE_REPLY_GRACE_S)
        else:
            self._drop("timeout")

    def _drop(self, reason: str) -> None:
        """Close the connection: a late reply would be taken for the reply to another command."""
        was_up, self._is_up = self._is_up, False
        self._up.clear()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        self._out.clear()
        while self._pending:
            future = self._pending.popleft()[0]
            if not future.done():
                future.set_exception(RedisUnavailable(reason=reason))
        if was_up:
            logger.warning("redis.down", extra={"reason": reason})
        if not self._is_closed and (self._connecting is None or self._connecting.done()):
            self._connecting = self._loop.create_task(self._connect_until_up())

    async def _connect_until_up(self) -> None:
        pause_s = 0.05
        while not self._is_closed:
            try:
                await self._connect()
            except (OSError, RedisUnavailable, redis.ResponseError, TimeoutError) as exc:
                logger.debug("redis.connect_failed", extra={"reason": repr(exc)})
                if self._transport is not None:
                    self._transport.abort()
                    self._transport = None
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 1.0)
            else:
                self._is_up = True
                self._up.set()
                return

    async def _connect(self) -> None:
        options = parse_url(self._url)  # type: ignore[no-untyped-call]
        is_tls = self._url.startswith("rediss://")
        self._reader = hiredis.Reader()
        async with asyncio.timeout(self._timeout_s * 5):
            if "path" in options:
                await self._loop.create_unix_connection(lambda: self, options["path"])
            else:
                await self._loop.create_connection(
                    lambda: self,
                    options.get("host", "localhost"),
                    options.get("port", 6379),
                    ssl=is_tls or None,
                )
            if password := options.get("password"):
                name = options.get("username")
                await self._queue(("AUTH", name, password) if name else ("AUTH", password))
            if number := options.get("db"):
                await self._queue(("SELECT", number))
            await self._queue(("PING",))

    # asyncio.Protocol

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")  # noqa: S101 - narrows the type
        self._transport = transport  # type: ignore[assignment] # uvloop's transport is no subclass of asyncio's

    @override
    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        next_reply, pending = self._reader.gets, self._pending
        while (reply := next_reply()) is not False:
            future, _, command = pending.popleft()
            if future.done():
                continue
            if not isinstance(reply, ReplyError):
                future.set_result(reply)
            elif command[0] == b"EVALSHA" and str(reply).startswith("NOSCRIPT"):
                self._send(future, (b"EVAL", _texts[command[1]], *command[2:]))  # type: ignore[index] # the digest
            else:
                future.set_exception(redis.ResponseError(str(reply)))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._drop("connection lost")
