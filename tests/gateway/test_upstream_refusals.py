"""Refusals of providers in every shape, over HTTP: what callers read, and which are not theirs."""

import json
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from codexflow.lib.clock import now_s
from keys.tests.factories import a_key
from tests.support.installation import Gateway, Installation
from tests.support.loopback import LoopbackServer, QuietHandler

Answer = tuple[int, dict[str, str], bytes]
JSON = {"Content-Type": "application/json"}
FINE = {
    "id": "chatcmpl-0",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Fine."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
}


class OddUpstream(LoopbackServer):
    """An upstream that gives each model the answer set for it; the others answer well."""

    def __init__(self) -> None:
        answers = self.answers = dict[str, Answer]()
        seen = self.seen = list[dict[str, Any]]()

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:  # noqa: N802 - http.server's name
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                seen.append(body)
                status, headers, content = answers.get(body["model"], (200, JSON, json.dumps(FINE).encode()))
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:  # noqa: N802 - http.server's name
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

        super().__init__(Handler)

    def refuse(
        self, content: Any, status: int = 400, *, models: tuple[str, ...] = (), headers: dict[str, str] | None = None
    ) -> None:
        """Refuse calls of these models, of all when none is named."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        fields = {**JSON, **(headers or {})}
        for model in models or ("deepseek-v4.1-flash", "gpt-6-luna", "gemini-3.5-flash-lite", "claude-haiku-5.5"):
            self.answers[model] = (status, fields, body)


@pytest.fixture(scope="module")
def odd_gateway(unbreakable: Gateway, installation: Installation) -> Iterator[tuple[OddUpstream, Gateway]]:
    upstream = OddUpstream()
    gateway = installation.new_gateway(LITELLM_URL=upstream.url)
    yield upstream, gateway
    gateway.stop()
    upstream.close()


@pytest.fixture
def odd(odd_gateway: tuple[OddUpstream, Gateway]) -> OddUpstream:
    odd_gateway[0].answers.clear()
    odd_gateway[0].seen.clear()
    return odd_gateway[0]


@pytest.fixture
def url(odd_gateway: tuple[OddUpstream, Gateway]) -> str:
    return odd_gateway[1].url


@pytest.fixture
def key(running: Installation) -> str:
    return a_key().plain


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    return error


@pytest.mark.cut(4)
@pytest.mark.parametrize(
    ("asked", "passed_on"),
    [("86400", "60"), ("30.5", "31"), ("9" * 5_000, "60"), ("99999999999999999999", "60"), ("soon", "1"), ("-3", "1")],
    ids=["a day", "fraction", "5000 digits", "huge", "no number", "negative"],
)
def test_a_providers_retry_after_is_bounded(
    running: Installation, odd: OddUpstream, url: str, key: str, asked: str, passed_on: str
) -> None:
    for name in ("Retry-After", "llm_provider-retry-after"):
        for status, code in ((429, "upstream_rate_limited"), (503, "upstream_unavailable")):
            odd.refuse({"error": {"message": "slow down"}}, status, headers={name: asked})
            response = running.post(key, url=url, model="cfx-code")
            assert (response.status_code, response.headers["retry-after"]) == (status, passed_on)
            assert error_of(response)["code"] == code


def test_a_providers_retry_after_may_be_a_date(running: Installation, odd: OddUpstream, url: str, key: str) -> None:
    odd.refuse({"error": {"message": "slow down"}}, 429, headers={"Retry-After": formatdate(now_s() + 40, usegmt=True)})
    response = running.post(key, url=url, model="gemini-3.5-flash-lite")
    assert 30 <= int(response.headers["retry-after"]) <= 41


TOO_LONG = "This model's maximum context length is 128000 tokens. However, your messages resulted in 999999 tokens."
SHAPES: dict[str, Any] = {
    "param object": {"error": {"message": TOO_LONG, "param": {"name": "messages"}, "code": None}},
    "code fraction": {"error": {"message": TOO_LONG, "code": 400.5}},
    "error text": {"error": TOO_LONG},
    "flat": {"message": TOO_LONG, "code": 400},
    "detail text": {"detail": TOO_LONG},
    "detail list": {"detail": [{"loc": ["body"], "msg": TOO_LONG}]},
    "list": [{"error": {"code": 400, "message": TOO_LONG, "status": "INVALID_ARGUMENT"}}],
    "errors": {"errors": [{"message": TOO_LONG}]},
    "json in the message": {"error": {"message": json.dumps({"error": {"message": TOO_LONG}})}},
    "more than 64 KB": {"error": {"message": TOO_LONG, "metadata": "x" * 300_000}},
    "plain text": TOO_LONG.encode(),
    "from litellm": {
        "error": {
            "message": f"litellm.ContextWindowExceededError: litellm.BadRequestError: OpenAIException - {TOO_LONG}"
            "\nmodel=gemini-3.5-flash-lite. context_window_fallbacks=None. fallbacks=None.\n\nSet "
            "'context_window_fallback' - https://docs.litellm.ai/docs/routing#fallbacks",
            "code": "400",
        }
    },
}


@pytest.mark.parametrize("body", SHAPES.values(), ids=SHAPES)
def test_words_and_code_of_a_refusal_are_kept_in_every_shape(
    running: Installation, odd: OddUpstream, url: str, key: str, body: Any
) -> None:
    odd.refuse(body)
    asked: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hello"}]},
        "/v1/responses": {"input": "Hello"},
    }
    for path, content in asked.items():
        response = running.ask(key, path, url=url, model="cfx-code", **content)
        error = error_of(response)
        assert (response.status_code, error["code"], error["message"]) == (400, "context_length_exceeded", TOO_LONG)


@pytest.mark.parametrize("body", SHAPES.values(), ids=SHAPES)
def test_on_messages_a_long_context_is_said_as_claude_code_expects(
    running: Installation, odd: OddUpstream, url: str, key: str, body: Any
) -> None:
    odd.refuse(body)
    asked: dict[str, Any] = {"model": "cfx-code", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
    response = running.ask(key, "/v1/messages", url=url, **asked)
    error = error_of(response)
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert error["message"] == "prompt is too long: 999999 tokens > 128000 maximum"
    assert error["code"] == "context_length_exceeded"


OPERATORS: dict[str, tuple[int, Any]] = {
    "no such model": (404, {"error": {"message": "The model `x` does not exist.", "code": "model_not_found"}}),
    "Anthropic has no such model": (
        404,
        {"type": "error", "error": {"type": "not_found_error", "message": "model: x"}},
    ),
    "no such endpoint": (404, {"detail": "Not Found"}),
    "no deployment": (
        400,
        {"error": {"message": "You passed in model=x. There are no healthy deployments for this model"}},
    ),
    "no model in LiteLLM": (
        400,
        {"error": {"message": "/chat/completions: Invalid model name passed in model=x. Call `/v1/models`"}},
    ),
    "project": (403, {"error": {"message": "Project does not have access to model x"}}),
    "key": (401, {"error": {"message": "Incorrect API key provided"}}),
    "payment": (402, {"error": {"message": "This request requires more credits"}}),
    "quota": (
        429,
        {"error": {"message": "You exceeded your current quota, please check your plan and billing details."}},
    ),
}


@pytest.mark.parametrize(("status", "body"), OPERATORS.values(), ids=OPERATORS)
def test_the_operators_failures_are_tried_at_the_next_model(
    running: Installation, odd: OddUpstream, url: str, key: str, status: int, body: Any
) -> None:
    odd.refuse(body, status, models=("deepseek-v4.1-flash",))
    response = running.post(key, url=url, model="cfx-code")
    assert (response.status_code, response.headers["x-cfx-model"]) == (200, "gpt-6-luna")
    odd.refuse(body, status)
    response = running.post(key, url=url, model="gemini-3.5-flash-lite")
    error = error_of(response)
    assert (response.status_code, error["code"]) == (503, "upstream_unavailable")
    assert "gemini-3.5-flash-lite is not available" in error["message"]
    assert "Nothing is wrong with the request" in error["message"]
    assert not {"quota", "credits", "Project", "API key"} & set(error["message"].split())


def test_the_operator_is_alarmed_once_a_minute(
    running: Installation, odd: OddUpstream, odd_gateway: tuple[OddUpstream, Gateway], key: str
) -> None:
    odd.refuse({"error": {"message": "The model `x` does not exist."}}, 404, models=("claude-haiku-5.5",))
    for _ in range(3):
        running.post(key, url=odd_gateway[1].url, model="claude-haiku-5.5")
    log = odd_gateway[1].log.read_text()
    alarms = [line for line in log.splitlines() if "upstream.model_missing" in line and "claude-haiku-5.5" in line]
    assert len(alarms) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, {"error": {"message": "Your input was flagged by moderation: violence.", "code": 403}}),
        (400, {"error": {"message": "Your request was rejected as a result of our safety system."}}),
        (404, {"error": {"message": "No file with id file-17.", "param": "file_id"}}),
        (422, {"error": {"message": "Too hot."}}),
    ],
    ids=["moderation", "safety", "file", "422"],
)
def test_the_callers_own_mistakes_are_not_tried_elsewhere(
    running: Installation, odd: OddUpstream, url: str, key: str, status: int, body: Any
) -> None:
    odd.refuse(body, status, models=("deepseek-v4.1-flash",))
    response = running.post(key, url=url, model="cfx-code")
    assert (response.status_code, error_of(response)["message"]) == (status, body["error"]["message"])
    assert [each["model"] for each in odd.seen] == ["deepseek-v4.1-flash"]


@pytest.mark.parametrize(
    ("headers", "drops"),
    [
        ({"User-Agent": "claude-cli/2.1.332 (external, sdk-cli)"}, True),
        ({"User-Agent": "codex_cli_rs/0.171.0 (Debian 12; x86_64)"}, True),
        ({"User-Agent": "my-program/1.0", "originator": "codex_vscode"}, True),
        ({"User-Agent": "OpenAI/Python 3.57.0"}, False),
        ({"User-Agent": "not-claude-cli/1"}, False),
    ],
)
def test_litellm_is_asked_to_drop_what_an_agent_adds(
    running: Installation, odd: OddUpstream, url: str, key: str, headers: dict[str, str], drops: bool
) -> None:
    """It does so by itself for an agent's user agent, which it does not see behind the gateway."""
    said = {"messages": [{"role": "user", "content": "Hello"}], "drop_params": False, "reasoning_effort": "high"}
    running.ask(key, "/v1/chat/completions", url=url, headers=headers, model="gpt-6-luna", **said)
    assert odd.seen[-1].get("drop_params") == (True if drops else None)
    assert odd.seen[-1]["reasoning_effort"] == "high"
