"""Limiter: admit, settle and heartbeat, by the Lua scripts beside it.

Each script runs in one round trip and one step: a thousand simultaneous calls never pass a limit by one, and a
refused call changes nothing. PostgreSQL has the truth; Redis has it plus the calls in flight. A scope that Redis does
not know is loaded from PostgreSQL before anything is admitted by it, so an emptied Redis grants nothing extra.

The gateway calls the async functions on its Pipeline; sweeper and shipper call the sync ones on redis-py.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

from msgspec import Struct
from redis import Redis, RedisError, ResponseError

from billing.errors import LimiterAway, LimiterUnavailable
from billing.limiter.admission import BUDGETS, SCOPES, SECONDS_PER_DAY, Shortage, refusal
from billing.limiter.admission import Admission as Admission  # part of this interface
from billing.plans import Limits
from codexflow.lib.ids import text_of
from codexflow.lib.redis import SHARDS, Argument, Pipeline, RedisUnavailable, Script, shard_of, tag

LUA = Path(__file__).parent / "lua"
ADMIT = Script(LUA / "admit.lua")
SETTLE = Script(LUA / "settle.lua")
HEARTBEAT = Script(LUA / "heartbeat.lua")
LOAD = Script(LUA / "load.lua")
COUNT = Script(LUA / "count.lua")
VOID = Script(LUA / "void.lua")

# How long the retry of an admission waits for the connection, and for connection and response together: with the
# first try's timeout of 100 ms no call waits longer than 300 ms for Redis.
RECONNECT_TIMEOUT_S = 0.15
RETRY_TIMEOUT_S = 0.18
# How long Redis may carry out an admission: longer than a call waits for it, and no longer. A refused call must not be
# counted by a Redis that was only paused.
ADMIT_WITHIN_MS = 400
RECENT_S = 600
# Places in the arguments of admit.lua, and the length of a reply without counts.
DEADLINE, EPOCH = 9, 10
SHORTEST_REPLY = 5
# Verdicts after which it is worth asking again.
ASK_AGAIN = frozenset({b"cold", b"emptied", b"late"})


@dataclass(frozen=True, slots=True)
class ShardKeys:
    """Redis keys of one shard."""

    alive: bytes
    intents: bytes
    progress: bytes
    usage: bytes
    epoch: bytes
    roll: bytes
    prefix: str
    number: int

    @classmethod
    def of(cls, prefix: str, shard: int) -> "ShardKeys":
        base = f"{prefix}:{tag(shard)}:"
        alive, intents, progress, usage, epoch, roll = (
            f"{base}{name}".encode() for name in ("alive", "intents", "progress", "usage", "epoch", "roll")
        )
        return cls(alive, intents, progress, usage, epoch, roll, base, shard)


@dataclass(frozen=True, slots=True)
class Payer:
    """Scopes that a call counts against: an organization and the lineage of a key, with the Redis keys of both.

    `plan` and `pages_url` are for the messages of refusals: the plan's name, and where the organization's pages begin.
    """

    organization_id: UUID
    organization: bytes  # its id as text
    lineage_id: UUID  # of the key: its successors count against the same scope
    shard: ShardKeys
    scopes: tuple[bytes, bytes]
    slots: tuple[bytes, bytes]
    admit_keys: tuple[bytes, ...]  # of admit.lua, and the first of settle.lua
    plan: str = ""
    pages_url: str = ""
    # Owner of the organization, for circuits that concern all callers; empty if anybody may be one within minutes.
    owner: str = ""

    @classmethod
    def of(
        cls,
        prefix: str,
        organization_id: UUID,
        lineage_id: UUID,
        *,
        plan: str = "",
        pages_url: str = "",
        owner: str = "",
    ) -> "Payer":
        shard = ShardKeys.of(prefix, shard_of(organization_id))
        organization, key = f"o:{organization_id}", f"k:{lineage_id}"
        scopes = (f"{shard.prefix}scope:{organization}".encode(), f"{shard.prefix}scope:{key}".encode())
        slots = (f"{shard.prefix}slots:{organization}".encode(), f"{shard.prefix}slots:{key}".encode())
        return cls(
            organization_id,
            str(organization_id).encode(),
            lineage_id,
            shard,
            scopes,
            slots,
            (*scopes, shard.alive, shard.intents, *slots, shard.epoch),
            plan,
            pages_url,
            owner,
        )


class Claim(Struct, frozen=True, kw_only=True):
    """Arguments of admit.lua for one call."""

    request_id: UUID
    takes_slot: bool
    hold_nanos: int
    tokens: int
    intent: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeTotals:
    """A scope's sums as PostgreSQL has them: requests and nano-USD."""

    requests_today: int = 0
    day_nanos: int = 0
    month_nanos: int = 0
    total_nanos: int = 0

    def __add__(self, other: "ScopeTotals") -> "ScopeTotals":
        return ScopeTotals(
            requests_today=self.requests_today + other.requests_today,
            day_nanos=self.day_nanos + other.day_nanos,
            month_nanos=self.month_nanos + other.month_nanos,
            total_nanos=self.total_nanos + other.total_nanos,
        )


