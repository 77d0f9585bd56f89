"""Behaviour of the real LiteLLM on its own: the facts that gateway, webhook and sync rely on.

A new LiteLLM release that changes one of them fails here first, by name.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml
from openai import APIError, OpenAI

from codexflow.dev import litellm as program
from codexflow.dev.demo_upstream.models import MODELS
from codexflow.env import REPOSITORY
from codexflow.lib.ids import new_id
from tests.support.litellm import EXAMPLE, SHIPPED_MODEL, WEBHOOK_KEY, LiteLLM, running_as_shipped, shipped_config

MARKS = [pytest.mark.litellm, pytest.mark.xdist_group("litellm")]
MODEL = "gpt-6-luna"
INPUT, OUTPUT = 0.10e-6, 0.50e-6  # US dollars a token


def on_litellm(test: Any) -> Any:
    for mark in MARKS:
        test = mark(test)
    return test


def ask(text: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}


def post(litellm: LiteLLM, text: str, *, call_id: str | None = None, **more: Any) -> httpx.Response:
    headers = {"x-litellm-call-id": call_id} if call_id else {}
    return litellm.client.post("/v1/chat/completions", json=ask(text, **more), headers=headers)


def events(body: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def text_of(found: list[Any]) -> str:
    parts = [choice["delta"].get("content") for event in found if "choices" in event for choice in event["choices"]]
    return "".join(part or "" for part in parts)


def until_text(lines: Iterator[str], text: str) -> Iterator[str]:
    """The lines up to the first that has `text`."""
    for line in lines:
        yield line
        if text in line:
            return


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    return error


# Configuration files


def test_the_shipped_and_the_mock_file_have_the_same_models_and_prices() -> None:
    def priced(config: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
        wanted = ("mode", "input_cost_per_token", "output_cost_per_token")
        return {m["model_name"]: tuple(m["model_info"][key] for key in wanted) for m in config["model_list"]}

    mock = yaml.safe_load(program.MOCK_CONFIG.read_text())
    assert priced(mock) == priced(shipped_config())
    for section in ("router_settings", "litellm_settings", "callback_settings", "general_settings"):
        assert mock[section] == shipped_config()[section]


def test_the_demo_upstream_has_the_shipped_models_and_prices() -> None:
    info = {m["model_name"]: m["model_info"] for m in shipped_config()["model_list"]}
    assert {name: (m.mode, m.input_cost_per_token, m.output_cost_per_token) for name, m in MODELS.items()} == {
        name: (i["mode"], i["input_cost_per_token"], i["output_cost_per_token"]) for name, i in info.items()
    }


@on_litellm
def test_the_guides_own_file_starts_and_lists_its_models() -> None:
    """Byte for byte. It has no webhook and none of the models that are shipped now."""
    guide = REPOSITORY / "tests" / "support" / "guide" / "litellm.yaml"
    with running_as_shipped(guide) as litellm:
        listed = {each["id"] for each in litellm.client.get("/v1/models").json()["data"]}
        assert listed == {
            "claude-sonnet-4.5", "deepseek-v3", "gpt-4o-mini", "gemini-2.5-pro", "gemini-2.0-flash", "gpt-4o",
        }  # fmt: skip
        for name in sorted(listed):
            assert litellm.client.post("/v1/chat/completions", json={**ask("hi"), "model": name}).status_code == 200


@on_litellm
def test_the_shipped_file_works_unchanged_and_without_a_webhook() -> None:
    """Missing variables only log an error per call. (An empty CODEXFLOW_WEBHOOK_URL prevents the start.)"""
    with running_as_shipped(program.CONFIG) as litellm:
        thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000}
        for entry in shipped_config()["model_list"]:
            name = entry["model_name"]
            if entry["model_info"]["mode"] == "embedding":
                response = litellm.client.post("/v1/embeddings", json={"model": name, "input": "hi"})
            else:
                request = {**ask("hi"), "model": name}
                response = litellm.client.post("/v1/chat/completions", json=request)
                # Claude Code always requests thinking.
                claude = litellm.client.post("/v1/messages", json={**request, **thinking})
                assert claude.status_code == 200, (name, claude.text)
            assert response.status_code == 200, (name, response.text)
        asked = {entry["model"] for entry in litellm.provider.ledger()}
        assert {f"openrouter/{model}" for model in asked} == {
            entry["litellm_params"]["model"] for entry in shipped_config()["model_list"]
        }
        assert "missing endpoint or headers" in litellm.log()


@on_litellm
def test_the_mock_file_responds_without_a_provider() -> None:
    with running_as_shipped(program.MOCK_CONFIG) as litellm:
        for stream in (False, True):
            response = post(litellm, "hi", stream=stream, stream_options={"include_usage": True} if stream else None)
            assert response.status_code == 200
            assert "[mock]" in (text_of(events(response.text)) if stream else response.text)
        request = {"model": "text-embedding-3-small", "input": "hi"}
        vector = litellm.client.post("/v1/embeddings", json=request).json()["data"][0]["embedding"]
        assert vector == [0.6, 0.0, -0.8]
        assert litellm.provider.ledger() == []


# Responses


@on_litellm
def test_a_chat_response_has_the_given_call_id_and_a_cost(litellm: LiteLLM) -> None:
    call_id = str(new_id())
    response = post(litellm, "hello", call_id=call_id)
    assert response.status_code == 200
    assert response.headers["x-litellm-call-id"] == call_id
    body = response.json()
    assert body["model"] == MODEL
    assert body["choices"][0]["message"]["content"].endswith("hello")
    usage = body["usage"]
    cost = usage["prompt_tokens"] * INPUT + usage["completion_tokens"] * OUTPUT
    assert float(response.headers["x-litellm-response-cost"]) == pytest.approx(cost)
    assert response.headers["x-litellm-model-id"] in litellm.client.get("/model/info").text


@on_litellm
def test_a_stream_ends_with_usage_and_cost_when_requested(litellm: LiteLLM) -> None:
    """The usage event has an empty choice where OpenAI (and LiteLLM 1.109) has none: detect it by `usage`."""
    response = post(litellm, "hello", stream=True, stream_options={"include_usage": True})
    found = events(response.text)
    assert found[-1] == "[DONE]"
    assert found[-2]["choices"] == [{"index": 0, "delta": {}}]
    usage = found[-2]["usage"]
    cost = usage["prompt_tokens"] * INPUT + usage["completion_tokens"] * OUTPUT
    assert usage["cost"] == pytest.approx(cost)
    assert "x-litellm-response-cost" not in response.headers
    assert usage["completion_tokens"] == litellm.provider.ledger(wait=1)[-1]["completion_tokens"]


@on_litellm
def test_the_shipped_openrouter_route_has_usage_and_cost_too(litellm: LiteLLM) -> None:
    """LiteLLM adds `usage: {include: true}` there and would prefer OpenRouter's cost to the configured price."""
    request = {**ask("hi", stream=True, stream_options={"include_usage": True}), "model": SHIPPED_MODEL}
    found = events(litellm.client.post("/v1/chat/completions", json=request).text)
    assert found[-2]["choices"] == [{"index": 0, "delta": {}}]
    usage = found[-2]["usage"]
    assert usage["cost"] == pytest.approx(usage["prompt_tokens"] * 2e-6 + usage["completion_tokens"] * 10e-6)
    (seen,) = litellm.provider.ledger(wait=1)
    assert seen["model"] == "anthropic/claude-sonnet-5.5"
    assert json.loads(seen["body"])["usage"] == {"include": True}


