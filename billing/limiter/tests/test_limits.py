"""The limiter's scripts against a model, on real Valkey, with commands in any order."""

import asyncio
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings as django_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.errors import ConcurrencyExceeded, DailyQuotaExceeded, InsufficientQuota
from billing.limiter.intents import read_intent
from billing.limiter.limits import (
    ADMIT,
    Admission,
    Claim,
    Doubt,
    Payer,
    Pulse,
    ScopeTotals,
    Settlement,
    admit,
    heartbeat,
    settle,
    void,
)
from billing.plans import Limits
from codexflow.lib.errors import AppError
from codexflow.lib.ids import new_id, random_id
from codexflow.lib.redis import Pipeline, sync_client
from tests.support.examples import examples

LEASE_MS = 60_000
DAILY, STREAMS, CREDIT = 6, 2, 1_000


@dataclass
class Model:
    """Model of the limiter's promises."""

    started: int
    spent: int
    running: dict[int, tuple[bool, int]] = field(default_factory=dict)  # number -> (is a stream, hold)

    def refusal(self, *, is_stream: bool, hold: int) -> type[AppError] | None:
        if self.started >= DAILY:
            return DailyQuotaExceeded
        if is_stream and sum(stream for stream, _ in self.running.values()) >= STREAMS:
            return ConcurrencyExceeded
        if self.spent + sum(held for _, held in self.running.values()) + hold > CREDIT:
            return InsufficientQuota
        return None


# (command, number of the call, is a stream, hold or cost)
commands = st.lists(
    st.tuples(
        st.sampled_from(["admit", "admit again", "admit late", "settle", "heartbeat", "lose", "void", "void early"]),
        st.integers(0, 9),
        st.booleans(),
        st.integers(0, 400),
    ),
    max_size=25,
)


@settings(max_examples=examples(150))
@given(steps=commands, stored=st.builds(ScopeTotals, requests_today=st.integers(0, 2), total_nanos=st.integers(0, 300)))
def test_the_scripts_agree_with_the_model(steps: list[tuple[str, int, bool, int]], stored: ScopeTotals) -> None:
    """All checks pass or nothing changes, money moves once, and nothing leaks."""
    asyncio.run(_play(steps, stored))


async def _play(steps: list[tuple[str, int, bool, int]], stored: ScopeTotals) -> None:
    env = django_settings.ENV
    redis = Pipeline(env.redis_url, timeout_s=5)
    await redis.start()
    payer = Payer.of(env.redis_prefix, random_id(), random_id())
    limits = (Limits(daily_requests=DAILY, concurrent_streams=STREAMS, total_budget_nanos=CREDIT), Limits())
    model = Model(started=stored.requests_today, spent=stored.total_nanos)
    ids: dict[int, UUID] = {}
    day = minute = 0

    async def load(_payer: Payer, _scope: int, _day: int) -> ScopeTotals:
        return stored

    def claim(number: int, *, is_stream: bool, hold: int) -> Claim:
        return Claim(request_id=ids[number], takes_slot=is_stream, hold_nanos=hold, tokens=1, intent=b"intent")

    for command, number, is_stream, amount in steps:
        if command == "admit" and number not in ids:
            ids[number] = new_id()
            expected = model.refusal(is_stream=is_stream, hold=amount)
            try:
                admission = await admit(
                    redis, payer, limits, claim(number, is_stream=is_stream, hold=amount), lease_ms=LEASE_MS,
                    load_totals=load,
                )  # fmt: skip
            except AppError as exc:
                refused: type[AppError] | None = type(exc)
            else:
                refused = None
            assert refused is expected
            if refused is not None:
                del ids[number]
            else:
                model.started += 1
                model.running[number] = (is_stream, amount)
                day, minute = admission.day, admission.minute
                assert admission.remaining == DAILY - model.started
        elif command == "admit again" and number in model.running:
            stream, hold = model.running[number]
            again = claim(number, is_stream=stream, hold=hold)
            await admit(redis, payer, limits, again, lease_ms=LEASE_MS, load_totals=load)
        elif command == "admit late" and number not in ids:
            late: list[Any] = [
                str(random_id()),
                LEASE_MS,
                1,
                amount,
                1,
                b"intent",
                0,
                limits[0].packed,
                limits[1].packed,
                1,
            ]
            assert (await redis.run(ADMIT, payer.admit_keys, late))[0] == b"late"
        elif command in ("void", "void early") and number in model.running:
            hold = model.running[number][1]
            deadline_ms = 1 if command == "void" else 2**52
            doubt = Doubt(payer=payer, request_id=ids[number], hold_nanos=hold, tokens=1, deadline_ms=deadline_ms)
            assert await void(redis, doubt) is (command == "void")
            if command == "void":
                assert await void(redis, doubt)  # nothing is left to undo
                del model.running[number], ids[number]
                model.started -= 1
        elif command == "settle" and number in ids:
            was_running = number in model.running
            hold = model.running[number][1] if was_running else 0
            settlement = Settlement(
                request_id=ids[number], event=b"event", cost_nanos=amount, hold_nanos=hold, tokens_used=1,
                tokens_reserved=1, day=day, minute=minute,
            )  # fmt: skip
            assert await settle(redis, payer, settlement) is was_running
            if was_running:
                del model.running[number]
                model.spent += amount
        elif command == "heartbeat":
            pulses = [Pulse(ids[each], payer, stream, "7") for each, (stream, _) in model.running.items()]
            assert await heartbeat(redis, pulses, lease_ms=LEASE_MS) == set()
        elif command == "lose" and number in model.running:
            # Redis lost a running call; its process registers it again, without a check of its limits.
            stream, hold = model.running[number]
            _lose(payer, ids[number], hold)
            assert await heartbeat(redis, [Pulse(ids[number], payer, stream, "")], lease_ms=LEASE_MS) == {ids[number]}
            await admit(
                redis, payer, limits, claim(number, is_stream=stream, hold=hold), lease_ms=LEASE_MS, load_totals=load,
                is_forced=True,
            )  # fmt: skip
    _compare(payer, model, ids)
    await redis.close()


