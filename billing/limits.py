"""admit, settle, heartbeat: the only way in and out of every limit. The face of the Lua scripts.

Each script runs in one round trip and one step: a thousand simultaneous calls never pass a limit by one, and a
refused call changes nothing. Truth is PostgreSQL; Redis holds truth plus what is in flight. A scope that Redis does
not know is loaded from PostgreSQL before anything is admitted by it, so an emptied Redis gives nothing away.

The gateway calls the async functions on its Pipeline; sweeper and shipper call the sync ones on redis-py.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

from msgspec import Struct
from redis import Redis, RedisError, ResponseError

from billing.errors import (
    ConcurrencyExceeded,
    DailyQuotaExceeded,
    InsufficientQuota,
    LimiterUnavailable,
    RateLimitExceeded,
    TokenRateExceeded,
)
from billing.plans import Limits, tighter
from codexflow.lib.redis import Argument, Pipeline, RedisUnavailable, Script, shard_of, tag

_LUA = Path(__file__).parent / "lua"
ADMIT = Script(_LUA / "admit.lua")
SETTLE = Script(_LUA / "settle.lua")
HEARTBEAT = Script(_LUA / "heartbeat.lua")
WARM = Script(_LUA / "warm.lua")

SECONDS_PER_DAY = 86_400
SECOND_CHANCE_S = 0.15
RECENT_S = 600
SCOPES = ("organization", "key")


@dataclass(frozen=True, slots=True)
class ShardKeys:
    """Redis keys of one shard."""

    alive: bytes
    intents: bytes
    progress: bytes
    usage: bytes
    prefix: str

    @classmethod
    def of(cls, prefix: str, shard: int) -> "ShardKeys":
        base = f"{prefix}:{tag(shard)}:"
        alive, intents, progress, usage = (
            f"{base}{name}".encode() for name in ("alive", "intents", "progress", "usage")
        )
        return cls(alive, intents, progress, usage, base)


@dataclass(frozen=True, slots=True)
class Payer:
    """Whom a call counts against: an organization and one of its keys, with the Redis keys of both."""

    organization_id: UUID
    organization: bytes  # its id as text
    key_id: UUID
    shard: ShardKeys
    scopes: tuple[bytes, bytes]
    slots: tuple[bytes, bytes]

    @classmethod
    def of(cls, prefix: str, organization_id: UUID, key_id: UUID) -> "Payer":
        shard = ShardKeys.of(prefix, shard_of(organization_id))
        names = (f"o:{organization_id}", f"k:{key_id}")
        return cls(
            organization_id,
            str(organization_id).encode(),
            key_id,
            shard,
            tuple(f"{shard.prefix}scope:{name}".encode() for name in names),  # type: ignore[arg-type] # two of each
            tuple(f"{shard.prefix}slots:{name}".encode() for name in names),  # type: ignore[arg-type]
        )


class Claim(Struct, frozen=True, kw_only=True):
    """What a call asks for."""

    request_id: UUID
    takes_slot: bool
    hold_nanos: int
    tokens: int
    intent: bytes


class Admission(Struct, frozen=True, kw_only=True):
    """A call that passed every limit, or the state of the daily limit when it did not."""

    day: int  # days since 1970, by Redis's clock
    minute: int
    limit: int  # daily requests of the tighter scope; -1 = none
    remaining: int
    reset_s: int  # epoch seconds

    def headers(self) -> list[tuple[bytes, bytes]]:
        """X-RateLimit-* of the daily requests."""
        if self.limit < 0:
            return []
        return [
            (b"x-ratelimit-limit", b"%d" % self.limit),
            (b"x-ratelimit-remaining", b"%d" % self.remaining),
            (b"x-ratelimit-reset", b"%d" % self.reset_s),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeTruth:
    """A scope's sums as PostgreSQL has them."""

    requests_today: int = 0
    day_nanos: int = 0
    month_nanos: int = 0
    total_nanos: int = 0


class Settlement(Struct, frozen=True, kw_only=True):
    """How a call ended, for the counters, and its event for the log."""

    request_id: UUID
    event: bytes
    cost_nanos: int
    hold_nanos: int
    tokens_used: int
    tokens_reserved: int
    day: int
    minute: int


# (payer, index of the scope, day) -> its truth. Raises LimiterUnavailable.
LoadTruth = Callable[[Payer, int, int], Awaitable[ScopeTruth]]


async def admit(
    redis: Pipeline,
    payer: Payer,
    limits: tuple[Limits, Limits],
    claim: Claim,
    *,
    lease_ms: int,
    load_truth: LoadTruth,
    is_forced: bool = False,
) -> Admission:
    """Check every limit, count the call, take its hold and its lease, and write its intent; or change nothing.

    Raises DailyQuotaExceeded, RateLimitExceeded, TokenRateExceeded, ConcurrencyExceeded (429), InsufficientQuota (402),
    each with the state of the daily limit in `facts["admission"]`; LimiterUnavailable (503) when Redis or, for a
    scope it does not know, PostgreSQL cannot answer.
    """
    keys = [*payer.scopes, payer.shard.alive, payer.shard.intents, *payer.slots]
    args: list[Argument] = [
        str(claim.request_id),
        lease_ms,
        int(claim.takes_slot),
        claim.hold_nanos,
        claim.tokens,
        claim.intent,
        int(is_forced),
        *limits[0].as_args(),
        *limits[1].as_args(),
    ]
    try:
        reply = await _ask(redis, payer, keys, args, load_truth)
    except RedisUnavailable as exc:
        # A stall of a moment should not cost the caller an answer. Asking twice is harmless: the first may have
        # been counted, and then the second is told so.
        if not await redis.until_up(SECOND_CHANCE_S):
            raise LimiterUnavailable(reason=repr(exc), retry_after_s=1) from exc
        try:
            reply = await _ask(redis, payer, keys, args, load_truth)
        except RedisUnavailable as again:
            raise LimiterUnavailable(reason=repr(again), retry_after_s=1) from again
    verdict, day, now_ms, detail = reply[0], reply[1], reply[2], reply[6]
    admission = _daily_state(limits, day=day, minute=reply[5], used=(reply[3], reply[4]))
    if verdict in (b"ok", b"dup"):
        return admission
    raise _refusal(verdict.decode(), SCOPES[detail - 1], admission, now_ms)


