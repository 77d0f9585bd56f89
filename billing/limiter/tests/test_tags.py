"""Budgets of tags in the limiter's scripts, on real Valkey."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

import pytest
from django.conf import settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from billing.errors import InsufficientQuota
from billing.limiter.limits import (
    Claim,
    Doubt,
    Payer,
    ScopeTotals,
    Settlement,
    TagScope,
    admit,
    settle,
    tag_scope_key,
    void,
)
from billing.plans import Limits
from codexflow.lib.errors import AppError
from codexflow.lib.ids import new_id, random_id
from codexflow.lib.redis import Pipeline
from tests.support.examples import examples

LEASE_MS = 60_000
NOTHING = ScopeTotals()
NO_LIMITS = (Limits(), Limits())


@pytest.fixture
async def redis() -> AsyncIterator[Pipeline]:
    pipeline = Pipeline(settings.ENV.redis_url, timeout_s=10)
    await pipeline.start()
    yield pipeline
    await pipeline.close()


def a_payer() -> Payer:
    return Payer.of(settings.ENV.redis_prefix, random_id(), random_id(), pages_url="https://x.example/o/a")


def a_tag(payer: Payer, *, day: int = -1, month: int = -1) -> TagScope:
    budget_id = random_id()
    limits = Limits(day_budget_nanos=day, month_budget_nanos=month)
    return TagScope("team/search", budget_id, tag_scope_key(payer.shard, budget_id), limits)


def loading(totals: ScopeTotals) -> Callable[[str, UUID, int], Awaitable[ScopeTotals]]:
    async def load(kind: str, _owner: UUID, _day: int) -> ScopeTotals:
        return totals if kind == "t" else ScopeTotals()

    return load


async def one(
    redis: Pipeline,
    payer: Payer,
    tag: TagScope | None,
    *,
    hold: int = 1,
    cost: int | None = None,
    stored: ScopeTotals = NOTHING,
    request_id: UUID | None = None,
) -> None:
    """Admit one call, and settle it if it has a cost. Raises the refusal."""
    claim = Claim(request_id=request_id or new_id(), takes_slot=True, hold_nanos=hold, tokens=1, intent=b"intent")
    admission = await admit(redis, payer, NO_LIMITS, claim, lease_ms=LEASE_MS, load_totals=loading(stored), tag=tag)
    if cost is not None:
        settlement = Settlement(
            request_id=claim.request_id, event=b"event", cost_nanos=cost, hold_nanos=hold, tokens_used=1,
            tokens_reserved=1, day=admission.day, minute=admission.minute,
            tag_budget_id=tag.budget_id if tag else None,
        )  # fmt: skip
        assert await settle(redis, payer, settlement)


async def sums(redis: Pipeline, tag: TagScope) -> tuple[int, int, int]:
    held, day, month = await redis.call(b"HMGET", tag.key, b"held", b"ds", b"ms")
    return int(held), int(day), int(month)


async def test_of_two_hundred_calls_at_once_as_many_are_admitted_as_the_budget_covers(redis: Pipeline) -> None:
    """142 of 200: each holds 7 of a budget of 1,000."""
    payer = a_payer()
    tag = a_tag(payer, month=1_000)
    results = await asyncio.gather(*(one(redis, payer, tag, hold=7) for _ in range(200)), return_exceptions=True)
    assert sum(each is None for each in results) == 142
    assert all(isinstance(each, InsufficientQuota) for each in results if each is not None)
    assert await sums(redis, tag) == (142 * 7, 0, 0)


async def test_a_refusal_names_tag_limit_spent_and_reset(redis: Pipeline) -> None:
    payer = a_payer()
    tag = a_tag(payer, day=5_000_000_000)
    await one(redis, payer, tag, hold=10, cost=4_900_000_000)
    with pytest.raises(InsufficientQuota) as refused:
        await one(redis, payer, tag, hold=300_000_000)
    assert refused.value.message == (
        "Budget of the day of the tag team/search ($5.00), spent or held $4.90, left $0.10, this request may cost"
        " $0.30; it resets at midnight UTC; change it at https://x.example/o/a/billing/tags/ (limit of the tag)"
    )
    assert refused.value.outlasts_retries
    assert refused.value.facts["scope"] == "tag"


async def test_a_refused_call_changes_nothing_of_any_scope(redis: Pipeline) -> None:
    payer = a_payer()
    tag = a_tag(payer, month=10)
    await one(redis, payer, tag, hold=10)
    before = [await redis.call(b"HGETALL", key) for key in (*payer.scopes, tag.key)]
    with pytest.raises(InsufficientQuota):
        await one(redis, payer, tag, hold=1)
    assert [await redis.call(b"HGETALL", key) for key in (*payer.scopes, tag.key)] == before
    await one(redis, payer, None, hold=1)  # without the tag
    await one(redis, payer, a_tag(payer, month=10), hold=1)  # with another


async def test_a_budget_begins_with_what_postgresql_has(redis: Pipeline) -> None:
    payer = a_payer()
    tag = a_tag(payer, day=100, month=1_000)
    stored = ScopeTotals(day_nanos=95, month_nanos=995, total_nanos=2_000)
    await one(redis, payer, tag, hold=5, stored=stored)
    with pytest.raises(InsufficientQuota):
        await one(redis, payer, tag, hold=1, stored=stored)


async def test_an_admission_that_is_void_gives_the_hold_of_the_tag_back(redis: Pipeline) -> None:
    payer = a_payer()
    tag = a_tag(payer, month=10)
    request_id = new_id()
    await one(redis, payer, tag, hold=10, request_id=request_id)
    doubt = Doubt(
        payer=payer, request_id=request_id, hold_nanos=10, tokens=1, deadline_ms=1, tag_budget_id=tag.budget_id
    )
    assert await void(redis, doubt)
    assert await sums(redis, tag) == (0, 0, 0)


calls = st.lists(
    st.tuples(st.booleans(), st.integers(0, 300), st.none() | st.integers(0, 100)), min_size=1, max_size=25
)


@hypothesis_settings(max_examples=examples(40))
@given(calls=calls, day=st.integers(0, 1_000), month=st.integers(0, 2_000))
def test_spent_and_held_of_a_tag_never_pass_its_budget(
    calls: list[tuple[bool, int, int | None]], day: int, month: int
) -> None:
    """The overrun is 0: no call costs more than its hold here."""
    asyncio.run(_play(calls, day, month))


async def _play(calls: list[tuple[bool, int, int | None]], day: int, month: int) -> None:
    redis = Pipeline(settings.ENV.redis_url, timeout_s=10)
    await redis.start()
    payer = a_payer()
    tag = a_tag(payer, day=day, month=month)
    spent = held = 0
    for has_tag, hold, share in calls:
        cost = None if share is None else hold * share // 100
        try:
            await one(redis, payer, tag if has_tag else None, hold=hold, cost=cost)
        except AppError:
            assert has_tag
            assert spent + held + hold > min(day, month)
            continue
        if has_tag:
            spent, held = (spent, held + hold) if cost is None else (spent + cost, held)
            assert await sums(redis, tag) == (held, spent, spent)
            assert spent + held <= min(day, month)
    await redis.close()
