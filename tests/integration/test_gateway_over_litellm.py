"""End to end with a real LiteLLM proxy: caller, gateway, LiteLLM, provider, and the request log."""

import contextlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from codexflow.catalogue.surfaces import COUNTED_UNITS
from codexflow.dev import litellm as program
from keys.tests.factories import a_key
from logs.litellm.mapping import reports_of
from logs.models import UpstreamAttempt
from logs.pipeline.rows import part_of
from routing.meter import nanos_of
from tests.gateway.test_prompt_counts import CHAT, MESSAGES, ORDINARY, RESPONSES, at_the_edge, body_of
from tests.gateway.test_surfaces import SurfaceCase, last_event
from tests.support.installation import PATIENT, Gateway, Installation
from tests.support.litellm import LiteLLM, running_as_shipped
from tests.support.waiting import until

pytestmark = [pytest.mark.litellm, pytest.mark.xdist_group("litellm")]


COUNTED = (CHAT, RESPONSES, MESSAGES)


@contextmanager
def gateway_over(running: Installation, proxy: LiteLLM, blocker: Any) -> Iterator[Gateway]:
    """A gateway with long timeouts: LiteLLM's first responses are slow, above all beside other tests."""
    with blocker.unblock(), running.configured(**PATIENT):
        made = running.new_gateway(LITELLM_URL=proxy.url, LITELLM_API_KEY=proxy.api_key)
        yield made
        made.stop()


@pytest.fixture(scope="module")
def gateway(installation: Installation, running_proxy: LiteLLM, django_db_blocker: Any) -> Iterator[Gateway]:
    with gateway_over(installation, running_proxy, django_db_blocker) as made:
        yield made


@pytest.fixture(scope="module")
def as_shipped(installation: Installation, django_db_blocker: Any) -> Iterator[tuple[Gateway, LiteLLM]]:
    """A gateway over LiteLLM with the unchanged shipped file: every model through its OpenRouter code."""
    with (
        running_as_shipped(program.CONFIG) as proxy,
        gateway_over(installation, proxy, django_db_blocker) as made,
    ):
        yield made, proxy


@pytest.fixture
def shipped(as_shipped: tuple[Gateway, LiteLLM]) -> tuple[Gateway, LiteLLM]:
    as_shipped[1].provider.clear()
    return as_shipped


def test_a_response_arrives_with_its_call_id_and_cost(
    running: Installation, litellm: LiteLLM, gateway: Gateway
) -> None:
    key = a_key().plain
    response: list[httpx.Response] = []

    def reported() -> list[dict[str, Any]]:
        # LiteLLM loses reports that arise while a batch is being sent, so one call may not be enough.
        response[:] = [running.post(key, url=gateway.url, model="cfx-review")]
        assert response[0].status_code == 200, response[0].text
        with contextlib.suppress(TimeoutError):
            return litellm.callback_payloads(f"{response[0].headers['x-cfx-request-id']}.1", timeout_s=5)
        return []

    report = until(reported, within_s=40, what="LiteLLM's report")[0]
    row = running.row_of(response[0])
    assert report["litellm_call_id"] == f"{row.request_id}.1"
    assert (report["prompt_tokens"], report["completion_tokens"]) == (row.prompt_tokens, row.completion_tokens)
    assert row.upstream_cost_nanos == nanos_of(report["response_cost"])
    # The charge follows from the catalogue's price, whatever cost LiteLLM reports.
    expected = row.prompt_tokens * row.rate_input_nanos + row.completion_tokens * row.rate_output_nanos
    assert abs(row.cost_nanos * 1_000_000 - expected) <= 500_000
    assert not any(name.startswith(("x-litellm", "llm_provider")) for name in response[0].headers)


def test_a_stream_arrives_complete_and_is_counted(running: Installation, litellm: LiteLLM, gateway: Gateway) -> None:
    response = running.post(a_key().plain, url=gateway.url, model="cfx-code", stream=True)
    assert response.text.endswith("data: [DONE]\n\n")
    chunks = [json.loads(block.removeprefix("data: ")) for block in response.text.split("\n\n")[:-2]]
    assert not any("usage" in chunk and chunk["usage"] for chunk in chunks)
    row = running.row_of(response)
    assert (row.status, row.usage_rank, row.model) == (200, 40, "deepseek-v4.1-flash")
    assert row.upstream_cost_nanos
    (seen,) = litellm.provider.ledger(model="deepseek-v4.1-flash")
    assert seen["outcome"] == "finished"


