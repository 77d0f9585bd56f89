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
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import hiredis
import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from hiredis import ReplyError
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from typing_extensions import override

from codexflow.lib.clock import monotonic_s
from codexflow.lib.cluster import is_cluster
from codexflow.lib.cluster_client import async_cluster_client, cluster_client
from codexflow.lib.errors import AppError
from codexflow.lib.sentinel import Sentinels, is_sentinel

logger = logging.getLogger(__name__)

SHARDS = 16
# TIME has no key, so that a cluster's client would not know which node is meant.
_TIME = "return redis.call('TIME')"
_MEMORY = """
local found = redis.call('INFO', 'memory')
local function bytes_of(name) return tonumber(found:match('\\n' .. name .. ':(%d+)')) or 0 end
return {bytes_of('used_memory'), bytes_of('maxmemory'), bytes_of('total_system_memory')}
"""
# Time in which a received reply can still be read after the timeout has fired.
LATE_REPLY_GRACE_S = 0.01
# A process that gets no CPU is no sign of a slow Redis, which probably shares the machine: by how much of its own lag
# it waits longer, and for how long at most.
LAG_FACTOR, MAX_PATIENCE_S = 4, 1.0
# A sentinel that does not respond is passed over: the next one knows the primary as well.
SENTINEL_TIMEOUT_S = 0.5
# Errors of a server that is the primary no more (or not yet): the next connection finds the one that is.
NOT_PRIMARY = ("READONLY", "MASTERDOWN", "NOREPLICAS")


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
    if is_sentinel(url):
        return Sentinels.parse(url).with_offset(offset).url
    parts = urlsplit(url)
    number = int(parts.path.strip("/") or 0) + offset
    return urlunsplit(parts._replace(path=f"/{number}"))


def client_of(url: str, **options: Any) -> "redis.Redis":
    """New redis-py client of a server, of the primary that sentinels name, or of a cluster.

    `options` are of its connections. In a cluster, all keys of a command must have one hash tag.
    """
    if is_cluster(url):
        return cluster_client(url, **options)
    if not is_sentinel(url):
        return redis.Redis.from_url(url, **options)
    sentinels = Sentinels.parse(url)
    client: redis.Redis = _sentinel(sentinels).master_for(  # type: ignore[no-untyped-call]
        sentinels.name, **sentinels.primary_options, **options
    )
    return client


@cache
def sync_client(url: str) -> "redis.Redis":
    """redis-py client shared within a process, one per URL, for commands, tasks and pages."""
    return client_of(url, socket_timeout=10, socket_connect_timeout=3, health_check_interval=30)


def async_client(url: str) -> "redis.asyncio.Redis":
    """New redis-py client of this event loop, for subscriptions and other commands off the hot path."""
    options: dict[str, Any] = {"socket_connect_timeout": 3, "health_check_interval": 10}
    if is_cluster(url):
        return async_cluster_client(url, **options)
    if not is_sentinel(url):
        return redis.asyncio.Redis.from_url(url, **options)
    sentinels = Sentinels.parse(url)
    client: redis.asyncio.Redis = _async_sentinel(sentinels).master_for(
        sentinels.name, **sentinels.primary_options, **options
    )
    return client


def queue_time(pipe: Any, key: bytes | str) -> None:
    """Queue a question for the clock of the server that has a key: in a cluster each node has its own.

    `ms_of` reads the reply.
    """
    pipe.execute_command("EVAL", _TIME, 1, key)  # `eval` of a cluster's pipeline takes no arguments


def time_ms(client: "redis.Redis", key: bytes | str) -> int:
    """Unix time of the server that has a key, in ms. Raises redis.RedisError."""
    return ms_of(client.eval(_TIME, 1, key))


def ms_of(reply: Any) -> int:
    """Read the reply to `queue_time`."""
    seconds, micros = reply
    return int(seconds) * 1000 + int(micros) // 1000


def queue_memory(pipe: Any, key: bytes | str) -> None:
    """Queue a question for the memory of the server that has a key. `memory_ratio_of` reads the reply."""
    pipe.execute_command("EVAL", _MEMORY, 1, key)


def memory_ratio_of(reply: Any) -> float:
    """Return which part of its memory a server uses: of its limit, or without one of what the machine has."""
    used, most, total = reply
    return float(used) / float(most or total or used)


