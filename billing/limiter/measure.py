"""Limit of calls that are only measured: the requests a minute once more, apart from those of other calls."""

from redis import ResponseError

from billing.errors import RateLimitExceeded
from billing.limiter.admission import SCOPES
from billing.limiter.limits import LUA, Payer
from billing.plans import Limits
from codexflow.lib.redis import Pipeline, RedisUnavailable, Script

MEASURE = Script(LUA / "measure.lua")


async def count_measured(redis: Pipeline, payer: Payer, limits: tuple[Limits, Limits]) -> None:
    """Count one call. Raises RateLimitExceeded, having counted nothing. Without Redis it passes: it costs nothing."""
    prefix = payer.shard.prefix
    keys = [f"{prefix}measured:o:{payer.organization_id}".encode(), f"{prefix}measured:k:{payer.lineage_id}".encode()]
    rates = [each.rpm for each in limits]
    try:
        scope, ends_in_s = await redis.run(MEASURE, keys, rates)
    except (RedisUnavailable, ResponseError):
        return
    if scope:
        name = SCOPES[scope - 1]
        raise RateLimitExceeded(
            f"At most {rates[scope - 1]} token counts a minute (limit of the {name}); retry in {ends_in_s} s.",
            retry_after_s=ends_in_s,
            scope=name,
        )
