"""The real Anthropic SDK against the gateway."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from keys.tests.factories import a_key
from tests.support.installation import Installation

HELLO: Any = [{"role": "user", "content": "Hello"}]
ADD = 'call tool add with {"a": 40, "b": 2}'
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}


@pytest.fixture
def key(running: Installation) -> str:
    return a_key().plain


@pytest.fixture
def sdk(running: Installation, key: str) -> Iterator[Any]:
    """Untyped: plain dictionaries are what people pass."""
    with anthropic.Anthropic(base_url=running.url, api_key=key, max_retries=0) as sdk:
        yield sdk


def test_responses_streams_and_raw_responses(sdk: Any) -> None:
    whole = sdk.messages.create(model="cfx-code", max_tokens=500, messages=HELLO, system="Be kind")
    assert "demo upstream" in whole.content[0].text
    raw = sdk.messages.with_raw_response.create(model="cfx-code", max_tokens=500, messages=HELLO)
    assert raw.headers["x-cfx-stage"] == "code"
    assert raw.parse().model == "deepseek-v4.1-flash"
    with sdk.messages.stream(model="cfx-code", max_tokens=500, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_both_headers_authenticate(running: Installation, key: str) -> None:
    for made in (
        anthropic.Anthropic(base_url=running.url, max_retries=0, api_key=key),
        anthropic.Anthropic(base_url=running.url, max_retries=0, auth_token=key),
    ):
        sdk: Any
        with made as sdk:
            assert (
                sdk.messages.create(model="claude-haiku-5.5", max_tokens=9, messages=HELLO).stop_reason == "max_tokens"
            )


def test_tokens_are_counted(sdk: Any) -> None:
    assert sdk.messages.count_tokens(model="cfx-code", messages=HELLO).input_tokens > 0


@pytest.mark.parametrize("stream", [False, True])
def test_the_tool_runner_continues_without_a_thread(running: Installation, sdk: Any, stream: bool) -> None:
    """It requests a stored conversation; when refused, it sends the whole one each turn."""

    def add(a: int, b: int) -> str:
        return f"sum={a + b}"

    tool = anthropic.beta_tool(add, name="add", description="Adds", input_schema=SCHEMA)
    asked = [{"role": "user", "content": ADD}]
    runner = sdk.beta.messages.tool_runner(
        model="cfx-code", max_tokens=500, messages=asked, tools=[tool], stream=stream
    )
    turns = [turn.get_final_message() if stream else turn for turn in runner]
    assert [turn.stop_reason for turn in turns] == ["tool_use", "end_turn"]
    assert turns[-1].content[0].text.endswith("sum=42")
    (last,) = [json.loads(e["body"]) for e in running.upstream.ledger() if "tool_result" in e["body"]]
    assert [message["role"] for message in last["messages"]] == ["user", "assistant", "user"]


def test_an_explicit_thread_is_refused(sdk: Any) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        sdk.beta.messages.create(
            model="cfx-code", max_tokens=9, messages=HELLO, extra_body={"thread": {"type": "create"}}
        )
    body: Any = caught.value.body
    assert body["error"]["code"] == "thread_unsupported_request"


async def test_the_async_client_too(running: Installation, key: str) -> None:
    made: Any = anthropic.AsyncAnthropic(base_url=running.url, api_key=key, max_retries=0)
    async with made as sdk, sdk.messages.stream(model="cfx-review", max_tokens=500, messages=HELLO) as stream:
        assert (await stream.get_final_message()).stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("text", "model", "error", "status", "code"),
    [
        ("x", "gpt-99", anthropic.BadRequestError, 400, "model_not_allowed"),
        ("[[fault:429 retry_after=9]]", "claude-haiku-5.5", anthropic.RateLimitError, 429, "upstream_rate_limited"),
        ("[[fault:503]]", "claude-haiku-5.5", anthropic.InternalServerError, 503, "upstream_unavailable"),
    ],
)
def test_typed_errors(
    sdk: Any, text: str, model: str, error: type[anthropic.APIStatusError], status: int, code: str
) -> None:
    with pytest.raises(error) as caught:
        sdk.messages.create(model=model, max_tokens=9, messages=[{"role": "user", "content": text}])
    body: Any = caught.value.body
    assert (caught.value.status_code, body["error"]["code"]) == (status, code)


def test_a_stream_that_breaks_off_raises(sdk: Any) -> None:
    broken = [{"role": "user", "content": "[[fault:cut after=6]]"}]
    with (
        pytest.raises(anthropic.APIError),
        sdk.messages.stream(model="claude-haiku-5.5", max_tokens=500, messages=broken) as stream,
    ):
        stream.get_final_message()