class Settlement(Struct, frozen=True, kw_only=True):
    """Result of a call for the counters, and its event for the log."""

    request_id: UUID
    event: bytes
    cost_nanos: int
    hold_nanos: int
    tokens_used: int
    tokens_reserved: int
    day: int
    minute: int
    takes_slot: bool = True  # or took: its slots are to be given back


class Epochs:
    """Epochs of the shards as a process knows them, and how many settlements of each it has seen: of all, and its own.

    Redis is the limiter's only if it has the same epoch and no fewer settlements. `join` is called when it has not.
    """

    __slots__ = ("closed", "field", "join", "names", "own", "settlements")

    def __init__(self, process: str = "") -> None:
        self.field = f"p:{process}".encode()
        self.names = [b"0"] * SHARDS
        self.settlements = [0] * SHARDS
        self.own = [0] * SHARDS
        # Shards whose epoch is closed, as far as this process knows.
        self.closed: set[int] = set()
        # Joins the epochs that Redis has, having saved what only this process knows. Raises RedisUnavailable.
        self.join: Callable[[], Awaitable[None]] = _never_join

    def known(self, shard: int) -> tuple[bytes, int, bytes, int]:
        """Values that a script compares with those of Redis."""
        return self.names[shard], self.settlements[shard], self.field, self.own[shard]

    def saw(self, shard: int, settlements: int) -> None:
        if settlements > self.settlements[shard]:
            self.settlements[shard] = settlements

    def settled(self, shard: int, settlements: int) -> None:
        """A settlement of this process is in Redis, which has counted so many since."""
        self.own[shard] += 1
        if settlements > self.settlements[shard]:
            self.settlements[shard] = settlements


async def _never_join() -> None:
    raise LimiterAway(reason="no epoch", retry_after_s=1)


# (payer, index of the scope, day) -> its totals. Raises LimiterUnavailable.
LoadTotals = Callable[[Payer, int, int], Awaitable[ScopeTotals]]