@on_litellm
def test_a_stream_has_no_usage_unless_requested(litellm: LiteLLM) -> None:
    """LiteLLM still requests it from the provider, so its own report is exact."""

    def call(call_id: str) -> None:
        found = events(post(litellm, "hi", stream=True, call_id=call_id).text)
        assert not [event for event in found if "usage" in event]

    _, payload = litellm.reported(call)
    seen = litellm.provider.ledger(wait=1)[-1]
    assert seen["selected"]["stream_options"] == {"include_usage": True}
    assert payload["completion_tokens"] == seen["completion_tokens"]


@on_litellm
def test_tools_and_embeddings_pass_through_the_sdk(litellm: LiteLLM) -> None:
    look_up = {"name": "look_up", "parameters": {"properties": {"word": {"type": "string"}}}}
    tools: Any = [{"type": "function", "function": look_up}]
    with OpenAI(base_url=f"{litellm.url}/v1", api_key=litellm.api_key, max_retries=0) as client:
        stream: Any = client.chat.completions.create(**ask("use look_up"), tools=tools, stream=True)
        calls = [c.choices[0].delta.tool_calls[0].function for c in stream if c.choices[0].delta.tool_calls]
        vectors: Any = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"]).data
    assert calls[0].name == "look_up"
    assert json.loads("".join(call.arguments or "" for call in calls)) == {"word": "demo"}
    assert [len(item.embedding) for item in vectors] == [1536, 1536]


