"""Limits of counts of tokens: the requests a minute once more, apart from those of other calls.

Counts that callers ask for and counts that the gateway asks for by itself are limited apart.
"""

from redis import ResponseError

from billing.errors import RateLimitExceeded
from billing.limiter.admission import SCOPES
from billing.limiter.limits import LUA, Payer
from billing.plans import Limits
from codexflow.lib.redis import GatewayRedis, RedisUnavailable, Script

MEASURE = Script(LUA / "measure.lua")
# Counts a minute that the gateway asks for by itself, for an organization and for a key, if not fewer requests.
MOST_OWN_COUNTS = 60


async def count_measured(redis: GatewayRedis, payer: Payer, limits: tuple[Limits, Limits]) -> None:
    """Count one call. Raises RateLimitExceeded, having counted nothing. Without Redis it passes: it costs nothing."""
    rates = [each.rpm for each in limits]
    try:
        scope, ends_in_s = await redis.run(MEASURE, _keys("measured", payer), rates)
    except (RedisUnavailable, ResponseError):
        return
    if scope:
        name = SCOPES[scope - 1]
        raise RateLimitExceeded(
            f"At most {rates[scope - 1]} token counts a minute (limit of the {name}); retry in {ends_in_s} s.",
            retry_after_s=ends_in_s,
            scope=name,
        )


async def may_count(redis: GatewayRedis, payer: Payer, limits: tuple[Limits, Limits]) -> bool:
    """Count one count that the gateway asks for by itself. Returns False above the limit, and without Redis."""
    rates = [min(each.rpm, MOST_OWN_COUNTS) if each.rpm >= 0 else MOST_OWN_COUNTS for each in limits]
    try:
        scope, _ends_in_s = await redis.run(MEASURE, _keys("counted", payer), rates)
    except (RedisUnavailable, ResponseError):
        return False
    return not scope


def _keys(name: str, payer: Payer) -> list[bytes]:
    prefix = payer.shard.prefix
    return [f"{prefix}{name}:o:{payer.organization_id}".encode(), f"{prefix}{name}:k:{payer.lineage_id}".encode()]
