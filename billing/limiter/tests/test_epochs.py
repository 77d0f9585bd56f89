"""Epochs on real Valkey: whoever knew of what is lost notices, and nothing is admitted until it is told again."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from django.conf import settings as django_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.limiter.epochs import (
    JOIN,
    MINUTE,
    OPEN,
    REGISTER,
    ROLL,
    day_of,
    gateways_key,
    leave,
    load_scope,
    present,
    shards_of,
)
from billing.limiter.limits import (
    ADMIT,
    SETTLE,
    VERDICTS,
    Claim,
    Epochs,
    Payer,
    Question,
    ScopeTotals,
    Settlement,
    settle_command,
)
from billing.limiter.roll import read_roll
from billing.plans import Limits
from codexflow.lib.ids import new_id, random_id
from codexflow.lib.redis import Pipeline, sync_client
from tests.support.examples import examples

REDIS = sync_client(django_settings.ENV.redis_url)
FREE = Limits()


@asynccontextmanager
async def connected() -> AsyncIterator[Pipeline]:
    pipeline = Pipeline(django_settings.ENV.redis_url, timeout_s=2)
    await pipeline.start()
    try:
        yield pipeline
    finally:
        await pipeline.close()


class Process:
    """A gateway process: which epoch it has joined, and what it has seen of it."""

    def __init__(self, payer: Payer, name: str) -> None:
        self.payer = payer
        self.name = name
        self.known = Epochs(name)

    @property
    def epoch(self) -> bytes:
        return self.known.names[self.payer.shard.number]

    def join(self, *, day: int = 0) -> bool:
        """Join, knowing of a day; returns whether the epoch is open."""
        shard, known = self.payer.shard, self.known
        reply: Any = JOIN.run(REDIS, [shard.epoch, shard.roll], [*known.known(shard.number), day])
        known.names[shard.number], known.settlements[shard.number], is_open, known.own[shard.number] = reply
        return bool(is_open)

    def settle(self) -> None:
        shard = self.payer.shard
        settlement = Settlement(
            request_id=new_id(),
            event=b"",
            cost_nanos=0,
            hold_nanos=0,
            tokens_used=0,
            tokens_reserved=0,
            day=0,
            minute=0,
        )
        command = settle_command(self.payer, settlement, self.known.field)
        self.known.settled(shard.number, abs(SETTLE.run(REDIS, *command)))

    def admit(self) -> str:
        """Admit a call; returns the verdict."""
        reply = self.reply()
        return str(reply[0].decode()) if isinstance(reply, list) else VERDICTS[reply[0]]

    def reply(self) -> list[Any] | bytes:
        claim = Claim(request_id=new_id(), takes_slot=False, hold_nanos=0, tokens=0, intent=b"")
        question = Question(payer=self.payer, limits=(FREE, FREE), claim=claim, epochs=self.known)
        keys, args = question.command()
        reply: Any = ADMIT.run(REDIS, list(keys), args)
        if not isinstance(reply, list):
            question.read(reply)  # which notes the settlements
        return cast("list[Any] | bytes", reply)

    def load(self) -> None:
        for scope in self.payer.scopes:
            load_scope(REDIS, self.payer.shard, scope, self.epoch, 0, ScopeTotals(), held_nanos=0)

    def ship(self) -> None:
        shard = self.payer.shard
        ROLL.run(REDIS, [shard.epoch, shard.roll], [self.epoch, self.name, 1])

    def open(self) -> bool:
        shard = self.payer.shard
        roll = read_roll(ROLL.run(REDIS, [shard.epoch, shard.roll], [self.epoch, self.name, 1]))
        return roll is None or bool(OPEN.run(REDIS, [shard.epoch, shard.roll], [self.epoch, roll.version]))


@pytest.fixture
def payer() -> Iterator[Payer]:
    made = Payer.of(f"{django_settings.ENV.redis_prefix}:{random_id().hex}", random_id(), random_id())
    yield made
    empty(made)


def keys_of(payer: Payer) -> list[bytes]:
    return list(REDIS.scan_iter(match=f"{payer.shard.prefix}*"))


def empty(payer: Payer) -> None:
    if keys := keys_of(payer):
        REDIS.delete(*keys)


def an_open_epoch(payer: Payer) -> Process:
    process = Process(payer, "one")
    assert not process.join()
    process.load()
    assert process.open()
    return process


def test_an_epoch_is_closed_until_it_is_opened(payer: Payer) -> None:
    process = Process(payer, "one")
    assert process.admit() == "emptied"
    assert not process.join()
    assert process.admit() == "closed"
    process.load()
    assert process.open()
    assert process.admit() == "ok"


def test_an_emptied_store_and_an_older_copy_begin_a_new_epoch(payer: Payer) -> None:
    process, other = an_open_epoch(payer), Process(payer, "two")
    assert other.join()
    process.settle()
    assert process.admit() == "ok"
    saved = {key: REDIS.dump(key) for key in keys_of(payer)}
    process.settle()
    assert process.admit() == "ok"
    first = process.epoch
    empty(payer)
    for key, value in saved.items():
        REDIS.restore(key, 0, value)  # type: ignore[arg-type]
    assert other.admit() == "ok"  # it knows no better
    assert process.admit() == "emptied"
    assert not process.join()
    assert int(process.epoch) > int(first)
    assert other.admit() == "emptied"
    assert not other.join()
    assert other.epoch == process.epoch
    # The old scopes are there, and do not count.
    assert process.open()
    assert process.admit() == "cold"


def test_a_scope_is_not_loaded_into_an_epoch_that_has_ended(payer: Payer) -> None:
    process = an_open_epoch(payer)
    stale = Process(payer, "two")
    assert stale.join()
    empty(payer)
    process.join()
    stale.load()
    assert not REDIS.exists(*payer.scopes)


def test_an_epoch_does_not_open_while_its_roll_changes(payer: Payer) -> None:
    one, two = Process(payer, "one"), Process(payer, "two")
    one.join()
    two.join()
    shard = payer.shard
    roll = read_roll(ROLL.run(REDIS, [shard.epoch, shard.roll], [one.epoch, one.name, 1]))
    assert roll is not None
    assert REGISTER.run(REDIS, [shard.epoch, shard.roll, shard.alive, shard.intents], [two.epoch, "two", 1_000, 0])
    assert not OPEN.run(REDIS, [shard.epoch, shard.roll], [one.epoch, roll.version])
    two.ship()
    assert one.open()
    assert two.open()  # it is
    args = [two.epoch, "two", 1_000, 0]
    assert not REGISTER.run(REDIS, [shard.epoch, shard.roll, shard.alive, shard.intents], args)


def test_the_clock_of_another_server_may_be_behind(payer: Payer) -> None:
    process = an_open_epoch(payer)
    # Joined at a server whose clock was decades ahead.
    process.known.names[payer.shard.number] = b"%d" % (int(process.epoch) + 10**15)
    before = int(process.epoch)
    process.join()
    assert int(process.epoch) == before + 1


def test_a_day_that_has_begun_goes_on_at_a_server_whose_clock_is_behind(payer: Payer) -> None:
    """Else its limits would begin anew once more, when midnight comes to that server."""
    seconds: Any = REDIS.time()[0]
    clock_day = seconds // 86_400
    ahead, other, wrong = (Process(payer, name) for name in ("ahead", "other", "wrong"))
    other.join(day=clock_day)
    ahead.join(day=clock_day + 1)
    assert day_of(REDIS, payer.shard, clock_day) == clock_day + 1
    assert other.open()
    assert list(other.reply())[:2] == [b"cold", clock_day + 1]
    # After the clock has reached it, nothing is special; a clock that was wrong by more is not believed.
    assert day_of(REDIS, payer.shard, clock_day + 1) == clock_day + 1
    empty(payer)
    wrong.join(day=clock_day + 400)
    assert wrong.open()
    assert wrong.reply()[1] == clock_day


def test_counts_of_the_minute_are_raised_and_survive_loading(payer: Payer) -> None:
    process = Process(payer, "one")
    process.join()
    scope = payer.scopes[0]
    MINUTE.run(REDIS, [scope], [100, 7, 40])
    MINUTE.run(REDIS, [scope], [100, 5, 90])
    MINUTE.run(REDIS, [scope], [99, 50, 500])
    process.load()
    assert REDIS.hmget(scope.decode(), "m", "r", "t") == [b"100", b"7", b"90"]


commands = st.lists(
    st.tuples(st.sampled_from(["settle", "admit", "save", "put back", "empty"]), st.integers(0, 1)), max_size=30
)


@settings(max_examples=examples(200))
@given(steps=commands)
def test_nobody_admits_by_counts_that_lack_a_settlement_of_his(steps: list[tuple[str, int]]) -> None:
    """However others have made up for it, and whatever copy of itself the store has become."""
    payer = Payer.of(f"{django_settings.ENV.redis_prefix}:{random_id().hex}", random_id(), random_id())
    an_open_epoch(payer)
    processes = [Process(payer, "one"), Process(payer, "two")]
    for process in processes:  # as every process does when it starts
        if process.admit() == "emptied":
            process.join()
            process.load()
            process.open()
    own: list[set[int]] = [set(), set()]  # what each has settled and nobody has told again since
    stored: set[int] = set()
    saved: tuple[dict[bytes, Any], set[int]] = ({}, set())
    for number, (command, who) in enumerate(steps):
        process = processes[who]
        match command:
            case "settle":
                process.settle()
                stored.add(number)
                own[who].add(number)
            case "save":
                saved = {key: REDIS.dump(key) for key in keys_of(payer)}, set(stored)
            case "empty":
                empty(payer)
                stored = set()
            case "put back":
                empty(payer)
                stored = set(saved[1])
                for key, value in saved[0].items():
                    REDIS.restore(key, 0, value)
            case _:
                if process.admit() == "emptied":
                    process.join()
                    process.load()
                    process.open()
                    # Both tell what they know before an epoch opens.
                    stored |= own[0] | own[1]
                assert process.admit() in ("ok", "cold")
                assert own[who] <= stored
    empty(payer)


async def test_a_killed_process_is_forgotten_once_it_is_gone_for_long(payer: Payer) -> None:
    """Its settlements are a field of each shard's epoch, which nothing else would ever delete."""
    prefix = payer.shard.prefix.rpartition(":{")[0]
    shard = shards_of(prefix)[payer.shard.number]
    async with connected() as redis:
        for process in ("killed", "living"):
            await present(redis, prefix, process, ttl_ms=-1 if process == "killed" else 60_000)
            REDIS.hset(shard.epoch.decode(), f"p:{process}", 3)
        assert b"killed" not in await present(redis, prefix, "living", ttl_ms=60_000)
        assert set(REDIS.hgetall(shard.epoch.decode())) == {b"p:killed", b"p:living"}
        assert await present(redis, prefix, "living", ttl_ms=60_000, gone_after_ms=0) == {b"living"}
        assert set(REDIS.hgetall(shard.epoch.decode())) == {b"p:living"}
        assert REDIS.zrange(gateways_key(prefix).decode(), 0, -1) == [b"living"]
        await leave(redis, prefix, "living")
        assert not REDIS.exists(shard.epoch.decode(), gateways_key(prefix).decode())
