"""The demo upstream over real HTTP, as the gateway, the OpenAI SDK and an operator with a drill see it."""

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, BadRequestError, OpenAI, RateLimitError

from codexflow.dev.demo_upstream.models import EXAMPLES, MODELS
from codexflow.lib.ids import new_id
from tests.support.upstream import Upstream, running_upstream

MODEL = "gpt-6-luna"
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["celsius", "kelvin"]},
                "days": {"type": "integer"},
            },
        },
    },
}


@pytest.fixture
def client(upstream: Upstream) -> Iterator[Any]:
    # Any: otherwise every test would have to narrow the SDK's unions first.
    with OpenAI(base_url=f"{upstream.url}/v1", api_key=upstream.api_key, max_retries=0) as client:
        yield client


@pytest.fixture
async def http(upstream: Upstream) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {upstream.api_key}"}
    async with httpx.AsyncClient(base_url=upstream.url, headers=headers, timeout=10, trust_env=False) as http:
        yield http


def ask(text: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}


def post(upstream: Upstream, text: str, **more: Any) -> httpx.Response:
    return upstream.control.post("/v1/chat/completions", json=ask(text, **more))


def data_lines(body: str) -> list[str]:
    return [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]


def chunks(body: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data_lines(body) if line != "[DONE]"]


def text_of(found: list[dict[str, Any]]) -> str:
    return "".join(c["delta"].get("content") or "" for chunk in found for c in chunk["choices"])


# Responses


def test_a_response_is_labelled_and_echoes_the_end_of_the_message(client: Any) -> None:
    response = client.chat.completions.create(**ask("Please remember the word marmalade"))
    text = response.choices[0].message.content
    assert text is not None
    assert text.startswith("[demo upstream]")
    assert text.endswith("marmalade")
    assert response.model == MODEL
    assert response.choices[0].finish_reason == "stop"
    assert response.usage.total_tokens == response.usage.prompt_tokens + response.usage.completion_tokens


def test_the_stream_has_the_text_of_the_whole_response(client: Any) -> None:
    whole = client.chat.completions.create(**ask("hello"))
    with client.chat.completions.create(**ask("hello"), stream=True) as stream:
        parts = list(stream)
    assert "".join(p.choices[0].delta.content or "" for p in parts) == whole.choices[0].message.content
    assert [p.choices[0].finish_reason for p in parts][-1] == "stop"
    assert sum(bool(p.choices[0].delta.content) for p in parts) == whole.usage.completion_tokens


async def test_the_async_client_streams(upstream: Upstream) -> None:
    async with AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key=upstream.api_key, max_retries=0) as client:
        stream = await client.chat.completions.create(**ask("[[fault:chunks n=20]]"), stream=True)
        parts = [part async for part in stream]
    assert sum(bool(p.choices[0].delta.content) for p in parts) == 20


def test_usage_and_cost_come_last_and_alone_and_only_when_asked_for(upstream: Upstream) -> None:
    asked = chunks(post(upstream, "hi", stream=True, stream_options={"include_usage": True}).text)
    assert [c for c in asked[:-1] if "usage" in c] == []
    assert asked[-1]["choices"] == []
    usage = asked[-1]["usage"]
    # 15 and 60 cents a million tokens.
    assert usage["cost"] == pytest.approx((usage["prompt_tokens"] * 10 + usage["completion_tokens"] * 50) / 1e8)
    for options in ({}, {"stream_options": {"include_usage": False}}):
        assert [c for c in chunks(post(upstream, "hi", stream=True, **options).text) if "usage" in c] == []


def test_chunks_leave_finish_reason_out_until_the_last_as_litellm_does(upstream: Upstream) -> None:
    found = chunks(post(upstream, "hi", stream=True).text)
    assert [("finish_reason" in c["choices"][0]) for c in found] == [False] * (len(found) - 1) + [True]
    assert found[0]["choices"][0]["delta"] == {"content": "", "role": "assistant"}


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_length_is_respected(client: Any, name: str) -> None:
    response = client.chat.completions.create(**ask("hi", **{name: 3}))
    assert response.choices[0].finish_reason == "length"
    assert response.usage.completion_tokens == 3