@on_litellm
@pytest.mark.parametrize("model", [MODEL, SHIPPED_MODEL])
@pytest.mark.parametrize("stream", [False, True])
def test_messages_and_responses_are_served_over_chat_completions(litellm: LiteLLM, model: str, stream: bool) -> None:
    """Claude Code and Codex CLI work with providers that know chat completions only."""
    message = {"max_tokens": 50, "messages": [{"role": "user", "content": "marmalade"}]}
    for path, body in (("/v1/messages", message), ("/v1/responses", {"input": "marmalade"})):
        response = litellm.client.post(path, json={"model": model, "stream": stream, **body})
        assert response.status_code == 200, response.text
        assert "marmal" in response.text
    paths = {entry["path"] for entry in litellm.provider.ledger(wait=2)}
    assert paths == {"/v1/chat/completions"}


@on_litellm
def test_every_configured_model_is_listed_with_its_price(litellm: LiteLLM) -> None:
    shipped = {m["model_name"]: m["model_info"] for m in shipped_config()["model_list"]}
    info = {m["model_name"]: m["model_info"] for m in litellm.client.get("/model/info").json()["data"]}
    examples = {each["model_name"] for each in yaml.safe_load(EXAMPLE.read_text())["model_list"]}
    assert set(info) == {*shipped, *examples, SHIPPED_MODEL}
    for name, wanted in shipped.items():
        assert info[name]["input_cost_per_token"] == wanted["input_cost_per_token"]
        assert info[name]["output_cost_per_token"] == wanted["output_cost_per_token"]
    assert {m["id"] for m in litellm.client.get("/v1/models").json()["data"]} == set(info)


@on_litellm
def test_refusals_of_keys_and_models_without_a_database(litellm: LiteLLM) -> None:
    """A wrong key is a 400. A missing key is a bare 500: LiteLLM fails on its missing database client."""
    wrong = httpx.get(f"{litellm.url}/v1/models", headers={"Authorization": "Bearer cfx_unknown"})
    assert (wrong.status_code, error_of(wrong)["type"]) == (400, "no_db_connection")
    missing = httpx.get(f"{litellm.url}/v1/models")
    assert (missing.status_code, missing.text) == (500, "Internal Server Error")
    unknown = litellm.client.post("/v1/chat/completions", json={**ask("hi"), "model": "nope"})
    assert (unknown.status_code, error_of(unknown)["code"]) == (400, "400")
    assert "Invalid model name passed in model=nope" in error_of(unknown)["message"]
    assert httpx.get(f"{litellm.url}/health/liveliness").text == '"I\'m alive!"'


# Reports


