"""Every metered surface: whole and streamed responses, usage, refusals and failures."""

import json
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from keys.tests.factories import a_key
from logs.models import RequestLog
from routing.surfaces.table import SURFACES
from tests.support.installation import Installation


@dataclass(frozen=True)
class SurfaceCase:
    """Request of one surface with a given text."""

    name: str
    path: str
    model: str
    streams: bool = True

    def body(self, text: str, **more: Any) -> dict[str, Any]:
        message = [{"role": "user", "content": text}]
        by_surface: dict[str, dict[str, Any]] = {
            "chat": {"messages": message},
            "messages": {"messages": message, "max_tokens": 500},
            "completions": {"prompt": text},
            "responses": {"input": text},
            "embeddings": {"input": text},
            "rerank": {"query": text, "documents": ["One document", "Another one"]},
            "moderations": {"input": text},
        }
        return {"model": self.model, **by_surface[self.name], **more}


SURFACE_CASES = (
    SurfaceCase("chat", "/v1/chat/completions", "gpt-6-luna"),
    SurfaceCase("chat", "/chat/completions", "gpt-6-luna"),
    SurfaceCase("completions", "/v1/completions", "gpt-6-luna"),
    SurfaceCase("responses", "/v1/responses", "gpt-6-luna"),
    SurfaceCase("messages", "/v1/messages", "claude-haiku-5.5"),
    SurfaceCase("messages", "/v1/messages?beta=true", "claude-haiku-5.5"),
    SurfaceCase("embeddings", "/v1/embeddings", "text-embedding-3-small", streams=False),
    SurfaceCase("rerank", "/v1/rerank", "rerank-v3.5", streams=False),
    SurfaceCase("moderations", "/v1/moderations", "omni-moderation-latest", streams=False),
)
STREAMING = tuple(case for case in SURFACE_CASES if case.streams)
BY_PATH = [pytest.param(case, id=case.path) for case in SURFACE_CASES]
BY_STREAM = [pytest.param(case, id=case.path) for case in STREAMING]


@pytest.fixture
def key(running: Installation) -> str:
    return a_key().plain


def ask(running: Installation, key: str, case: SurfaceCase, text: str, **more: Any) -> httpx.Response:
    return running.ask(key, case.path, **case.body(text, **more))


def error_of(case: SurfaceCase, content: Any) -> dict[str, Any]:
    if case.name == "messages":
        assert content["type"] == "error"
    error: dict[str, Any] = content["error"]
    return error


def last_event(text: str) -> Any:
    """Return the last event of a stream. Responses send a failure twice; the event common to all surfaces counts."""
    *before, last = text.rstrip("\n").split("\n\n")
    if before and '"response.failed"' in last:
        last = before[-1]
    said = last.partition("data: ")[2]
    return said if said == "[DONE]" else json.loads(said)


def test_every_surface_is_tried_here() -> None:
    assert {case.name for case in SURFACE_CASES} == {surface.name for surface in SURFACES}


@pytest.mark.parametrize("case", BY_PATH)
def test_a_response_is_passed_on_and_counted_by_the_providers_usage(
    running: Installation, key: str, case: SurfaceCase
) -> None:
    response = ask(running, key, case, "Hello there")
    assert response.status_code == 200, response.text
    assert (response.headers["x-cfx-stage"], response.headers["x-cfx-model"]) == ("direct", case.model)
    assert response.headers["x-ratelimit-limit"]
    row = running.row_of(response)
    assert (row.surface, row.endpoint, row.status) == (case.name, case.path.partition("?")[0], 200)
    (seen,) = running.upstream.ledger(call_id=f"{row.request_id}.1")
    assert seen["path"].partition("?")[0] == "/v1/" + case.path.partition("?")[0].removeprefix("/v1").lstrip("/")
    assert not row.is_estimated
    if case.name == "moderations":  # free, and without usage
        assert (row.prompt_tokens, row.cost_nanos, row.usage_details) == (0, 0, {"request": 1})
        return
    assert (row.prompt_tokens, row.completion_tokens) == (seen["prompt_tokens"], seen["completion_tokens"])
    assert row.prompt_tokens > 0
    assert (row.completion_tokens > 0) == case.streams
    assert row.cost_nanos > 0
    assert row.upstream_cost_nanos == pytest.approx(row.cost_nanos, abs=2)
    assert b'"cost"' not in response.content