def test_n_and_stop_are_respected(client: Any) -> None:
    response = client.chat.completions.create(**ask("hi"), n=3, stop=["canned"])
    assert len(response.choices) == 3
    assert {c.message.content for c in response.choices} == {"[demo upstream] No model was asked: this is a "}
    with client.chat.completions.create(**ask("hi"), n=2, stream=True) as stream:
        finished = [p.choices[0].index for p in stream if p.choices[0].finish_reason]
    assert finished == [0, 1]


def test_a_tool_is_called_when_the_user_asks(client: Any) -> None:
    response = client.chat.completions.create(**ask("use get_weather now"), tools=[WEATHER])
    call = response.choices[0].message.tool_calls[0]
    assert response.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "demo", "unit": "celsius", "days": 1}


def test_tool_arguments_stream_in_pieces(client: Any) -> None:
    with client.chat.completions.create(**ask("call the tool"), tools=[WEATHER], stream=True) as stream:
        parts = [part.choices[0] for part in stream]
    calls = [part.delta.tool_calls[0] for part in parts if part.delta.tool_calls]
    assert calls[0].id
    assert calls[0].function.name == "get_weather"
    assert len(calls) > 5
    assert json.loads("".join(call.function.arguments for call in calls))["unit"] == "celsius"
    assert parts[-1].finish_reason == "tool_calls"


def test_a_tool_result_gets_a_text_response(client: Any) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "use the tool"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    response = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
    assert response.choices[0].finish_reason == "stop"
    assert response.choices[0].message.content.startswith("[demo upstream]")


def test_no_tool_is_called_unasked(client: Any) -> None:
    response = client.chat.completions.create(**ask("good morning"), tools=[WEATHER])
    assert response.choices[0].finish_reason == "stop"


def test_embeddings_depend_on_the_text_alone(client: Any) -> None:
    model = "text-embedding-3-small"
    first = client.embeddings.create(model=model, input=["a", "b", "a"])  # base64, the SDK's own choice
    a, b, again = (item.embedding for item in first.data)
    assert a == again != b
    assert len(a) == 1536
    assert sum(x * x for x in a) == pytest.approx(1, abs=1e-4)
    plain = client.embeddings.create(model=model, input="a", encoding_format="float", dimensions=1536)
    assert plain.data[0].embedding == pytest.approx(a)
    assert len(client.embeddings.create(model=model, input="a", dimensions=8).data[0].embedding) == 8


def test_models_are_listed_with_prices(upstream: Upstream, client: Any) -> None:
    listed = {model.id for model in client.models.list()}
    info = {m["model_name"]: m["model_info"] for m in upstream.control.get("/model/info").json()["data"]}
    assert listed == set(info)
    assert listed == {*MODELS, *EXAMPLES}
    assert info["claude-sonnet-5.5"]["output_cost_per_token"] == 0.00001
    assert upstream.control.get("/v1/models/nope").json() == {"detail": "Not Found"}


def test_health_needs_no_key(upstream: Upstream) -> None:
    for page in ("liveliness", "liveness"):
        response = httpx.get(f"{upstream.url}/health/{page}")
        assert (response.status_code, response.text) == (200, '"I\'m alive!"')
    assert httpx.get(f"{upstream.url}/health/readiness").json()["status"] == "healthy"


def test_headers_are_litellms(upstream: Upstream) -> None:
    call_id = str(new_id())
    response = upstream.control.post("/v1/chat/completions", json=ask("hi"), headers={"x-litellm-call-id": call_id})
    assert response.headers["x-litellm-call-id"] == call_id
    assert response.headers["x-litellm-version"] == "demo"
    assert len(response.headers["x-litellm-model-id"]) == 64
    usage = response.json()["usage"]
    cost = (usage["prompt_tokens"] * 10 + usage["completion_tokens"] * 50) / 1e8
    assert float(response.headers["x-litellm-response-cost"]) == pytest.approx(cost)
    assert "x-litellm-response-cost" not in post(upstream, "hi", stream=True).headers


def test_wrong_keys_are_refused_as_litellm_does(upstream: Upstream) -> None:
    url = f"{upstream.url}/v1/models"
    missing, wrong = httpx.get(url), httpx.get(url, headers={"Authorization": "Bearer cfx_nobody"})
    assert (missing.status_code, missing.json()["error"]["type"]) == (401, "auth_error")
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (400, "no_db_connection")
    for page in ("ledger", "faults"):
        assert httpx.get(f"{upstream.url}/demo/{page}").status_code == 401


