"""Stored requests as the playground sends them again."""

import json
from typing import Any

import pytest

from logs.content.replay import replay_of
from logs.content.tests.test_conversation import SURFACES


def turns_of(messages: list[dict[str, Any]], response: str = "", **body: Any) -> tuple[tuple[str, str], ...]:
    found = replay_of(json.dumps({"messages": messages, **body}), response)
    assert found is not None
    return found.turns


def test_neighbours_of_one_role_are_one_turn() -> None:
    said: list[dict[str, Any]] = [
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "One"},
        {"role": "user", "content": [{"type": "text", "text": "Two"}, {"type": "text", "text": "Three"}]},
        {"role": "assistant", "content": "Four", "tool_calls": [{"id": "c", "function": {"name": "ls"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "a"},
        {"role": "assistant", "content": "Five"},
        {"role": "user", "content": "Six"},
    ]
    assert turns_of(said) == (("user", "One\n\nTwo\n\nThree"), ("assistant", "Four\n\nFive"), ("user", "Six"))
    error = json.dumps({"error": {"message": "too long"}})
    assert turns_of(said[1:2], error) == (("user", "One"),)


@pytest.mark.parametrize("surface", [name for name in ("chat", "messages", "responses") if name in SURFACES])
def test_what_is_no_text_is_left_out_and_said(surface: str) -> None:
    request, response, _ = SURFACES[surface]
    found = replay_of(json.dumps(request), response if isinstance(response, str) else json.dumps(response))
    assert found is not None
    assert not found.is_whole
    assert found.turns[0][0] == "user"


@pytest.mark.parametrize(
    ("body", "temperature", "max_tokens"),
    [
        ({}, None, None),
        ({"temperature": 0, "max_tokens": 5}, 0.0, 5),
        ({"temperature": 0.7, "max_completion_tokens": 6}, 0.7, 6),
        ({"temperature": "warm", "max_output_tokens": 7}, None, 7),
        ({"temperature": True, "max_tokens": -1}, None, None),
        ({"max_tokens": "many"}, None, None),
    ],
)
def test_parameters_are_read_from_any_surface(
    body: dict[str, Any], temperature: float | None, max_tokens: int | None
) -> None:
    found = replay_of(json.dumps({"input": "Hello", **body}), "")
    assert found is not None
    assert (found.temperature, found.max_tokens, found.is_whole) == (temperature, max_tokens, True)


@pytest.mark.parametrize("request_text", ["", "[]", "{}", '{"messages": [', '{"messages": [{"role": "tool"}]}'])
def test_without_a_conversation_there_is_nothing_to_send(request_text: str) -> None:
    assert replay_of(request_text, "") is None
