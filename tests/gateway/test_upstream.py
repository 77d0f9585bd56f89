"""Upstream failures: never our 500, always one row, nothing held afterwards."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import httpx
import pytest

from accounts.models import User
from accounts.tests.factories import a_user
from billing.tests.factories import an_organization
from codexflow.lib.clock import now
from keys.tests.factories import a_key
from logs.models import RequestLog, UpstreamAttempt
from logs.requests.selectors import request_of
from tests.support.installation import Installation
from tests.support.waiting import until


@pytest.fixture
def key(running: Installation) -> str:
    return a_key().plain


def attempts_of(row: RequestLog) -> list[tuple[int, str, int]]:
    detail = request_of(row.organization_id, row.request_id, retention_days=1)
    assert detail is not None
    return [(each.n, each.model, each.status) for each in detail.attempts]


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_transient_error_is_retried_once_on_the_same_model(running: Installation, key: str, status: int) -> None:
    running.upstream.set_fault(str(status), model="deepseek-v4.1-flash", times=1)
    response = running.post(key, model="cfx-code")
    row = running.row_of(response)
    assert (response.status_code, response.headers["x-cfx-model"]) == (200, "deepseek-v4.1-flash")
    assert attempts_of(row) == [(1, "deepseek-v4.1-flash", status), (2, "deepseek-v4.1-flash", 200)]
    seen = running.upstream.ledger(model="deepseek-v4.1-flash")
    assert [entry["call_id"] for entry in seen] == [f"{row.request_id}.1", f"{row.request_id}.2"]


def test_a_lost_connection_is_retried_once(running: Installation, key: str) -> None:
    running.upstream.set_fault("cut", model="deepseek-v4.1-flash", times=1)
    response = running.post(key, model="cfx-code")
    assert attempts_of(running.row_of(response)) == [(1, "deepseek-v4.1-flash", 0), (2, "deepseek-v4.1-flash", 200)]


@pytest.mark.parametrize("status", [400, 404, 422])
def test_an_error_of_the_request_is_passed_on_and_never_retried(running: Installation, key: str, status: int) -> None:
    """Only transient errors are retried."""
    response = running.say(key, f"[[fault:{status}]]", model="cfx-code")
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert attempts_of(running.row_of(response)) == [(1, "deepseek-v4.1-flash", status)]


def test_a_rate_limited_model_is_not_retried_but_replaced(running: Installation, key: str) -> None:
    running.upstream.set_fault("429 retry_after=7", model="deepseek-v4.1-flash")
    response = running.post(key, model="cfx-code")
    assert response.headers["x-cfx-model"] == "gpt-6-luna"
    assert [status for _, _, status in attempts_of(running.row_of(response))] == [429, 200]


def test_when_all_are_rate_limited_the_caller_gets_retry_after(running: Installation, key: str) -> None:
    response = running.say(key, "[[fault:429 retry_after=7]]", model="cfx-code")
    assert (response.status_code, response.headers["retry-after"]) == (429, "7")
    assert response.json()["error"]["code"] == "upstream_rate_limited"


def test_the_caller_waits_for_the_model_that_is_back_first(running: Installation, key: str) -> None:
    running.upstream.set_fault("429 retry_after=40", model="deepseek-v4.1-flash")
    running.upstream.set_fault("429 retry_after=9", model="gpt-6-luna")
    running.upstream.set_fault("429 retry_after=20", model="gemini-3.5-flash-lite")
    assert running.post(key, model="cfx-code").headers["retry-after"] == "9"


def test_a_provider_that_asks_for_a_pause_is_not_retried_within_it(running: Installation, key: str) -> None:
    running.upstream.set_fault("503 retry_after=30", model="deepseek-v4.1-flash", times=1)
    response = running.post(key, model="cfx-code")
    attempts = [(1, "deepseek-v4.1-flash", 503), (3, "gpt-6-luna", 200)]
    assert attempts_of(running.row_of(response)) == attempts


def test_fallbacks_are_tried_in_their_order(running: Installation, key: str) -> None:
    running.upstream.set_fault("500", model="deepseek-v4.1-flash")
    running.upstream.set_fault("503", model="gpt-6-luna")
    response = running.post(key, model="cfx-code")
    row = running.row_of(response)
    assert (row.model, row.stage, row.status) == ("gemini-3.5-flash-lite", "code", 200)
    assert [model for _, model, _ in attempts_of(row)] == ["deepseek-v4.1-flash", "gpt-6-luna", "gemini-3.5-flash-lite"]
    # The customer pays the price of the model that served the call.
    assert row.rate_output_nanos == 2_500_000_000


def test_when_everything_fails_it_is_a_503_with_retry_after(running: Installation, key: str) -> None:
    response = running.say(key, "[[fault:503]]", model="cfx-code")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "upstream_unavailable")
    assert int(response.headers["retry-after"]) >= 1
    row = running.row_of(response)
    assert (row.status, row.cost_nanos, len(attempts_of(row))) == (503, 0, 4)


def test_an_upstream_timeout_is_a_504(running: Installation, key: str) -> None:
    response = running.say(key, "[[fault:hang]]", model="gpt-6-luna")
    assert (response.status_code, response.json()["error"]["code"]) == (504, "upstream_timeout")


def test_an_upstreams_401_is_not_the_callers(running: Installation, key: str) -> None:
    response = running.say(key, "[[fault:401]]", model="gpt-6-luna")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "upstream_unavailable")


def circuits(*, threshold: int, recovery_s: int) -> dict[str, str]:
    return {
        r"failure_threshold: \d+": f"failure_threshold: {threshold}",
        r"recovery_timeout: \d+": f"recovery_timeout: {recovery_s}",
    }


def test_an_open_circuit_is_shared_and_closes_after_one_successful_trial(running: Installation, key: str) -> None:
    """Over two processes."""
    model = "claude-haiku-5.5"
    second = running.new_gateway()
    running.upstream.set_fault("500", model=model)
    with running.configured(**circuits(threshold=5, recovery_s=5)):
        for _ in range(5):
            running.post(key, model=model)
        until(lambda: running.health(second.url)["details"]["circuits"] == {model: "open"}, what="open circuit")
        before = len(running.upstream.ledger(model=model))
        refused = running.post(key, model=model, url=second.url)
        assert refused.status_code == 503
        assert 1 <= int(refused.headers["retry-after"]) <= 5
        assert len(running.upstream.ledger(model=model)) == before
        running.upstream.clear()
        until(lambda: running.post(key, model=model, url=second.url).status_code == 200, what="a trial")
        until(lambda: running.health()["details"]["circuits"] == {}, what="closed circuit")
    second.stop()


def test_one_organizations_failures_open_the_circuit_for_no_other(running: Installation, key: str) -> None:
    """Its requests may be the cause of the provider's failures."""
    # A model that no other test calls: successes that other processes remember and tell within the minute would count.
    model, others, third = "claude-haiku-4.5", a_key().plain, a_key().plain
    gateway = running.new_gateway()
    url = gateway.url
    for _ in range(5):
        running.say(key, "[[fault:500]]", model=model, url=url)
    assert running.post(key, model=model, url=url).status_code == 503
    assert running.post(others, model=model, url=url).status_code == 200
    assert running.health(url)["details"]["circuits"] == {model: "open"}
    assert running.say(others, "[[fault:500]]", model=model, url=url).status_code == 503
    refused = running.post(third, model=model, url=url)
    assert (refused.status_code, int(refused.headers["retry-after"])) == (503, 1)
    gateway.stop()


