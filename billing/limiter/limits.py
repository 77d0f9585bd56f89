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
from struct import Struct as Packer
from typing import Any
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace as msgspec_replace
from redis import Redis, RedisError, ResponseError

from billing.errors import LimiterAway, LimiterUnavailable
from billing.limiter.admission import BUDGETS, SCOPES, SECONDS_PER_DAY, SECONDS_PER_MINUTE, TAG, Shortage, refusal
from billing.limiter.admission import Admission as Admission  # part of this interface
from billing.limiter.admission import TagScope as TagScope  # likewise
from billing.plans import Limits
from codexflow.lib import clock
from codexflow.lib.ids import text_of
from codexflow.lib.redis import SHARDS, Argument, RedisUnavailable, Script, ShardRedis, shard_of, tag

LUA = Path(__file__).parent / "lua"
ADMIT = Script(LUA / "admit.lua")
SETTLE = Script(LUA / "settle.lua")
HEARTBEAT = Script(LUA / "heartbeat.lua")
LOAD = Script(LUA / "load.lua")
COUNT = Script(LUA / "count.lua")
VOID = Script(LUA / "void.lua")
AMEND = Script(LUA / "amend.lua")

# How long the retry of an admission waits for the connection, and for connection and response together: with the
# first try's timeout of 100 ms no call waits longer than 300 ms for Redis.
RECONNECT_TIMEOUT_S = 0.15
RETRY_TIMEOUT_S = 0.18
# How long Redis may carry out an admission: longer than a call waits for it, and no longer. A refused call must not be
# counted by a Redis that was only paused.
ADMIT_WITHIN_MS = 400
# The same for one that came too late: then this process is starved, and Redis responds.
ADMIT_STARVED_WITHIN_MS = 2_000
# What was settled is remembered by the minute, so that a row that is not stored yet is not reported missing.
SETTLED_MINUTES = 10
_SETTLED_S = (SETTLED_MINUTES + 2) * SECONDS_PER_MINUTE
# Numbers in front of the limits in an argument of admit.lua, its reply with counts, and those of settle.lua.
_OF_ADMISSION = Packer("<5B7d")
_OF_REPLY = Packer("<3B12q")
_OF_SETTLEMENT = Packer("<3B4d")
# Verdicts of admit.lua with counts, as it numbers them.
VERDICTS = ("ok", "dup", "day", "rpm", "tpm", "streams", "budget")
_ADMITTED = 2  # the verdicts before it
# Modes of admit.lua.
_ADMIT, _RESTORE, _CHECK = range(3)
# Verdicts without counts after which it is worth asking again.
ASK_AGAIN = frozenset({b"cold", b"emptied", b"late"})
# Doubles, by which scripts reckon, keep smaller integers whole; a larger amount goes along as text.
WHOLE = 2**53


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
    admit_keys: tuple[bytes, ...]  # of admit.lua, for a whole response without a tag's budget
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
            (*scopes, shard.intents, shard.epoch),
            plan,
            pages_url,
            owner,
        )


def tag_scope_key(shard: ShardKeys, budget_id: UUID) -> bytes:
    """Key of the scope of a tag's budget."""
    return f"{shard.prefix}scope:t:{budget_id}".encode()


class Claim(Struct, frozen=True, kw_only=True):
    """Demand of one call, for admit.lua."""

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
    is_leased: bool = True  # or may be: a heartbeat or the sweeper may have given it a lease
    tag_budget_id: UUID | None = None  # of the tag's budget by which it was admitted


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


# (kind of a scope, id, day) -> its totals. Kinds: "o" an organization, "k" a key's lineage, "t" a tag's budget.
# Raises LimiterUnavailable.
LoadTotals = Callable[[str, UUID, int], Awaitable[ScopeTotals]]


async def admit(
    redis: ShardRedis,
    payer: Payer,
    limits: tuple[Limits, Limits],
    claim: Claim,
    *,
    lease_ms: int,
    load_totals: LoadTotals,
    epochs: Epochs | None = None,
    is_forced: bool = False,
    deadline_ms: int = 0,
    tag: TagScope | None = None,
) -> Admission:
    """Check every limit, count the call, take its hold and its lease, and write its intent; or change nothing.

    After `deadline_ms`, by Redis's clock, it changes nothing (0: no deadline). A LimiterAway leaves open whether it was
    carried out until then: see `void`.

    Raises DailyQuotaExceeded, RateLimitExceeded, TokenRateExceeded, ConcurrencyExceeded (429), InsufficientQuota (402),
    each with the state of the limits in `facts["admission"]`; LimiterAway (503) when Redis does not respond,
    LimiterUnavailable when PostgreSQL cannot for a scope that Redis does not know, and while Redis has not been
    told again what it lost. Without `epochs` Redis is believed to be whole.
    """
    question = Question(
        payer=payer,
        limits=limits,
        claim=claim,
        tag=tag,
        epochs=epochs,
        lease_ms=lease_ms,
        deadline_ms=deadline_ms,
        mode=_RESTORE if is_forced else _ADMIT,
    )
    try:
        reply = await question.ask(redis)
        if isinstance(reply, list) and reply[0] in ASK_AGAIN:
            reply = await _asked_again(redis, question, reply)
            reply = await _load_scopes(redis, question, load_totals, reply)
    except RedisUnavailable as exc:
        reply = await _retry(redis, question, load_totals, exc)
    except ResponseError as exc:
        raise LimiterAway(reason=repr(exc), retry_after_s=1) from exc
    return question.read(reply)