def _lose(payer: Payer, request_id: UUID, hold: int) -> None:
    client = sync_client(django_settings.ENV.redis_url)
    name = str(request_id)
    client.hdel(payer.shard.intents.decode(), name)
    client.zrem(payer.shard.alive, name)
    for scope, slots in zip(payer.scopes, payer.slots, strict=True):
        client.zrem(slots, name)
        client.hincrby(scope.decode(), "held", -hold)
        client.hincrby(scope.decode(), "n", -1)


def _compare(payer: Payer, model: Model, ids: dict[int, UUID]) -> None:
    client = sync_client(django_settings.ENV.redis_url)
    live = {str(ids[number]).encode() for number in model.running}
    streams = {str(ids[number]).encode() for number, (stream, _) in model.running.items() if stream}
    for scope, slots in zip(payer.scopes, payer.slots, strict=True):
        found = client.hgetall(scope)
        if found:
            assert int(found[b"held"]) == sum(hold for _, hold in model.running.values())
            assert int(found[b"spent"]) == model.spent
            assert int(found[b"n"]) == model.started
        else:
            assert not ids
        assert set(client.zrange(slots, 0, -1)) == streams
    mine = {str(each).encode() for each in ids.values()}
    intents: Any = client.hgetall(payer.shard.intents)
    assert set(intents) & mine == live
    assert all(read_intent(intents[name])[2] == b"intent" for name in live)
    assert set(client.zrange(payer.shard.alive, 0, -1)) & mine == live


def test_an_expired_lease_frees_its_slot() -> None:
    """A dead process blocks no other for longer than its lease."""

    async def play() -> None:
        env = django_settings.ENV
        redis = Pipeline(env.redis_url, timeout_s=5)
        await redis.start()
        payer = Payer.of(env.redis_prefix, random_id(), random_id())
        limits = (Limits(concurrent_streams=1), Limits())

        async def load(*_: object) -> ScopeTotals:
            return ScopeTotals()

        async def enter(lease_ms: int) -> None:
            claim = Claim(request_id=new_id(), takes_slot=True, hold_nanos=0, tokens=0, intent=b"")
            await admit(redis, payer, limits, claim, lease_ms=lease_ms, load_totals=load)

        await enter(0)  # over at once: as if its time had passed
        await enter(LEASE_MS)
        try:
            await enter(LEASE_MS)
        except ConcurrencyExceeded:
            await redis.close()
            return
        raise AssertionError("two streams in one slot")

    asyncio.run(play())


async def _admitted(redis: Pipeline, payer: Payer, stored: ScopeTotals) -> Admission:
    async def load(*_: object) -> ScopeTotals:
        return stored

    claim = Claim(request_id=new_id(), takes_slot=False, hold_nanos=5, tokens=1, intent=b"")
    limits = (Limits(daily_requests=3), Limits(daily_requests=3))
    return await admit(redis, payer, limits, claim, lease_ms=LEASE_MS, load_totals=load)


async def test_a_clock_that_goes_back_over_midnight_gives_nothing_again() -> None:
    """Calls count on the day that has begun; a day that a wrong clock made up is forgotten."""
    env = django_settings.ENV
    redis, client = Pipeline(env.redis_url, timeout_s=5), sync_client(env.redis_url)
    await redis.start()
    payer = Payer.of(env.redis_prefix, random_id(), random_id())
    today = (await _admitted(redis, payer, ScopeTotals())).day
    await _admitted(redis, payer, ScopeTotals())
    for scope in payer.scopes:
        client.hset(scope.decode(), "d", today + 1)
    last = await _admitted(redis, payer, ScopeTotals())
    assert (last.day, last.requests_today) == (today + 1, (3, 3))
    with pytest.raises(DailyQuotaExceeded):
        await _admitted(redis, payer, ScopeTotals())
    # One scope alone is ahead: both count on its day.
    client.hset(payer.scopes[1].decode(), mapping={"d": today, "n": 0})
    with pytest.raises(DailyQuotaExceeded):
        await _admitted(redis, payer, ScopeTotals())
    for scope in payer.scopes:
        client.hset(scope.decode(), "d", today + 400)
    found = await _admitted(redis, payer, ScopeTotals(requests_today=1))
    assert (found.day, found.requests_today) == (today, (2, 2))
    held: Any = client.hget(payer.scopes[0].decode(), "held")
    assert int(held) == 4 * 5  # of the calls in flight, which PostgreSQL does not know
    await redis.close()
