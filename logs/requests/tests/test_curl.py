"""curl command that reproduces a request."""

import json
import shlex

import pytest

from logs.requests.curl import curl_of


@pytest.mark.parametrize(
    ("surface", "path", "field"),
    [
        ("chat", "/chat/completions", "messages"),
        ("completions", "/completions", "prompt"),
        ("responses", "/responses", "input"),
        ("messages", "/messages", "max_tokens"),
        ("embeddings", "/embeddings", "input"),
    ],
)
def test_a_shell_parses_the_command(surface: str, path: str, field: str) -> None:
    words = shlex.split(
        curl_of(api_url="http://127.0.0.1:8000/v1", surface=surface, model="it's", stage="plan", is_stream=True)
    )
    assert words[:3] == ["curl", "-N", f"http://127.0.0.1:8000/v1{path}"]
    assert "X-CFX-Stage: plan" in words
    body = json.loads(words[words.index("-d") + 1])
    assert (body["model"], body["stream"]) == ("it's", True)
    assert field in body


def test_the_requested_model_is_in_the_command() -> None:
    text = curl_of(api_url="https://x/v1", surface="chat", model="gpt-4o", stage="direct", is_stream=False)
    assert "X-CFX-Stage" not in text
    assert "stream" not in text
