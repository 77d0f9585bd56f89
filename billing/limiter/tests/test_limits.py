"""The limiter's scripts against a model, on real Valkey, with commands in any order."""

import asyncio
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings as django_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.errors import ConcurrencyExceeded, DailyQuotaExceeded, InsufficientQuota, LimiterAway
from billing.limiter.intents import read_intent
from billing.limiter.limits import (
    ADMIT,
    Admission,
    Amendment,
    Claim,
    Doubt,
    Payer,
    Pulse,
    Question,
    ScopeTotals,
    Settlement,
    admit,
    amend,
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
        st.sampled_from(
            ["admit", "admit again", "admit late", "settle", "heartbeat", "lose", "void", "void early", "extend"]
        ),
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


async def _extend(
    redis: Pipeline, payer: Payer, limits: tuple[Limits, Limits], model: Model, request_id: UUID, hold: tuple[int, int]
) -> None:
    """Ask for a larger hold, which is given exactly where the credit covers it."""
    before, after = hold
    amendment = Amendment(request_id=request_id, intent=b"amended", hold_nanos=hold, tokens=(1, 1))
    left = CREDIT - model.spent - sum(held for _, held in model.running.values())
    admission = Admission(day=0, minute=0, now_ms=0, limits=limits, requests_today=(0, 0))
    stored = await redis.call(b"HGET", payer.shard.intents, str(request_id).encode())
    if after > before and after - before > left:
        with pytest.raises(InsufficientQuota):
            await amend(redis, payer, limits, amendment, admission=admission)
        assert await redis.call(b"HGET", payer.shard.intents, str(request_id).encode()) == stored
    else:
        await amend(redis, payer, limits, amendment, admission=admission)
        changed = await redis.call(b"HGET", payer.shard.intents, str(request_id).encode())
        assert read_intent(changed) == (*read_intent(stored)[:2], b"amended")


async def _play(steps: list[tuple[str, int, bool, int]], stored: ScopeTotals) -> None:
    env = django_settings.ENV
    redis = Pipeline(env.redis_url, timeout_s=5)
    await redis.start()
    payer = Payer.of(env.redis_prefix, random_id(), random_id())
    limits = (Limits(daily_requests=DAILY, concurrent_streams=STREAMS, total_budget_nanos=CREDIT), Limits())
    model = Model(started=stored.requests_today, spent=stored.total_nanos)
    ids: dict[int, UUID] = {}
    day = minute = 0

    async def load(_kind: str, _owner: UUID, _day: int) -> ScopeTotals:
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
            late = Claim(request_id=random_id(), takes_slot=True, hold_nanos=amount, tokens=1, intent=b"intent")
            question = Question(payer=payer, limits=limits, claim=late, lease_ms=LEASE_MS, deadline_ms=1)
            assert (await redis.run(ADMIT, *question.command()))[0] == b"late"
        elif command == "extend" and number in model.running:
            stream, hold = model.running[number]
            await _extend(redis, payer, limits, model, ids[number], (hold, hold + amount))
            covered = model.spent + sum(held for _, held in model.running.values()) + amount <= CREDIT or not amount
            model.running[number] = (stream, hold + amount) if covered else (stream, hold)
        elif command in ("void", "void early") and number in model.running:
            hold = model.running[number][1]
            deadline_ms = 1 if command == "void" else 2**52
            doubt = Doubt(payer=payer, request_id=ids[number], hold_nanos=hold, tokens=1, deadline_ms=deadline_ms)
            assert await void(redis, doubt) is (command == "void")
            assert await void(redis, doubt) is (command == "void")  # nothing is left to undo
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
    assert all(read_intent(intents[name])[2] in (b"intent", b"amended") for name in live)
    assert set(client.zrange(payer.shard.alive, 0, -1)) & mine <= live


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


@pytest.mark.parametrize("limits", [Limits(daily_requests=9), Limits(daily_requests=1)])
async def test_a_call_whose_reply_was_lost_counts_where_it_was_counted(limits: Limits) -> None:
    """Its caller asks again, after midnight perhaps: with that day it would be booked on another."""
    env = django_settings.ENV
    redis, client = Pipeline(env.redis_url, timeout_s=5), sync_client(env.redis_url)
    await redis.start()
    payer = Payer.of(env.redis_prefix, random_id(), random_id())

    async def load(*_: object) -> ScopeTotals:
        return ScopeTotals()

    claim = Claim(request_id=new_id(), takes_slot=False, hold_nanos=5, tokens=7, intent=b"intent")
    first = await admit(redis, payer, (limits, limits), claim, lease_ms=LEASE_MS, load_totals=load)
    day, minute = first.day - 1, first.minute - 1_440
    client.hset(payer.shard.intents.decode(), str(claim.request_id), f"{day}:{minute}:intent")
    again = await admit(redis, payer, (limits, limits), claim, lease_ms=LEASE_MS, load_totals=load)
    assert (again.day, again.minute) == (day, minute)
    assert again.requests_today == (1, 1)
    await redis.close()


def test_what_is_not_in_flight_cannot_be_amended() -> None:
    async def play() -> None:
        redis = Pipeline(django_settings.ENV.redis_url, timeout_s=5)
        await redis.start()
        payer = Payer.of(django_settings.ENV.redis_prefix, random_id(), random_id())
        limits = (Limits(), Limits())
        admission = Admission(day=0, minute=0, now_ms=0, limits=limits, requests_today=(0, 0))
        amendment = Amendment(request_id=new_id(), intent=b"x", hold_nanos=(1, 2), tokens=(1, 1))
        with pytest.raises(LimiterAway):
            await amend(redis, payer, limits, amendment, admission=admission)
        assert await redis.call(b"EXISTS", *payer.scopes) == 0
        await redis.close()

    asyncio.run(play())


def test_a_scope_counts_its_minute_from_the_first_call_on_that_has_limits() -> None:
    async def play() -> None:
        redis, client = Pipeline(django_settings.ENV.redis_url, timeout_s=5), sync_client(django_settings.ENV.redis_url)
        await redis.start()
        payer = Payer.of(django_settings.ENV.redis_prefix, random_id(), random_id())

        async def load(*_: object) -> ScopeTotals:
            return ScopeTotals()

        for limits, counted in ((Limits(), b"0"), (Limits(), b"0"), (Limits(rpm=9), b"1")):
            claim = Claim(request_id=new_id(), takes_slot=False, hold_nanos=5, tokens=7, intent=b"intent")
            of_both = (Limits(daily_requests=9), limits)
            admission = await admit(redis, payer, of_both, claim, lease_ms=LEASE_MS, load_totals=load)
            assert client.hget(payer.scopes[1].decode(), "r") == counted
            assert admission.minute_requests[1] == int(counted)
            assert await settle(redis, payer, _settled(claim, admission))
        assert client.hmget(payer.scopes[1].decode(), "n", "held", "spent") == [b"3", b"0", b"3"]
        assert all(0 < int(client.ttl(scope)) <= 2 * 86_400 for scope in payer.scopes)
        await redis.close()

    asyncio.run(play())


def _settled(claim: Claim, admission: Admission) -> Settlement:
    return Settlement(
        request_id=claim.request_id, event=b"event", cost_nanos=1, hold_nanos=claim.hold_nanos, tokens_used=1,
        tokens_reserved=claim.tokens, day=admission.day, minute=admission.minute, takes_slot=False,
    )  # fmt: skip