def test_a_planned_answer_is_written_through_litellm(running: Installation, litellm: LiteLLM, gateway: Gateway) -> None:
    """Plan, parts and usage of each, as LiteLLM streams them."""
    response = running.ask(
        a_key().plain,
        "/v1/chat/completions",
        url=gateway.url,
        headers={"x-decompose": "1"},
        model="cfx-plan",
        max_tokens=3_000,
        messages=[{"role": "user", "content": "Write a handbook.\n1. Setup\n2. Use\n3. Operation"}],
    )
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["cfx_planner"]["missing"] == []
    assert [f"## Part {letter}" in answer["choices"][0]["message"]["content"] for letter in "ABC"] == [True] * 3
    row = running.row_of(response)
    parts = [part for each in UpstreamAttempt.objects.filter(request_id=row.request_id) if (part := part_of(each))]
    assert sorted(part.kind for part in parts) == ["chunk", "chunk", "chunk", "planner"]
    assert (row.planner, row.usage_rank) == ("planned", 40)
    assert row.cost_nanos == sum(part.cost_nanos for part in parts) > 0
    assert row.upstream_cost_nanos


@pytest.mark.parametrize("case", COUNTED, ids=lambda case: case.name)
def test_a_prompt_is_counted_by_the_provider_where_bytes_would_refuse_it(
    running: Installation, litellm: LiteLLM, gateway: Gateway, case: SurfaceCase
) -> None:
    """LiteLLM turns the count of each surface into one of OpenAI's, and says that it is the provider's."""
    body = body_of(case, ORDINARY)

    def counted() -> httpx.Response | None:
        # LiteLLM's first count may take longer than a call waits for one; such a call is refused by its bytes.
        key = a_key(at_the_edge(running, case, body)).plain
        response = running.ask(key, case.path, url=gateway.url, **body)
        return response if response.status_code == 200 else None

    response = until(counted, within_s=40, what="a call that its count lets pass")
    row = running.row_of(response)
    assert abs(int(response.headers["x-cfx-counted-tokens"]) - row.prompt_tokens) < 10
    counts = [each for each in litellm.provider.ledger() if each["path"] == "/v1/responses/input_tokens"]
    assert ORDINARY in counts[-1]["body"]
    worst = body_of(case, "[[fault:usage prompt=95000 completion=10]]" + "Q1X7J3" * 16_000)
    key = a_key(at_the_edge(running, case, worst)).plain
    assert running.ask(key, case.path, url=gateway.url, **worst).status_code == 402


def test_a_response_cut_by_the_provider_never_looks_complete(
    running: Installation, litellm: LiteLLM, gateway: Gateway
) -> None:
    text = "[[fault:cut after=3]] go on"
    response = running.say(a_key().plain, text, url=gateway.url, model="gpt-6-luna", stream=True)
    if response.status_code == 200:
        assert "[DONE]" not in response.text
        assert "upstream_stream_broken" in response.text
    row = running.row_of(response)
    assert row.status in (502, 503)


def test_a_providers_refusal_is_unwrapped_and_keeps_its_meaning(
    running: Installation, litellm: LiteLLM, gateway: Gateway
) -> None:
    response = running.say(a_key().plain, "[[fault:400]]", url=gateway.url, model="gpt-6-luna")
    assert response.status_code == 400
    assert "litellm" not in response.text.lower()


def test_fallbacks_work_through_litellm(running: Installation, litellm: LiteLLM, gateway: Gateway) -> None:
    litellm.provider.set_fault("503", model="deepseek-v4.1-flash")
    response = running.post(a_key().plain, url=gateway.url, model="cfx-code")
    assert response.headers["x-cfx-model"] == "gpt-6-luna"
    assert running.row_of(response).attempts == 3


def test_health_compares_models_with_litellms(running: Installation, gateway: Gateway) -> None:
    report = httpx.get(f"{gateway.url}/health", timeout=60).json()
    assert report["checks"]["litellm"]
    assert report["details"]["upstream"] == "litellm"
    assert report["details"]["models_unknown_to_litellm"] == []