@on_litellm
@pytest.mark.parametrize("stream", [False, True])
def test_a_call_is_reported_once_with_its_call_id_and_without_text(litellm: LiteLLM, stream: bool) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    call_id, payload = litellm.reported(lambda call_id: post(litellm, "a secret of mine", call_id=call_id, **options))
    # Batches arrive in order: a second report would have arrived before this one.
    litellm.reported(lambda later: post(litellm, "a later one", call_id=later))
    assert litellm.callback_payloads(call_id) == [payload]
    seen = litellm.provider.ledger(wait=2)[0]
    assert (payload["status"], payload["call_type"], payload["model_group"]) == (
        "success",
        "acompletion",
        MODEL,
    )
    assert payload["prompt_tokens"] == seen["prompt_tokens"]
    assert payload["completion_tokens"] == seen["completion_tokens"]
    cost = payload["prompt_tokens"] * INPUT + payload["completion_tokens"] * OUTPUT
    assert payload["response_cost"] == pytest.approx(cost)
    assert "a secret of mine" not in json.dumps(payload)
    assert set(litellm.sink.keys) == {WEBHOOK_KEY}


@on_litellm
def test_a_refused_report_is_sent_again(litellm: LiteLLM) -> None:
    """`max_retries` works in callback_settings only; without it a refused batch is lost."""
    refused = litellm.sink.refused
    litellm.sink.fail_next(1)
    litellm.reported(lambda call_id: post(litellm, "hi", call_id=call_id))
    assert litellm.sink.refused == refused + 1


@on_litellm
def test_reports_that_arise_while_a_batch_is_sent_are_lost(litellm: LiteLLM) -> None:
    """LiteLLM empties its queue after the response, not before: billing must not depend on reports alone."""
    seen = litellm.sink.begun
    with litellm.sink.held():
        post(litellm, "one that is reported")
        litellm.sink.wait_for_batch(seen)
        meanwhile = [str(new_id()) for _ in range(5)]
        for call_id in meanwhile:
            assert post(litellm, "hi", call_id=call_id).status_code == 200
    litellm.reported(lambda call_id: post(litellm, "one more", call_id=call_id))
    reported = [payload["litellm_call_id"] for payload in litellm.callback_payloads()]
    assert len(set(meanwhile) & set(reported)) < len(meanwhile)


@on_litellm
def test_a_failed_call_is_reported_without_tokens(litellm: LiteLLM) -> None:
    _, payload = litellm.reported(lambda call_id: post(litellm, "[[fault:503]]", call_id=call_id))
    assert (payload["status"], payload["total_tokens"], payload["response_cost"]) == ("failure", 0, 0)


@on_litellm
def test_an_aborted_stream_is_cancelled_upstream_and_reported_as_a_success(litellm: LiteLLM) -> None:
    """It reports the tokens that it counted for the output sent so far: a disconnect is not a failure."""

    def leave_early(call_id: str) -> None:
        request = ask("[[fault:chunks n=2000 gap_ms=10]]", stream=True)
        headers = {"x-litellm-call-id": call_id}
        with litellm.client.stream("POST", "/v1/chat/completions", json=request, headers=headers) as response:
            next(line for line in response.iter_lines() if "many" in line)

    _, payload = litellm.reported(leave_early)
    seen = litellm.provider.ledger(wait=1)[-1]
    assert seen["outcome"] == "aborted"
    assert seen["completion_tokens"] < 2000
    assert payload["status"] == "success"
    assert 0 < payload["completion_tokens"] < 2000


# Provider faults


@pytest.mark.cut(6)
@on_litellm
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 502, 503, 504, 529])
def test_a_providers_status_is_preserved_and_nothing_is_retried(litellm: LiteLLM, status: int, stream: bool) -> None:
    """Retry-After is passed on only as llm_provider-retry-after; `code` is the status as text."""
    response = post(litellm, f"[[fault:{status} retry_after=7]]", stream=stream)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (status, str(status))
    assert error["message"].startswith("litellm.")
    assert response.headers.get("llm_provider-retry-after") == "7"
    assert "retry-after" not in response.headers
    assert len(litellm.provider.ledger(wait=1)) == 1