@pytest.mark.parametrize("case", BY_STREAM)
def test_a_stream_is_passed_on_complete_and_counted(running: Installation, key: str, case: SurfaceCase) -> None:
    response = ask(running, key, case, "Hello there", stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    row = running.row_of(response)
    (seen,) = running.upstream.ledger(call_id=f"{row.request_id}.1", wait=1)
    assert (row.prompt_tokens, row.completion_tokens) == (seen["prompt_tokens"], seen["completion_tokens"])
    assert (row.is_stream, row.is_estimated, row.status, row.surface) == (True, False, 200, case.name)
    end = last_event(response.text)
    expected = {"messages": "message_stop", "responses": "response.completed"}.get(case.name, "[DONE]")
    assert (end if end == "[DONE]" else end["type"]) == expected
    assert '"cost"' not in response.text
    assert running.open_leases(row.request_id) == []


@pytest.mark.parametrize("case", BY_STREAM)
def test_a_stream_that_breaks_never_looks_complete(running: Installation, key: str, case: SurfaceCase) -> None:
    response = ask(running, key, case, "[[fault:cut after=6]] and much more to say", stream=True)
    end = last_event(response.text)
    assert error_of(case, end)["code"] == "upstream_stream_broken"
    for mark in ("[DONE]", '"message_stop"', '"response.completed"'):
        assert mark not in response.text
    row = running.row_of(response)
    assert (row.status, row.error_code) == (502, "upstream_stream_broken")
    assert running.open_leases(row.request_id) == []


@pytest.mark.parametrize("case", BY_PATH)
def test_a_refusal_has_the_format_of_the_surfaces_clients(running: Installation, key: str, case: SurfaceCase) -> None:
    refused = running.ask(key, case.path, **{**case.body("x"), "model": "nobody-knows-this"})
    assert refused.status_code == 400
    assert error_of(case, refused.json())["code"] == "model_not_allowed"
    unknown = running.ask("cfx_nonsense", case.path, **case.body("x"))
    assert (unknown.status_code, unknown.headers["www-authenticate"]) == (401, "Bearer")
    assert error_of(case, unknown.json())["message"] == "Invalid API key"
    if case.name == "messages":
        assert unknown.json()["error"]["type"] == "authentication_error"
        assert unknown.headers["request-id"] == unknown.headers["x-cfx-request-id"]
    broken = httpx.post(running.url + case.path, content=b"{", headers={"x-api-key": key})
    assert error_of(case, broken.json())["code"] == "invalid_json"


@pytest.mark.parametrize("case", BY_PATH)
def test_x_api_key_authenticates_on_every_surface(running: Installation, key: str, case: SurfaceCase) -> None:
    response = httpx.post(running.url + case.path, json=case.body("x"), headers={"x-api-key": key}, timeout=30)
    assert response.status_code == 200


@pytest.mark.cut(3)
@pytest.mark.parametrize("case", BY_PATH)
def test_a_key_for_other_surfaces_is_refused(running: Installation, case: SurfaceCase) -> None:
    others = tuple(surface.name for surface in SURFACES if surface.name != case.name)
    response = ask(running, a_key(allowed_surfaces=others).plain, case, "x")
    assert response.status_code == 403
    assert error_of(case, response.json())["code"] == "surface_not_allowed"
    assert ask(running, a_key(allowed_surfaces=(case.name,)).plain, case, "x").status_code == 200


@pytest.mark.cut(4)
@pytest.mark.parametrize("case", BY_STREAM)
@pytest.mark.parametrize("stream", [False, True])
def test_failover_works_on_every_surface(running: Installation, key: str, case: SurfaceCase, *, stream: bool) -> None:
    running.upstream.set_fault("500", model="deepseek-v4.1-flash")
    response = running.ask(key, case.path, **{**case.body("x", stream=stream), "model": "cfx-code"})
    assert (response.status_code, response.headers["x-cfx-model"]) == (200, "gpt-6-luna")
    assert running.row_of(response).stage == "code"


@pytest.mark.parametrize("case", BY_STREAM)
def test_the_daily_limit_counts_calls_of_all_surfaces(running: Installation, case: SurfaceCase) -> None:
    key = a_key(daily_requests=1).plain
    assert running.say(key, "x").status_code == 200
    second = ask(running, key, case, "x")
    assert second.status_code == 429
    assert error_of(case, second.json())["code"] == "daily_quota_exceeded"
    assert "retry-after" not in second.headers
    assert second.headers["x-should-retry"] == "false"


def test_stages_are_inferred_on_every_surface(running: Installation, key: str) -> None:
    for case in STREAMING:
        body = case.body("plan the architecture")
        del body["model"]
        response = running.ask(key, case.path, **body)
        assert (response.headers["x-cfx-stage"], response.json()["model"]) == ("plan", "claude-sonnet-5.5")


def test_embeddings_accept_their_own_models_and_no_stage(running: Installation, key: str) -> None:
    for body, headers, code in (
        ({"model": "gpt-6.1-sol"}, {}, "model_not_allowed"),
        ({}, {}, "model_not_allowed"),
        ({"model": "text-embedding-3-small"}, {"X-CFX-Stage": "plan"}, "invalid_stage"),
    ):
        response = running.ask(key, "/v1/embeddings", headers=headers, **{"input": "x", **body})
        assert (response.status_code, response.json()["error"]["code"]) == (400, code)
    assert running.post(key, model="text-embedding-3-small").json()["error"]["code"] == "model_not_allowed"


def test_default_models_of_clients_are_served(running: Installation, key: str) -> None:
    """Claude Code and Codex work without a configured model, and learn which one served the call."""
    for case, name, used in (
        (SURFACE_CASES[4], "claude-sonnet-4-5-20250929", "claude-sonnet-5.5"),
        (SURFACE_CASES[4], "claude-3-5-haiku-latest", "claude-haiku-5.5"),
        (SURFACE_CASES[3], "gpt-5.1-codex", "deepseek-v4.1-flash"),
        (SURFACE_CASES[0], "gpt-4o-2024-08-06", "gpt-6.1-sol"),
    ):
        response = running.ask(key, case.path, **{**case.body("hello"), "model": name})
        assert (response.headers["x-cfx-stage-reason"], response.json()["model"]) == ("alias", used)


def test_anthropics_headers_are_passed_upstream(running: Installation, key: str) -> None:
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "a-1,b-2", "x-secret": "no"}
    response = running.ask(key, "/v1/messages", headers=headers, **SURFACE_CASES[4].body("x"))
    (seen,) = running.upstream.ledger(call_id=f"{response.headers['x-cfx-request-id']}.1")
    assert {"anthropic-version", "anthropic-beta"} <= set(seen["header_names"])
    assert not {"x-secret", "x-api-key", "cookie"} & set(seen["header_names"])