TOOL = {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
# path -> (a body that says "hello", the type of the last event)
SURFACES: dict[str, tuple[dict[str, Any], str]] = {
    "/v1/chat/completions": ({"messages": [{"role": "user", "content": "hello"}]}, "[DONE]"),
    "/v1/completions": ({"prompt": "hello"}, "[DONE]"),
    "/v1/responses": ({"input": "hello", "store": False}, "response.completed"),
    "/v1/messages": ({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 100}, "message_stop"),
}


@pytest.mark.parametrize("path", SURFACES)
@pytest.mark.parametrize("stream", [False, True])
def test_every_surface_responds_and_counts_tokens_as_the_provider_does(
    running: Installation, shipped: tuple[Gateway, LiteLLM], path: str, *, stream: bool
) -> None:
    body, end = SURFACES[path]
    response = running.ask(a_key().plain, path, url=shipped[0].url, **body, model="cfx-code", stream=stream)
    assert response.status_code == 200, response.text
    row = running.row_of(response)
    (seen,) = shipped[1].provider.ledger(wait=1)
    assert (row.status, row.usage_rank) == (200, 40)
    assert (row.prompt_tokens, row.completion_tokens) == (seen["prompt_tokens"], seen["completion_tokens"])
    assert '"cost' not in response.text
    if stream:
        found = last_event(response.text)
        assert (found if found == "[DONE]" else found["type"]) == end


@pytest.mark.cut(6)
@pytest.mark.parametrize("path", SURFACES)
# Not "malformed": LiteLLM's OpenRouter code silently drops an event that is not JSON.
@pytest.mark.parametrize("fault", ["cut after=3", "eof after=3", "error_event after=3", "html"])
def test_no_surface_makes_a_broken_stream_look_complete(
    running: Installation, shipped: tuple[Gateway, LiteLLM], path: str, fault: str
) -> None:
    body, end = SURFACES[path]
    shipped[1].provider.set_fault(fault)
    response = running.ask(a_key().plain, path, url=shipped[0].url, **body, model="gpt-6-luna", stream=True)
    if response.status_code == 200:
        assert end not in response.text
        assert last_event(response.text)["error"]["code"] == "upstream_stream_broken"
    row = running.row_of(response)
    assert row.status in (502, 503)
    assert running.open_leases(row.request_id) == []


def test_embeddings_are_returned_and_counted(running: Installation, shipped: tuple[Gateway, LiteLLM]) -> None:
    response = running.ask(
        a_key().plain, "/v1/embeddings", url=shipped[0].url, model="text-embedding-3-small", input=["a", "b"]
    )
    assert len(response.json()["data"]) == 2
    row = running.row_of(response)
    assert (row.surface, row.usage_rank, row.completion_tokens) == ("embeddings", 40, 0)
    assert row.prompt_tokens > 0


@pytest.mark.parametrize(("model", "units"), [("rerank-v3.5", {"search_unit": 2}), ("rerank-2.5", None)])
def test_a_reranker_is_billed_as_its_provider_bills(
    running: Installation, litellm: LiteLLM, gateway: Gateway, model: str, units: Any
) -> None:
    response = running.ask(
        a_key().plain,
        "/v1/rerank",
        url=gateway.url,
        model=model,
        query="what?",
        documents=["a document"] * 101,
        top_n=2,
    )
    assert response.status_code == 200, response.text
    assert len(response.json()["results"]) == 2
    row = running.row_of(response)
    assert (row.surface, row.usage_rank, row.usage_details, row.is_estimated) == ("rerank", 40, units, False)
    expected = 4_000_000 if units else row.prompt_tokens * 50
    assert row.cost_nanos == expected == pytest.approx(row.upstream_cost_nanos, abs=2)


def test_a_moderation_passes_through(running: Installation, litellm: LiteLLM, gateway: Gateway) -> None:
    response = running.ask(
        a_key().plain, "/v1/moderations", url=gateway.url, model="omni-moderation-latest", input=["violence", "fine"]
    )
    assert response.status_code == 200, response.text
    assert [each["flagged"] for each in response.json()["results"]] == [True, False]
    row = running.row_of(response)
    assert (row.surface, row.usage_details, row.cost_nanos, row.is_estimated) == (
        "moderations",
        {"request": 1},
        0,
        False,
    )


def test_litellm_reports_calls_of_rerankers_and_moderations(
    running: Installation, litellm: LiteLLM, gateway: Gateway
) -> None:
    def report_of(path: str, **body: Any) -> Any:
        def call(call_id: str) -> None:
            litellm.client.post(path, json=body, headers={"x-litellm-call-id": call_id}).raise_for_status()

        return litellm.reported(call)[1]

    for path, surface, body in (
        ("/v1/rerank", "rerank", {"model": "rerank-v3.5", "query": "q", "documents": ["d"]}),
        ("/v1/moderations", "moderations", {"model": "omni-moderation-latest", "input": "x"}),
    ):
        payload = report_of(path, **body)
        (report,) = reports_of([payload], source="webhook", now_ms=1, delivery="x", salts=())
        assert (report.surface, report.model, report.status) == (surface, body["model"], 200), payload
        assert report.usage.details == dict.fromkeys(COUNTED_UNITS[surface], 1), payload


def test_thinking_and_tools_of_claude_code_work(running: Installation, shipped: tuple[Gateway, LiteLLM]) -> None:
    body: dict[str, Any] = {
        "model": "claude-sonnet-4-5-20250929",
        "max_tokens": 32_000,
        "thinking": {"type": "enabled", "budget_tokens": 31_999},
        "system": [{"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}}],
        "tools": [{"name": "get_weather", "input_schema": TOOL["parameters"]}],
        "messages": [{"role": "user", "content": "call the tool get_weather"}],
        "metadata": {"user_id": "someone"},
    }
    response = running.ask(a_key().plain, "/v1/messages?beta=true", url=shipped[0].url, **body)
    assert response.status_code == 200, response.text
    assert response.json()["stop_reason"] == "tool_use"
    assert response.headers["x-cfx-model"] == "claude-sonnet-5.5"


def test_litellm_counts_tokens_where_it_can(running: Installation, shipped: tuple[Gateway, LiteLLM]) -> None:
    body: dict[str, Any] = {"model": "claude-haiku-5.5", "messages": [{"role": "user", "content": "word " * 100}]}
    response = running.ask(a_key().plain, "/v1/messages/count_tokens", url=shipped[0].url, **body)
    assert response.status_code == 200
    assert 90 <= response.json()["input_tokens"] <= 200


def test_the_prompt_cache_works_through_litellm(running: Installation, shipped: tuple[Gateway, LiteLLM]) -> None:
    """The caller's marks arrive where they were, and equal calls are equal bytes at the provider."""
    gateway, proxy = shipped
    key = a_key().plain
    mark = {"cache_control": {"type": "ephemeral"}}
    text = "A rule that every call through LiteLLM repeats. " * 120
    body: dict[str, Any] = {
        "model": "claude-haiku-5.5",
        "max_tokens": 50,
        "system": [{"type": "text", "text": text, **mark}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello", **mark}]}],
    }
    responses = [running.ask(key, "/v1/messages", url=gateway.url, **body) for _ in range(3)]
    assert [response.status_code for response in responses] == [200] * 3
    received = [entry["body"] for entry in proxy.provider.ledger(wait=3)]
    assert len(received) == 3
    assert len(set(received)) == 1
    system, user = json.loads(received[0])["messages"]
    assert (system["content"], user["content"]) == (body["system"], body["messages"][0]["content"])
    rows = [running.row_of(response) for response in responses]
    assert [row.cached_tokens >= 1024 for row in rows] == [False, True, True]
    assert rows[0].cost_nanos > rows[1].cost_nanos == rows[2].cost_nanos


def test_a_conversation_is_compacted_through_litellm(running: Installation, shipped: tuple[Gateway, LiteLLM]) -> None:
    """LiteLLM makes a chat call of it: no provider needs to know compaction."""
    gateway, _proxy = shipped
    key = a_key().plain
    said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Fix the parser."}]}
    asked: dict[str, Any] = {
        "model": "claude-haiku-5.5",
        "input": [said, {"type": "compaction_trigger"}],
        "stream": True,
    }
    streamed = running.ask(key, "/v1/responses", url=gateway.url, **asked)
    assert last_event(streamed.text)["type"] == "response.completed"
    (item,) = last_event(streamed.text)["response"]["output"]
    assert item["type"] == "compaction"
    again = running.ask(key, "/v1/responses", url=gateway.url, model="claude-haiku-5.5", input=[item, said])
    assert again.json()["output"][0]["type"] == "message"
    assert running.row_of(streamed).completion_tokens > 0