def test_a_call_counts_once_however_often_it_was_tried(running: Installation, key: str) -> None:
    """One call of an SDK is three requests with two attempts each, and takes the model from nobody."""
    model = "claude-haiku-5.5"
    for _ in range(4):
        refused = running.say(key, "[[fault:503]]", model=model)
    assert len(running.upstream.ledger(model=model)) == 8
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert running.post(key, model=model).status_code == 200
    assert running.health()["status"] == "healthy"  # nobody feels anything


def test_one_keys_failures_take_the_model_from_no_colleague(running: Installation) -> None:
    model, organization = "claude-haiku-5.5", an_organization()
    key, colleagues = a_key(organization).plain, a_key(organization).plain
    for _ in range(5):
        running.say(key, "[[fault:500]]", model=model)
    assert running.post(key, model=model).status_code == 503
    assert running.post(colleagues, model=model).status_code == 200


def test_failures_of_two_organizations_among_many_successes_close_nothing(running: Installation) -> None:
    model, healthy = "claude-haiku-5.5", a_key().plain
    for _ in range(8):
        assert running.post(healthy, model=model).status_code == 200
    for key in (a_key().plain, a_key().plain):
        for _ in range(3):
            running.say(key, "[[fault:500]]", model=model)
    assert running.post(healthy, model=model).status_code == 200
    assert running.health()["status"] == "healthy"