@pytest.mark.parametrize("case", BY_STREAM)
def test_an_empty_success_never_looks_complete(running: Installation, key: str, case: SurfaceCase) -> None:
    """LiteLLM turns a provider's error page into a clean, empty stream."""
    response = ask(running, key, case, "[[fault:empty]]", stream=True)
    row = running.row_of(response)
    if response.status_code == 200:  # the end shows what the beginning did not
        assert error_of(case, last_event(response.text))["code"] == row.error_code == "upstream_stream_broken"
    else:
        assert (response.status_code, error_of(case, response.json())["code"]) == (503, "upstream_unavailable")
    assert (row.completion_tokens, row.cost_nanos) == (0, 0)
    assert running.open_leases(row.request_id) == []


def test_an_empty_response_fails_over_to_the_next_model(running: Installation, key: str) -> None:
    running.upstream.set_fault("empty", model="deepseek-v4.1-flash")
    response = running.post(key, model="cfx-code", stream=True)
    assert (response.status_code, response.headers["x-cfx-model"]) == (200, "gpt-6-luna")
    assert running.row_of(response).error_code == ""


class TestCountTokens:
    PATH = "/v1/messages/count_tokens"

    def body(self, **more: Any) -> dict[str, Any]:
        return {"model": "claude-haiku-5.5", "messages": [{"role": "user", "content": "word " * 400}], **more}

    def test_the_count_is_estimated_when_the_upstream_has_none(self, running: Installation, key: str) -> None:
        response = running.ask(key, self.PATH, **self.body())
        assert response.status_code == 200
        assert 300 <= response.json()["input_tokens"] <= 800
        assert response.headers["x-cfx-model"] == "claude-haiku-5.5"

    def test_counts_take_nothing_from_calls_and_have_a_minute_limit_of_their_own(self, running: Installation) -> None:
        issued = a_key(daily_requests=1, rpm=2, budget_month_nanos=0)
        counts = [running.ask(issued.plain, self.PATH, **self.body()) for _ in range(3)]
        if len({minute_of(each) for each in counts}) == 1:  # the minute has not changed in between
            assert [each.status_code for each in counts] == [200, 200, 429]
            assert counts[2].json()["error"]["type"] == "rate_limit_error"
            assert "At most 2 token counts a minute (limit of the key)" in counts[2].json()["error"]["message"]
            assert 1 <= int(counts[2].headers["retry-after"]) <= 60
        usage = running.scope("k", issued.row.id)
        assert not usage.get("requests_today")
        assert not RequestLog.objects.filter(key_id=issued.row.id).exists()

    def test_a_count_needs_the_scope_of_messages_and_a_known_model(self, running: Installation) -> None:
        other = a_key(allowed_surfaces=("chat",)).plain
        assert running.ask(other, self.PATH, **self.body()).status_code == 403
        refused = running.ask(a_key().plain, self.PATH, **self.body(model="nobody"))
        assert (refused.status_code, refused.json()["type"]) == (400, "error")


