"""Limits of a Redis that was emptied, or is behind what it knew, over HTTP: two gateways, nothing drained meanwhile."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest

from accounts.models import Organization
from billing.ledger import post_credit
from billing.limiter.limits import Payer
from billing.limiter.roll import GIVE_UP_MS
from billing.models import Account, LedgerEntry, Plan
from billing.services import seed_plans, set_budgets, set_tag_budget
from billing.tests.factories import an_organization
from codexflow.lib.clock import now_s
from codexflow.lib.ids import random_id
from keys.services import IssuedKey
from keys.tests.factories import a_key
from logs.models import RequestLog
from tests.support.installation import Gateway, Installation
from tests.support.waiting import until

BODY: dict[str, Any] = {
    "model": "gpt-6-luna",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Hello"}],
}
REFUSALS = ("daily_quota_exceeded", "insufficient_quota", "rate_limit_exceeded", "token_rate_exceeded")
AT_ONCE = 6


class Pair:
    """Two gateways and what was answered by them."""

    def __init__(self, running: Installation, gateways: tuple[Gateway, Gateway]) -> None:
        self.running = running
        self.gateways = gateways
        self.served: list[str] = []  # ids of calls that were answered

    def post(self, key: IssuedKey, turn: int = 0, **body: Any) -> httpx.Response:
        response = self.running.post(key.plain, url=self.gateways[turn % 2].url, **{**BODY, **body})
        if response.status_code == 200:
            self.served.append(response.headers["x-cfx-request-id"])
        return response

    def serve(self, key: IssuedKey, number: int) -> None:
        """Make calls that must all be served, on both gateways in turn."""
        for turn in range(number):
            until(partial(self.is_served, key, turn), within_s=30, what="a served call")

    def is_served(self, key: IssuedKey, turn: int) -> bool:
        return self.post(key, turn).status_code == 200

    def has_served(self, number: int, exhausting: "Future[None]") -> bool:
        return len(self.served) >= number or exhausting.done()

    def exhaust(self, key: IssuedKey, *, code: str, **body: Any) -> None:
        """Make calls on both, several at once, until each refuses for good."""

        async def one(client: httpx.AsyncClient, url: str) -> None:
            while True:
                response = await client.post(f"{url}/v1/chat/completions", json={**BODY, **body})
                if response.status_code == 200:
                    self.served.append(response.headers["x-cfx-request-id"])
                    continue
                refused = response.json()["error"]["code"]
                if refused in REFUSALS:
                    assert refused == code
                    return
                assert (response.status_code, refused) == (503, "limiter_unavailable")
                assert response.headers["retry-after"] == "1"
                await asyncio.sleep(0.05)

        async def all_of_them() -> None:
            headers = {"Authorization": f"Bearer {key.plain}"}
            async with httpx.AsyncClient(timeout=30, headers=headers) as client, asyncio.timeout(60):
                await asyncio.gather(*(one(client, self.gateways[n % 2].url) for n in range(AT_ONCE)))

        asyncio.run(all_of_them())

    def is_shared(self) -> bool:
        return all(self.running.health(each.url)["details"]["limiter"] == "shared" for each in self.gateways)


@pytest.fixture(scope="module")
def two_gateways(installation: Installation, django_db_blocker: Any) -> Iterator[tuple[Gateway, Gateway]]:
    with django_db_blocker.unblock():
        # Segments stay open for longer than a test: what is in them is in no other book.
        one, two = (
            installation.new_gateway(CFX_LIMITER_PROCESSES="2", CFX_JOURNAL_SHIP_AFTER_S="600") for _ in range(2)
        )
        made = one, two
        yield made
        for gateway in made:
            gateway.stop()


@pytest.fixture
def pair(running: Installation, two_gateways: tuple[Gateway, Gateway]) -> Iterator[Pair]:
    made = Pair(running, two_gateways)
    until(made.is_shared, what="shared limits")
    with running.undrained():
        yield made
    until(made.is_shared, within_s=30, what="shared limits")


def a_key_with_credit(nanos: int) -> IssuedKey:
    seed_plans()
    plan = Plan.objects.get(slug="internal")
    plan.pk, plan.slug, plan.has_hard_budget = None, f"hard-{random_id().hex[:8]}", True
    plan.save()
    organization = an_organization(plan=plan.slug)
    key = a_key(organization)
    account = Account.objects.get(pk=organization.pk)
    post_credit(organization, nanos - account.credit_nanos, kind=LedgerEntry.Kind.ADJUSTMENT, reference="what is left")
    return key


def epoch_of(pair: Pair, key: IssuedKey) -> int:
    shard = Payer.of(pair.running.prefix, key.row.organization_id, key.row.lineage_id).shard
    name: Any = pair.running.redis.hget(shard.epoch.decode(), "id")
    return int(name or 0)


def spent_nanos(running: Installation, pair: Pair) -> int:
    def stored() -> list[int] | None:
        running.drain_now()
        costs = list(RequestLog.objects.filter(request_id__in=pair.served).values_list("cost_nanos", flat=True))
        return costs if len(costs) == len(set(pair.served)) else None

    return sum(until(stored, within_s=30, what="all rows"))


def test_a_daily_limit_holds_when_redis_is_emptied_again_and_again(pair: Pair) -> None:
    key = a_key(daily_requests=40)
    for _ in range(4):
        pair.serve(key, 6)
        pair.running.empty_redis()
    pair.exhaust(key, code="daily_quota_exceeded")
    assert len(pair.served) == 40


def test_a_daily_limit_of_the_organization_holds_when_redis_is_emptied_under_load(pair: Pair) -> None:
    """Nothing is passed by a single call: those in flight are counted, too."""
    key = a_key(daily_requests=150)

    with ThreadPoolExecutor(1) as thread:
        exhausting = thread.submit(pair.exhaust, key, code="daily_quota_exceeded")
        for part in (20, 50, 80, 110):
            until(partial(pair.has_served, part, exhausting), within_s=60, what="some served")
            pair.running.empty_redis()
        exhausting.result()
    assert len(pair.served) <= 150
    assert len(pair.served) >= 150 - 4 * AT_ONCE  # a call that was in flight may be counted once too often


@pytest.mark.parametrize("place", ["credit", "day", "month"])
def test_money_holds_when_redis_is_emptied(pair: Pair, place: str) -> None:
    one = a_key()
    pair.serve(one, 1)
    cost_nanos = spent_nanos(pair.running, pair)
    limit_nanos = 40 * cost_nanos
    pair.served.clear()
    if place == "credit":
        key = a_key_with_credit(limit_nanos)
    else:
        organization: Organization = an_organization()
        key = a_key(organization)
        budgets = {"day": None, "month": None, place: limit_nanos}
        set_budgets(organization, day_nanos=budgets["day"], month_nanos=budgets["month"])
    pair.exhaust(key, code="insufficient_quota")
    before = len(pair.served)
    assert before > 0
    for _ in range(2):
        pair.running.empty_redis()
        pair.exhaust(key, code="insufficient_quota")
    assert spent_nanos(pair.running, pair) <= limit_nanos


def test_a_key_budget_holds_when_redis_is_emptied(pair: Pair) -> None:
    pair.serve(a_key(), 1)
    limit_nanos = 40 * spent_nanos(pair.running, pair)
    pair.served.clear()
    key = a_key(budget_day_nanos=limit_nanos)
    for _ in range(3):
        pair.exhaust(key, code="insufficient_quota")
        pair.running.empty_redis()
    assert 0 < spent_nanos(pair.running, pair) <= limit_nanos


def test_a_tag_s_budget_holds_when_redis_is_emptied(pair: Pair) -> None:
    pair.serve(a_key(), 1)
    limit_nanos = 40 * spent_nanos(pair.running, pair)
    pair.served.clear()
    key = a_key()
    set_tag_budget(key.row.organization, "team/a", day_nanos=None, month_nanos=limit_nanos)
    for _ in range(3):
        pair.exhaust(key, code="insufficient_quota", metadata={"tag": "team/a"})
        pair.running.empty_redis()
    assert 0 < spent_nanos(pair.running, pair) <= limit_nanos


@pytest.mark.parametrize("is_settled_elsewhere", [False, True])
def test_an_older_copy_is_noticed(pair: Pair, is_settled_elsewhere: bool) -> None:
    """As when a replica that is behind takes over: all scopes are there, with values that are too small."""
    key = a_key(daily_requests=20)
    pair.serve(key, 4)
    saved = pair.running.saved_redis()
    for turn in range(10):
        assert pair.post(key, 0 if is_settled_elsewhere else turn).status_code == 200
    if is_settled_elsewhere:
        pair.gateways = pair.gateways[::-1]
    pair.running.put_back(saved)
    if is_settled_elsewhere:
        # Only the other gateway has seen what is missing; it looks twice a second.
        before = epoch_of(pair, key)
        until(lambda: epoch_of(pair, key) > before, what="noticed")
    pair.exhaust(key, code="daily_quota_exceeded")
    assert len(pair.served) == 20


def test_an_opening_that_redis_has_lost_is_made_again(pair: Pair) -> None:
    """As when a file ends just before it: nothing else is missing."""
    key = a_key(daily_requests=20)
    pair.serve(key, 4)
    shard = Payer.of(pair.running.prefix, key.row.organization_id, key.row.pk).shard
    assert pair.running.redis.hdel(shard.epoch.decode(), "open") == 1
    pair.exhaust(key, code="daily_quota_exceeded")
    assert len(pair.served) == 20


def test_calls_in_flight_keep_their_place_and_their_slot(pair: Pair) -> None:
    key = a_key(daily_requests=3, concurrent_streams=1)
    url = f"{pair.gateways[0].url}/v1/chat/completions"
    slow = {**BODY, "stream": True, "messages": [{"role": "user", "content": "[[fault:chunks n=100 gap_ms=50]]"}]}
    with httpx.stream("POST", url, json=slow, headers={"Authorization": f"Bearer {key.plain}"}, timeout=30) as stream:
        assert stream.status_code == 200
        pair.running.empty_redis()
        refused = until(
            lambda: r if (r := pair.post(key, 1, stream=True)).status_code != 503 else None, what="an open epoch"
        )
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "concurrency_limit_exceeded")
        assert [pair.post(key, turn).status_code for turn in range(3)] == [200, 200, 429]


def test_the_minute_goes_on_from_what_the_gateways_know_of_it(pair: Pair) -> None:
    def within_one_minute() -> int:
        key, minute = a_key(rpm=12), int(now_s()) // 60
        pair.served.clear()
        pair.serve(key, 7)
        pair.running.empty_redis()
        pair.exhaust(key, code="rate_limit_exceeded")
        return len(pair.served) if int(now_s()) // 60 == minute else 0

    assert until(within_one_minute, within_s=60, what="one minute") == 12


@pytest.mark.parametrize("is_stored", [True, False])
def test_the_minute_goes_on_though_the_gateway_that_knew_it_has_died(pair: Pair, is_stored: bool) -> None:
    def within_one_minute() -> int:
        third = pair.running.new_gateway(CFX_JOURNAL_SHIP_AFTER_S="600", CFX_LIMITER_PROCESSES="2")
        key, minute = a_key(rpm=12), int(now_s()) // 60
        for _ in range(7):
            assert pair.running.post(key.plain, url=third.url, **BODY).status_code == 200
        if is_stored:
            pair.running.drain_now()
        third.kill()
        pair.running.empty_redis()
        pair.served.clear()
        pair.exhaust(key, code="rate_limit_exceeded")
        return 7 + len(pair.served) if int(now_s()) // 60 == minute else 0

    assert until(within_one_minute, within_s=150, what="one minute") == 12


def test_a_process_that_died_is_waited_for_and_its_journal_shipped(pair: Pair) -> None:
    third = pair.running.new_gateway(CFX_JOURNAL_SHIP_AFTER_S="600", CFX_LIMITER_PROCESSES="2")
    key = a_key(daily_requests=10)
    for _ in range(6):
        assert pair.running.post(key.plain, url=third.url, **BODY).status_code == 200

    def present_until() -> dict[bytes, float]:
        found: Any = pair.running.redis.zrange(f"{pair.running.prefix}:gateways", 0, -1, withscores=True)
        return dict(found)

    before = present_until()
    assert len(before) >= 3
    # Each looks for who is there when it tells that it is there itself.
    until(
        lambda: all(until_ms > before[name] for name, until_ms in present_until().items() if name in before),
        what="known to its siblings",
    )
    third.kill()
    pair.running.empty_redis()
    first = pair.post(key)
    assert (first.status_code, first.json()["error"]["code"]) == (503, "limiter_unavailable")
    assert first.headers["x-cfx-degraded"] == "limiter"
    served = 0

    def is_used_up() -> bool:
        nonlocal served
        response = pair.post(key, served)
        served += response.status_code == 200
        return response.status_code == 429

    until(is_used_up, within_s=GIVE_UP_MS / 1000 + 20, what="the rest of the day")
    assert served == 4