@pytest.fixture
def slow_recovery(running: Installation) -> Iterator[None]:
    """Circuits that stay open for long, and open with the second failed call."""
    with running.configured(
        **{r"recovery_timeout: \d+": "recovery_timeout: 50", r"failure_threshold: \d+": "failure_threshold: 2"}
    ):
        yield


@pytest.mark.usefixtures("slow_recovery")
def test_retry_after_says_when_the_circuit_opens(running: Installation, key: str) -> None:
    model = "claude-haiku-5.5"
    assert running.say(key, "[[fault:500]]", model=model).headers["retry-after"] == "1"
    opening = running.say(key, "[[fault:500]]", model=model)  # the call that opens it knows as well
    refused = running.post(key, model=model)
    for response in (opening, refused):
        assert response.status_code == 503
        assert 40 <= int(response.headers["retry-after"]) <= 50
    assert refused.json()["error"]["message"].startswith(f"The model {model} is not available right now. Retry in ")


@pytest.mark.parametrize("ending", ["429", "leaves"])
def test_a_trial_that_proved_nothing_is_given_back(running: Installation, key: str, ending: str) -> None:
    model = "claude-haiku-5.5"
    with running.configured(
        **{r"failure_threshold: \d+": "failure_threshold: 1", r"recovery_timeout: \d+": "recovery_timeout: 4"}
    ):
        running.say(key, "[[fault:500]]", model=model)
        assert running.post(key, model=model).status_code == 503
        running.upstream.set_fault("429" if ending == "429" else "hang", model=model)
        before = len(running.upstream.ledger(model=model))
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}

        def is_tried() -> bool:
            with contextlib.suppress(httpx.ReadTimeout):
                headers = {"Authorization": f"Bearer {key}"}
                httpx.post(f"{running.url}/v1/chat/completions", json=body, headers=headers, timeout=0.5)
            return len(running.upstream.ledger(model=model)) > before

        until(is_tried, what="a trial")
        running.upstream.clear()
        until(
            lambda: running.post(key, model=model).status_code == 200,
            within_s=3,
            what="another trial before the timeout",
        )


def test_a_model_with_an_open_circuit_is_skipped(running: Installation, key: str) -> None:
    running.upstream.set_fault("500", model="deepseek-v4.1-flash")
    for _ in range(5):
        running.post(key, model="cfx-code")
    response = running.post(key, model="cfx-code")
    assert response.headers["x-cfx-model"] == "gpt-6-luna"
    assert attempts_of(running.row_of(response))[0][1] in ("deepseek-v4.1-flash", "gpt-6-luna")
    assert UpstreamAttempt.objects.filter(request_id=response.headers["x-cfx-request-id"]).count() <= 2