@on_litellm
@pytest.mark.parametrize("words", ["cut after=3", "eof after=3", "error_event after=3", "malformed after=3"])
def test_a_broken_stream_ends_with_an_error_event_and_no_done(litellm: LiteLLM, words: str) -> None:
    """Its `type` is null. LiteLLM 1.109 says internal_server_error and adds [DONE] even then.

    The break comes once the text was read: LiteLLM's HTTP client drops what it holds when a connection breaks,
    and a caller who has nothing yet gets a plain 500.
    """
    bodies = []

    def call(call_id: str) -> None:
        request = ask(f"[[fault:{words}]] [[fault:held]]", stream=True)
        headers = {"x-litellm-call-id": call_id}
        with litellm.client.stream("POST", "/v1/chat/completions", json=request, headers=headers) as response:
            assert response.status_code == 200
            lines = response.iter_lines()
            read = list(until_text(lines, "demo"))
            litellm.provider.release()
            bodies.append("\n".join([*read, *lines]))

    _, payload = litellm.reported(call)
    assert payload["status"] == "failure"
    *before, error = events(bodies[-1])
    assert text_of(before) == "[demo"
    assert error["error"]["message"].startswith("litellm.APIConnectionError")
    assert (error["error"]["type"], error["error"]["code"]) == (None, "500")


@on_litellm
def test_a_stream_that_just_ends_is_completed_by_litellm(litellm: LiteLLM) -> None:
    """A provider that ends early without an error, even inside an event, looks like a complete response."""
    for words in ("truncated after=3", "no_done"):
        found = events(post(litellm, f"[[fault:{words}]]", stream=True).text)
        assert found[-1] == "[DONE]"
        assert found[-2]["choices"][0]["finish_reason"] == "stop"


@on_litellm
def test_the_sdk_raises_on_a_broken_stream(litellm: LiteLLM) -> None:
    with OpenAI(base_url=f"{litellm.url}/v1", api_key=litellm.api_key, max_retries=0) as client:
        stream: Any = client.chat.completions.create(**ask("[[fault:cut after=3]] [[fault:held]]"), stream=True)
        next(chunk for chunk in stream if "demo" in (chunk.choices[0].delta.content or ""))
        litellm.provider.release()
        with pytest.raises(APIError):
            list(stream)


@on_litellm
def test_a_reset_before_the_response_is_a_500(litellm: LiteLLM) -> None:
    assert post(litellm, "[[fault:cut]]").status_code == 500
    assert post(litellm, "[[fault:cut]]", stream=True).status_code == 500


@on_litellm
def test_html_instead_of_a_stream_looks_like_an_empty_success(litellm: LiteLLM) -> None:
    """200, no text, finish_reason stop, [DONE]: only the missing text reveals it. Without a stream it is a 500."""
    found = events(post(litellm, "[[fault:html]]", stream=True).text)
    assert text_of(found) == ""
    assert found[-2]["choices"][0]["finish_reason"] == "stop"
    assert found[-1] == "[DONE]"
    assert post(litellm, "[[fault:html]]").status_code == 500


@on_litellm
def test_without_usage_a_stream_is_counted_and_a_response_is_free(litellm: LiteLLM) -> None:
    streamed = events(post(litellm, "[[fault:no_usage]]", stream=True, stream_options={"include_usage": True}).text)
    assert streamed[-2]["usage"]["completion_tokens"] > 0
    response = post(litellm, "[[fault:no_usage]]")
    assert response.json()["usage"]["total_tokens"] == 0
    assert "x-litellm-response-cost" not in response.headers
    assert float(response.headers["x-litellm-response-cost-original"]) == 0