def test_an_unknown_model_is_a_400(client: Any) -> None:
    with pytest.raises(BadRequestError, match="You passed in model=nope"):
        client.chat.completions.create(model="nope", messages=[{"role": "user", "content": "hi"}])


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"model":"gpt-6-luna"}', b'{"model":"gpt-6-luna","messages":[1],"n":0}']
)
def test_bad_bodies_are_a_400(upstream: Upstream, body: bytes) -> None:
    response = upstream.control.post("/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "400"


def test_a_provider_speaks_plainly() -> None:
    with running_upstream(as_provider=True) as provider:
        response = post(provider, "[[fault:429 retry_after=7]]")
        assert response.headers["retry-after"] == "7"
        assert not [name for name in response.headers if name.startswith("x-litellm")]
        assert response.json()["error"]["type"] == "rate_limit_error"
        other = provider.control.post("/v1/chat/completions", json={**ask("hi", stream=True), "model": "x/y"})
        assert chunks(other.text)[0]["choices"][0]["finish_reason"] is None


# Faults, as the caller sees them


def broken_stream(upstream: Upstream, words: str, *, timeout_s: float = 20) -> tuple[str, Exception]:
    """The text that arrived and the failure that ended it."""
    seen = ""
    request = ask(words, stream=True)
    with upstream.control.stream("POST", "/v1/chat/completions", json=request, timeout=timeout_s) as response:
        try:
            for part in response.iter_text():
                seen += part
        except httpx.TransportError as failure:
            return seen, failure
    pytest.fail(f"The stream ended well: {seen}")


def test_fault_cut_resets_the_connection_after_some_events(upstream: Upstream) -> None:
    seen, failure = broken_stream(upstream, "[[fault:cut after=3]]")
    assert len(data_lines(seen)) == 3
    assert isinstance(failure, httpx.ReadError)
    assert "reset" in str(failure)
    (entry,) = upstream.ledger(wait=1)
    assert (entry["chunks"], entry["completion_tokens"], entry["outcome"]) == (3, 2, "broken")


def test_fault_held_ends_a_stream_only_when_released(upstream: Upstream) -> None:
    request = ask("[[fault:cut after=2]] [[fault:held]]", stream=True)
    with upstream.control.stream("POST", "/v1/chat/completions", json=request) as response:
        lines = response.iter_lines()
        first = [next(line for line in lines if line.startswith("data: ")) for _ in range(2)]
        assert len(first) == 2
        assert upstream.state()["open"]
        upstream.release()
        with pytest.raises(httpx.ReadError, match="reset"):
            list(lines)


@pytest.mark.parametrize("stream", [True, False])
def test_fault_cut_without_after_strikes_before_the_response(upstream: Upstream, stream: bool) -> None:
    with pytest.raises(httpx.ReadError, match="reset"):
        post(upstream, "[[fault:cut]]", stream=stream)
    assert upstream.ledger(wait=1)[0]["completion_tokens"] == 0


def test_fault_eof_leaves_the_body_unfinished(upstream: Upstream) -> None:
    seen, failure = broken_stream(upstream, "[[fault:eof after=3]]")
    assert len(data_lines(seen)) == 3
    assert "incomplete chunked read" in str(failure)
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
        post(upstream, "[[fault:eof after=1]]")
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        post(upstream, "[[fault:eof]]")


def test_fault_truncated_ends_in_the_middle_but_politely(upstream: Upstream) -> None:
    body = post(upstream, "[[fault:truncated after=2]]", stream=True).text
    assert len(data_lines(body)) == 3
    assert "[DONE]" not in body
    with pytest.raises(json.JSONDecodeError):
        chunks(body)
    with pytest.raises(json.JSONDecodeError):
        post(upstream, "[[fault:truncated]]").json()


def test_fault_no_done(upstream: Upstream) -> None:
    body = post(upstream, "[[fault:no_done]]", stream=True).text
    assert chunks(body)[-1]["choices"][0]["finish_reason"] == "stop"
    assert "[DONE]" not in body


def test_fault_error_event_is_litellms(upstream: Upstream) -> None:
    lines = data_lines(post(upstream, "[[fault:error_event after=2]]", stream=True).text)
    assert len(lines) == 4
    error = json.loads(lines[2])["error"]
    assert error["message"].startswith("litellm.APIConnectionError")
    assert (error["type"], error["code"], lines[3]) == ("internal_server_error", "500", "[DONE]")
    assert "[DONE]" not in post(upstream, "[[fault:error_event done=0]]", stream=True).text
    assert post(upstream, "[[fault:error_event]]").status_code == 500


def test_fault_429_hides_retry_after_as_litellm_does(upstream: Upstream, client: Any) -> None:
    response = post(upstream, "[[fault:429 retry_after=7]]", stream=True)
    assert response.status_code == 429
    assert response.headers["llm_provider-retry-after"] == "7"
    assert "retry-after" not in response.headers
    with pytest.raises(RateLimitError) as failure:
        client.chat.completions.create(**ask("[[fault:429]]"))
    body: Any = failure.value.body
    assert body["type"] == "throttling_error"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 418, 422, 429, 500, 502, 503, 504, 529, 599])