def test_errors_are_scrubbed_of_litellm_and_its_hosts(running: Installation, key: str) -> None:
    text = running.say(key, "[[fault:400]]", model="gpt-6-luna").text
    assert "litellm" not in text.lower()
    assert running.upstream.url not in text


def test_health_reports_each_dependency(running: Installation) -> None:
    report = running.health()
    assert report["checks"] == {
        "config": True, "stage_router": True, "litellm_client": True, "database": True, "litellm": True, "redis": True,
    }  # fmt: skip
    assert (report["status"], report["version"]) == ("healthy", "0.1.0")
    running.upstream.set_fault("503", path="/health/liveliness")
    until(lambda: running.health()["status"] == "degraded", what="degraded")
    assert httpx.get(f"{running.url}/health").status_code == 200
    assert httpx.get(f"{running.url}/health/ready").status_code == 200
    assert httpx.get(f"{running.url}/health/live").json() == {"status": "alive"}


def established() -> User:
    """A user who signed up long ago."""
    user = a_user()
    User.objects.filter(pk=user.pk).update(created_at=now() - timedelta(days=2))
    return user


def established_keys(number: int) -> list[str]:
    """Keys of as many owners who signed up long ago."""
    return [a_key(an_organization(owner=established(), plan="free")).plain for _ in range(number)]


def fresh_keys(number: int) -> list[str]:
    """Keys on the free plan of as many owners who have just signed up."""
    return [a_key(an_organization(plan="free")).plain for _ in range(number)]


def keys_of_one(plan: str) -> list[str]:
    """Keys of six organizations of one owner."""
    return [a_key(an_organization(owner=owner, plan=plan)).plain for owner in [established()] * 6]


ATTACKS: dict[str, tuple[Callable[[], list[str]], str]] = {
    "six organizations of one owner": (lambda: keys_of_one("starter"), "500"),
    "six organizations of one owner on a plan that the operator gives": (lambda: keys_of_one("internal"), "500"),
    "six owners who have just signed up": (lambda: fresh_keys(6), "500"),
    "six owners who think for long": (lambda: established_keys(6), "hang"),
    "six owners whose provider gives up": (lambda: established_keys(6), "504"),
    "a retry storm and one who has just signed up": (lambda: established_keys(1) * 5 + fresh_keys(1), "500"),
}


@pytest.mark.cut(3)
@pytest.mark.parametrize("attack", ATTACKS)
def test_nobody_takes_a_model_from_others(running: Installation, attack: str) -> None:
    """Though nobody else calls it meanwhile."""
    model, (keys_of_attack, fault) = "claude-haiku-5.5", ATTACKS[attack]
    victims = a_key().plain, a_key(an_organization(plan="free")).plain
    gateway = running.new_gateway()  # it remembers no successes of other tests
    with running.configured(**circuits(threshold=2, recovery_s=30)):
        for key in keys_of_attack():
            assert running.say(key, f"[[fault:{fault}]]", model=model, url=gateway.url).status_code in (503, 504)
        for victim in victims:
            assert running.post(victim, model=model, url=gateway.url).status_code == 200
    gateway.stop()


def test_a_model_that_fails_for_established_owners_is_left_alone_by_all(running: Installation) -> None:
    model = "claude-haiku-5.5"
    keys = established_keys(2)
    gateway = running.new_gateway()
    with running.configured(**circuits(threshold=2, recovery_s=30)):
        for key in keys:
            assert running.say(key, "[[fault:500]]", model=model, url=gateway.url).status_code == 503
        other = running.post(a_key().plain, model=model, url=gateway.url)
        assert (other.status_code, other.json()["error"]["code"]) == (503, "upstream_unavailable")
        details = running.health(gateway.url)["details"]
        assert details["circuits_open_for_all"] == [model]
        since = datetime.fromisoformat(details["circuits_open_since"][model])
        assert timedelta() <= now() - since < timedelta(minutes=2)
    gateway.stop()