async def _ask(
    redis: Pipeline, payer: Payer, keys: Sequence[bytes], args: Sequence[Argument], load_truth: LoadTruth
) -> list[Any]:
    """The script's answer, after loading the scopes that Redis does not know: each may be cold once."""
    try:
        for _ in range(len(SCOPES) + 1):
            reply: list[Any] = await redis.run(ADMIT, keys, args)
            verdict, day, scope = reply[0], reply[1], reply[6] - 1
            if verdict != b"cold":
                return reply
            truth = await load_truth(payer, scope, day)
            await redis.run(WARM, [payer.scopes[scope]], _warm_args(day, truth))
    except ResponseError as exc:
        raise LimiterUnavailable(reason=repr(exc), retry_after_s=1) from exc
    raise LimiterUnavailable(reason="scopes do not stay loaded", retry_after_s=1)


async def settle(redis: Pipeline, payer: Payer, settlement: Settlement) -> bool:
    """Append the event, give lease and hold back, charge. Returns whether this call moved the money.

    Raises RedisUnavailable; the journal then carries the event.
    """
    reply = await redis.run(SETTLE, *_settle_command(payer, settlement))
    return bool(reply)


def settle_sync(redis: "Redis", payer: Payer, settlement: Settlement) -> bool:
    """As `settle`, for tasks. Raises redis.RedisError."""
    return bool(SETTLE.run(redis, *_settle_command(payer, settlement)))


@dataclass(frozen=True, slots=True)
class Pulse:
    """A live call as the heartbeat reports it."""

    request_id: UUID
    payer: Payer
    takes_slot: bool
    progress: str


async def heartbeat(redis: Pipeline, pulses: Sequence[Pulse], *, lease_ms: int) -> set[UUID]:
    """Renew the leases of all live calls of this process. Returns the calls that Redis has forgotten.

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
    """What the organization's running calls hold now; None while Redis is away. For pages, not for decisions."""
    shard = ShardKeys.of(prefix, shard_of(organization_id))
    try:
        stored: Any = redis.hget(f"{shard.prefix}scope:o:{organization_id}", "held")
    except RedisError:
        return None
    return max(0, int(stored or 0))


def read_intent(stored: bytes) -> tuple[int, int, bytes]:
    """Day and minute of admission, and the intent as the caller wrote it."""
    day, minute, intent = stored.split(b":", 2)
    return int(day), int(minute), intent


@lru_cache(maxsize=64)
def month_of(day: int) -> int:
    """Months since year 0 of a day since 1970, as admit.lua counts them."""
    date = datetime.fromtimestamp(day * SECONDS_PER_DAY, UTC)
    return date.year * 12 + date.month - 1


def _warm_args(day: int, truth: ScopeTruth) -> list[Argument]:
    return [day, truth.requests_today, truth.day_nanos, month_of(day), truth.month_nanos, truth.total_nanos]


def _settle_command(payer: Payer, settlement: Settlement) -> tuple[list[bytes], list[Any]]:
    shard, request_id = payer.shard, str(settlement.request_id)
    keys = [
        *payer.scopes,
        shard.alive,
        shard.intents,
        *payer.slots,
        shard.progress,
        shard.usage,
        recent_key(shard, request_id),
    ]
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
    ]
    return keys, args


def recent_key(shard: ShardKeys, request_id: UUID | str) -> bytes:
    """Says for ten minutes whose request it was, so that a row on its way is not reported missing."""
    return f"{shard.prefix}recent:{request_id}".encode()


def _daily_state(limits: tuple[Limits, Limits], *, day: int, minute: int, used: tuple[int, int]) -> Admission:
    """The daily limit with the least left."""
    left = [
        (max(0, scope.daily_requests - count), scope.daily_requests)
        for scope, count in zip(limits, used, strict=True)
        if scope.daily_requests >= 0
    ]
    remaining, limit = min(left) if left else (0, tighter(-1, -1))
    return Admission(day=day, minute=minute, limit=limit, remaining=remaining, reset_s=(day + 1) * SECONDS_PER_DAY)


@dataclass(frozen=True, slots=True)
class _Verdict:
    error: type[RateLimitExceeded | InsufficientQuota]
    what: str = field(default="")


_VERDICTS = {
    "day": _Verdict(DailyQuotaExceeded, "requests a day"),
    "rpm": _Verdict(RateLimitExceeded, "requests a minute"),
    "tpm": _Verdict(TokenRateExceeded, "tokens a minute"),
    "streams": _Verdict(ConcurrencyExceeded, "concurrent streams"),
    "budget": _Verdict(InsufficientQuota, "budget"),
}


def _refusal(verdict: str, scope: str, admission: Admission, now_ms: int) -> Exception:
    """The error for a verdict, with the whole seconds after which the same call may pass."""
    known = _VERDICTS[verdict]
    now_s = now_ms // 1000
    retry_after_s: int | None = {
        "day": admission.reset_s - now_s,
        "rpm": 60 - now_s % 60,
        "tpm": 60 - now_s % 60,
        "streams": 1,
    }.get(verdict)
    message = f"{known.error.default_message} (limit of the {scope}: {known.what})"
    return known.error(message, retry_after_s=retry_after_s, scope=scope, admission=admission)
