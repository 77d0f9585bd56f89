"""An upstream's words, made fit for a caller."""

import pytest

from routing.upstream import scrub


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (
            "litellm.BadRequestError: OpenAIException - maximum context length is 8192. Received Model Group=gpt-4o\nx",
            "maximum context length is 8192",
        ),
        ("litellm.AuthenticationError: key sk-abcdefghijkl is wrong", "key [redacted] is wrong"),
        ("cannot reach http://10.0.0.7:4000/v1", "cannot reach [upstream]"),
        ("Your request was rejected.", "Your request was rejected."),
    ],
)
def test_names_keys_and_hosts_of_the_upstream_are_taken_out(raw: str, clean: str) -> None:
    assert scrub(raw) == clean
