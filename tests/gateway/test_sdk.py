"""The real OpenAI SDK against the gateway."""

from typing import Any

import openai
import pytest

from keys.services import revoke_key
from keys.tests.factories import a_key
from tests.support.installation import Installation

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def client(running: Installation, key: str) -> Any:
    """Untyped: plain dictionaries are what people pass."""
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0)


def test_responses_streams_and_raw_responses(running: Installation) -> None:
    with client(running, a_key().plain) as sdk:
        response = sdk.chat.completions.create(model="cfx-code", messages=HELLO)
        assert "demo upstream" in response.choices[0].message.content
        assert response.usage.total_tokens > 0
        raw = sdk.chat.completions.with_raw_response.create(model="cfx-code", messages=HELLO)
        assert raw.headers["x-cfx-stage"] == "code"
        assert raw.parse().model == "deepseek-v4.1-flash"
        assert raw.request_id == raw.headers["x-cfx-request-id"]
        stream = sdk.chat.completions.create(
            model="cfx-code", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == response.choices[0].message.content
        assert chunks[-1].usage.total_tokens == response.usage.total_tokens
        assert "cfx-plan" in [model.id for model in sdk.models.list()]


def test_tool_calls_pass(running: Installation) -> None:
    with client(running, a_key().plain) as sdk:
        messages = [{"role": "user", "content": "call the tool get_weather"}]
        response = sdk.chat.completions.create(
            model="cfx-code", messages=messages, tools=[TOOL], tool_choice="required"
        )
        assert response.choices[0].finish_reason == "tool_calls"
        assert response.choices[0].message.tool_calls[0].function.name == "get_weather"


@pytest.fixture
def key(running: Installation) -> str:
    return a_key().plain


async def test_the_async_client_too(running: Installation, key: str) -> None:
    made: Any = openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0)
    async with made as sdk:
        stream = await sdk.chat.completions.create(model="cfx-review", messages=HELLO, stream=True)
        assert [chunk async for chunk in stream][-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("text", "model", "error", "status", "code"),
    [
        ("x", "gpt-99", openai.BadRequestError, 400, "model_not_allowed"),
        ("[[fault:429 retry_after=9]]", "gpt-6-luna", openai.RateLimitError, 429, "upstream_rate_limited"),
        ("[[fault:503]]", "gpt-6-luna", openai.InternalServerError, 503, "upstream_unavailable"),
    ],
)
def test_typed_errors(
    running: Installation, text: str, model: str, error: type[openai.APIStatusError], status: int, code: str
) -> None:
    with client(running, a_key().plain) as sdk, pytest.raises(error) as caught:
        sdk.chat.completions.create(model=model, messages=[{"role": "user", "content": text}])
    assert (caught.value.status_code, caught.value.code) == (status, code)
    if status == 429:
        assert caught.value.response.headers["retry-after"] == "9"


def test_typed_errors_of_keys_and_limits(running: Installation) -> None:
    revoked = a_key()
    revoke_key(revoked.row)
    with client(running, revoked.plain) as sdk, pytest.raises(openai.AuthenticationError):
        sdk.models.list()
    with client(running, a_key(allowed_stages=("plan",)).plain) as sdk, pytest.raises(openai.PermissionDeniedError):
        sdk.chat.completions.create(model="cfx-code", messages=HELLO)
    with client(running, a_key(daily_requests=0).plain) as sdk, pytest.raises(openai.RateLimitError) as caught:
        sdk.chat.completions.create(model="cfx-code", messages=HELLO)
    assert int(caught.value.response.headers["retry-after"]) > 0


def test_a_broken_stream_raises(running: Installation) -> None:
    messages = [{"role": "user", "content": "[[fault:cut after=3]]"}]
    with client(running, a_key().plain) as sdk, pytest.raises(openai.APIError):
        list(sdk.chat.completions.create(model="gpt-6-luna", messages=messages, stream=True))


def test_responses_stream_and_raise_when_they_break_off(running: Installation) -> None:
    with client(running, a_key().plain) as sdk:
        with sdk.responses.stream(model="cfx-code", input="Hello") as stream:
            text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
            assert stream.get_final_response().output_text == text
        broken = {"model": "gpt-6-luna", "input": "[[fault:cut after=6]]"}
        with pytest.raises(openai.APIError, match="broke off"):
            list(sdk.responses.create(**broken, stream=True))
        with pytest.raises(openai.APIError, match="broke off"), sdk.responses.stream(**broken) as stream:
            stream.until_done()
