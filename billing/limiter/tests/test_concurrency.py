"""Limits under truly concurrent callers: several connections, one Valkey, any mix of calls."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.conf import settings as django_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.limiter.limits import Admission, Claim, Payer, ScopeTotals, Settlement, admit, settle
from billing.plans import UNLIMITED, Limits
from codexflow.lib.errors import AppError
from codexflow.lib.ids import new_id, random_id
from codexflow.lib.redis import Pipeline

CONNECTIONS = 4
LEASE_MS = 60_000


@dataclass(frozen=True)
class Plan:
    """One call: by which key, a stream or not, its hold, and its cost in percent of the hold (None: keeps running)."""

    key: int
    is_stream: bool
    hold_nanos: int
    cost_share: int | None

    @property
    def cost_nanos(self) -> int:
        return self.hold_nanos * (self.cost_share or 0) // 100


plans = st.lists(
    st.builds(
        Plan,
        key=st.integers(0, 1),
        is_stream=st.booleans(),
        hold_nanos=st.integers(0, 400),
        cost_share=st.none() | st.integers(0, 100),
    ),
    min_size=2,
    max_size=40,
)
limits_of_organization = st.builds(
    Limits,
    daily_requests=st.just(UNLIMITED) | st.integers(0, 30),
    concurrent_streams=st.just(UNLIMITED) | st.integers(0, 5),
    total_budget_nanos=st.just(UNLIMITED) | st.integers(0, 4_000),
)
limits_of_key = st.builds(Limits, daily_requests=st.just(UNLIMITED) | st.integers(0, 20))


async def no_totals(_kind: str, _owner: UUID, _day: int) -> ScopeTotals:
    return ScopeTotals()


@settings(max_examples=60)
@given(calls=plans, organization=limits_of_organization, key=limits_of_key)
def test_no_moment_of_any_concurrent_history_is_above_a_limit(
    calls: list[Plan], organization: Limits, key: Limits
) -> None:
    asyncio.run(_play(calls, organization, key))


async def _play(calls: list[Plan], organization: Limits, key: Limits) -> None:
    env = django_settings.ENV
    connections = [Pipeline(env.redis_url, timeout_s=10) for _ in range(CONNECTIONS + 1)]
    for connection in connections:
        await connection.start()
    watcher, *callers = connections
    organization_id = random_id()
    payers = [Payer.of(env.redis_prefix, organization_id, random_id()) for _ in range(2)]
    is_over = asyncio.Event()
    watching = asyncio.ensure_future(_watch(watcher, payers[0], organization, is_over))
    results = await asyncio.gather(
        *(_call(callers[n % CONNECTIONS], payers[call.key], (organization, key), call) for n, call in enumerate(calls))
    )
    is_over.set()
    await watching
    _judge(calls, results, organization, key)
    await _compare(watcher, payers, calls, results)
    for connection in connections:
        await connection.close()


async def _call(redis: Pipeline, payer: Payer, limits: tuple[Limits, Limits], plan: Plan) -> Admission | AppError:
    """Admit one call and settle it, unless it is to keep running. Returns the admission or the refusal."""
    claim = Claim(
        request_id=new_id(), takes_slot=plan.is_stream, hold_nanos=plan.hold_nanos, tokens=1, intent=b"intent"
    )
    try:
        admission = await admit(redis, payer, limits, claim, lease_ms=LEASE_MS, load_totals=no_totals)
    except AppError as refusal:
        return refusal
    if plan.cost_share is not None:
        assert await settle(redis, payer, _settlement(claim.request_id, plan, admission))
    return admission


def _settlement(request_id: UUID, plan: Plan, admission: Admission) -> Settlement:
    return Settlement(
        request_id=request_id, event=b"event", cost_nanos=plan.cost_nanos, hold_nanos=plan.hold_nanos, tokens_used=1,
        tokens_reserved=1, day=admission.day, minute=admission.minute,
    )  # fmt: skip


async def _watch(redis: Pipeline, payer: Payer, limits: Limits, is_over: asyncio.Event) -> None:
    """Read the organization's scope repeatedly during the calls: it is never above its limits."""
    while not is_over.is_set():
        requests, spent, held = await redis.call(b"HMGET", payer.scopes[0], b"n", b"spent", b"held")
        streams = await redis.call(b"ZCARD", payer.slots[0])
        if requests is not None:
            assert limits.daily_requests == UNLIMITED or int(requests) <= limits.daily_requests
            assert limits.total_budget_nanos == UNLIMITED or int(spent) + int(held) <= limits.total_budget_nanos
            assert limits.concurrent_streams == UNLIMITED or streams <= limits.concurrent_streams
        await asyncio.sleep(0)


def _judge(calls: Sequence[Plan], results: Sequence[Admission | AppError], organization: Limits, key: Limits) -> None:
    admitted = [(call, each) for call, each in zip(calls, results, strict=True) if isinstance(each, Admission)]
    # Each admission saw a number of its own: the calls happened one after the other, in some order.
    assert sorted(each.requests_today[0] for _, each in admitted) == list(range(1, len(admitted) + 1))
    for number in range(2):
        of_key = sorted(each.requests_today[1] for call, each in admitted if call.key == number)
        assert of_key == list(range(1, len(of_key) + 1))
        assert key.daily_requests == UNLIMITED or len(of_key) <= key.daily_requests
    if _fits(calls, organization, key):
        assert len(admitted) == len(calls)  # no refusal without need


def _fits(calls: Sequence[Plan], organization: Limits, key: Limits) -> bool:
    """Return whether all calls fit in together, even if none of them ends before the last begins."""
    demands = [
        (len(calls), organization.daily_requests),
        (sum(call.is_stream for call in calls), organization.concurrent_streams),
        (sum(call.hold_nanos for call in calls), organization.total_budget_nanos),
        *((sum(call.key == number for call in calls), key.daily_requests) for number in range(2)),
    ]
    return all(limit == UNLIMITED or demand <= limit for demand, limit in demands)


async def _compare(
    redis: Pipeline, payers: Sequence[Payer], calls: Sequence[Plan], results: Sequence[Admission | AppError]
) -> None:
    """Compare the counters in Redis with the sums of the admitted calls, for the organization and for each key."""
    admitted = [call for call, each in zip(calls, results, strict=True) if isinstance(each, Admission)]
    await _compare_scope(redis, payers[0].scopes[0], admitted)
    for number, payer in enumerate(payers):
        await _compare_scope(redis, payer.scopes[1], [call for call in admitted if call.key == number])


async def _compare_scope(redis: Pipeline, scope: bytes, admitted: Sequence[Plan]) -> None:
    found: list[Any] = await redis.call(b"HMGET", scope, b"n", b"spent", b"held")
    running = [call for call in admitted if call.cost_share is None]
    expected = [
        len(admitted),
        sum(call.cost_nanos for call in admitted if call.cost_share is not None),
        sum(call.hold_nanos for call in running),
    ]
    assert [int(each or 0) for each in found] == expected
