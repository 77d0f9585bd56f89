"""Compaction as Codex asks for it, and OpenAI's SDK: a summary in an item that the gateway writes out again."""

import json
from typing import Any

import httpx
import openai
import pytest

from keys.tests.factories import a_key
from logs.models import RequestLog
from routing.surfaces.compaction import PREFIX, PROMPT, item_of
from tests.gateway.test_tools import upstream_body_of
from tests.support.installation import Gateway, Installation

SAID = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Fix the parser."}]}
CALLED = {"type": "function_call", "call_id": "c1", "name": "shell", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "ok"}
HISTORY = [SAID, CALLED, RESULT]
TRIGGER = {"type": "compaction_trigger"}
TOOLS = [{"type": "function", "name": "shell", "parameters": {"type": "object", "properties": {}}}]
BODY: dict[str, Any] = {"model": "gpt-6-luna", "instructions": "Be brief.", "tools": TOOLS, "tool_choice": "auto"}


@pytest.fixture
def key(running: Installation) -> str:
    return a_key().plain


def events(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line[5:].strip() for line in response.text.splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def text_of(item: dict[str, Any]) -> str:
    return str(item["content"][0]["text"])


def check_summary_request(body: dict[str, Any]) -> None:
    """The provider is asked for an ordinary response to the same conversation, which ends with what is wanted."""
    assert body["input"][:-1] == HISTORY
    assert text_of(body["input"][-1]) == PROMPT
    assert (body["model"], body["instructions"], body["tools"]) == ("gpt-6-luna", "Be brief.", TOOLS)
    assert (body["tool_choice"], body["store"]) == ("none", False)


def test_a_trigger_is_answered_by_exactly_one_item(running: Installation, key: str) -> None:
    response = running.ask(key, "/v1/responses", **BODY, input=[*HISTORY, TRIGGER], stream=True)
    assert response.status_code == 200, response.text
    body = upstream_body_of(running, response)
    check_summary_request(body)
    assert body["stream"] is True
    done = [event["item"] for event in events(response) if event["type"] == "response.output_item.done"]
    assert [item["type"] for item in done] == ["compaction"]
    last = events(response)[-1]
    assert (last["type"], last["response"]["output"]) == ("response.completed", done)
    assert (last["response"]["model"], last["response"]["status"]) == ("gpt-6-luna", "completed")
    assert not [event for event in events(response) if "delta" in event]
    row = running.row_of(response)
    assert (row.surface, row.is_stream, row.status, row.usage_rank) == ("responses", True, 200, 40)
    usage = last["response"]["usage"]
    assert (row.prompt_tokens, row.completion_tokens) == (usage["input_tokens"], usage["output_tokens"])
    assert row.cost_nanos > 0
    assert RequestLog.objects.filter(key_id=row.key_id).count() == 1


def test_a_trigger_without_streaming(running: Installation, key: str) -> None:
    response = running.ask(key, "/v1/responses", **BODY, input=[*HISTORY, TRIGGER])
    check_summary_request(upstream_body_of(running, response))
    found = response.json()
    assert (found["object"], found["status"], len(found["output"])) == ("response", "completed", 1)
    assert found["output"][0]["type"] == "compaction"


def test_the_endpoint_returns_the_new_history(running: Installation, key: str) -> None:
    response = running.ask(key, "/v1/responses/compact", **BODY, input=HISTORY)
    check_summary_request(upstream_body_of(running, response))
    found = response.json()
    assert (found["object"], [item["type"] for item in found["output"]]) == ("response.compaction", ["compaction"])
    assert found["usage"]["output_tokens"] > 0
    row = running.row_of(response)
    assert (row.endpoint, row.surface, row.is_stream) == ("/v1/responses/compact", "responses", False)
    assert row.completion_tokens == found["usage"]["output_tokens"]


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses/compact"])
def test_what_it_returned_is_written_out_in_later_input(running: Installation, key: str, path: str) -> None:
    asked = HISTORY if path.endswith("compact") else [*HISTORY, TRIGGER]
    compacted = running.ask(key, path, **BODY, input=asked).json()["output"]
    response = running.ask(key, "/v1/responses", **BODY, input=[SAID, *compacted, SAID], stream=True)
    body = upstream_body_of(running, response)
    assert (body["input"][0], body["input"][2]) == (SAID, SAID)
    assert text_of(body["input"][1]).startswith(PREFIX + "[demo upstream]")
    assert events(response)[-1]["type"] == "response.completed"
    assert "output_text" in response.text
    # A compacted conversation is compacted once more.
    again = running.ask(key, "/v1/responses", **BODY, input=[SAID, *compacted, SAID, TRIGGER])
    assert [text_of(item)[:20] for item in upstream_body_of(running, again)["input"]] == [
        "Fix the parser.", PREFIX[:20], "Fix the parser.", PROMPT[:20],
    ]  # fmt: skip


def test_items_from_elsewhere_are_refused_and_cost_nothing(running: Installation) -> None:
    issued = a_key()
    foreign = {"type": "compaction", "encrypted_content": "gAAAAABqwertz"}
    response = running.ask(issued.plain, "/v1/responses", **BODY, input=[SAID, foreign])
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("compaction_unreadable", "input[1]")
    assert not RequestLog.objects.filter(key_id=issued.row.id).exists()


def test_a_conversation_that_only_talks_of_compaction_passes_byte_for_byte(running: Installation, key: str) -> None:
    talk = 'Is {"type": "compaction_trigger"} an item?  ü'
    for given in ([{"role": "user", "content": talk}], talk):
        response = running.ask(key, "/v1/responses", **BODY, input=given)
        assert upstream_body_of(running, response)["input"] == given
        assert response.json()["output"][0]["type"] == "message"


def test_limits_apply_as_to_any_call(running: Installation) -> None:
    key = a_key(daily_requests=1).plain
    assert running.ask(key, "/v1/responses/compact", **BODY, input=HISTORY).status_code == 200
    refused = running.ask(key, "/v1/responses", **BODY, input=[SAID, TRIGGER])
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "daily_quota_exceeded")
    other = a_key(allowed_surfaces=("chat",)).plain
    assert running.ask(other, "/v1/responses/compact", **BODY, input=HISTORY).status_code == 403


