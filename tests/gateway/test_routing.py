"""Stage routing over HTTP, as caller and upstream see it."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keys.tests.factories import a_key
from tests.support.examples import examples
from tests.support.installation import Installation


@pytest.fixture
def key(running: Installation) -> str:
    return a_key().plain


def served(response: httpx.Response) -> tuple[str, str, str]:
    assert response.status_code == 200, response.text
    headers = response.headers
    return headers["x-cfx-stage"], headers["x-cfx-stage-reason"], headers["x-cfx-model"]


def sent(running: Installation, response: httpx.Response) -> dict[str, Any]:
    """Return the body that the upstream received."""
    call_id = f"{response.headers['x-cfx-request-id']}.1"
    (entry,) = running.upstream.ledger(call_id=call_id, wait=1)
    body: dict[str, Any] = json.loads(entry["body"])
    return body


@pytest.mark.parametrize(
    ("stage", "model"), [("plan", "claude-sonnet-5.5"), ("code", "deepseek-v4.1-flash"), ("review", "gpt-6-luna")]
)
def test_the_stage_header_overrides_the_bodys_model(running: Installation, key: str, stage: str, model: str) -> None:
    response = running.post(key, headers={"X-CFX-Stage": stage}, model="gpt-6.1-sol")
    assert served(response) == (stage, "header", model)
    assert sent(running, response)["model"] == model
    assert response.json()["model"] == model


def test_a_direct_model_gets_the_cap_and_the_default(running: Installation, key: str) -> None:
    response = running.post(key, headers={"X-CFX-Stage": "direct"}, model="gpt-6.1-sol", max_tokens=100_000)
    assert served(response) == ("direct", "header", "gpt-6.1-sol")
    assert sent(running, response)["max_tokens"] == 32_768
    response = running.post(key, model="gpt-6.1-sol")
    assert served(response) == ("direct", "model", "gpt-6.1-sol")
    assert sent(running, response)["max_tokens"] == 8_192


@pytest.mark.parametrize("name", ["cfx-review", "review"])
def test_a_stages_own_name_means_the_stage(running: Installation, key: str, name: str) -> None:
    assert served(running.post(key, model=name)) == ("review", "stage-alias", "gpt-6-luna")


@pytest.mark.parametrize("model", [None, "auto", "cfx-auto"])
def test_without_a_model_the_text_decides(running: Installation, key: str, model: str | None) -> None:
    named = {} if model is None else {"model": model}
    assert served(running.say(key, "Please review this function", **named)) == ("review", "keyword", "gpt-6-luna")
    assert served(running.say(key, "Merhaba", **named)) == ("code", "default", "deepseek-v4.1-flash")


def test_an_unknown_stage_or_model_is_refused_with_the_allowed_ones(running: Installation, key: str) -> None:
    for response, code in (
        (running.post(key, model="gpt-99"), "model_not_allowed"),
        (running.post(key, model="gpt-99", headers={"X-CFX-Stage": "direct"}), "model_not_allowed"),
        (running.post(key, headers={"X-CFX-Stage": "deploy"}), "invalid_stage"),
    ):
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (400, code)
        assert "Allowed:" in error["message"]


def test_stage_defaults_replace_only_missing_fields(running: Installation, key: str) -> None:
    body = sent(running, running.post(key, model="cfx-code"))
    assert (body["max_tokens"], body["temperature"]) == (32_768, 0.2)
    body = sent(running, running.post(key, model="cfx-code", max_tokens=7, temperature=1.5))
    assert (body["max_tokens"], body["temperature"]) == (7, 1.5)
    body = sent(
        running, running.post(key, headers={"x-decompose": "0"}, model="cfx-code", max_completion_tokens=90_000)
    )
    assert body["max_completion_tokens"] == 32_768
    assert "max_tokens" not in body


def test_the_hold_covers_the_request_sent_upstream(running: Installation, key: str) -> None:
    response = running.post(key, model="cfx-plan", max_tokens=1_000, n=2)
    row = running.row_of(response)
    # The dearest of the chain produces its maximum: two choices of a thousand tokens at 10 USD a million.
    assert row.held_nanos >= 2 * 1_000 * 10_000
    assert row.held_nanos >= row.cost_nanos > 0


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(extra=st.dictionaries(st.sampled_from(["seed", "x_custom", "reasoning_effort", "logit_bias", "ünïcode"]), _json))
def test_unknown_fields_reach_the_upstream_as_they_were(running: Installation, key: str, extra: dict[str, Any]) -> None:
    """Over the wire."""
    body = sent(running, running.post(key, model="cfx-code", **extra))
    assert {name: body[name] for name in extra} == extra


def test_control_fields_of_litellm_never_reach_it(running: Installation, key: str) -> None:
    orders: dict[str, Any] = {
        "api_base": "http://127.0.0.1:1", "api_key": "sk-x", "user_config": {}, "fallbacks": ["gpt-6.1-sol"],
        "mock_response": "free", "callbacks": ["x"], "litellm_trace_id": "x", "num_retries": 9,
        "metadata": {"tags": ["x"], "user_api_key": "y", "mine": "kept"},
    }  # fmt: skip
    response = running.post(key, headers={"x-litellm-timeout": "1", "x-litellm-tags": "a"}, model="cfx-code", **orders)
    body = sent(running, response)
    assert set(orders) & set(body) == {"metadata"}
    assert body["metadata"] == {"mine": "kept"}
    (entry,) = running.upstream.ledger(call_id=f"{response.headers['x-cfx-request-id']}.1")
    assert set(entry["litellm_headers"]) == {"x-litellm-call-id", "x-litellm-num-retries"}


def test_models_lists_stages_and_allowed_models(running: Installation, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    listed = httpx.get(f"{running.url}/v1/models", headers=headers).json()
    names = [model["id"] for model in listed["data"]]
    assert names[:3] == ["cfx-plan", "cfx-code", "cfx-review"]
    assert "gpt-6-luna" in names
    assert httpx.get(f"{running.url}/v1/models/gpt-6.1-sol", headers=headers).json()["id"] == "gpt-6.1-sol"
    assert httpx.get(f"{running.url}/v1/models/gpt-99", headers=headers).status_code == 404
    assert httpx.get(f"{running.url}/v1/models").status_code == 401