class ConnectionPool(redis.ConnectionPool):
    """Pool of Django's cache, which knows addresses of servers only."""

    @classmethod
    @override
    def from_url(cls, url: str, **options: Any) -> Any:
        if not is_sentinel(url):
            return redis.ConnectionPool.from_url(url, **options)
        sentinels = Sentinels.parse(url)
        return redis.sentinel.SentinelConnectionPool(  # type: ignore[no-untyped-call]
            sentinels.name, _sentinel(sentinels), **sentinels.primary_options, **options
        )


def channels_host(url: str) -> str | dict[str, Any]:
    """One of the `hosts` of Channels' layer."""
    if not is_sentinel(url):
        return url
    sentinels = Sentinels.parse(url)
    return {
        "master_name": sentinels.name,
        "sentinels": list(sentinels.hosts),
        "sentinel_kwargs": sentinel_options(sentinels, is_async=True),
        **sentinels.primary_options,
    }


def sentinel_options(sentinels: Sentinels, *, is_async: bool = False) -> dict[str, Any]:
    """redis-py's options of connections to sentinels: a dead one is passed over at once."""
    return {
        **sentinels.sentinel_options,
        "socket_timeout": SENTINEL_TIMEOUT_S,
        "socket_connect_timeout": SENTINEL_TIMEOUT_S,
        "retry": AsyncRetry(NoBackoff(), 0) if is_async else Retry(NoBackoff(), 0),
    }


def _sentinel(sentinels: Sentinels) -> "redis.sentinel.Sentinel":
    return redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]
        sentinels.hosts, sentinel_kwargs=sentinel_options(sentinels)
    )


def _async_sentinel(sentinels: Sentinels) -> "redis.asyncio.sentinel.Sentinel":
    return redis.asyncio.sentinel.Sentinel(  # type: ignore[no-untyped-call]
        sentinels.hosts, sentinel_kwargs=sentinel_options(sentinels, is_async=True)
    )