@pytest.mark.parametrize("stream", [True, False])
def test_fault_any_status(upstream: Upstream, status: int, stream: bool) -> None:
    response = post(upstream, f"[[fault:{status}]]", stream=stream)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, str(status), None)
    assert error["message"].startswith("litellm.")
    assert error["message"].endswith("No fallback was attempted.")


def test_fault_usage_lies(upstream: Upstream) -> None:
    told = post(upstream, "[[fault:usage prompt=999 completion=1]]").json()["usage"]
    assert (told["prompt_tokens"], told["completion_tokens"], told["total_tokens"]) == (999, 1, 1000)
    body = post(
        upstream,
        "[[fault:usage prompt=999 completion=1]]",
        stream=True,
        stream_options={"include_usage": True},
    )
    assert chunks(body.text)[-1]["usage"]["prompt_tokens"] == 999
    assert upstream.ledger()[-1]["completion_tokens"] > 1


def test_fault_no_usage(upstream: Upstream) -> None:
    assert "usage" not in post(upstream, "[[fault:no_usage]]").json()
    body = post(upstream, "[[fault:no_usage]]", stream=True, stream_options={"include_usage": True}).text
    assert [c for c in chunks(body) if "usage" in c] == []
    assert body.endswith("data: [DONE]\n\n")


def test_fault_usage_beside_choice(upstream: Upstream) -> None:
    wants = {"stream": True, "stream_options": {"include_usage": True}}
    last = chunks(post(upstream, "[[fault:usage_beside_choice]]", **wants).text)[-1]
    assert last["choices"] == [{"index": 0, "delta": {}}]
    assert last["usage"]["cost"] > 0


def test_fault_malformed(upstream: Upstream) -> None:
    lines = data_lines(post(upstream, "[[fault:malformed after=2]]", stream=True).text)
    with pytest.raises(json.JSONDecodeError):
        json.loads(lines[2])
    assert [json.loads(line)["object"] for line in (lines[1], lines[3])] == ["chat.completion.chunk"] * 2
    with pytest.raises(json.JSONDecodeError):
        post(upstream, "[[fault:malformed]]").json()


@pytest.mark.parametrize("stream", [True, False])
def test_fault_html(upstream: Upstream, stream: bool) -> None:
    response = post(upstream, "[[fault:html]]", stream=stream)
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<html>" in response.text
    assert post(upstream, "[[fault:html status=502]]", stream=stream).status_code == 502


def test_fault_empty(upstream: Upstream) -> None:
    found = chunks(post(upstream, "[[fault:empty]]", stream=True).text)
    assert text_of(found) == ""
    assert found[-1]["choices"][0]["finish_reason"] == "stop"
    assert post(upstream, "[[fault:empty]]").json()["choices"][0]["message"]["content"] == ""


@pytest.mark.parametrize("stream", [True, False])
def test_fault_hang_never_responds(upstream: Upstream, stream: bool) -> None:
    with pytest.raises(httpx.ReadTimeout):
        upstream.control.post("/v1/chat/completions", json=ask("[[fault:hang]]", stream=stream), timeout=0.1)
    assert upstream.ledger(wait=1)[0]["outcome"] == "aborted"


def test_fault_hang_after_some_events(upstream: Upstream) -> None:
    seen, failure = broken_stream(upstream, "[[fault:hang after=2]]", timeout_s=2)
    assert len(data_lines(seen)) == 2
    assert isinstance(failure, httpx.ReadTimeout)


def test_fault_huge_line(upstream: Upstream) -> None:
    body = post(upstream, "[[fault:huge_line bytes=300000 after=1]]", stream=True).text
    assert len(data_lines(body)[1]) == pytest.approx(300_000, abs=10)
    assert len(text_of(chunks(body))) > 299_000
    assert body.endswith("data: [DONE]\n\n")


