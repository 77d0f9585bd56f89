"""The limiter's scripts against a plain model, on real Valkey, in any order of commands."""

import asyncio
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.conf import settings as django_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.errors import ConcurrencyExceeded, DailyQuotaExceeded, InsufficientQuota
from billing.limiter.intents import read_intent
from billing.limiter.limits import Claim, Payer, Pulse, ScopeTotals, Settlement, admit, heartbeat, settle
from billing.plans import Limits
from codexflow.lib.errors import AppError
from codexflow.lib.ids import new_id, random_id
from codexflow.lib.redis import Pipeline, sync_client
from tests.support.examples import examples

LEASE_MS = 60_000
DAILY, STREAMS, CREDIT = 6, 2, 1_000


@dataclass
class Model:
    """What the limiter promises, as a dictionary."""

    started: int
    spent: int
    live: dict[int, tuple[bool, int]] = field(default_factory=dict)  # number -> (is a stream, hold)

    def refusal(self, *, is_stream: bool, hold: int) -> type[AppError] | None:
        if self.started >= DAILY:
            return DailyQuotaExceeded
        if is_stream and sum(stream for stream, _ in self.live.values()) >= STREAMS:
            return ConcurrencyExceeded
        if self.spent + sum(held for _, held in self.live.values()) + hold > CREDIT:
            return InsufficientQuota
        return None


# (what, which call, is a stream, hold or cost)
commands = st.lists(
    st.tuples(
        st.sampled_from(["admit", "admit again", "settle", "heartbeat", "forget"]),
        st.integers(0, 9),
        st.booleans(),
        st.integers(0, 400),
    ),
    max_size=25,
)


@settings(max_examples=examples(150))
@given(steps=commands, truth=st.builds(ScopeTotals, requests_today=st.integers(0, 2), total_nanos=st.integers(0, 300)))
def test_the_scripts_do_what_the_model_says(steps: list[tuple[str, int, bool, int]], truth: ScopeTotals) -> None:
    """Property 4: Rate Limit Atomicity. All checks or nothing, money moves once, and nothing leaks."""
    asyncio.run(_play(steps, truth))


async def _play(steps: list[tuple[str, int, bool, int]], truth: ScopeTotals) -> None:
    env = django_settings.ENV
    redis = Pipeline(env.redis_url, timeout_s=5)
    await redis.start()
    payer = Payer.of(env.redis_prefix, random_id(), random_id())
    limits = (Limits(daily_requests=DAILY, concurrent_streams=STREAMS, total_budget_nanos=CREDIT), Limits())
    model = Model(started=truth.requests_today, spent=truth.total_nanos)
    ids: dict[int, UUID] = {}
    day = minute = 0

    async def load(_payer: Payer, _scope: int, _day: int) -> ScopeTotals:
        return truth

    def claim(number: int, *, is_stream: bool, hold: int) -> Claim:
        return Claim(request_id=ids[number], takes_slot=is_stream, hold_nanos=hold, tokens=1, intent=b"intent")

    for what, number, is_stream, amount in steps:
        if what == "admit" and number not in ids:
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
                model.live[number] = (is_stream, amount)
                day, minute = admission.day, admission.minute
                assert admission.remaining == DAILY - model.started
        elif what == "admit again" and number in model.live:
            stream, hold = model.live[number]
            again = claim(number, is_stream=stream, hold=hold)
            await admit(redis, payer, limits, again, lease_ms=LEASE_MS, load_totals=load)
        elif what == "settle" and number in ids:
            was_live = number in model.live
            hold = model.live[number][1] if was_live else 0
            settlement = Settlement(
                request_id=ids[number], event=b"event", cost_nanos=amount, hold_nanos=hold, tokens_used=1,
                tokens_reserved=1, day=day, minute=minute,
            )  # fmt: skip
            assert await settle(redis, payer, settlement) is was_live
            if was_live:
                del model.live[number]
                model.spent += amount
        elif what == "heartbeat":
            pulses = [Pulse(ids[each], payer, stream, "7") for each, (stream, _) in model.live.items()]
            assert await heartbeat(redis, pulses, lease_ms=LEASE_MS) == set()
        elif what == "forget" and number in model.live:
            # Redis lost a live call; its process notices and registers it again, whatever the limits say.
            stream, hold = model.live[number]
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
    live = {str(ids[number]).encode() for number in model.live}
    streams = {str(ids[number]).encode() for number, (stream, _) in model.live.items() if stream}
    for scope, slots in zip(payer.scopes, payer.slots, strict=True):
        found = client.hgetall(scope)
        if found:
            assert int(found[b"held"]) == sum(hold for _, hold in model.live.values())
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


def test_a_lease_that_nobody_renews_frees_its_slot() -> None:
    """Property 14: Concurrency Limit Enforcement. A dead process blocks nobody for longer than its lease."""

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
