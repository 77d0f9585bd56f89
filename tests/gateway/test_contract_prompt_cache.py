"""The provider's prompt cache works through the gateway: equal calls are equal upstream, and reads cost less."""

import json
from typing import Any

import httpx
import msgspec
import pytest

from billing.pricing import cost_nanos
from keys.tests.factories import a_key
from logs.pipeline.rows import rates_of, usage_of
from tests.support.installation import Installation

MARK = {"type": "ephemeral"}
LONG = "A rule of this project that every call repeats. " * 120
TOOL = {"type": "object", "properties": {"q": {"type": "string", "description": LONG}}}
CLAUDE, OPENAI = "claude-haiku-5.5", "gpt-6-luna"
# Spacing, escapes and numbers that decoding and encoding would change.
_SPACED = '{"zeta": 1.50, "alpha" :[1,  2], "text":"\\u00fc \\/ ü"}'


def _written(*fields: str) -> bytes:
    return ("{" + ", ".join(fields) + "}").encode()


def _field(name: str, value: Any) -> str:
    return f'"{name}" : {json.dumps(value)}'


def _marked(text: str, kind: str = "text") -> dict[str, Any]:
    return {"type": kind, "text": text, "cache_control": MARK}


MESSAGES = _written(
    _field("max_tokens", 64),
    _field("tools", [{"name": "look_up", "input_schema": TOOL, "cache_control": MARK}]),
    f'"unknown_field": {_SPACED}',
    _field("system", [{"type": "text", "text": "You are terse."}, _marked(LONG)]),
    _field("metadata", {"user_id": "user_1"}),
    _field("messages", [{"role": "user", "content": [_marked("Hello"), {"type": "text", "text": "again"}]}]),
)
CHAT = _written(
    _field("messages", [
        {"role": "system", "content": [_marked(LONG)]},
        {"role": "user", "content": [_marked("Hello")], "name": "ada"},
    ]),
    _field("user", "user-1"),
    f'"unknown_field": {_SPACED}',
    _field("tools", [{"type": "function", "function": {"name": "f", "parameters": TOOL}, "cache_control": MARK}]),
    _field("prompt_cache_key", "key-1"),
)  # fmt: skip
RESPONSES = _written(
    _field("instructions", LONG),
    _field("input", [
        {"type": "message", "role": "user", "content": [_marked(LONG, "input_text")]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
    ]),
    _field("prompt_cache_key", "key-1"),
    f'"unknown_field": {_SPACED}',
    _field("prompt_cache_retention", "24h"),
)  # fmt: skip
CASES = {
    "messages-marked": ("/v1/messages", CLAUDE, MESSAGES),
    "chat-marked": ("/v1/chat/completions", CLAUDE, CHAT),
    "chat-automatic": ("/v1/chat/completions", OPENAI, CHAT),
    "responses-marked": ("/v1/responses", CLAUDE, RESPONSES),
    "responses-automatic": ("/v1/responses", OPENAI, RESPONSES),
}
# All other fields pass as the caller's bytes.
REWRITTEN = ("model", "max_tokens", "metadata")


@pytest.fixture
def key(running: Installation) -> str:
    return a_key().plain


def called(running: Installation, key: str, path: str, model: str, body: bytes, **more: Any) -> httpx.Response:
    fields = "".join(f", {_field(name, value)}" for name, value in more.items())
    sent = b'{"model": "%b"%b, %b' % (model.encode(), fields.encode(), body[1:])
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    response = httpx.post(running.url + path, content=sent, headers=headers, timeout=30)
    assert response.status_code == 200, response.text
    return response


def received(running: Installation, response: httpx.Response, n: int = 1) -> dict[str, Any]:
    (entry,) = running.upstream.ledger(call_id=f"{response.headers['x-cfx-request-id']}.{n}", wait=1)
    return entry


def unlike(case: bytes, name: str) -> bytes:
    """Return the body with a text of its own at its beginning, so that no other test has filled the cache."""
    return case.replace(b"A rule of this project", f"A rule of {name}".encode())


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", CASES)
def test_the_second_and_third_of_equal_calls_read_the_cache(
    running: Installation, key: str, case: str, is_stream: bool
) -> None:
    path, model, body = CASES[case]
    body = unlike(body, f"{case} {is_stream}")
    more: dict[str, Any] = {"stream": True} if is_stream else {}
    if is_stream and "chat" in path:
        more["stream_options"] = {"include_usage": True}
    responses = [called(running, key, path, model, body, **more) for _ in range(3)]
    entries = [received(running, response) for response in responses]
    rows = [running.row_of(response) for response in responses]

    # What reaches the provider: the same bytes, and no header that varies but for the call's id.
    assert len({entry["body"] for entry in entries}) == 1
    assert len({tuple(entry["header_names"]) for entry in entries}) == 1
    own = [
        {name: value for name, value in each["litellm_headers"].items() if "call-id" not in name} for each in entries
    ]
    assert own[0] == own[1] == own[2]
    for name, raw in msgspec.json.decode(body, type=dict[str, msgspec.Raw]).items():
        if name not in REWRITTEN:
            assert f"{json.dumps(name)}:{bytes(raw).decode()}" in entries[0]["body"], name

    # What it costs.
    assert rows[0].cached_tokens == 0
    assert rows[1].cached_tokens == rows[2].cached_tokens >= 1024
    if model == CLAUDE:
        assert rows[0].cache_write_tokens == rows[1].cached_tokens
        assert not rows[1].cache_write_tokens
    for row in rows:
        assert row.model == model
        assert row.usage_rank == 40
        assert row.cost_nanos == cost_nanos(usage_of(row), rates_of(row)) > 0
    assert rows[0].prompt_tokens == rows[1].prompt_tokens
    assert rows[1].cost_nanos == rows[2].cost_nanos < rows[0].cost_nanos


def test_the_caller_sees_the_reads_where_his_client_looks(running: Installation, key: str) -> None:
    for case, (path, model, body) in CASES.items():
        own = unlike(body, f"seen {case}")
        usages = [called(running, key, path, model, own).json()["usage"] for _ in range(2)]
        if path == "/v1/messages":
            assert usages[0]["cache_creation_input_tokens"] == usages[1]["cache_read_input_tokens"] >= 1024
        else:
            details = "input_tokens_details" if "responses" in path else "prompt_tokens_details"
            assert (usages[0][details]["cached_tokens"], usages[1][details]["cached_tokens"] >= 1024) == (0, True)


def test_a_stage_keeps_its_calls_equal_too(running: Installation, key: str) -> None:
    """A stage adds its temperature and its output limit: the same ones every time."""
    body = unlike(CHAT, "a stage")
    responses = [called(running, key, "/v1/chat/completions", "cfx-review", body) for _ in range(2)]
    first, second = (received(running, response)["body"] for response in responses)
    assert first == second
    assert running.row_of(responses[1]).cached_tokens >= 1024


def test_another_models_answer_says_that_nothing_was_read(running: Installation, key: str) -> None:
    body = unlike(CHAT, "a fallback")
    for _ in range(2):
        called(running, key, "/v1/chat/completions", "cfx-review", body)
    running.upstream.set_fault("503", model=OPENAI)
    response = called(running, key, "/v1/chat/completions", "cfx-review", body)
    row = running.row_of(response)
    other = response.headers["x-cfx-model"]
    assert other != OPENAI
    assert (row.model, response.json()["model"], row.cached_tokens) == (other, other, 0)


def test_marks_of_one_key_are_of_no_use_for_another_text(running: Installation, key: str) -> None:
    """The demo upstream compares beginnings, as providers do: a changed rule is read anew."""
    called(running, key, "/v1/messages", CLAUDE, unlike(MESSAGES, "one"))
    response = called(running, key, "/v1/messages", CLAUDE, unlike(MESSAGES, "two"))
    assert running.row_of(response).cached_tokens == 0
