"""The whole way with a real LiteLLM proxy in it: caller, gateway, LiteLLM, provider, and back to the books."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from codexflow.testing.litellm import LiteLLM
from codexflow.testing.live import Gateway, Live
from codexflow.testing.waiting import until
from keys.tests.factories import a_key
from routing.meter import nanos_of

pytestmark = [pytest.mark.litellm, pytest.mark.xdist_group("litellm")]


@pytest.fixture(scope="module")
def gateway(live_house: Live, running_proxy: LiteLLM) -> Iterator[Gateway]:
    made = live_house.new_gateway(LITELLM_URL=running_proxy.url, LITELLM_API_KEY=running_proxy.api_key)
    yield made
    made.stop()


def test_an_answer_comes_through_with_our_call_id_and_its_cost(live: Live, litellm: LiteLLM, gateway: Gateway) -> None:
    key = a_key().plain
    response: list[httpx.Response] = []

    def reported() -> list[dict[str, Any]]:
        # LiteLLM forgets reports that arise while a batch is on its way, so one call may not be enough.
        response[:] = [live.post(key, url=gateway.url, model="cfx-review")]
        assert response[0].status_code == 200, response[0].text
        with contextlib.suppress(TimeoutError):
            return litellm.callback_payloads(f"{response[0].headers['x-cfx-request-id']}.1", timeout_s=5)
        return []

    report = until(reported, within_s=40, what="LiteLLM's report")[0]
    row = live.row_of(response[0])
    assert report["litellm_call_id"] == f"{row.request_id}.1"
    assert (report["prompt_tokens"], report["completion_tokens"]) == (row.prompt_tokens, row.completion_tokens)
    assert row.upstream_cost_nanos == nanos_of(report["response_cost"])
    # What the customer pays follows from our price, whatever LiteLLM thinks it costs.
    expected = row.prompt_tokens * row.rate_input_nanos + row.completion_tokens * row.rate_output_nanos
    assert abs(row.cost_nanos * 1_000_000 - expected) <= 500_000
    assert not any(name.startswith(("x-litellm", "llm_provider")) for name in response[0].headers)


def test_a_stream_comes_through_complete_and_counted(live: Live, litellm: LiteLLM, gateway: Gateway) -> None:
    response = live.post(a_key().plain, url=gateway.url, model="cfx-code", stream=True)
    assert response.text.endswith("data: [DONE]\n\n")
    chunks = [json.loads(block.removeprefix("data: ")) for block in response.text.split("\n\n")[:-2]]
    assert not any("usage" in chunk and chunk["usage"] for chunk in chunks)
    row = live.row_of(response)
    assert (row.status, row.usage_rank, row.model) == (200, 40, "deepseek-v3")
    assert row.upstream_cost_nanos
    (seen,) = litellm.provider.ledger(model="deepseek-v3")
    assert seen["outcome"] == "finished"


def test_a_provider_that_breaks_off_never_looks_complete(live: Live, litellm: LiteLLM, gateway: Gateway) -> None:
    text = "[[fault:cut after=3]] go on"
    response = live.say(a_key().plain, text, url=gateway.url, model="gpt-4o-mini", stream=True)
    if response.status_code == 200:
        assert "[DONE]" not in response.text
        assert "upstream_stream_broken" in response.text
    row = live.row_of(response)
    assert row.status in (502, 503)


def test_a_providers_refusal_keeps_its_meaning_and_loses_its_wrapping(
    live: Live, litellm: LiteLLM, gateway: Gateway
) -> None:
    response = live.say(a_key().plain, "[[fault:400]]", url=gateway.url, model="gpt-4o-mini")
    assert response.status_code == 400
    assert "litellm" not in response.text.lower()


def test_fallbacks_work_through_litellm(live: Live, litellm: LiteLLM, gateway: Gateway) -> None:
    litellm.provider.set_fault("503", model="deepseek-v3")
    response = live.post(a_key().plain, url=gateway.url, model="cfx-code")
    assert response.headers["x-cfx-model"] == "gemini-2.0-flash"
    assert live.row_of(response).attempts == 3


def test_health_compares_models_with_litellms(live: Live, gateway: Gateway) -> None:
    report = httpx.get(f"{gateway.url}/health", timeout=10).json()
    assert report["checks"]["litellm"]
    assert report["details"]["upstream"] == "litellm"
    assert report["details"]["models_unknown_to_litellm"] == []
