"""Calls refused because Redis was silent: it carries them out neither later nor for longer than a moment."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.conf import settings

from billing.errors import LimiterUnavailable
from billing.limiter.fallback import OutageTerms
from billing.limiter.limits import Question, ScopeTotals
from codexflow.lib.clock import monotonic_s
from codexflow.lib.redis import Pipeline, sync_client
from keys.principal import Principal
from logs.tests.factories import an_event
from routing.limiter import Limiter
from routing.tests.test_tracker import a_principal


class Link:
    """A connection to Valkey that holds requests back, or loses replies."""

    def __init__(self) -> None:
        self.holds_requests = False
        self.loses_replies = False
        self.held: list[tuple[asyncio.StreamWriter, bytes]] = []
        self._open: list[tuple[asyncio.Task[None], asyncio.StreamWriter]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parts = urlsplit(settings.ENV.redis_url)
        replies, requests = await asyncio.open_connection(parts.hostname, parts.port or 6379)
        self._open += [
            (asyncio.create_task(self._pass_requests(reader, requests)), requests),
            (asyncio.create_task(self._pass_replies(replies, writer)), writer),
        ]

    async def _pass_requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                if self.holds_requests:
                    self.held.append((writer, data))
                else:
                    writer.write(data)

    async def _pass_replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                if not self.loses_replies:
                    writer.write(data)

    def release(self) -> None:
        """Deliver what was held back, as a Valkey that was paused reads it, though its sender has gone."""
        self.holds_requests = False
        for writer, data in self.held:
            writer.write(data)

    async def close(self) -> None:
        for task, writer in self._open:
            task.cancel()
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await task
                await writer.wait_closed()


@pytest.fixture
async def link() -> AsyncIterator[Link]:
    made = Link()
    yield made
    await made.close()


@contextlib.asynccontextmanager
async def a_limiter(link: Link) -> AsyncIterator[Limiter]:
    server = await asyncio.start_server(link.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    parts = urlsplit(settings.ENV.redis_url)
    login = parts.netloc.rpartition("@")[0]
    redis = Pipeline(urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{port}")), timeout_s=0.1)
    await redis.start()

    async def no_totals(*_: object) -> ScopeTotals:
        return ScopeTotals()

    try:
        yield Limiter(redis, load_totals=no_totals, lease_ms=60_000, terms=OutageTerms(), fails_closed=True)
    finally:
        await redis.close()
        server.close()  # its connections stay open: what was held back is delivered when this limiter is gone


async def ask(limiter: Limiter, principal: Principal) -> None:
    intent = an_event(
        organization_id=principal.organization_id, key_id=principal.key_id, hold_nanos=500, tokens_reserved=7
    )
    await limiter.admit(principal, intent, now_s=monotonic_s(), count_streams=lambda _scopes: (0, 0))


def counts(principal: Principal) -> dict[bytes, bytes]:
    stored: Any = sync_client(settings.ENV.redis_url).hgetall(principal.payer.scopes[0])
    return {name: stored[name] for name in (b"n", b"r", b"t", b"held")}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0)


async def test_a_paused_redis_does_not_carry_out_what_was_refused(link: Link) -> None:
    async with a_limiter(link) as limiter:
        principal = a_principal(10**12)
        await ask(limiter, principal)
        before = counts(principal)
        link.holds_requests = True
        for _ in range(3):
            with pytest.raises(LimiterUnavailable):
                await ask(limiter, principal)
        began_s = monotonic_s()
        await until(lambda: monotonic_s() - began_s > 0.5)
        link.release()
        voiding = asyncio.create_task(limiter.void_refused())
        await until(lambda: not limiter._doubts)
        assert counts(principal) == before
        voiding.cancel()


async def test_an_admission_that_came_too_late_is_asked_for_again(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is starved for longer than its own deadline refuses nobody for it."""
    async with a_limiter(link) as limiter:
        principal = a_principal(10**12)
        await ask(limiter, principal)
        before = counts(principal)
        ask_once = Question.ask

        def starved(question: Question, redis: Any) -> Any:
            """Each command arrives a second and a half after it was made."""
            question.deadline_ms -= 1_500
            return ask_once(question, redis)

        monkeypatch.setattr(Question, "ask", starved)
        await ask(limiter, principal)
        assert int(counts(principal)[b"n"]) == int(before[b"n"]) + 1
        assert not limiter._doubts


async def test_an_admission_whose_reply_is_lost_is_undone(link: Link) -> None:
    async with a_limiter(link) as limiter:
        principal = a_principal(10**12)
        await ask(limiter, principal)
        before = counts(principal)
        link.loses_replies = True
        with pytest.raises(LimiterUnavailable):
            await ask(limiter, principal)
        await until(lambda: counts(principal) != before)  # it was carried out all the same
        link.loses_replies = False
        voiding = asyncio.create_task(limiter.void_refused())
        await until(lambda: counts(principal) == before)
        await until(lambda: not limiter._doubts)
        voiding.cancel()