def minute_of(response: httpx.Response) -> str:
    return parsedate_to_datetime(response.headers["date"]).strftime("%H:%M")


class TestModels:
    def get(self, running: Installation, key: str, path: str = "/v1/models") -> httpx.Response:
        return httpx.get(running.url + path, headers={"Authorization": f"Bearer {key}"})

    def test_stages_models_and_embeddings_are_listed(self, running: Installation, key: str) -> None:
        listed = self.get(running, key).json()
        names = [model["id"] for model in listed["data"]]
        assert {"cfx-plan", "cfx-code", "cfx-review", "cfx-auto", "gpt-6.1-sol", "text-embedding-3-small"} <= set(names)
        assert (listed["object"], listed["first_id"], listed["has_more"]) == ("list", names[0], False)
        assert self.get(running, key, "/v1/models/gpt-6.1-sol").json() in listed["data"]
        assert self.get(running, key, "/v1/models/nobody").status_code == 404
        assert self.get(running, "cfx_x").status_code == 401

    def test_a_key_sees_what_it_may_use(self, running: Installation) -> None:
        def names(**terms: Any) -> list[str]:
            response = self.get(running, a_key(**terms).plain).json()
            return [model["id"] for model in response["data"]]

        assert names(allowed_stages=("review",)) == ["cfx-review", "cfx-auto"]
        assert names(allowed_models=("claude-haiku-4.5",)) == ["claude-haiku-4.5"]

    def test_codex_gets_its_own_format(self, running: Installation, key: str) -> None:
        models = self.get(running, key, "/v1/models?client_version=0.150.0").json()["models"]
        assert "cfx-code" in [model["slug"] for model in models]
        assert all(model["base_instructions"] and model["context_window"] for model in models)
