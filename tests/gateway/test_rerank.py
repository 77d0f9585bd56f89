"""Rerankers and moderations: what is held, told, estimated and charged, and what is refused."""

from typing import Any

import httpx
import pytest

from billing.tests.factories import an_organization
from keys.tests.factories import a_key
from tests.support.installation import Installation, models_text

BY_UNIT, BY_TOKEN, MODERATION = "rerank-v3.5", "rerank-2.5", "omni-moderation-latest"
UNIT_NANOS = 2_000_000


@pytest.fixture
def key(running: Installation) -> str:
    return a_key().plain


def rerank(running: Installation, key: str, *, path: str = "/v1/rerank", **body: Any) -> httpx.Response:
    return running.ask(key, path, **{"model": BY_UNIT, "query": "What is it?", "documents": ["One", "Two"], **body})


def code_of(response: httpx.Response) -> str:
    code: str = response.json()["error"]["code"]
    return code


def test_a_reranker_is_charged_by_the_search_units_that_the_provider_bills(running: Installation, key: str) -> None:
    response = rerank(running, key, documents=["word"] * 250, top_n=3)
    assert len(response.json()["results"]) == 3
    assert response.json()["meta"]["billed_units"] == {"search_units": 3}
    row = running.row_of(response)
    assert (row.usage_details, row.cost_nanos, row.is_estimated) == ({"search_unit": 3}, 3 * UNIT_NANOS, False)
    assert row.held_nanos == 3 * UNIT_NANOS


def test_a_reranker_may_be_sold_by_the_token(running: Installation, key: str) -> None:
    row = running.row_of(rerank(running, key, model=BY_TOKEN, documents=["word " * 100] * 3))
    assert row.prompt_tokens > 0
    assert row.cost_nanos == row.prompt_tokens * row.rate_input_nanos // 1_000_000 <= row.held_nanos
    assert (row.usage_details, row.is_estimated) == (None, False)


@pytest.mark.parametrize("model", [BY_UNIT, BY_TOKEN])
def test_missing_usage_is_estimated_and_never_free(running: Installation, key: str, model: str) -> None:
    row = running.row_of(rerank(running, key, model=model, query="[[fault:no_usage]] what?", documents=["word"] * 101))
    assert row.is_estimated
    assert 0 < row.cost_nanos <= row.held_nanos
    assert row.usage_details == ({"search_unit": 2} if model == BY_UNIT else None)
    assert row.prompt_tokens > 0


def test_a_document_cannot_choose_the_price(running: Installation, key: str) -> None:
    document = {"text": "x", "model": "deepseek-v4.1-flash", "usage": {"search_units": 0}, "error": "x"}
    response = rerank(running, key, documents=[document], return_documents=True)
    assert response.json()["results"][0]["document"] == document
    row = running.row_of(response)
    assert (row.model, row.cost_nanos) == (BY_UNIT, UNIT_NANOS)


def test_coheres_newer_path_is_the_same_surface(running: Installation, key: str) -> None:
    row = running.row_of(rerank(running, key, path="/v2/rerank"))
    assert (row.surface, row.endpoint, row.status) == ("rerank", "/v2/rerank", 200)
    assert code_of(rerank(running, "cfx_nobody", path="/v2/rerank")) == "invalid_api_key"
    assert httpx.options(f"{running.url}/v2/rerank").headers["allow"] == "POST, OPTIONS"
    assert httpx.get(f"{running.url}/v2/rerank").status_code == 405


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"model": None}, "model_not_allowed"),
        ({"model": "gpt-6-luna"}, "model_not_allowed"),
        ({"model": MODERATION}, "model_not_allowed"),
        ({"model": "cfx-plan"}, "model_not_allowed"),
        ({"stream": True}, "invalid_request"),
        ({"documents": []}, "invalid_request"),
        ({"documents": "x"}, "invalid_request"),
        ({"query": ""}, "invalid_request"),
    ],
)
def test_what_is_no_rerank_is_refused(running: Installation, key: str, body: dict[str, Any], code: str) -> None:
    response = rerank(running, key, **body)
    assert (response.status_code, code_of(response)) == (400, code)
    if code == "model_not_allowed":
        assert response.json()["error"]["message"].endswith(f"Allowed: {BY_UNIT}, {BY_TOKEN}.")


def test_a_restricted_key_is_told_its_own_models_of_the_surface(running: Installation) -> None:
    key = a_key(allowed_models=(BY_TOKEN, "gpt-6-luna")).plain
    for model in (None, BY_UNIT):
        message = rerank(running, key, model=model).json()["error"]["message"]
        assert message.endswith(f"This key may use: {BY_TOKEN}.")
    assert rerank(running, key, model=BY_TOKEN).status_code == 200


