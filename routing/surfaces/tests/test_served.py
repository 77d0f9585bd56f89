"""Another model in a response."""

import pytest

from routing.surfaces.served import is_same_model, known_name, other_model


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
    assert other_model(named, asked) is None


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
    assert other_model(named, asked) == named


@pytest.mark.parametrize("named", ["", "x" * 201])
def test_no_name_and_one_too_long_are_no_other_model(named: str) -> None:
    assert other_model(named, "gpt-6-luna") is None


def test_a_model_of_the_catalogue_is_known_below_its_provider() -> None:
    assert known_name("google/gemini-3.8-flash", {"gemini-3.8-flash"}) == "gemini-3.8-flash"
    assert known_name("gemini-9", {"gemini-3.8-flash"}) is None