async def admit(
    redis: Pipeline,
    payer: Payer,
    limits: tuple[Limits, Limits],
    claim: Claim,
    *,
    lease_ms: int,
    load_totals: LoadTotals,
    epochs: Epochs | None = None,
    is_forced: bool = False,
    deadline_ms: int = 0,
) -> Admission:
    """Check every limit, count the call, take its hold and its lease, and write its intent; or change nothing.

    After `deadline_ms`, by Redis's clock, it changes nothing (0: no deadline). A LimiterAway leaves open whether it was
    carried out until then: see `void`.

    Raises DailyQuotaExceeded, RateLimitExceeded, TokenRateExceeded, ConcurrencyExceeded (429), InsufficientQuota (402),
    each with the state of the limits in `facts["admission"]`; LimiterAway (503) when Redis does not respond,
    LimiterUnavailable when PostgreSQL cannot for a scope that Redis does not know, and while Redis has not been
    told again what it lost. Without `epochs` Redis is believed to be whole.
    """
    organization, key = limits
    args: list[Argument] = [
        text_of(claim.request_id),
        lease_ms,
        b"1" if claim.takes_slot else b"0",
        claim.hold_nanos,
        claim.tokens,
        claim.intent,
        b"1" if is_forced else b"0",
        organization.packed,
        key.packed,
        deadline_ms,
    ]
    if epochs is not None:
        args += epochs.known(payer.shard.number)
    try:
        reply = await redis.run(ADMIT, payer.admit_keys, args)
        if reply[0] in ASK_AGAIN:
            reply = await _asked_again(redis, payer, args, epochs, reply)
            reply = await _load_scopes(redis, payer, args, epochs, load_totals, reply)
    except RedisUnavailable as exc:
        reply = await _retry(redis, payer, args, epochs, load_totals, exc)
    except ResponseError as exc:
        raise LimiterAway(reason=repr(exc), retry_after_s=1) from exc
    if epochs is not None and len(reply) > SHORTEST_REPLY:
        epochs.saw(payer.shard.number, reply[-1])
    return _decided(reply, payer, limits, tokens=claim.tokens, hold_nanos=claim.hold_nanos)


async def check(redis: Pipeline, payer: Payer, limits: tuple[Limits, Limits], *, epochs: Epochs | None = None) -> None:
    """Raise as `admit` if it would refuse even the smallest call. Changes nothing, and knows nothing without Redis."""
    organization, key = limits
    args: list[Argument] = [b"", 0, b"0", 1, 1, b"", b"2", organization.packed, key.packed, 0]
    if epochs is not None:
        args += epochs.known(payer.shard.number)
    try:
        reply = await redis.run(ADMIT, payer.admit_keys, args)
    except (RedisUnavailable, ResponseError):
        return
    if reply[0] not in (b"cold", b"emptied"):
        _decided(reply, payer, limits, tokens=1, hold_nanos=1)


def _decided(
    reply: list[Any], payer: Payer, limits: tuple[Limits, Limits], *, tokens: int, hold_nanos: int
) -> Admission:
    """Return the admission that admit.lua replied, or raise its refusal."""
    if len(reply) == SHORTEST_REPLY:
        raise _undecided(reply)
    verdict, day, now_ms, minute, scope, day_o, day_k, requests_o, requests_k, tokens_o, tokens_k, *details = reply
    admission = Admission(
        day=day,
        minute=minute,
        now_ms=now_ms,
        limits=limits,
        requests_today=(day_o, day_k),
        minute_requests=(requests_o, requests_k),
        minute_tokens=(tokens_o, tokens_k),
    )
    if verdict in (b"ok", b"dup"):
        return admission
    slot_free_in_ms, left_nanos, budget, _settlements = details
    raise refusal(
        verdict.decode(),
        scope - 1,
        admission,
        slot_free_in_ms=slot_free_in_ms,
        tokens=tokens,
        money=Shortage(budget=BUDGETS[budget], left_nanos=left_nanos, hold_nanos=hold_nanos),
        plan=payer.plan,
        pages_url=payer.pages_url,
    )


def _undecided(reply: list[Any]) -> LimiterUnavailable:
    """Error for a reply without counts: Redis was emptied, and nobody knows yet what it has to count from."""
    verdict, day, now_ms, minute, _scope = reply
    unlimited = Limits()
    admission = Admission(
        day=day,
        minute=minute,
        now_ms=now_ms,
        limits=(unlimited, unlimited),
        requests_today=(0, 0),
        is_degraded=True,
    )
    return LimiterUnavailable(reason=f"Redis was emptied: {verdict.decode()}", retry_after_s=1, admission=admission)