@pytest.mark.parametrize("given", [[], "", [TRIGGER], None, 7])
def test_an_empty_conversation_is_refused(running: Installation, key: str, given: Any) -> None:
    response = running.ask(key, "/v1/responses/compact", **BODY, input=given)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_request")


def test_a_failure_is_that_of_any_call(running: Installation, key: str) -> None:
    running.upstream.set_fault("error_event after=8", path="/v1/responses", times=1)
    broken = running.ask(key, "/v1/responses", **BODY, input=[*HISTORY, TRIGGER], stream=True)
    assert events(broken)[-1]["type"] == "response.failed"
    assert '"compaction"' not in broken.text
    assert running.row_of(broken).error_code == "upstream_stream_broken"


def test_a_slow_summary_is_pinged_while_it_arrives(running: Installation, key: str) -> None:
    """The text does not reach the caller, so a connection would look dead as long as it is written."""
    gateway: Gateway = running.new_gateway(CFX_STREAM_PING_S="0.2")
    running.upstream.set_fault("slow gap_ms=50", path="/v1/responses", times=1)
    response = running.ask(key, "/v1/responses", url=gateway.url, **BODY, input=[*HISTORY, TRIGGER], stream=True)
    gateway.stop()
    kinds = [event["type"] for event in events(response)]
    assert kinds.count("response.in_progress") >= 3
    assert kinds[-1] == "response.completed"
    assert len({event["response"]["id"] for event in events(response) if "response" in event}) == 1


def test_openais_sdk_reads_both(running: Installation, key: str) -> None:
    sdk: Any
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0) as sdk:
        compacted = sdk.responses.compact(model="gpt-6-luna", input=HISTORY)
        assert [item.type for item in compacted.output] == ["compaction"]
        history = [item.to_dict() for item in compacted.output]
        assert sdk.responses.create(model="gpt-6-luna", input=[*history, SAID]).output_text
        stream = list(sdk.responses.create(model="gpt-6-luna", input=[*HISTORY, TRIGGER], stream=True))
        assert [event.item.type for event in stream if event.type == "response.output_item.done"] == ["compaction"]
        with sdk.responses.stream(model="gpt-6-luna", input=[*HISTORY, TRIGGER]) as streamed:
            assert [item.type for item in streamed.get_final_response().output] == ["compaction"]


def test_a_summary_keeps_every_character(running: Installation, key: str) -> None:
    said = 'Türkçe, 中文, emoji 🙂, "quotes" and\nlines'
    response = running.ask(key, "/v1/responses", **BODY, input=[item_of(said), SAID])
    assert text_of(upstream_body_of(running, response)["input"][0]) == PREFIX + said
