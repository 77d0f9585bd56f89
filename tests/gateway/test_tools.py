"""Hosted tools over HTTP: what reaches the upstream, what is dropped, what is refused."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from keys.tests.factories import a_key
from tests.gateway.test_surfaces import STREAMING, SurfaceCase, error_of
from tests.support.installation import Gateway, Installation
from tests.support.loopback import LoopbackServer, QuietHandler

BY_PATH = [pytest.param(case, id=case.path) for case in STREAMING if "?" not in case.path]
OWN: dict[str, dict[str, Any]] = {
    "chat": {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},
    "completions": {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},
    "responses": {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False},
    "messages": {"name": "f", "input_schema": {"type": "object"}},
}
HOSTED: list[tuple[str, dict[str, Any]]] = [
    ("tools", {"type": "web_search"}),
    ("tools", {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}),
    ("tools", {"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "64g"}}),
    ("tools", {"type": "shell", "environment": {"type": "container_auto"}}),
    ("tools", {"type": "file_search", "vector_store_ids": ["vs_of_somebody"]}),
    ("tools", {"type": "a_tool_of_tomorrow"}),
    ("tools", {"googleSearch": {}}),
    ("web_search_options", {}),
    ("plugins", {"id": "web"}),
    ("mcp_servers", {"type": "url", "url": "https://mcp.example", "name": "x"}),
    ("modalities", {}),
]
# As Codex sends it, whatever its user asks for.
CODEX_HEADERS = {"User-Agent": "codex_cli_rs/0.169.0 (Linux 6.1; x86_64) xterm", "originator": "codex_cli_rs"}
CODEX_TOOLS: list[dict[str, Any]] = [
    OWN["responses"],
    {"type": "custom", "name": "apply_patch", "description": "d", "format": {"type": "grammar"}},
    {"type": "web_search", "external_web_access": False},
    {"type": "image_generation", "output_format": "png"},
    {"type": "namespace", "name": "mcp__x", "description": "d", "tools": [OWN["responses"]]},
]


@pytest.fixture
def key(running: Installation) -> str:
    return a_key().plain


def upstream_body_of(running: Installation, response: httpx.Response) -> dict[str, Any]:
    """Return the body that reached the upstream."""
    (entry,) = running.upstream.ledger(call_id=f"{response.headers['x-cfx-request-id']}.1", wait=1)
    body: dict[str, Any] = json.loads(entry["body"])
    return body


def fields_of(case: SurfaceCase, name: str, value: dict[str, Any]) -> dict[str, Any]:
    if name == "tools":
        return {"tools": [OWN[case.name], value]}
    if name == "modalities":
        return {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
    return {name: value if name == "web_search_options" else [value]}


@pytest.mark.cut(10)
@pytest.mark.parametrize("case", BY_PATH)
@pytest.mark.parametrize(("name", "value"), HOSTED, ids=[json.dumps(value) for _name, value in HOSTED])
def test_a_hosted_tool_without_a_price_line_never_reaches_the_upstream(
    running: Installation, key: str, case: SurfaceCase, name: str, value: dict[str, Any]
) -> None:
    response = running.ask(key, case.path, **case.body("hello", **fields_of(case, name, value)))
    assert response.status_code == 400, response.text
    error = error_of(case, response.json())
    assert error["code"] == "tool_not_sold"
    assert error["param"].startswith(("tools[1]", name, "audio"))
    assert running.upstream.ledger(call_id=f"{response.headers['x-cfx-request-id']}.1") == []


@pytest.mark.parametrize("case", BY_PATH)
@pytest.mark.parametrize("stream", [False, True])
def test_tools_of_the_callers_program_reach_the_upstream_as_they_are(
    running: Installation, key: str, case: SurfaceCase, *, stream: bool
) -> None:
    tools = [OWN[case.name]]
    response = running.ask(key, case.path, **case.body("hello", tools=tools, stream=stream))
    assert response.status_code == 200, response.text
    assert upstream_body_of(running, response)["tools"] == tools
    assert "x-cfx-dropped" not in response.headers


@pytest.mark.parametrize("stream", [False, True])
def test_codex_works_unchanged_and_is_told_what_it_does_not_get(
    running: Installation, key: str, *, stream: bool
) -> None:
    body: dict[str, Any] = {
        "model": "cfx-code", "instructions": "be brief", "tools": CODEX_TOOLS, "tool_choice": "auto",
        "parallel_tool_calls": True, "reasoning": {"effort": "high"}, "service_tier": "priority",
        "include": ["reasoning.encrypted_content"], "prompt_cache_key": "x", "store": False, "stream": stream,
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}],
    }  # fmt: skip
    response = running.ask(key, "/v1/responses", headers=CODEX_HEADERS, **body)
    assert response.status_code == 200, response.text
    assert set(response.headers["x-cfx-dropped"].split(", ")) == {"web_search", "image_generation", "service_tier"}
    sent = upstream_body_of(running, response)
    assert sent["tools"] == [CODEX_TOOLS[0], CODEX_TOOLS[1], CODEX_TOOLS[4]]
    assert sent["tool_choice"] == "auto"
    assert "service_tier" not in sent
    listed = [{"type": "additional_tools", "role": "developer", "tools": CODEX_TOOLS}, *body["input"]]
    lite = {name: value for name, value in body.items() if name != "tools"}
    response = running.ask(key, "/v1/responses", headers=CODEX_HEADERS, **{**lite, "input": listed})
    assert "web_search" in response.headers["x-cfx-dropped"]
    assert upstream_body_of(running, response)["input"][0]["tools"] == sent["tools"]
    chosen = {**body, "tools": [*CODEX_TOOLS, {"type": "mcp", "server_label": "x", "server_url": "https://x"}]}
    refused = running.ask(key, "/v1/responses", headers=CODEX_HEADERS, **chosen)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tools[5]")


@pytest.mark.parametrize("case", BY_PATH)
def test_dearer_service_is_dropped_and_named_also_in_errors(running: Installation, case: SurfaceCase) -> None:
    key = a_key(daily_requests=2).plain
    for text, status in (("hello", 200), ("[[fault:400 says=context]]", 400), ("hello", 429)):
        response = running.ask(key, case.path, **case.body(text, service_tier="priority", speed="fast"))
        assert response.status_code == status, response.text
        assert set(response.headers["x-cfx-dropped"].split(", ")) == {"service_tier", "speed"}
    assert "x-cfx-dropped" not in running.ask(key, case.path, **case.body("x", service_tier="auto")).headers


def test_tokens_of_a_hosted_tool_are_counted_for_free(running: Installation, key: str) -> None:
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    body: dict[str, Any] = {
        "model": "claude-haiku-5.5",
        "messages": [{"role": "user", "content": "hello"}],
        "tools": tools,
    }
    response = running.ask(key, "/v1/messages/count_tokens", **body)
    assert response.status_code == 200, response.text


def test_a_search_of_claude_code_is_refused_in_the_format_that_it_reads(running: Installation, key: str) -> None:
    """Its search sends a request of its own, which has the hosted tool only."""
    body: dict[str, Any] = {
        "model": "claude-haiku-5.5", "max_tokens": 500, "stream": True,
        "messages": [{"role": "user", "content": "Perform a web search for the query: rain"}],
        "tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 8}],
        "tool_choice": {"type": "tool", "name": "web_search"},
    }  # fmt: skip
    headers = {"User-Agent": "claude-cli/2.1.329 (external, cli)"}
    response = running.ask(key, "/v1/messages?beta=true", headers=headers, **body)
    error = response.json()["error"]
    assert (response.status_code, response.json()["type"]) == (400, "error")
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "tool_not_sold", "tools[0]")
    assert "web_search_20250305" in error["message"]


def test_a_history_with_hosted_calls_passes(running: Installation, key: str) -> None:
    """Conversations that were begun elsewhere go on."""
    call = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "rain"}}
    messages = [
        {"role": "user", "content": "Is it raining?"},
        {"role": "assistant", "content": [call, {"type": "text", "text": "Yes."}]},
        {"role": "user", "content": "And now?"},
    ]
    response = running.ask(key, "/v1/messages", model="claude-haiku-5.5", max_tokens=50, messages=messages)
    assert response.status_code == 200, response.text
    assert upstream_body_of(running, response)["messages"] == messages


# Price lines of the units in nanos, put into models.yaml for a test.
SEARCH_NANOS, PICTURE_NANOS = 10_000_000, 40_000_000
SOLD = {
    r"(claude-haiku-5.5:\n    price:\n)": r"\1      units: {web_search: 0.01}\n",
    r"(gpt-6-luna:\n    price:\n)": (
        r"\1      audio_output: 20\n      units: {web_search: 0.01, image_generation: 0.04}\n"
    ),
}
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
_MESSAGE_USAGE = {"input_tokens": 100, "output_tokens": 20, "server_tool_use": {"web_search_requests": 3}}
_OUTPUT = [
    {"type": "web_search_call", "id": "w1", "action": {"type": "search", "query": "rain"}},
    {"type": "web_search_call", "id": "w2", "action": {"type": "search", "query": "more rain"}},
    {"type": "image_generation_call", "id": "i", "result": "aGk="},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Rain again"}]},
]
_RESPONSE = {
    "id": "r", "object": "response", "model": "gpt-6-luna", "output": _OUTPUT,
    "usage": {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120},
}  # fmt: skip
_CHAT = {
    "id": "c", "object": "chat.completion", "model": "gpt-6-luna",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Rain again"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
}  # fmt: skip
WHOLE: dict[str, dict[str, Any]] = {
    "/v1/messages": {
        "id": "m", "type": "message", "role": "assistant", "model": "claude-haiku-5.5", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "Rain again"}], "usage": _MESSAGE_USAGE,
    },
    "/v1/responses": _RESPONSE,
    "/v1/chat/completions": _CHAT,
}  # fmt: skip
STREAMED: dict[str, list[dict[str, Any]]] = {
    "/v1/messages": [
        {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 100, "output_tokens": 1}}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Rain again"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": _MESSAGE_USAGE},
        {"type": "message_stop"},
    ],
    "/v1/responses": [
        {"type": "response.created", "response": {"id": "r"}},
        {"type": "response.output_text.delta", "delta": "Rain again"},
        {"type": "response.completed", "response": _RESPONSE},
    ],
    "/v1/chat/completions": [
        {"id": "c", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Rain again"}}]},
        {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"id": "c", "choices": [], "usage": _CHAT["usage"]},
    ],
}


class Provider:
    """An upstream that has carried out tools, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        provider = self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:  # noqa: N802 - http.server asks for this name
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                provider.asked.append(asked)
                is_stream = asked.get("stream", False)
                events = "".join(f"data: {json.dumps(each)}\n\n" for each in STREAMED[self.path])
                end = "data: [DONE]\n\n" if self.path.endswith("completions") else ""
                content = (events + end if is_stream else json.dumps(WHOLE[self.path])).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream" if is_stream else "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self._server = LoopbackServer(Handler)
        self.url = self._server.url

    def close(self) -> None:
        self._server.close()


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    found = Provider()
    yield found
    found.close()