def test_fault_big_body(upstream: Upstream) -> None:
    whole = post(upstream, "[[fault:big_body bytes=1000000]]").json()
    assert len(whole["choices"][0]["message"]["content"]) > 1_000_000
    assert len(text_of(chunks(post(upstream, "[[fault:big_body bytes=1000000]]", stream=True).text))) > 1_000_000


def test_fault_slowloris_dribbles_the_head(upstream: Upstream) -> None:
    with socket.create_connection(("127.0.0.1", upstream.port)) as raw:
        raw.sendall(raw_request(upstream, ask("[[fault:slowloris gap_ms=5]]")))
        # One byte each, unless this reader was late.
        assert b"\r\n" not in b"".join(raw.recv(4096) for _ in range(10))
    whole = post(upstream, "[[fault:slowloris gap_ms=1 bytes=50]]")
    assert whole.json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [True, False])
def test_fault_wrong_length(upstream: Upstream, stream: bool) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match=r"received \d+ bytes, expected \d+"):
        post(upstream, "[[fault:wrong_length by=10]]", stream=stream)
    with socket.create_connection(("127.0.0.1", upstream.port)) as raw:
        raw.sendall(raw_request(upstream, ask("[[fault:wrong_length by=-10]]", stream=stream)))
        head, _, body = b"".join(iter(lambda: raw.recv(65536), b"")).partition(b"\r\n\r\n")
    promised = re.search(rb"content-length: (\d+)", head)
    assert promised
    assert len(body) - int(promised.group(1)) == 10


@pytest.mark.parametrize("stream", [True, False])
def test_fault_gzip_bomb(upstream: Upstream, stream: bool) -> None:
    request = ask("[[fault:gzip_bomb bytes=5000000]]", stream=stream)
    with upstream.control.stream("POST", "/v1/chat/completions", json=request) as response:
        packed = b"".join(response.iter_raw())
    assert response.headers["content-encoding"] == "gzip"
    assert len(packed) < 20_000
    inflated = post(upstream, "[[fault:gzip_bomb bytes=5000000]]", stream=stream).text
    assert len(inflated) > 5_000_000
    text = chunks(inflated)[0]["choices"][0]["delta"] if stream else json.loads(inflated)["choices"][0]["message"]
    assert text["content"].startswith("xxx")


def test_fault_redirect_leads_to_a_detectable_target(upstream: Upstream) -> None:
    response = post(upstream, "[[fault:redirect]]")
    assert (response.status_code, response.headers["location"]) == (307, "/demo/redirected")
    assert [e["path"] for e in upstream.ledger()] == ["/v1/chat/completions"]
    upstream.control.post("/v1/chat/completions", json=ask("[[fault:redirect status=308]]"), follow_redirects=True)
    assert [e["path"] for e in upstream.ledger()][-1] == "/demo/redirected"
    elsewhere = post(upstream, "[[fault:redirect to=http://127.0.0.1:9/x status=302]]")
    assert (elsewhere.status_code, elsewhere.headers["location"]) == (302, "http://127.0.0.1:9/x")


def test_fault_slow_and_chunks_set_the_pace(upstream: Upstream) -> None:
    started = time.perf_counter()
    post(upstream, "[[fault:slow first_ms=100]]")
    assert time.perf_counter() - started >= 0.1
    started = time.perf_counter()
    post(upstream, "[[fault:slow first_ms=40 gap_ms=5]] [[fault:chunks n=10]]", stream=True)
    assert time.perf_counter() - started >= 0.04 + 10 * 0.005
    found = chunks(post(upstream, "[[fault:chunks n=200]]", stream=True).text)
    pieces = [c["choices"][0]["delta"].get("content") for c in found]
    assert sum(bool(piece) for piece in pieces) == 200
    # LiteLLM aborts a stream after a hundred equal chunks.
    assert not any(a == b for a, b in pairwise(pieces))


def test_a_directive_may_concern_some_models_only(upstream: Upstream) -> None:
    words = "[[fault:models=deepseek-v4.1-flash,gpt-6.1-sol 503]] [[fault:models=gpt-6-luna 502]]"
    responses = {
        model: upstream.control.post("/v1/chat/completions", json={**ask(words), "model": model}).status_code
        for model in ("deepseek-v4.1-flash", "gpt-6.1-sol", "gpt-6-luna", "claude-haiku-5.5")
    }
    assert responses == {"deepseek-v4.1-flash": 503, "gpt-6.1-sol": 503, "gpt-6-luna": 502, "claude-haiku-5.5": 200}


