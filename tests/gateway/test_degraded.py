"""Limits while Redis is unavailable or slow, over HTTP: one of two gateway processes is cut off from a real Valkey."""

from collections.abc import Callable, Iterator
from contextlib import closing
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django.conf import settings

from accounts.models import Organization
from billing.models import Account, Plan
from billing.services import set_budgets
from billing.tests.factories import an_organization
from codexflow.dev.valkey import free_port
from codexflow.lib.clock import monotonic_s
from keys.services import IssuedKey
from keys.tests.factories import a_key
from logs.models import RequestLog
from logs.pipeline.reconcile import reconcile
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.installation import Gateway, Installation
from tests.support.waiting import until

# No call may wait longer than 0.3 s for Redis; the remainder allows for a machine that is busy with other tests.
NOISE_S = 1.2
BODY: dict[str, Any] = {"model": "gpt-6-luna", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}


class CutOff:
    """A gateway that can be cut off from Redis."""

    def __init__(self, running: Installation, gateway: Gateway, proxy: FaultProxy) -> None:
        self.running = running
        self.gateway = gateway
        self.proxy = proxy

    def post(self, key: IssuedKey, **body: Any) -> httpx.Response:
        return self.running.post(key.plain, url=self.gateway.url, **{**BODY, **body})

    def is_shared(self) -> bool:
        health = self.running.health(self.gateway.url)
        return bool(health["details"]["limiter"] == "shared")

    def heal(self) -> None:
        self.proxy.heal()
        until(self.is_shared, what="Redis found again")

    def known(self, **terms: Any) -> IssuedKey:
        """Make a key without a hard budget that this gateway has admitted once before the outage."""

        def served_as_usual() -> IssuedKey | None:
            # On a busy machine Redis may be late; then another key is used.
            key = a_key(**terms)
            response = self.post(key)
            return key if (response.status_code, response.headers.get("x-cfx-degraded")) == (200, None) else None

        return until(served_as_usual, what="a key that is known")

    def is_served(self, key: IssuedKey) -> bool:
        return self.post(key).status_code == 200


@pytest.fixture(scope="module")
def cut_off_house(installation: Installation, django_db_blocker: Any) -> Iterator[CutOff]:
    address = urlsplit(settings.ENV.redis_url)
    with django_db_blocker.unblock(), fault_proxy(address.hostname or "", address.port or 0) as proxy:
        gateway = installation.new_gateway(
            REDIS_URL=proxy.address_of(settings.ENV.redis_url),
            CFX_REDIS_TIMEOUT_MS="100",
            CFX_LIMITER_PROCESSES="2",
            CFX_OUTAGE_ALLOWANCE_USD="0.01",
            CFX_JOURNAL_DIR=str(installation.folder / "journal-cut-off"),
        )
        yield CutOff(installation, gateway, proxy)
        proxy.heal()
        gateway.stop()


@pytest.fixture
def cut_off(running: Installation, cut_off_house: CutOff) -> Iterator[CutOff]:
    cut_off_house.heal()
    yield cut_off_house
    cut_off_house.heal()


FAULTS: dict[str, Callable[[FaultProxy], None]] = {
    "resets": FaultProxy.reset,
    "silence": FaultProxy.swallow,
    "two seconds late": lambda proxy: proxy.delay(2.0),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_hard_budget_is_refused_soon_and_no_call_waits_for_redis(
    cut_off: CutOff, fault: Callable[[FaultProxy], None]
) -> None:
    key = a_key(an_organization(plan="free"))
    until(lambda: cut_off.is_served(key), what="service")
    fault(cut_off.proxy)

    def seconds_to_refuse() -> float:
        started_s = monotonic_s()
        response = cut_off.post(key)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "limiter_unavailable")
        assert (response.headers["retry-after"], response.headers["x-cfx-degraded"]) == ("1", "limiter")
        return monotonic_s() - started_s

    assert median(seconds_to_refuse() for _ in range(5)) < 0.3 + NOISE_S
    # The breaker is open: calls do not even wait for the first timeout of 100 ms.
    until(lambda: seconds_to_refuse() < 0.1, what="a refusal without asking")
    health = cut_off.running.health(cut_off.gateway.url)
    assert (health["status"], health["details"]["limiter"]) == ("degraded", "degraded")
    cut_off.heal()
    until(lambda: cut_off.is_served(key), what="service again")