def test_stages_are_not_for_rerankers_and_moderations(running: Installation, key: str) -> None:
    for path, body in (("/v1/rerank", {"query": "q", "documents": ["d"]}), ("/v1/moderations", {"input": "x"})):
        response = running.ask(key, path, headers={"X-CFX-Stage": "plan"}, **body)
        assert (response.status_code, code_of(response)) == (400, "invalid_stage")


def test_a_moderation_without_usage_is_free_by_its_line_of_zero(running: Installation, key: str) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    for value in ("violence", ["fine", "violence"], [{"type": "text", "text": "violence"}, picture]):
        response = running.ask(key, "/v1/moderations", model=MODERATION, input=value)
        assert response.json()["results"][-1]["flagged"]
        row = running.row_of(response)
        assert (row.surface, row.cost_nanos, row.is_estimated, row.held_nanos) == ("moderations", 0, False, 0)
    missing = running.ask(key, "/v1/moderations", input="x")
    assert missing.json()["error"]["message"] == f"The request names no model. Allowed: {MODERATION}."


@pytest.mark.parametrize(
    ("line", "cost", "is_estimated"),
    [
        ("{units: {request: 0.001}}", 1_000_000, False),
        ("{input: 0.1, output: 0}", None, True),
        ("{input: 0, output: 0}", 0, True),
    ],
)
def test_a_moderation_may_be_sold_by_the_call_or_by_the_token(
    running: Installation, key: str, line: str, cost: int | None, *, is_estimated: bool
) -> None:
    with running.configured(**{r"\{units: \{request: 0\}\}": line}):
        row = running.row_of(running.ask(key, "/v1/moderations", model=MODERATION, input="word " * 400))
    assert row.is_estimated == is_estimated
    assert row.cost_nanos == (row.prompt_tokens * 100 if cost is None else cost) <= row.held_nanos
    assert (row.prompt_tokens > 0) == is_estimated


def test_a_model_without_a_line_for_its_endpoint_is_refused(running: Installation, key: str) -> None:
    with running.configured(**{r"\{units: \{request: 0\}\}": "{units: {search_unit: 0.002}}"}):
        response = running.ask(key, "/v1/moderations", model=MODERATION, input="x")
    assert (response.status_code, code_of(response)) == (400, "model_not_priced")


def test_without_models_the_endpoints_refuse_and_the_others_go_on(running: Installation, key: str) -> None:
    shipped = models_text().partition("# Rerankers and moderations")[0]
    with running.configured(shipped):
        response = rerank(running, key)
        assert (response.status_code, code_of(response)) == (400, "model_not_allowed")
        assert response.json()["error"]["message"].endswith("Allowed: none.")
        assert running.say(key, "hi").status_code == 200


def test_a_reranker_fails_over_within_its_own_models(running: Installation, key: str) -> None:
    with running.configured(**{r"fallback: \[\]  +# tried in": f"fallback: [{BY_TOKEN}] # tried in"}):
        running.upstream.set_fault("500", model=BY_UNIT)
        response = rerank(running, key)
        row = running.row_of(response)
    assert (response.status_code, response.headers["x-cfx-model"], row.model) == (200, BY_TOKEN, BY_TOKEN)
    assert row.cost_nanos == row.prompt_tokens * 50


def test_a_rerank_that_credit_does_not_cover_is_refused(running: Installation) -> None:
    organization = an_organization(plan="pro")
    key = a_key(organization, budget_day_nanos=2 * UNIT_NANOS).plain
    assert code_of(rerank(running, key, documents=["word"] * 201)) == "insufficient_quota"
    assert rerank(running, key, documents=["word"] * 200).status_code == 200


def test_rerankers_and_moderations_are_listed_as_models(running: Installation, key: str) -> None:
    listed = httpx.get(f"{running.url}/v1/models", headers={"Authorization": f"Bearer {key}"}).json()["data"]
    assert {BY_UNIT, BY_TOKEN, MODERATION} <= {model["id"] for model in listed}


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/audio/speech", "/v1/audio/transcriptions"])
def test_images_and_audio_wait_for_prices(running: Installation, key: str, path: str) -> None:
    response = running.ask(key, path, model="gpt-image-2", prompt="x")
    assert (response.status_code, code_of(response)) == (404, "unknown_route")
    assert "no prices" in response.json()["error"]["message"]


def test_control_fields_of_litellm_do_not_pass(running: Installation, key: str) -> None:
    response = rerank(running, key, api_base="http://evil", mock_response="x", instruction="by age", max_tokens=5)
    (seen,) = running.upstream.ledger(call_id=f"{response.headers['x-cfx-request-id']}.1")
    assert set(seen["body_keys"]) == {"model", "query", "documents", "instruction"}