async def _ask(redis: Pipeline, payer: Payer, args: list[Argument], epochs: Epochs | None) -> list[Any]:
    """Run admit.lua; once more when this process was wrong about Redis's clock or its epoch."""
    return await _asked_again(redis, payer, args, epochs, await redis.run(ADMIT, payer.admit_keys, args))


async def _asked_again(
    redis: Pipeline, payer: Payer, args: list[Argument], epochs: Epochs | None, reply: list[Any]
) -> list[Any]:
    if reply[0] == b"emptied" and epochs is not None:
        await epochs.join()
        args[EPOCH:] = epochs.known(payer.shard.number)
        reply = await redis.run(ADMIT, payer.admit_keys, args)
    if reply[0] == b"late":
        args[DEADLINE] = reply[2] + ADMIT_WITHIN_MS
        reply = await redis.run(ADMIT, payer.admit_keys, args)
        if reply[0] == b"late":
            raise LimiterAway(reason="admitted too late", retry_after_s=1)
    return reply


async def _load_scopes(
    redis: Pipeline,
    payer: Payer,
    args: list[Argument],
    epochs: Epochs | None,
    load_totals: LoadTotals,
    reply: list[Any],
) -> list[Any]:
    """Load the scopes that Redis does not know and admit again. `reply` is the first.

    Each scope may be cold once, and once more when Redis is emptied meanwhile.
    """
    for _ in range(2 * len(SCOPES)):
        if reply[0] != b"cold":
            return reply
        day, scope = reply[1], reply[4] - 1
        totals = await load_totals(payer, scope, day)
        await redis.run(
            LOAD, [payer.scopes[scope], payer.shard.epoch], load_args(day, totals, *args[EPOCH : EPOCH + 1])
        )
        reply = await _ask(redis, payer, args, epochs)
    if reply[0] == b"cold":
        raise LimiterAway(reason="scopes do not stay loaded", retry_after_s=1)
    return reply


async def _retry(
    redis: Pipeline,
    payer: Payer,
    args: list[Argument],
    epochs: Epochs | None,
    load_totals: LoadTotals,
    first: RedisUnavailable,
) -> list[Any]:
    """Retry admission once after a short reconnect, at most 300 ms in all. Admitting twice is idempotent."""
    try:
        async with asyncio.timeout(RETRY_TIMEOUT_S):
            if not await redis.until_up(RECONNECT_TIMEOUT_S):
                raise LimiterAway(reason=repr(first), retry_after_s=1) from first
            reply = await _ask(redis, payer, args, epochs)
            return await _load_scopes(redis, payer, args, epochs, load_totals, reply)
    except (RedisUnavailable, ResponseError, TimeoutError) as again:
        raise LimiterAway(reason=repr(again), retry_after_s=1) from again


class Doubt(Struct, frozen=True, kw_only=True):
    """A refused call that Redis may have admitted all the same: its reply was lost."""

    payer: Payer
    request_id: UUID
    hold_nanos: int
    tokens: int
    deadline_ms: int


async def void(redis: Pipeline, doubt: Doubt) -> bool:
    """Undo the admission, if there was one. Returns False while it may still be carried out: ask again.

    Raises RedisUnavailable.
    """
    args: list[Argument] = [text_of(doubt.request_id), doubt.hold_nanos, doubt.tokens, doubt.deadline_ms]
    return bool(await redis.run(VOID, doubt.payer.admit_keys, args) >= 0)


async def settle(redis: Pipeline, payer: Payer, settlement: Settlement, *, epochs: Epochs | None = None) -> bool:
    """Append the event, release lease and hold, and charge. Returns whether this call moved the money.

    Raises RedisUnavailable; the journal then carries the event.
    """
    keys, args = _settle_command(payer, settlement)
    if epochs is not None:
        args.append(epochs.field)
    reply: int = await redis.run(SETTLE, keys, args)
    if epochs is not None:
        epochs.settled(payer.shard.number, abs(reply))
    return reply > 0


