"""Limits, holds and leases, over HTTP."""

import asyncio
from collections import Counter
from datetime import date
from typing import Any

import httpx
import pytest

from accounts.models import Organization
from accounts.signals import access_changed
from billing.ledger import post_credit, take_back
from billing.limiter.limits import month_of
from billing.models import Account, CreditSource, LedgerEntry, Plan
from billing.payments.orders import open_order, settle_order
from billing.services import set_budgets
from billing.tests.factories import an_organization
from codexflow.lib.clock import now_s
from codexflow.lib.ids import new_id, random_id
from keys.tests.factories import a_key
from logs.models import RequestLog
from logs.pipeline.reconcile import reconcile
from tests.support.installation import PATIENT, Installation
from tests.support.waiting import until

BODY: dict[str, Any] = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "Hello"}]}


async def all_at_once(urls: list[str], key: str, number: int, **body: Any) -> list[httpx.Response]:
    headers = {"Authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=1000, max_keepalive_connections=0)
    async with httpx.AsyncClient(limits=limits, timeout=60, headers=headers) as client:
        calls = [
            client.post(f"{urls[i % len(urls)]}/v1/chat/completions", json={**BODY, **body}) for i in range(number)
        ]
        return await asyncio.gather(*calls)


def test_a_thousand_at_once_never_pass_a_daily_limit_of_five_hundred(running: Installation) -> None:
    """Two gateway processes share one limit exactly."""
    key = a_key(daily_requests=500)
    # A thousand callers in one process are slow.
    with running.configured(**PATIENT):
        gateways = [running.new_gateway(CFX_REQUEST_BODY_TIMEOUT_S="60", CFX_HEADER_TIMEOUT_S="60") for _ in range(2)]
        responses = asyncio.run(all_at_once([each.url for each in gateways], key.plain, 1000))
    for gateway in gateways:
        gateway.stop()
    assert Counter(response.status_code for response in responses) == {200: 500, 429: 500}
    assert {r.json()["error"]["code"] for r in responses if r.status_code == 429} == {"daily_quota_exceeded"}
    counters = running.scope("k", key.row.id)
    assert (counters["n"], counters["held"]) == (500, 0)
    answered = [r.headers["x-cfx-request-id"] for r in responses if r.status_code == 200]
    assert not any(running.open_leases(request_id) for request_id in answered)
    until(lambda: RequestLog.objects.filter(key_id=key.row.id).count() == 500, what="all rows")
    account = Account.objects.get(pk=key.row.organization_id)
    assert running.scope("o", key.row.organization_id)["spent"] == account.spent_nanos > 0


def test_success_and_refusal_carry_the_days_remaining_requests(running: Installation) -> None:
    key = a_key(daily_requests=2)
    midnight = (int(now_s()) // 86_400 + 1) * 86_400
    seen = [running.post(key.plain) for _ in range(3)]
    assert [r.status_code for r in seen] == [200, 200, 429]
    for response, left in zip(seen, ("1", "0", "0"), strict=True):
        assert response.headers["x-ratelimit-limit"] == "2"
        assert response.headers["x-ratelimit-remaining"] == left
        assert response.headers["x-ratelimit-reset"] == str(midnight)
    assert "retry-after" not in seen[2].headers  # SDKs would wait until then, silently
    assert seen[2].headers["x-should-retry"] == "false"
    assert running.scope("k", key.row.id)["n"] == 2  # the refused one was not counted


def early_in_a_minute() -> None:
    """A test about one minute must not begin at its end, nor in its first second, when a minute is left: 1m0s."""
    until(lambda: 2 <= now_s() % 60 < 50, what="another minute")


def test_openais_headers_carry_the_minute_on_success_and_refusal(running: Installation) -> None:
    early_in_a_minute()
    key = a_key(rpm=2, tpm=50_000)
    at_most_s = 60 - now_s() % 60
    seen = [running.post(key.plain, model="gpt-6-luna", max_tokens=1_000) for _ in range(3)]
    at_least_s = 60 - now_s() % 60
    assert [r.status_code for r in seen] == [200, 200, 429]
    for response, left in zip(seen, ("1", "0", "0"), strict=True):
        assert response.headers["x-ratelimit-limit-requests"] == "2"
        assert response.headers["x-ratelimit-remaining-requests"] == left
        assert response.headers["x-ratelimit-limit-tokens"] == "50000"
        for name in ("requests", "tokens"):
            reset = response.headers[f"x-ratelimit-reset-{name}"]
            assert at_least_s - 1 <= int(reset.removesuffix("s")) <= at_most_s + 1
    assert seen[2].headers["retry-after"] == seen[2].headers["x-ratelimit-reset-requests"].removesuffix("s")
    # The first call's reservation was replaced by its usage before the second call.
    reserved = 50_000 - int(seen[0].headers["x-ratelimit-remaining-tokens"])
    used = running.row_of(seen[0]).prompt_tokens + running.row_of(seen[0]).completion_tokens
    assert reserved > 1_000 > used
    assert int(seen[1].headers["x-ratelimit-remaining-tokens"]) == 50_000 - used - reserved


def an_organization_with(**limits: int) -> Organization:
    """An organization on a plan of its own, without a hard budget."""
    an_organization()  # creates the plans
    name = random_id().hex[:8]
    values = {"rpm": 10**6, "tpm": 10**9, "daily_requests": 10**6, "concurrent_streams": 10**6, **limits}
    Plan.objects.create(slug=name, name=name, has_hard_budget=False, is_public=False, max_keys=100, **values)
    return an_organization(plan=name)


REFUSED_BY: dict[str, tuple[dict[str, int], dict[str, Any], str]] = {
    "requests a day": ({"daily_requests": 1}, {}, "daily_quota_exceeded"),
    "requests a minute": ({"rpm": 1}, {}, "rate_limit_exceeded"),
    "tokens a minute": ({"tpm": 100}, {"max_tokens": 1_000}, "token_rate_exceeded"),
    "concurrent streams": ({"concurrent_streams": 0}, {"stream": True}, "concurrency_limit_exceeded"),
    "budget a day": ({"budget_day_nanos": 700_000}, {"max_tokens": 3_000}, "insufficient_quota"),
    "budget a month": ({"budget_month_nanos": 700_000}, {"max_tokens": 3_000}, "insufficient_quota"),
}


@pytest.mark.parametrize("scope", ["organization", "key"])
@pytest.mark.parametrize(("limits", "body", "code"), REFUSED_BY.values(), ids=REFUSED_BY)
def test_each_limit_holds_for_organization_and_key(
    running: Installation, scope: str, limits: dict[str, int], body: dict[str, Any], code: str
) -> None:
    """One call passes, the next does not; another key shares only the organization's limits."""
    if not {"rpm", "tpm"}.isdisjoint(limits):
        early_in_a_minute()
    budgets = {name: value for name, value in limits.items() if name.startswith("budget")}
    if scope == "key":
        organization = an_organization()
        first, other = a_key(organization, **limits), a_key(organization)
    else:
        organization = an_organization_with(**{each: limits[each] for each in limits if each not in budgets})
        first, other = a_key(organization), a_key(organization)
        if budgets:
            day, month = budgets.get("budget_day_nanos"), budgets.get("budget_month_nanos")
            set_budgets(organization, day_nanos=day, month_nanos=month)
    small = {**BODY, "max_tokens": 50}
    assert running.post(first.plain, **small).status_code == 200
    refused = running.post(first.plain, **{**small, **body})
    assert refused.json()["error"]["code"] == code
    assert f"limit of the {scope}" in refused.json()["error"]["message"]
    assert refused.status_code == (402 if code == "insufficient_quota" else 429)
    waits = code in ("rate_limit_exceeded", "token_rate_exceeded")
    assert ("retry-after" in refused.headers) == waits
    assert refused.headers.get("x-should-retry") == (None if waits else "false")
    others = running.post(other.plain, **{**small, **body})
    assert others.status_code == (200 if scope == "key" else refused.status_code)


def test_refusals_name_the_plan_the_numbers_and_the_way_out(running: Installation) -> None:
    early_in_a_minute()
    key = a_key(an_organization(plan="free"))
    refused = [running.post(key.plain, **BODY) for _ in range(11)][-1]
    wait_s = refused.headers["retry-after"]
    message = refused.json()["error"]["message"]
    assert message == f"10 requests a minute on plan Free; retry in {wait_s} s (limit of the organization)"
    poor = an_organization(plan="free")
    post_credit(
        poor,
        -Account.objects.get(pk=poor.pk).credit_nanos + 1_000,
        kind=LedgerEntry.Kind.ADJUSTMENT,
        reference="nearly all",
    )
    key = a_key(poor)
    until(lambda: running.post(key.plain, **BODY).status_code == 402, what="no credit")
    message = running.post(key.plain, **BODY).json()["error"]["message"]
    assert message.startswith("Credit left $0.000001, this request may cost $0.00")
    assert f"/o/{poor.slug}/billing/" in message


def test_a_budget_and_its_removal_take_effect_at_once(running: Installation) -> None:
    organization = an_organization()
    key = a_key(organization)
    assert running.post(key.plain, **BODY).status_code == 200
    set_budgets(organization, day_nanos=1, month_nanos=None)
    until(lambda: running.post(key.plain, **BODY).status_code == 402, what="the budget")
    set_budgets(organization, day_nanos=None, month_nanos=None)
    until(lambda: running.post(key.plain, **BODY).status_code == 200, what="its end")


def test_requests_a_minute_are_limited(running: Installation) -> None:
    key = a_key(rpm=3)
    responses = asyncio.run(all_at_once([running.url], key.plain, 8))
    refused = [r for r in responses if r.status_code == 429]
    # A minute that ends between two of them starts a new count.
    assert 2 <= len(refused) <= 5
    assert {r.json()["error"]["code"] for r in refused} == {"rate_limit_exceeded"}
    assert all(1 <= int(r.headers["retry-after"]) <= 60 for r in refused)


def test_tokens_a_minute_are_limited_by_the_estimate_and_settled_by_the_real_usage(running: Installation) -> None:
    key = a_key(tpm=5_000)
    first = running.post(key.plain, model="gpt-6-luna", max_tokens=4_900)
    assert first.status_code == 200
    used = running.row_of(first)
    assert running.scope("k", key.row.id)["t"] == used.prompt_tokens + used.completion_tokens
    assert running.post(key.plain, model="gpt-6-luna", max_tokens=4_000).status_code == 200
    refused = running.post(key.plain, model="gpt-6-luna", max_tokens=5_000)
    assert refused.json()["error"]["code"] == "token_rate_exceeded"


def test_plan_and_key_limits_combine_by_the_tighter(running: Installation) -> None:
    organization = an_organization(plan="pro")
    keys = [a_key(organization, daily_requests=limit).plain for limit in (None, 5, 500)]
    # Made when the plan allowed more: 50 a day, 10 a minute.
    Account.objects.filter(organization=organization).update(plan=Plan.objects.get(slug="free"))
    assert [running.post(key).headers["x-ratelimit-limit"] for key in keys] == ["50", "5", "50"]


async def hold_streams(running: Installation, key: str, number: int) -> list[int]:
    """Open streams at once. Returns how many were admitted."""
    body = {**BODY, "stream": True, "messages": [{"role": "user", "content": "[[fault:chunks n=40 gap_ms=25]]"}]}
    async with httpx.AsyncClient(timeout=30, headers={"Authorization": f"Bearer {key}"}) as client:
        return [
            response.status_code
            for response in await asyncio.gather(
                *(client.post(f"{running.url}/v1/chat/completions", json=body) for _ in range(number))
            )
        ]


def test_concurrent_streams_are_limited_and_their_slots_are_freed(running: Installation) -> None:
    key = a_key(concurrent_streams=3)
    assert Counter(asyncio.run(hold_streams(running, key.plain, 10))) == {200: 3, 429: 7}
    assert running.post(key.plain, stream=True).status_code == 200


def test_a_refused_stream_gets_the_latest_time_of_a_free_slot(running: Installation) -> None:
    key = a_key(concurrent_streams=1)
    body = {**BODY, "stream": True, "messages": [{"role": "user", "content": "[[fault:chunks n=100 gap_ms=50]]"}]}
    headers = {"Authorization": f"Bearer {key.plain}"}
    with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body, headers=headers, timeout=30) as stream:
        assert stream.status_code == 200
        (slots,) = running.keys(f"*slots:k:{key.row.id}")
    until(lambda: not running.redis.zcard(slots))
    # A stream of a process that is gone: unlike the first stream's, its lease is never renewed.
    running.redis.zadd(slots, {str(new_id()): int((now_s() + 50) * 1000)})
    refused = running.post(key.plain, **BODY, stream=True)
    assert refused.status_code == 429
    assert 30 < int(refused.headers["retry-after"]) <= 50


def test_calls_without_streaming_take_no_stream_slot(running: Installation) -> None:
    key = a_key(concurrent_streams=1)
    text = [{"role": "user", "content": "[[fault:slow first_ms=400]]"}]
    responses = asyncio.run(all_at_once([running.url], key.plain, 8, messages=text))
    assert {r.status_code for r in responses} == {200}


def test_a_call_that_the_credit_does_not_cover_is_refused_before_it_costs_anything(running: Installation) -> None:
    organization = an_organization(plan="free")
    key = a_key(organization)
    account = Account.objects.get(pk=organization.pk)
    post_credit(
        organization, 1_000_000 - account.credit_nanos, kind=LedgerEntry.Kind.ADJUSTMENT, reference="almost nothing"
    )
    last = running.upstream.state()["last_seq"]
    response = running.post(key.plain, model="cfx-plan")
    assert (response.status_code, response.json()["error"]["code"]) == (402, "insufficient_quota")
    assert running.upstream.ledger(since=last) == []
    assert running.scope("o", organization.id)["n"] == 0
    # A call that fits is served.
    assert running.post(key.plain, model="gpt-6-luna", max_tokens=100).status_code == 200


def test_a_payment_opens_the_gate_although_gateway_and_redis_remember_the_old_balance(running: Installation) -> None:
    """MON-29."""
    organization = an_organization(plan="free")
    key = a_key(organization).plain
    account = Account.objects.get(pk=organization.pk)
    post_credit(organization, 1_000 - account.credit_nanos, kind=LedgerEntry.Kind.ADJUSTMENT, reference="nothing")
    assert [running.post(key, **BODY).status_code for _ in range(3)] == [402] * 3
    order = open_order(organization, provider="manual", amount_nanos=5_000_000_000)
    settle_order(order, payment_reference="transfer 1")
    until(lambda: running.post(key, **BODY).status_code == 200, what="the credit")
    take_back(
        CreditSource.objects.get(
            organization=organization, kind=CreditSource.Kind.PAID, granted_nanos=5_000_000_000
        ).pk,
        5_000_000_000,
        kind=LedgerEntry.Kind.REFUND,
        reference="refund 1",
    )
    access_changed.send(Account)
    until(lambda: running.post(key, **BODY).status_code == 402, what="the refund")


def test_a_small_balance_is_held_for_the_models_that_it_covers(running: Installation) -> None:
    """A fallback that is too expensive is left out; it must not prevent the first model from serving the call."""
    organization = an_organization(plan="free")
    key = a_key(organization).plain
    account = Account.objects.get(pk=organization.pk)
    post_credit(organization, 6_000_000 - account.credit_nanos, kind=LedgerEntry.Kind.ADJUSTMENT, reference="little")
    response = running.post(key, model="cfx-review")
    assert (response.status_code, response.headers["x-cfx-model"]) == (200, "gpt-6-luna")
    running.upstream.set_fault("500", model="gpt-6-luna")
    running.post(key, model="cfx-review")
    asked = [entry["model"] for entry in running.upstream.ledger()]
    assert "claude-haiku-5.5" in asked  # which costs as much as the first
    assert "gemini-3.5-flash-lite" not in asked


def test_holds_of_calls_in_flight_count(running: Installation) -> None:
    """Many calls at once never spend more than a budget that covers a few of them."""
    key = a_key(budget_month_nanos=3_000_000)
    text = [{"role": "user", "content": "[[fault:slow first_ms=300]]"}]
    responses = asyncio.run(all_at_once([running.url], key.plain, 30, messages=text, max_tokens=1_000))
    hold = next(running.row_of(r).held_nanos for r in responses if r.status_code == 200)
    assert Counter(r.status_code for r in responses) == {200: 3_000_000 // hold, 402: 30 - 3_000_000 // hold}


def test_a_day_that_is_over_no_longer_counts(running: Installation) -> None:
    """Midnight as Redis sees it: its counts are those of yesterday, and of last month."""
    key = a_key(daily_requests=2, budget_day_nanos=1_000_000, budget_month_nanos=1_000_000)
    assert running.post(key.plain, **BODY, max_tokens=50).status_code == 200
    (name,) = running.keys(f"*scope:k:{key.row.id}")
    today = running.scope("k", key.row.id)["d"]
    spent: dict[Any, Any] = {"n": 2, "ds": 990_000, "ms": 990_000}
    running.redis.hset(name, mapping={**spent, "d": today, "mo": month_of(today)})
    assert running.post(key.plain, **BODY, max_tokens=50).status_code == 429
    running.redis.hset(name, "n", 1)
    assert running.post(key.plain, **BODY, max_tokens=50).status_code == 402
    running.redis.hset(name, mapping={**spent, "d": today - 1, "mo": month_of(today) - 1})
    response = running.post(key.plain, **BODY, max_tokens=50)
    assert (response.status_code, response.headers["x-ratelimit-remaining"]) == (200, "1")
    found, cost = running.scope("k", key.row.id), running.row_of(response).cost_nanos
    assert (found["d"], found["n"], found["ds"], found["ms"]) == (today, 1, cost, cost)


def test_a_call_over_midnight_is_charged_to_the_day_of_its_admission(running: Installation) -> None:
    key = a_key()
    text = [{"role": "user", "content": "[[fault:chunks n=40 gap_ms=50]]"}]
    body = {**BODY, "stream": True, "messages": text}
    headers = {"Authorization": f"Bearer {key.plain}"}
    with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body, headers=headers, timeout=30) as stream:
        request_id = stream.headers["x-cfx-request-id"]
        (name,) = running.keys(f"*scope:k:{key.row.id}")
        day = running.scope("k", key.row.id)["d"]
        # Midnight passes: the next call of the key has begun another day, month and minute.
        running.redis.hset(
            name, mapping={"d": day + 1, "n": 1, "ds": 5, "mo": month_of(day) + 1, "ms": 5, "m": 1, "t": 7}
        )
        assert "[DONE]" in stream.read().decode()
    row = running.row(request_id)
    found = running.scope("k", key.row.id)
    assert (found["n"], found["ds"], found["ms"], found["t"]) == (1, 5, 5, 7)
    assert (found["spent"], found["held"]) == (row.cost_nanos, 0)
    assert (row.day - date(1970, 1, 1)).days == day


def test_a_gateway_whose_clock_is_wrong_counts_by_redis_s_day(running: Installation) -> None:
    """A day ahead, or 90 seconds behind: day, minute and their headers follow Redis's clock."""
    early_in_a_minute()
    for off_s in (86_400, -90):
        key = a_key(daily_requests=10, rpm=5)
        gateway = running.new_gateway(clock_off_s=off_s)
        own, wrong = (running.post(key.plain, url=url, **BODY) for url in (running.url, gateway.url))
        gateway.stop()
        assert (own.status_code, wrong.status_code) == (200, 200)
        assert wrong.headers["x-ratelimit-remaining"] == "8"
        assert wrong.headers["x-ratelimit-reset"] == own.headers["x-ratelimit-reset"]
        assert abs(int(own.headers["x-ratelimit-reset"]) - now_s()) <= 86_400
        rows = [running.row_of(each) for each in (own, wrong)]
        assert rows[0].day == rows[1].day
        assert round((rows[1].started_at - rows[0].started_at).total_seconds(), -1) == off_s
        assert running.scope("k", key.row.id)["n"] == 2


def test_an_emptied_redis_gives_nothing_away(running: Installation) -> None:
    key = a_key(daily_requests=3)
    rows = [running.row_of(running.post(key.plain)) for _ in range(2)]
    running.redis.delete(*running.keys(f"*scope:?:{key.row.id}"), *running.keys(f"*scope:?:{key.row.organization_id}"))
    assert running.post(key.plain).status_code == 200
    assert running.post(key.plain).status_code == 429
    assert running.scope("k", key.row.id)["spent"] >= sum(row.cost_nanos for row in rows) > 0


def test_reconciling_corrects_counters(running: Installation) -> None:
    key = a_key()
    row = running.row_of(running.post(key.plain))
    (name,) = running.keys(f"*scope:k:{key.row.id}")
    running.redis.hset(name, mapping={"spent": 7, "ds": 7, "ms": 7, "n": 99, "held": 12345})
    reconcile(running.redis, running.prefix)
    found = running.scope("k", key.row.id)
    assert (found["spent"], found["ds"], found["ms"], found["n"], found["held"]) == (
        row.cost_nanos, row.cost_nanos, row.cost_nanos, 1, 0,
    )  # fmt: skip


def test_a_killed_gateway_gives_its_slots_back_and_its_calls_are_settled(running: Installation) -> None:
    """A dead process blocks no customer, and the output it had delivered is charged as estimated."""
    key = a_key(concurrent_streams=1)
    doomed = running.new_gateway()
    body = {**BODY, "stream": True, "messages": [{"role": "user", "content": "[[fault:chunks n=400 gap_ms=50]]"}]}
    headers = {"Authorization": f"Bearer {key.plain}"}
    with httpx.stream("POST", f"{doomed.url}/v1/chat/completions", json=body, headers=headers, timeout=30) as stream:
        request_id = stream.headers["x-cfx-request-id"]
        lines = stream.iter_lines()
        until(
            lambda: any(running.redis.hget(name, request_id) for name in running.keys("*progress")), what="a heartbeat"
        )
        next(lines)
        assert running.post(key.plain, stream=True).status_code == 429
        doomed.kill()
    until(lambda: running.post(key.plain, stream=True).status_code == 200, what="the slot")
    row = running.row(request_id, within_s=50)
    assert (row.source, row.error_code, row.is_estimated) == ("sweeper", "gateway_lost", True)
    assert row.cost_nanos > 0
    assert running.open_leases(request_id) == []


def test_an_invalid_body_is_refused_before_the_call_is_counted(running: Installation) -> None:
    key = a_key(concurrent_streams=1)
    for metadata in ("text", [1], 7):
        response = running.post(key.plain, model="gpt-6-luna", stream=True, metadata=metadata)
        assert (response.status_code, response.json()["error"]["param"]) == (400, "metadata")
        assert running.open_leases(response.headers["x-cfx-request-id"]) == []
    assert running.scope("k", key.row.id).get("held", 0) == 0
    assert running.post(key.plain, model="gpt-6-luna", stream=True).status_code == 200