def test_an_outage_allows_five_percent_of_the_day_and_is_reconciled_afterwards(cut_off: CutOff) -> None:
    key = cut_off.known(daily_requests=200)
    cut_off.proxy.reset()
    seen = [cut_off.post(key) for _ in range(7)]
    # 5 % of 200 over two processes.
    assert [r.status_code for r in seen] == [200] * 5 + [503] * 2
    assert {r.headers["x-cfx-degraded"] for r in seen} == {"limiter"}
    assert [r.headers["x-ratelimit-remaining"] for r in seen[:5]] == ["198", "197", "196", "195", "194"]
    assert "x-ratelimit-limit-requests" not in seen[0].headers  # the minute is not known
    assert seen[5].headers["retry-after"] == "1"
    assert cut_off.running.scope("k", key.row.id)["n"] == 1  # unknown to the other process

    cut_off.heal()
    until(lambda: "x-cfx-degraded" not in cut_off.post(key).headers, what="shared limits")
    rows = RequestLog.objects.filter(key_id=key.row.id)
    for response in seen[:5]:
        row = cut_off.running.row_of(response)
        assert row.is_degraded
        assert row.cost_nanos > 0

    def is_made_good() -> bool:
        reconcile(cut_off.running.redis, cut_off.running.prefix)
        counters = cut_off.running.scope("k", key.row.id)
        return counters["n"] == rows.count() >= 7 and counters["spent"] == sum(row.cost_nanos for row in rows)

    until(is_made_good, what="day and money of the outage")
    account = Account.objects.get(pk=key.row.organization_id)
    assert account.spent_nanos == sum(row.cost_nanos for row in rows)


def test_an_unknown_key_is_served_one_call(cut_off: CutOff) -> None:
    key = a_key(daily_requests=200)
    until(cut_off.is_shared)
    cut_off.proxy.reset()
    until(lambda: not cut_off.is_shared(), what="the outage")
    # The look-up works: PostgreSQL is available.
    assert [cut_off.post(key).status_code for _ in range(3)] == [200, 503, 503]


def test_a_limit_reached_before_an_outage_stays_reached(cut_off: CutOff) -> None:
    key = cut_off.known(daily_requests=200)
    (name,) = cut_off.running.keys(f"*scope:k:{key.row.id}")
    cut_off.running.redis.hset(name, "n", 197)
    assert cut_off.post(key).headers["x-ratelimit-remaining"] == "2"
    cut_off.proxy.reset()
    seen = [cut_off.post(key) for _ in range(3)]
    assert [r.status_code for r in seen] == [200, 200, 429]
    assert seen[2].json()["error"]["code"] == "daily_quota_exceeded"
    assert "retry-after" not in seen[2].headers
    assert seen[2].headers["x-should-retry"] == "false"


def test_streams_are_limited_to_this_processs_share(cut_off: CutOff) -> None:
    key = cut_off.known(concurrent_streams=3)
    cut_off.proxy.reset()
    body = {**BODY, "stream": True, "messages": [{"role": "user", "content": "[[fault:chunks n=100 gap_ms=50]]"}]}
    headers = {"Authorization": f"Bearer {key.plain}"}
    url = f"{cut_off.gateway.url}/v1/chat/completions"
    with httpx.Client(headers=headers, timeout=30) as client:
        open_ones = [client.send(client.build_request("POST", url, json=body), stream=True) for _ in range(2)]
        assert [each.status_code for each in open_ones] == [200, 200]
        refused = cut_off.post(key, stream=True)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "concurrency_limit_exceeded")
        assert refused.headers["retry-after"] == "1"
        assert cut_off.post(key).status_code == 200  # takes no slot
        for each in open_ones:
            with closing(each):
                pass
    until(lambda: cut_off.post(key, stream=True).status_code == 200, what="the part free again")


def test_the_money_at_risk_is_bounded_by_the_allowance(cut_off: CutOff) -> None:
    key = cut_off.known()
    cut_off.proxy.reset()
    # Half of 0.01 USD is this process's: 0.005. The dear model could cost 0.015.
    refused = cut_off.post(key, model="claude-sonnet-5.5", max_tokens=1_000)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "limiter_unavailable")
    # 0.0048 each at most: the unused part of each hold is released.
    assert [cut_off.post(key, max_tokens=7_900).status_code for _ in range(4)] == [200] * 4


