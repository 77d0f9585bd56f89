"""Sums of money in a scope are exact, also where a double would round."""

import asyncio
from collections.abc import Sequence
from typing import Any

from django.conf import settings as django_settings
from hypothesis import example, given, settings
from hypothesis import strategies as st

from billing.limiter.limits import Claim, Payer, ScopeTotals, Settlement, admit, settle
from billing.plans import Limits
from codexflow.lib.ids import new_id, random_id
from codexflow.lib.redis import Pipeline
from tests.support.examples import examples

ROUNDED = 2**53  # from here on doubles round integers
# Nanos: none, usual amounts, and those around the limit.
stored = st.one_of(st.integers(0, 10**12), st.integers(ROUNDED - 300, ROUNDED + 300), st.integers(ROUNDED, 2**60))
# Hold and cost of each call.
calls = st.lists(
    st.tuples(*[st.one_of(st.integers(0, 400), st.integers(0, 10**12))] * 2), min_size=1, max_size=4
)  # fmt: skip


@settings(max_examples=examples(80))
@given(total=stored, day=stored, amounts=calls)
@example(total=ROUNDED - 1, day=ROUNDED, amounts=[(1, 1), (3, 2), (0, 0)])
@example(total=0, day=0, amounts=[(ROUNDED - 1, 1), (1, ROUNDED + 1)])
def test_sums_are_exact(total: int, day: int, amounts: Sequence[tuple[int, int]]) -> None:
    asyncio.run(_play(ScopeTotals(day_nanos=day, month_nanos=day, total_nanos=total), amounts))


async def _play(totals: ScopeTotals, amounts: Sequence[tuple[int, int]]) -> None:
    """Admit all calls, then settle them."""
    payer = Payer.of(f"{django_settings.ENV.redis_prefix}:{random_id().hex}", random_id(), random_id())
    redis = Pipeline(django_settings.ENV.redis_url, timeout_s=5)
    await redis.start()

    async def load(*_: Any) -> ScopeTotals:
        return totals

    async def sums() -> list[int]:
        found = [await redis.call(b"HMGET", scope, b"held", b"spent", b"ds", b"ms") for scope in payer.scopes]
        assert found[0] == found[1]
        return [int(each) for each in found[0]]

    admitted = []
    for hold, cost in amounts:
        claim = Claim(request_id=new_id(), takes_slot=False, hold_nanos=hold, tokens=1, intent=b"intent")
        admission = await admit(redis, payer, (Limits(), Limits()), claim, lease_ms=60_000, load_totals=load)
        admitted.append((claim.request_id, admission, hold, cost))
    held, spent, of_day = sum(hold for hold, _ in amounts), totals.total_nanos, totals.day_nanos
    assert await sums() == [held, spent, of_day, of_day]
    for request_id, admission, hold, cost in admitted:
        settlement = Settlement(
            request_id=request_id, event=b"event", cost_nanos=cost, hold_nanos=hold, tokens_used=1, tokens_reserved=1,
            day=admission.day, minute=admission.minute, takes_slot=False,
        )  # fmt: skip
        assert await settle(redis, payer, settlement)
        held, spent, of_day = held - hold, spent + cost, of_day + cost
        assert await sums() == [held, spent, of_day, of_day]
    await redis.call(b"DEL", *payer.admit_keys, payer.shard.usage)
    await redis.close()