def settle_sync(redis: "Redis", payer: Payer, settlement: Settlement) -> bool:
    """As `settle`, for tasks. Raises redis.RedisError."""
    reply: int = SETTLE.run(redis, *_settle_command(payer, settlement))
    return reply > 0


def count_sync(redis: "Redis", payer: Payer, *, day: int, requests: int, cost_nanos: int) -> None:
    """Count calls past the gateway that PostgreSQL has. Raises redis.RedisError; reconciliation corrects it later."""
    COUNT.run(redis, list(payer.scopes), [day, month_of(day), requests, cost_nanos])


@dataclass(frozen=True, slots=True)
class Pulse:
    """A call in flight, as the heartbeat reports it."""

    request_id: UUID
    payer: Payer
    takes_slot: bool
    progress: str


async def heartbeat(redis: Pipeline, pulses: Sequence[Pulse], *, lease_ms: int) -> set[UUID]:
    """Renew the leases of this process's calls in flight. Returns the calls that Redis has lost.

    Raises RedisUnavailable.
    """
    by_shard: dict[bytes, list[Pulse]] = {}
    for pulse in pulses:
        by_shard.setdefault(pulse.payer.shard.alive, []).append(pulse)
    lost: set[UUID] = set()
    for group in by_shard.values():
        shard = group[0].payer.shard
        keys = [shard.alive, shard.intents, shard.progress]
        index: dict[bytes, int] = {}
        args: list[Argument] = [lease_ms]
        for pulse in group:
            args.append(str(pulse.request_id))
            for slot in pulse.payer.slots:
                if pulse.takes_slot and slot not in index:
                    keys.append(slot)
                    index[slot] = len(keys)
                args.append(index[slot] if pulse.takes_slot else 0)
            args.append(pulse.progress)
        lost.update(UUID(each.decode()) for each in await redis.run(HEARTBEAT, keys, args))
    return lost


def held_nanos(redis: "Redis", prefix: str, organization_id: UUID) -> int | None:
    """Sum of the holds of an organization's running calls; None while Redis is away. For pages, not for decisions."""
    shard = ShardKeys.of(prefix, shard_of(organization_id))
    try:
        stored: Any = redis.hget(f"{shard.prefix}scope:o:{organization_id}", "held")
    except RedisError:
        return None
    return max(0, int(stored or 0))


@lru_cache(maxsize=64)
def month_of(day: int) -> int:
    """Months since year 0 of a day since 1970, as admit.lua counts them."""
    date = datetime.fromtimestamp(day * SECONDS_PER_DAY, UTC)
    return date.year * 12 + date.month - 1


def load_args(day: int, totals: ScopeTotals, *epoch: Argument, held_nanos: int = 0) -> list[Argument]:
    """Arguments of load.lua. Without an epoch, epochs do not matter."""
    return [
        day, totals.requests_today, totals.day_nanos, month_of(day), totals.month_nanos, totals.total_nanos,
        held_nanos, *epoch,
    ]  # fmt: skip


def _settle_command(payer: Payer, settlement: Settlement) -> tuple[list[bytes], list[Any]]:
    shard, request_id = payer.shard, text_of(settlement.request_id)
    keys = [*payer.admit_keys, shard.progress, shard.usage, recent_key(shard, request_id)]
    args = [
        request_id,
        settlement.event,
        settlement.cost_nanos,
        settlement.hold_nanos,
        settlement.tokens_used,
        settlement.tokens_reserved,
        settlement.day,
        settlement.minute,
        payer.organization,
        RECENT_S,
        month_of(settlement.day),
        b"1" if settlement.takes_slot else b"0",
    ]
    return keys, args


def recent_key(shard: ShardKeys, request_id: UUID | str) -> bytes:
    """Key of a settled request's organization, kept for RECENT_S: a row not stored yet is not reported missing."""
    return f"{shard.prefix}recent:{request_id}".encode()
