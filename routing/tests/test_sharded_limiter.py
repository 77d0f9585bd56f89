"""The limiter of a cluster: what becomes of one shard while another shard's primary is dead."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from django.conf import settings

from billing.errors import LimiterUnavailable
from billing.limiter.fallback import FAILURES_TO_OPEN, OutageTerms
from billing.limiter.limits import Payer, Pulse, ScopeTotals
from billing.plans import Limits
from codexflow.lib.clock import monotonic_s
from codexflow.lib.ids import random_id
from codexflow.lib.redis import SHARDS, Pipeline, RedisUnavailable
from keys.principal import Principal
from logs.tests.factories import an_event
from routing.limiter import Limiter
from routing.sharded_limiter import ShardedLimiter

ALIVE, DEAD = 3, 9


@pytest.fixture
async def limiter() -> AsyncIterator[ShardedLimiter]:
    """Limiters of all shards on one Redis; that of the shard DEAD is away."""
    redis, nobody = Pipeline(settings.ENV.redis_url, timeout_s=5), Pipeline("redis://127.0.0.1:1", timeout_s=0.01)
    await redis.start()
    await nobody.start()

    async def no_totals(*_: object) -> ScopeTotals:
        return ScopeTotals()

    yield ShardedLimiter(
        [
            Limiter(
                nobody if number == DEAD else redis,
                load_totals=no_totals,
                lease_ms=60_000,
                terms=OutageTerms(),
                fails_closed=True,
            )
            for number in range(SHARDS)
        ]
    )
    await redis.close()
    await nobody.close()


def of_shard(number: int) -> Principal:
    organization_id, key_id = UUID(int=random_id().int & ~(SHARDS - 1) | number), random_id()
    return Principal(
        key_id=key_id,
        organization_id=organization_id,
        user_id=1,
        digest=b"",
        payer=Payer.of(settings.ENV.redis_prefix, organization_id, key_id),
        limits=(Limits(total_budget_nanos=10**12), Limits()),
    )


def a_pulse(principal: Principal) -> Pulse:
    return Pulse(random_id(), principal.payer, False, "")


async def ask(limiter: ShardedLimiter, principal: Principal) -> None:
    intent = an_event(organization_id=principal.organization_id, key_id=principal.key_id)
    await limiter.admit(principal, intent, now_s=monotonic_s(), count_streams=lambda _scopes: (0, 0))


async def test_a_dead_primary_refuses_calls_of_its_shards_alone(limiter: ShardedLimiter) -> None:
    alive, dead = of_shard(ALIVE), of_shard(DEAD)
    for _ in range(FAILURES_TO_OPEN + 1):
        with pytest.raises(LimiterUnavailable):
            await ask(limiter, dead)
        await ask(limiter, alive)
    assert limiter.is_degraded
    await limiter.check(alive)
    day = limiter.latest_day()
    assert day > 0
    minute, counts = limiter.minute_counts()
    assert minute // (24 * 60) in (day, day + 1)
    assert not set(counts) & set(dead.payer.scopes)


async def test_heartbeats_reach_the_shards_that_are_up(limiter: ShardedLimiter) -> None:
    lost, unknown = a_pulse(of_shard(ALIVE)), a_pulse(of_shard(DEAD))
    assert await limiter.heartbeat([lost, unknown]) == {lost.request_id}
    with pytest.raises(RedisUnavailable):
        await limiter.heartbeat([unknown])
    assert await limiter.heartbeat([]) == set()