def test_a_budget_of_the_organization_or_of_the_key_is_hard(cut_off: CutOff) -> None:
    organization = an_organization()
    with_own_budget, without = a_key(organization, budget_day_nanos=10**12), a_key(organization)
    for key in (with_own_budget, without):
        until(lambda key=key: cut_off.is_served(key), what="service")  # type: ignore[misc] # mypy infers no default
    cut_off.proxy.reset()
    assert [cut_off.post(key).status_code for key in (with_own_budget, without)] == [503, 200]
    cut_off.heal()
    set_budgets(organization, day_nanos=None, month_nanos=10**12)
    cut_off.proxy.reset()
    # The change may be lost with the connection: keys are then read again after a second.
    until(lambda: cut_off.post(without).status_code == 503, what="the budget")


def test_a_plan_may_fail_closed(cut_off: CutOff) -> None:
    an_organization()  # creates the plans
    plan = Plan.objects.get(slug="internal")
    plan.pk, plan.slug, plan.limiter_fail, plan.is_public = None, "careful", Plan.LimiterFail.CLOSED, False
    plan.save()
    organization: Organization = an_organization(plan="careful")
    key = a_key(organization)
    until(lambda: cut_off.is_served(key), what="service")
    cut_off.proxy.reset()
    assert cut_off.post(key).status_code == 503


@pytest.mark.parametrize(("policy", "statuses"), [("bounded", [200, 503]), ("closed", [503, 503])])
def test_a_gateway_started_without_redis_follows_its_setting(
    running: Installation, policy: str, statuses: list[int]
) -> None:
    unused_url = f"redis://127.0.0.1:{free_port()}/0"
    gateway = running.new_gateway(REDIS_URL=unused_url, LIMITER_FAIL=policy)
    key = a_key()
    seen = [running.post(key.plain, url=gateway.url, **BODY) for _ in statuses]
    assert [r.status_code for r in seen] == statuses
    health = running.health(gateway.url)
    status = "degraded" if policy == "bounded" else "unhealthy"  # nothing can be admitted
    assert (health["status"], health["checks"]["redis"]) == (status, False)
    gateway.stop()


def test_a_stream_from_an_outage_is_registered_in_redis_once_it_is_back(cut_off: CutOff) -> None:
    key = cut_off.known()
    cut_off.proxy.reset()
    body = {**BODY, "stream": True, "messages": [{"role": "user", "content": "[[fault:chunks n=60 gap_ms=50]]"}]}
    headers = {"Authorization": f"Bearer {key.plain}"}
    url = f"{cut_off.gateway.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=30) as stream:
        assert (stream.status_code, stream.headers["x-cfx-degraded"]) == (200, "limiter")
        request_id = stream.headers["x-cfx-request-id"]
        cut_off.heal()
        until(lambda: cut_off.running.open_leases(request_id), what="the lease")
        assert "[DONE]" in stream.read().decode()
    row = cut_off.running.row(request_id)
    assert row.is_degraded
    until(lambda: not cut_off.running.open_leases(request_id), what="no lease")
    assert cut_off.running.scope("k", key.row.id)["held"] == 0


def test_a_key_that_litellm_refuses_is_no_good_health(running: Installation) -> None:
    gateway = running.new_gateway(LITELLM_API_KEY="sk-that-litellm-does-not-know")
    try:
        found = until(lambda: (now := running.health(gateway.url))["details"]["litellm_key_refused"] and now)
        assert (found["status"], found["checks"]["litellm"]) == ("degraded", False)
    finally:
        gateway.stop()


def test_a_salt_that_no_key_is_stored_under_is_no_good_health(running: Installation) -> None:
    key = a_key()
    gateway = running.new_gateway(HASH_SALT="set-by-mistake-instead-of-the-one-of-all-keys")
    try:
        assert running.post(key.plain, url=gateway.url).status_code == 401
        found = until(lambda: not (now := running.health(gateway.url))["details"]["hash_salt_known"] and now)
        assert found["status"] == "degraded"
    finally:
        gateway.stop()