def test_only_the_last_user_message_is_obeyed_and_its_directives_are_not_echoed(upstream: Upstream) -> None:
    messages = [
        {"role": "user", "content": "[[fault:500]]"},
        {"role": "user", "content": "tail [[fault:no_usage]]"},
    ]
    response = upstream.control.post("/v1/chat/completions", json={"model": MODEL, "messages": messages})
    assert response.status_code == 200
    assert response.json()["choices"][0]["message"]["content"].endswith("tail")


def test_embeddings_can_fail_too(upstream: Upstream) -> None:
    body = {"model": "text-embedding-3-small", "input": "[[fault:503]]"}
    assert upstream.control.post("/v1/embeddings", json=body).status_code == 503


@pytest.mark.parametrize("words", ["nonsense", "cut twice=1", "slow first_ms=x", "200", "", "models=gpt-6.1-sol"])
def test_a_fault_that_does_not_exist_is_explained(upstream: Upstream, words: str) -> None:
    response = post(upstream, f"[[fault:{words}]]")
    assert response.status_code == 400
    assert "[demo upstream]" in response.json()["error"]["message"]


# Faults through the control endpoint.


def test_a_standing_fault_counts_down(upstream: Upstream) -> None:
    upstream.set_fault("503", model="deepseek-v4.1-flash", times=2)
    ours = {**ask("hi"), "model": "deepseek-v4.1-flash"}
    assert post(upstream, "hi").status_code == 200
    assert [upstream.control.post("/v1/chat/completions", json=ours).status_code for _ in range(3)] == [
        503,
        503,
        200,
    ]
    assert upstream.control.get("/demo/faults").json() == {"faults": []}


def test_a_standing_fault_stands_until_cleared(upstream: Upstream) -> None:
    upstream.set_fault("429 retry_after=3")
    assert [post(upstream, "hi").status_code for _ in range(3)] == [429] * 3
    upstream.control.delete("/demo/faults")
    assert post(upstream, "hi").status_code == 200


def test_a_standing_fault_may_concern_requests_with_a_text(upstream: Upstream) -> None:
    upstream.set_fault("503", text="and then")
    assert [post(upstream, each).status_code for each in ("hi", "hi, and then", "then")] == [200, 503, 200]


def test_the_health_page_can_be_made_to_fail(upstream: Upstream) -> None:
    upstream.set_fault("503", path="/health/liveliness", times=1)
    assert post(upstream, "hi").status_code == 200
    assert [httpx.get(f"{upstream.url}/health/liveliness").status_code for _ in range(2)] == [503, 200]


def test_a_bad_standing_fault_is_refused(upstream: Upstream) -> None:
    for body in ({"fault": "nonsense"}, {}, {"fault": "503", "times": 0}):
        assert upstream.control.post("/demo/faults", json=body).status_code == 400


# The ledger.


def test_the_ledger_knows_what_was_asked_and_sent(upstream: Upstream) -> None:
    body = ask("hi", stream=True, seed=5, temperature=1, max_tokens=4, stream_options={"include_usage": True})
    headers = {"x-litellm-call-id": "call-1", "x-litellm-num-retries": "0"}
    upstream.control.post("/v1/chat/completions", json=body, headers=headers)
    (entry,) = upstream.ledger(call_id="call-1")
    assert entry["selected"] == {
        "temperature": 1,
        "max_tokens": 4,
        "stream_options": {"include_usage": True},
    }
    assert entry["litellm_headers"] == headers
    assert "authorization" in entry["header_names"]
    assert sorted(entry["body_keys"]) == sorted(body)
    assert json.loads(entry["body"]) == body
    assert (entry["model"], entry["stream"], entry["status"], entry["outcome"]) == (
        MODEL,
        True,
        200,
        "finished",
    )
    # The role, four pieces, the end, the usage.
    assert (entry["completion_tokens"], entry["chunks"]) == (4, 7)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
def test_a_model_that_always_thinks_refuses_sampling(upstream: Upstream, path: str) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "input": "hi", "max_tokens": 4}
    for extra, status in ({"temperature": 0.2}, 400), ({"top_p": 0.9}, 400), ({"temperature": 1}, 200):
        assert upstream.control.post(path, json={**body, **extra}).status_code == status
    assert upstream.control.post(path, json={**body, "model": "claude-haiku-4.5", "temperature": 0.2}).is_success


