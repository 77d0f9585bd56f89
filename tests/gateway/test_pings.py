"""Silent upstreams: callers of streams get signs of life, and another model may still answer."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from keys.tests.factories import a_key
from tests.gateway.test_surfaces import STREAMING, SurfaceCase, error_of, last_event
from tests.support.installation import Gateway, Installation

PING_S = 0.2
# Longer than several pings, shorter than the limits of this installation.
SILENT = "[[fault:slow first_ms=1200]]"
CASES = [case for case in STREAMING if "?" not in case.path and case.path != "/chat/completions"]
OPENAI_MODEL = "gpt-6-luna"


@pytest.fixture(scope="module")
def pinging(installation: Installation) -> Iterator[Gateway]:
    gateway = installation.new_gateway(CFX_STREAM_PING_S=str(PING_S))
    yield gateway
    gateway.stop()


@pytest.fixture
def key(running: Installation) -> str:
    return a_key().plain


def payloads(text: str) -> list[Any]:
    lines = [line[5:].strip() for line in text.splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def is_ping(case: SurfaceCase, payload: Any) -> bool:
    if case.name == "messages":
        return bool(payload == {"type": "ping"})
    if case.name == "responses":
        return bool(payload["type"] == "response.in_progress" and payload["response"]["output"] == [])
    (choice,) = payload.get("choices") or [{"finish_reason": "none"}]
    said = choice.get("text") if case.name == "completions" else choice.get("delta")
    return not said and choice.get("finish_reason", "") is None


def pings_in(case: SurfaceCase, text: str) -> int:
    return sum(is_ping(case, payload) for payload in payloads(text))


@pytest.mark.cut(3)
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_silent_stream_is_pinged_before_its_first_byte(
    running: Installation, pinging: Gateway, key: str, case: SurfaceCase
) -> None:
    response = running.ask(key, case.path, url=pinging.url, **case.body(f"{SILENT} hello", stream=True))
    assert response.status_code == 200
    assert 3 <= pings_in(case, response.text) <= 8
    row = running.row_of(response)
    assert (row.status, row.error_code, row.usage_rank) == (200, "", 40)
    assert row.ttft_ms is not None
    assert row.ttft_ms >= 1_000
    quick = running.ask(key, case.path, url=pinging.url, **case.body("hello", stream=True))
    assert running.row_of(quick).completion_tokens == row.completion_tokens


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_stream_that_falls_silent_is_pinged_with_its_own_id(
    running: Installation, pinging: Gateway, key: str, case: SurfaceCase
) -> None:
    text = "[[fault:slow gap_ms=500]] [[fault:chunks n=3]]"
    response = running.ask(key, case.path, url=pinging.url, **case.body(text, stream=True))
    assert pings_in(case, response.text) >= 3
    found = payloads(response.text)
    if case.name == "responses":
        assert len({payload["response"]["id"] for payload in found if "response" in payload}) == 1
    elif case.name != "messages":
        assert len({payload["id"] for payload in found}) <= 2  # one of ours when the first event was late, too
    assert running.row_of(response).error_code == ""


def test_a_response_has_one_id_although_its_first_events_are_ours(
    running: Installation, pinging: Gateway, key: str
) -> None:
    case = next(case for case in CASES if case.name == "responses")
    response = running.ask(key, case.path, url=pinging.url, **case.body(f"{SILENT} hello", stream=True))
    told = [payload["response"] for payload in payloads(response.text) if "response" in payload]
    assert len({each["id"] for each in told}) == 1
    assert told[0]["id"].startswith("resp_")
    row = running.row_of(response)
    assert row.status == 200


def test_another_model_may_answer_after_a_ping(running: Installation, pinging: Gateway, key: str) -> None:
    """The headers name the model that was tried then; the chunks and the row tell which one responded."""
    running.upstream.set_fault("hang", model="deepseek-v4.1-flash")
    response = running.post(key, url=pinging.url, model="cfx-code", stream=True)
    assert response.headers["x-cfx-model"] == "deepseek-v4.1-flash"
    assert payloads(response.text)[-1]["model"] == "gpt-6-luna"
    assert response.text.endswith("data: [DONE]\n\n")
    row = running.row_of(response)
    assert (row.status, row.model, row.attempts) == (200, "gpt-6-luna", 2)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_dead_upstream_still_ends_within_its_limit(
    running: Installation, pinging: Gateway, key: str, case: SurfaceCase
) -> None:
    body = {**case.body("[[fault:hang]]", stream=True), "model": case.model}
    response = running.ask(key, case.path, url=pinging.url, **body)
    assert response.status_code == 200
    assert pings_in(case, response.text) >= 3
    assert error_of(case, last_event(response.text))["code"] == "upstream_timeout"
    assert "[DONE]" not in response.text
    row = running.row_of(response)
    assert (row.status, row.error_code, row.cost_nanos) == (504, "upstream_timeout", 0)


def test_a_refusal_after_a_ping_travels_in_the_stream(running: Installation, pinging: Gateway, key: str) -> None:
    text = "[[fault:slow first_ms=800]] [[fault:400]]"
    response = running.say(key, text, url=pinging.url, model=OPENAI_MODEL, stream=True)
    error = last_event(response.text)["error"] if response.status_code == 200 else response.json()["error"]
    row = running.row_of(response)
    assert (row.status, row.error_code, row.cost_nanos) == (400, error["code"], 0)


def test_a_call_that_is_not_streamed_or_not_silent_gets_no_ping(
    running: Installation, pinging: Gateway, key: str
) -> None:
    whole = running.say(key, SILENT, url=pinging.url, model=OPENAI_MODEL)
    assert whole.json()["choices"]
    quick = running.say(key, "hello", url=pinging.url, model=OPENAI_MODEL, stream=True)
    assert pings_in(CASES[0], quick.text) == 0


class TestSdks:
    def test_openai_chat(self, pinging: Gateway, key: str) -> None:
        sdk: Any
        with openai.OpenAI(base_url=f"{pinging.url}/v1", api_key=key, max_retries=0) as sdk:
            for text in (f"{SILENT} Hello", "[[fault:slow gap_ms=500]] [[fault:chunks n=3]]"):
                messages = [{"role": "user", "content": text}]
                chunks = list(sdk.chat.completions.create(model=OPENAI_MODEL, messages=messages, stream=True))
                assert "stop" in [chunk.choices[0].finish_reason for chunk in chunks]
                with sdk.chat.completions.stream(model=OPENAI_MODEL, messages=messages) as stream:
                    final = stream.get_final_completion()
                assert final.choices[0].message.content
                assert final.choices[0].message.role == "assistant"

    def test_openai_completions(self, pinging: Gateway, key: str) -> None:
        sdk: Any
        with openai.OpenAI(base_url=f"{pinging.url}/v1", api_key=key, max_retries=0) as sdk:
            chunks = list(sdk.completions.create(model=OPENAI_MODEL, prompt=f"{SILENT} Hello", stream=True))
            assert "".join(chunk.choices[0].text or "" for chunk in chunks if chunk.choices)

    def test_openai_responses(self, pinging: Gateway, key: str) -> None:
        sdk: Any
        with openai.OpenAI(base_url=f"{pinging.url}/v1", api_key=key, max_retries=0) as sdk:
            for text in (f"{SILENT} Hello", "[[fault:slow gap_ms=500]] [[fault:chunks n=3]]"):
                events = list(sdk.responses.create(model=OPENAI_MODEL, input=text, stream=True))
                assert events[-1].type == "response.completed"
                with sdk.responses.stream(model=OPENAI_MODEL, input=text) as stream:
                    assert stream.get_final_response().output_text
            with (
                pytest.raises(openai.APIError),
                sdk.responses.create(model=OPENAI_MODEL, input="[[fault:hang]]", stream=True) as broken,
            ):
                list(broken)

    def test_anthropic(self, pinging: Gateway, key: str) -> None:
        sdk: Any
        with anthropic.Anthropic(base_url=pinging.url, api_key=key, max_retries=0) as sdk:
            for text in (f"{SILENT} Hello", "[[fault:slow gap_ms=500]] [[fault:chunks n=3]]"):
                asked = [{"role": "user", "content": text}]
                with sdk.messages.stream(model="claude-haiku-5.5", max_tokens=500, messages=asked) as stream:
                    assert stream.get_final_message().content[0].text
                events = list(
                    sdk.messages.create(model="claude-haiku-5.5", max_tokens=500, messages=asked, stream=True)
                )
                assert events[-1].type == "message_stop"
            hanging = [{"role": "user", "content": "[[fault:hang]]"}]
            with (
                pytest.raises(anthropic.APIError),
                sdk.messages.create(model="claude-haiku-5.5", max_tokens=9, messages=hanging, stream=True) as broken,
            ):
                list(broken)