@pytest.fixture(scope="module")
def searching(installation: Installation, provider: Provider) -> Iterator[Gateway]:
    """Return a gateway whose upstream is the provider."""
    gateway = installation.new_gateway(LITELLM_URL=provider.url)
    yield gateway
    gateway.stop()


@pytest.fixture
def selling(running: Installation, searching: Gateway) -> Iterator[Gateway]:
    with running.configured(**SOLD):
        yield searching


@pytest.mark.cut(6)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "counted", "least_held_nanos"),
    [
        ("/v1/messages", {"model": "claude-haiku-5.5", "max_tokens": 500, "tools": [SEARCH]},
         {"web_search": 3}, 5 * SEARCH_NANOS),
        ("/v1/responses", {"model": "gpt-6-luna", "input": "Is it raining?",
                           "tools": [{"type": "web_search"}, {"type": "image_generation"}]},
         {"web_search": 2, "image_generation": 1}, 10 * (SEARCH_NANOS + PICTURE_NANOS)),
        ("/v1/chat/completions", {"model": "gpt-6-luna", "web_search_options": {}},
         {"web_search": 1}, 10 * SEARCH_NANOS),
        ("/v1/chat/completions", {"model": "gpt-6-luna", "plugins": [{"id": "web"}]},
         {"web_search": 1}, 10 * SEARCH_NANOS),
    ],
)  # fmt: skip
def test_a_tool_with_a_price_line_passes_and_its_count_is_charged(
    running: Installation, selling: Gateway, provider: Provider, key: str, *, path: str, body: dict[str, Any],
    counted: dict[str, int], least_held_nanos: int, stream: bool,
) -> None:  # fmt: skip
    question = {} if "input" in body else {"messages": [{"role": "user", "content": "Is it raining?"}]}
    response = running.ask(key, path, url=selling.url, **{**question, **body, "stream": stream})
    assert response.status_code == 200, response.text
    for name in ("tools", "web_search_options", "plugins"):
        assert provider.asked[-1].get(name) == body.get(name)
    row = running.row_of(response)
    assert (row.prompt_tokens, row.completion_tokens, row.is_estimated) == (100, 20, False)
    assert row.usage_details == counted
    units_nanos = counted["web_search"] * SEARCH_NANOS + counted.get("image_generation", 0) * PICTURE_NANOS
    tokens_nanos = 100 * 100 + 20 * 500  # the price of both models
    assert row.cost_nanos == units_nanos + tokens_nanos
    assert row.held_nanos > least_held_nanos
    assert ("server_tool_use" in response.text) == (path == "/v1/messages")


def test_fallbacks_without_the_price_line_are_left_out(running: Installation, selling: Gateway, key: str) -> None:
    """The first model of `review` sells searches; its fallbacks do not, but for the last."""
    body: dict[str, Any] = {"model": "cfx-review", "input": "Is it raining?", "tools": [{"type": "web_search"}]}
    running.upstream.set_fault("500", model="gpt-6-luna")
    response = running.ask(key, "/v1/responses", **body)
    assert response.status_code == 200, response.text
    assert response.headers["x-cfx-model"] == "claude-haiku-5.5"


def test_the_error_says_what_is_sold(running: Installation, selling: Gateway, key: str) -> None:
    body: dict[str, Any] = {
        "model": "claude-haiku-5.5",
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 5,
    }
    response = running.ask(key, "/v1/messages", **body, tools=[{"type": "web_fetch_20250910", "name": "web_fetch"}])
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "tool_not_sold", "tools[0]")
    assert error["message"].endswith("Sold for this model: web_search.")