async def check(
    redis: ShardRedis, payer: Payer, limits: tuple[Limits, Limits], *, epochs: Epochs | None = None
) -> None:
    """Raise as `admit` if it would refuse even the smallest call. Changes nothing, and knows nothing without Redis."""
    question = Question(payer=payer, limits=limits, claim=_SMALLEST, epochs=epochs, mode=_CHECK)
    try:
        reply = await question.ask(redis)
    except (RedisUnavailable, ResponseError):
        return
    if not isinstance(reply, list) or reply[0] not in (b"cold", b"emptied"):
        question.read(reply)


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


# Reply of admit.lua: without counts, or all of it packed.
_Reply = list[Any] | bytes


@lru_cache(maxsize=4)
def _day_and_minute(minute: int) -> bytes:
    """Beginning of an intent, as admit.lua writes it."""
    return b"%d:%d:" % (minute * SECONDS_PER_MINUTE // SECONDS_PER_DAY, minute)


class Question(Struct, kw_only=True):
    """A question to admit.lua, which may be asked again, with another deadline."""

    payer: Payer
    limits: tuple[Limits, Limits]
    claim: Claim
    tag: TagScope | None = None
    epochs: Epochs | None = None
    lease_ms: int = 0
    deadline_ms: int = 0
    mode: int = _ADMIT
    epoch: bytes = b""  # by which it was asked

    def ask(self, redis: ShardRedis) -> "asyncio.Future[_Reply]":
        return redis.run(ADMIT, *self.command())

    def command(self) -> tuple[tuple[bytes, ...], list[Argument]]:
        """Keys and arguments."""
        payer, claim, tag, (organization, key) = self.payer, self.claim, self.tag, self.limits
        keys = payer.admit_keys if tag is None else (*payer.scopes, tag.key, payer.shard.intents, payer.shard.epoch)
        if claim.takes_slot:
            keys = (*keys, *payer.slots)
        self.epoch, seen, field, own = _NO_EPOCH if self.epochs is None else self.epochs.known(payer.shard.number)
        minute = int(clock.now_s()) // SECONDS_PER_MINUTE  # Redis's own clock decides
        of_organization, of_key = organization.packed, key.packed
        numbers = _OF_ADMISSION.pack(
            self.mode, claim.takes_slot, 2 if tag is None else 3, bool(of_organization), bool(of_key),
            claim.hold_nanos, claim.tokens, self.lease_ms, self.deadline_ms, minute, seen, own,
        )  # fmt: skip
        packed = numbers + of_organization + of_key
        if tag is not None:
            packed += tag.limits.packed
        args: list[Argument] = [
            text_of(claim.request_id),
            _day_and_minute(minute) + claim.intent,
            packed,
            self.epoch,
            field,
        ]
        if claim.hold_nanos >= WHOLE:
            args.append(claim.hold_nanos)
        return keys, args

    def read(self, reply: _Reply) -> Admission:
        """Return the admission that admit.lua replied, or raise its refusal."""
        if isinstance(reply, list):
            raise _undecided(reply)
        (
            verdict, scope, budget, day, now_ms, minute, day_o, requests_o, tokens_o, day_k, requests_k, tokens_k,
            slot_free_in_ms, left_nanos, settlements,
        ) = _OF_REPLY.unpack(reply)  # fmt: skip
        if self.epochs is not None:
            self.epochs.saw(self.payer.shard.number, settlements)
        admission = Admission(
            day=day,
            minute=minute,
            now_ms=now_ms,
            limits=self.limits,
            requests_today=(day_o, day_k),
            minute_requests=(requests_o, requests_k),
            minute_tokens=(tokens_o, tokens_k),
        )
        if verdict < _ADMITTED:
            return admission
        claim, payer = self.claim, self.payer
        raise refusal(
            VERDICTS[verdict],
            scope - 1,
            admission,
            slot_free_in_ms=slot_free_in_ms,
            tokens=claim.tokens,
            money=Shortage(budget=BUDGETS[budget], left_nanos=left_nanos, hold_nanos=claim.hold_nanos),
            plan=payer.plan,
            pages_url=payer.pages_url,
            tag=self.tag,
        )

    def scope(self, index: int) -> tuple[str, UUID, bytes]:
        """Return kind, id and Redis key of one of SCOPES, or TAG."""
        payer = self.payer
        if self.tag is not None and index == TAG:
            return "t", self.tag.budget_id, self.tag.key
        return (("o", payer.organization_id), ("k", payer.lineage_id))[index] + (payer.scopes[index],)


_NO_EPOCH = (b"", 0, b"", 0)
_SMALLEST = Claim(request_id=UUID(int=0), takes_slot=False, hold_nanos=1, tokens=1, intent=b"")


async def _ask(redis: ShardRedis, question: Question) -> _Reply:
    """Run admit.lua; once more when this process was wrong about Redis's clock or its epoch."""
    reply = await question.ask(redis)
    return await _asked_again(redis, question, reply) if isinstance(reply, list) else reply


async def _asked_again(redis: ShardRedis, question: Question, reply: list[Any]) -> _Reply:
    found: _Reply = reply
    if found[0] == b"emptied" and question.epochs is not None:
        await question.epochs.join()
        found = await question.ask(redis)
    if isinstance(found, list) and found[0] == b"late":
        question.deadline_ms = found[2] + ADMIT_STARVED_WITHIN_MS
        found = await question.ask(redis)
        if isinstance(found, list) and found[0] == b"late":
            raise LimiterAway(reason="admitted too late", retry_after_s=1)
    return found


async def _load_scopes(redis: ShardRedis, question: Question, load_totals: LoadTotals, reply: _Reply) -> _Reply:
    """Load the scopes that Redis does not know and admit again. `reply` is the first.

    Each scope may be cold once, and once more when Redis is emptied meanwhile.
    """
    for _ in range(2 * (len(SCOPES) + 1)):
        if not isinstance(reply, list) or reply[0] != b"cold":
            return reply
        day = reply[1]
        epoch = (question.epoch,) if question.epoch else ()
        kind, owner, key = question.scope(reply[4] - 1)
        totals = await load_totals(kind, owner, day)
        await redis.run(LOAD, [key, question.payer.shard.epoch], load_args(day, totals, *epoch))
        reply = await _ask(redis, question)
    if isinstance(reply, list) and reply[0] == b"cold":
        raise LimiterAway(reason="scopes do not stay loaded", retry_after_s=1)
    return reply


async def _retry(redis: ShardRedis, question: Question, load_totals: LoadTotals, first: RedisUnavailable) -> _Reply:
    """Retry admission once after a short reconnect, at most 300 ms in all. Admitting twice is idempotent."""
    try:
        async with asyncio.timeout(RETRY_TIMEOUT_S):
            if not await redis.until_up(RECONNECT_TIMEOUT_S):
                raise LimiterAway(reason=repr(first), retry_after_s=1) from first
            return await _load_scopes(redis, question, load_totals, await _ask(redis, question))
    except (RedisUnavailable, ResponseError, TimeoutError) as again:
        raise LimiterAway(reason=repr(again), retry_after_s=1) from again


class Amendment(Struct, frozen=True, kw_only=True):
    """Change of an admitted call: its intent, its hold and its reserved tokens."""

    request_id: UUID
    intent: bytes
    hold_nanos: tuple[int, int]  # until now, from now on
    tokens: tuple[int, int]


async def amend(
    redis: ShardRedis,
    payer: Payer,
    limits: tuple[Limits, Limits],
    amendment: Amendment,
    *,
    admission: Admission,
    tag: TagScope | None = None,
) -> None:
    """Replace the intent of a call in flight, and change its hold and its reserved tokens; or change nothing.

    Raises InsufficientQuota (402) and TokenRateExceeded (429) where more is asked for than is left, LimiterAway (503)
    when Redis does not respond or has lost the call.
    """
    organization, key = limits
    packed = key.packed if tag is None else key.packed + tag.limits.packed
    keys = [*payer.scopes, payer.shard.intents, *([tag.key] if tag is not None else [])]
    args: list[Argument] = [
        text_of(amendment.request_id), amendment.intent, *amendment.hold_nanos, *amendment.tokens,
        organization.packed, packed,
    ]  # fmt: skip
    try:
        verdict, scope, left_nanos, budget, tokens_used = await redis.run(AMEND, keys, args)
    except (RedisUnavailable, ResponseError) as exc:
        raise LimiterAway(reason=repr(exc), retry_after_s=1) from exc
    if verdict == b"ok":
        return
    if verdict == b"lost":
        raise LimiterAway(reason="the call is not known", retry_after_s=1)
    before, after = amendment.tokens
    minute_tokens = (tokens_used, tokens_used)
    raise refusal(
        verdict.decode(),
        scope - 1,
        msgspec_replace(admission, minute_tokens=minute_tokens),
        tokens=after - before,
        money=Shortage(budget=BUDGETS[budget], left_nanos=left_nanos, hold_nanos=_growth(amendment.hold_nanos)),
        plan=payer.plan,
        pages_url=payer.pages_url,
        tag=tag,
    )


def _growth(amounts: tuple[int, int]) -> int:
    before, after = amounts
    return after - before


class Doubt(Struct, frozen=True, kw_only=True):
    """A refused call that Redis may have admitted all the same: its reply was lost."""

    payer: Payer
    request_id: UUID
    hold_nanos: int
    tokens: int
    deadline_ms: int
    tag_budget_id: UUID | None = None


async def void(redis: ShardRedis, doubt: Doubt) -> bool:
    """Undo the admission, if there was one. Returns False while it may still be carried out, once more: ask again.

    Raises RedisUnavailable.
    """
    args: list[Argument] = [text_of(doubt.request_id), doubt.hold_nanos, doubt.tokens, doubt.deadline_ms]
    payer, shard = doubt.payer, doubt.payer.shard
    keys = [*payer.scopes, shard.alive, shard.intents, *payer.slots]
    if doubt.tag_budget_id is not None:
        keys.append(tag_scope_key(shard, doubt.tag_budget_id))
    return bool(await redis.run(VOID, keys, args) >= 0)


async def settle(redis: ShardRedis, payer: Payer, settlement: Settlement, *, epochs: Epochs | None = None) -> bool:
    """Append the event, release lease and hold, and charge. Returns whether this call moved the money.

    Raises RedisUnavailable; the journal then carries the event.
    """
    field = b"" if epochs is None else epochs.field
    reply: int = await redis.run(SETTLE, *settle_command(payer, settlement, field))
    if epochs is not None:
        epochs.settled(payer.shard.number, abs(reply))
    return reply > 0


def settle_sync(redis: "Redis", payer: Payer, settlement: Settlement) -> bool:
    """As `settle`, for tasks. Raises redis.RedisError."""
    reply: int = SETTLE.run(redis, *settle_command(payer, settlement))
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


async def heartbeat(redis: ShardRedis, pulses: Sequence[Pulse], *, lease_ms: int) -> set[UUID]:
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


def settle_command(payer: Payer, settlement: Settlement, field: bytes = b"") -> tuple[list[bytes], list[Any]]:
    """Keys and arguments of settle.lua; `field`: of the process's own settlements."""
    shard, request_id = payer.shard, text_of(settlement.request_id)
    minute = int(clock.now_s()) // SECONDS_PER_MINUTE
    tag_budget_id, cost, hold = settlement.tag_budget_id, settlement.cost_nanos, settlement.hold_nanos
    keys = [*payer.scopes]
    if tag_budget_id is not None:
        keys.append(tag_scope_key(shard, tag_budget_id))
    count = len(keys)
    keys += (shard.intents, shard.epoch, shard.usage, settled_key(shard, minute, settlement.request_id))
    if settlement.is_leased:
        keys += (shard.alive, shard.progress)
    if settlement.takes_slot:
        keys += payer.slots
    tokens = settlement.tokens_used - settlement.tokens_reserved
    args = [
        request_id,
        settlement.event,
        _OF_SETTLEMENT.pack(count, settlement.is_leased, settlement.takes_slot, cost, hold, tokens, _SETTLED_S),
        settlement.request_id.bytes + payer.organization_id.bytes,
        settlement.day,
        month_of(settlement.day),
        settlement.minute,
        field,
    ]
    if cost >= WHOLE or hold >= WHOLE:
        args += (cost, hold)
    return keys, args


def settled_key(shard: ShardKeys, minute: int, request_id: UUID) -> bytes:
    """Key of what was settled in a minute, by the clock of who settled it: request and organization, 16 bytes each.

    A sixteenth of the calls, so that looking for one of a busy minute keeps Redis for a millisecond at most.
    """
    return b"%bdone:%d:%x" % (shard.prefix.encode(), minute, request_id.int & 15)


def old_settled_key(shard: ShardKeys, minute: int) -> bytes:
    """As `settled_key`, by processes of the release before: a hash, request id -> organization."""
    return b"%bsettled:%d" % (shard.prefix.encode(), minute)