def test_it_has_only_the_models_it_is_told_to_have() -> None:
    with running_upstream(models=("gpt-4o", MODEL)) as upstream:
        assert [each["id"] for each in upstream.control.get("/v1/models").json()["data"]] == ["gpt-4o", MODEL]
        answers = [
            upstream.control.post("/v1/chat/completions", json=ask("hi", model=name)) for name in ("gpt-4o", "x")
        ]
        assert [answer.status_code for answer in answers] == [200, 400]


def test_the_ledger_stores_bodies_only_on_request() -> None:
    with running_upstream(records_bodies=False) as upstream:
        post(upstream, "a secret of mine")
        assert upstream.ledger()[0]["body"] is None


def test_the_ledger_can_be_read_from_a_place_on(upstream: Upstream) -> None:
    post(upstream, "one")
    seen = upstream.ledger()[-1]["seq"]
    post(upstream, "two")
    assert [json.loads(e["body"])["messages"][0]["content"] for e in upstream.ledger(since=seen)] == ["two"]
    upstream.control.delete("/demo/ledger")
    assert upstream.ledger() == []


async def test_a_caller_who_leaves_is_noticed_at_once(upstream: Upstream, http: httpx.AsyncClient) -> None:
    request = ask("[[fault:chunks n=5000 gap_ms=1]]", stream=True)
    async with http.stream("POST", "/v1/chat/completions", json=request) as response:
        async for line in response.aiter_lines():
            if "many" in line:
                break
    (entry,) = await asyncio.to_thread(upstream.ledger, wait=1)
    assert entry["outcome"] == "aborted"
    assert 0 < entry["completion_tokens"] < 5000
    assert upstream.state()["open"] == 0


# The server.


def raw_request(upstream: Upstream, body: dict[str, Any]) -> bytes:
    payload = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: demo\r\nAuthorization: Bearer {upstream.api_key}\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


def test_pipelined_requests_are_served_in_order(upstream: Upstream) -> None:
    bodies = [ask("one"), ask("two [[fault:slow first_ms=30]]"), ask("three", stream=True), ask("four")]
    with socket.create_connection(("127.0.0.1", upstream.port)) as raw:
        raw.sendall(b"".join(raw_request(upstream, body) for body in bodies))
        seen = b""
        while b"four" not in seen:
            seen += raw.recv(65536)
    text = seen.decode()
    assert text.count("HTTP/1.1 200 OK") == 4
    assert re.findall(r"with: (one|two|four)", text) == ["one", "two", "four"]
    assert text.index("two") < text.index("[DONE]") < text.index("four")


def test_a_connection_is_kept_or_closed_as_requested(upstream: Upstream) -> None:
    for _ in range(3):
        post(upstream, "hi")
    assert upstream.state()["connections"] == 1
    response = upstream.control.post("/v1/chat/completions", json=ask("bye"), headers={"Connection": "close"})
    assert response.status_code == 200


def test_what_is_not_http_is_refused(upstream: Upstream) -> None:
    with socket.create_connection(("127.0.0.1", upstream.port)) as raw:
        raw.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 400 ")


async def test_two_hundred_streams_at_once(upstream: Upstream) -> None:
    limits = httpx.Limits(max_connections=200)
    headers = {"Authorization": f"Bearer {upstream.api_key}"}
    request = ask("[[fault:chunks n=30 gap_ms=5]]", stream=True)
    async with httpx.AsyncClient(limits=limits, headers=headers, timeout=30, trust_env=False) as http:
        url = f"{upstream.url}/v1/chat/completions"
        responses = await asyncio.gather(*(http.post(url, json=request) for _ in range(200)))
    assert {response.text.endswith("data: [DONE]\n\n") for response in responses} == {True}
    assert {entry["completion_tokens"] for entry in upstream.ledger()} == {30}


def test_sigterm_ends_it_at_once_even_with_a_stream_open() -> None:
    request = ask("[[fault:hang after=1]]", stream=True)
    with running_upstream() as upstream, suppress(httpx.TransportError):  # noqa: SIM117 - see the stream end
        with upstream.control.stream("POST", "/v1/chat/completions", json=request):
            upstream.process.terminate()
            assert upstream.process.wait(timeout=5) == 0
