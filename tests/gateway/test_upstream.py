"""Upstream failures: never our 500, always one row, nothing held afterwards."""

import httpx
import pytest

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


@pytest.mark.parametrize("status", [400, 403, 404, 422])
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


# fault -> statuses that a caller may see without and with streaming
def test_an_open_circuit_is_shared_and_closes_after_one_successful_trial(running: Installation, key: str) -> None:
    """Over two processes."""
    second = running.new_gateway()
    running.upstream.set_fault("500", model="claude-haiku-5.5")
    for _ in range(5):
        running.post(key, model="claude-haiku-5.5")
    until(
        lambda: running.health(second.url)["details"]["circuits"] == {"claude-haiku-5.5": "open"}, what="open circuit"
    )
    before = len(running.upstream.ledger(model="claude-haiku-5.5"))
    refused = running.post(key, model="claude-haiku-5.5", url=second.url)
    assert (refused.status_code, int(refused.headers["retry-after"])) == (503, 1)
    assert len(running.upstream.ledger(model="claude-haiku-5.5")) == before
    running.upstream.clear()
    until(lambda: running.post(key, model="claude-haiku-5.5", url=second.url).status_code == 200, what="a trial")
    until(lambda: running.health()["details"]["circuits"] == {}, what="closed circuit")
    second.stop()


def test_one_organizations_failures_open_the_circuit_for_no_other(running: Installation, key: str) -> None:
    """Its requests may be the cause of the provider's failures."""
    model, others, third = "claude-haiku-5.5", a_key().plain, a_key().plain
    for _ in range(5):
        running.say(key, "[[fault:500]]", model=model)
    assert running.post(key, model=model).status_code == 503
    assert running.post(others, model=model).status_code == 200
    assert running.health()["details"]["circuits"] == {model: "open"}
    assert running.say(others, "[[fault:500]]", model=model).status_code == 503
    refused = running.post(third, model=model)
    assert (refused.status_code, int(refused.headers["retry-after"])) == (503, 1)


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
