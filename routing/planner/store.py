"""Plans that were quoted or stopped, for an hour in Redis: they are carried out, or gone on with, without new planning.

Kept are the plan and the texts of its finished parts. The conversation is not: the caller sends it again, and its
digest must be the same.
"""

from hashlib import blake2b
from uuid import UUID

import msgspec
from msgspec import Struct
from redis import ResponseError

from billing.limiter.limits import Payer
from codexflow.lib.redis import GatewayRedis, RedisUnavailable
from routing.errors import PlanNotFound
from routing.planner.plan import Plan
from routing.planner.request import Planning

LIFE_S = 3600


class DonePart(Struct, frozen=True, kw_only=True):
    """A part that is written."""

    text: str
    is_cut_off: bool = False


class KeptPlan(Struct, frozen=True, kw_only=True):
    """A plan, what of it is done by number, and what it has cost so far in other requests."""

    organization_id: UUID
    digest: bytes
    plan: Plan
    done: dict[int, DonePart] = {}
    spent_nanos: int = 0


_decoder = msgspec.msgpack.Decoder(KeptPlan)


def digest_of(planning: Planning) -> bytes:
    """Digest of a conversation, by which its plan is found again."""
    digest = blake2b(digest_size=16)
    for text in (*(bytes(each) for each in planning.earlier), *(each.encode() for each in planning.sections)):
        digest.update(b"%d:" % len(text))
        digest.update(text)
    return digest.digest()


def _key(payer: Payer, plan_id: UUID) -> bytes:
    return f"{payer.shard.prefix}plan:{plan_id}".encode()


async def keep(redis: GatewayRedis, payer: Payer, plan_id: UUID, kept: KeptPlan) -> bool:
    """Keep a plan for an hour. Returns False when Redis is away."""
    try:
        await redis.call(b"SET", _key(payer, plan_id), msgspec.msgpack.encode(kept), b"EX", LIFE_S)
    except (RedisUnavailable, ResponseError):
        return False
    return True


async def find(redis: GatewayRedis, payer: Payer, planning: Planning) -> tuple[UUID, KeptPlan]:
    """Return the plan that the caller names. Raises PlanNotFound (404): unknown, over, or of other messages."""
    try:
        plan_id = UUID(planning.plan_id)
        stored = await redis.call(b"GET", _key(payer, plan_id))
        kept = _decoder.decode(stored) if stored is not None else None
    except (ValueError, RedisUnavailable, ResponseError, msgspec.MsgspecError) as exc:
        raise PlanNotFound(param="x-plan") from exc
    if kept is None or kept.organization_id != payer.organization_id or kept.digest != digest_of(planning):
        raise PlanNotFound(param="x-plan")
    return plan_id, kept