class Script:
    """Lua script that is called by its SHA-1 and sent in full only if the server does not know it."""

    __slots__ = ("sha", "text")

    def __init__(self, path: Path) -> None:
        self.text = path.read_bytes()
        self.sha = hashlib.sha1(self.text).hexdigest().encode()  # noqa: S324 - Redis's own naming, not security

    def run(self, client: "redis.Redis", keys: list[bytes], args: list[Any]) -> Any:
        """Run on a redis-py client."""
        try:
            return client.evalsha(self.sha.decode(), len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            return client.eval(self.text.decode(), len(keys), *keys, *args)


Reply = Any
Argument = bytes | str | int | float
# When the commands of one event loop iteration were written; empty until they are.
_Written = list[float]
# Script, keys and arguments of a command: sent again, with the text, if the server does not know the script.
_Run = tuple[Script, Sequence[bytes], Sequence[Argument]]
# What a command is sent again by: a script's run, or, in a cluster, the command as it was written.
_Again = _Run | bytes | None


def pack(command: tuple[Argument, ...]) -> bytes:
    """Write a command as Redis reads it."""
    return hiredis.pack_command(command) if command else b""  # type: ignore[arg-type] # its stub means a 1-tuple


class ShardRedis(Protocol):
    """Connection to the server that has the keys of a shard, as the limiter uses it; see Pipeline."""

    @property
    def is_up(self) -> bool: ...
    async def until_up(self, timeout_s: float) -> bool: ...
    def run(self, script: Script, keys: Sequence[bytes], args: Sequence[Argument]) -> "asyncio.Future[Reply]": ...


class GatewayRedis(Protocol):
    """Connections of a gateway process, to one server or to all primaries of a cluster; see Pipeline."""

    async def start(self) -> None: ...
    async def close(self) -> None: ...
    def call(self, *command: Argument) -> "asyncio.Future[Reply]": ...
    async def call_all(self, commands: Iterable[Sequence[Argument]]) -> list[Reply]: ...
    def run(self, script: Script, keys: Sequence[bytes], args: Sequence[Argument]) -> "asyncio.Future[Reply]": ...
    async def count_existing(self, keys: Sequence[bytes]) -> int: ...
    async def ping(self) -> None: ...
    def shards_up(self) -> Sequence[int]: ...


class Pipeline(asyncio.Protocol):
    """One connection on which all commands of one event loop iteration share one write.

    `call` raises RedisUnavailable at once while the connection is down. When the oldest command has waited for
    `timeout_s` since it was written, all pending commands fail with it; while this process lags, it waits longer.
    Reconnects by itself; up only after a PING succeeded in time.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._url = url
        self._sentinels = Sentinels.parse(url) if is_sentinel(url) else None
        self._sentinel = _async_sentinel(self._sentinels) if self._sentinels is not None else None
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader()
        self._pending: deque[tuple[asyncio.Future[Reply], _Written, _Again]] = deque()
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
        self.connect()
        await self.until_up(self._timeout_s * 5)

    def connect(self) -> None:
        """Connect in the background."""
        self._connecting = self._loop.create_task(self._connect_until_up())

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
        # As `_send`, in one function: every call of the gateway runs two scripts.
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(hiredis.pack_command((b"EVALSHA", script.sha, len(keys), *keys, *args)))  # type: ignore[arg-type] # as in `pack`
        self._pending.append((future, self._written, (script, keys, args)))
        return future

    async def count_existing(self, keys: Sequence[bytes]) -> int:
        """Count the keys that exist. Raises RedisUnavailable."""
        return int(await self.call(b"EXISTS", *keys))

    async def ping(self) -> None:
        """Raise RedisUnavailable unless Redis responds."""
        await self.call(b"PING")

    def shards_up(self) -> Sequence[int]:
        """Return the shards whose server is connected: all or none."""
        return range(SHARDS) if self._is_up else ()

    def _queue(self, command: tuple[Argument, ...]) -> "asyncio.Future[Reply]":
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._send(future, pack(command))
        return future

    def _send(self, future: "asyncio.Future[Reply]", packed: bytes, again: _Again = None) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        self._pending.append((future, self._written, again))

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
            except (OSError, RedisUnavailable, redis.RedisError, TimeoutError) as exc:
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
        options = await self._options()
        self._reader = hiredis.Reader()
        async with asyncio.timeout(self._timeout_s * 5):
            if "path" in options:
                await self._loop.create_unix_connection(lambda: self, options["path"])
            else:
                await self._loop.create_connection(
                    lambda: self,
                    options.get("host", "localhost"),
                    options.get("port", 6379),
                    ssl=options.get("ssl"),
                )
            if password := options.get("password"):
                name = options.get("username")
                await self._queue(("AUTH", name, password) if name else ("AUTH", password))
            if self._sentinels is not None:
                await self._demand_primary()
            if number := options.get("db"):
                await self._queue(("SELECT", number))
            await self._queue(("PING",))

    async def _options(self) -> dict[str, Any]:
        """Options of the next connection, by redis-py's names; with sentinels they say where the primary is now."""
        if self._sentinels is None or self._sentinel is None:
            options: dict[str, Any] = parse_url(self._url)  # type: ignore[no-untyped-call]
            return {**options, "ssl": self._url.startswith("rediss://") or None}
        host, port = await self._sentinel.discover_master(self._sentinels.name)
        return {**self._sentinels.primary_options, "host": host, "port": port}

    async def _demand_primary(self) -> None:
        """Raise RedisUnavailable for a server that sentinels still name and that is the primary no more."""
        reply = await self._queue(("HELLO", 2))
        if dict(zip(reply[::2], reply[1::2], strict=True)).get(b"role") != b"master":
            raise RedisUnavailable(reason="not the primary")

    def _refused(self, future: "asyncio.Future[Reply]", error: str, again: _Again) -> bool:
        """Handle an error that Redis has replied. Returns False when the connection is given up for it."""
        if isinstance(again, tuple) and error.startswith("NOSCRIPT"):
            self._send(future, self._in_full(*again))
        elif error.startswith(NOT_PRIMARY):
            future.set_exception(RedisUnavailable(reason=error))
            self._drop("not the primary")
            return False
        else:
            future.set_exception(redis.ResponseError(error))
        return True

    @staticmethod
    def _in_full(script: Script, keys: Sequence[bytes], args: Sequence[Argument]) -> bytes:
        return pack((b"EVAL", script.text, len(keys), *keys, *args))

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
            future, _, again = pending.popleft()
            if future.done():
                continue
            if not isinstance(reply, ReplyError):
                future.set_result(reply)
            elif not self._refused(future, str(reply), again):
                return

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._drop("connection lost")
