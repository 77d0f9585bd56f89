"""Another model in a response."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.surfaces.served import is_same_model, known_name, other_model_in


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ("gpt-6-luna", "gpt-6-luna"),
        ("gpt-6-luna", "openai/gpt-6-luna"),
        ("gpt-6-luna", "gpt-6-luna-20261001"),
        ("gpt-6-luna", "gpt-6-luna-2026"),
        ("claude-sonnet-5.5", "claude-sonnet-5-5"),
        ("claude-sonnet-5.5", "anthropic/claude-5.5-sonnet-20260929"),
        ("claude-sonnet-5.5", "claude-sonnet-5-5@20260929"),
        ("gemini-3.8-flash", "models/gemini-3.8-flash-latest"),
        ("deepseek-v4.1-flash", "DeepSeek-V4.1-Flash"),
        ("omni-moderation-latest", "omni-moderation-2024-09-26"),
        ("gpt-6-luna", "gpt-6-luna-2026-10-01"),
    ],
)
def test_the_same_model_under_another_name_is_no_other_one(asked: str, named: str) -> None:
    assert is_same_model(named, asked)
    assert other_model_in(b'{"id":"x","model": "%b","choices":[]}' % named.encode(), asked) is None


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ("gemini-2.5-pro", "gemini-3.8-flash"),
        ("gpt-6", "gpt-6-luna"),
        ("claude-sonnet-5.5", "claude-sonnet-5"),
        ("gpt-6-luna", "gpt-6.1-luna"),
        ("claude-haiku-5.5", "claude-sonnet-5.5"),
    ],
)
def test_another_model_is_found(asked: str, named: str) -> None:
    stream = b'data: {"id":"x","object":"chat.completion.chunk","model":"%b","choices":[]}\n\n' % named.encode()
    assert other_model_in(stream, asked) == named


@given(text=st.text())
def test_what_a_model_writes_names_no_model(text: str) -> None:
    content = msgspec.json.encode({"id": "x", "choices": [{"message": {"content": f'"model": "other" {text}'}}]})
    assert other_model_in(content, "gpt-6-luna") is None


@given(metadata=st.dictionaries(st.text(), st.text()))
def test_metadata_names_no_model(metadata: dict[str, str]) -> None:
    """LiteLLM writes it back in front of the model's name on responses: the caller would choose the price."""
    response = msgspec.json.encode({"id": "r", "metadata": {**metadata, "model": "other"}, "model": "gpt-6-luna"})
    assert other_model_in(b'data: {"type":"response.created","response":%b}' % response, "gpt-6-luna") is None


def test_a_model_behind_metadata_is_found() -> None:
    response = b'{"id":"r","metadata":{"model":"gpt-6-luna","it\\"s":"} \\\\"},"model":"gpt-6"}'
    assert other_model_in(response, "gpt-6-luna") == "gpt-6"


@given(response=st.binary())
def test_any_bytes_are_read(response: bytes) -> None:
    other_model_in(response, "x")


def test_a_model_of_the_catalogue_is_known_below_its_provider() -> None:
    assert known_name("google/gemini-3.8-flash", {"gemini-3.8-flash"}) == "gemini-3.8-flash"
    assert known_name("gemini-9", {"gemini-3.8-flash"}) is None
