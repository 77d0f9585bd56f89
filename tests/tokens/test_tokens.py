"""Real vocabularies against the bounds: no text has more tokens than are held for it."""

import json
from typing import Any

import pytest

from billing.limiter.holds import CallSize
from routing.surfaces.body import parse
from routing.surfaces.bounds import bounded, reserved_tokens
from routing.surfaces.requests import Chat
from tests.tokens import refusals
from tests.tokens.measure import measured
from tests.tokens.texts import texts

pytestmark = [pytest.mark.litellm, pytest.mark.xdist_group("litellm")]
SEED, CHARACTERS = 7, 2_000
# Kinds that a vocabulary writes out before it counts them: more than a token a byte.
GROWING = ("one ligature again and again", "one note again and again", "musical symbols")


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return measured(seed=SEED, characters=CHARACTERS, rounds=500)


def sized(text: str, *, is_escaped: bool) -> tuple[bytes, CallSize]:
    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}, ensure_ascii=is_escaped).encode()
    request = parse(raw, Chat)
    return raw, bounded(raw, request, request.size(1), {"m": 10**9})


@pytest.mark.parametrize("is_escaped", [False, True])
def test_no_text_has_more_tokens_than_are_held(report: dict[str, Any], is_escaped: bool) -> None:
    assert {"cl100k_base", "o200k_base", "claude-2"} <= report.keys()
    for vocabulary, each in report.items():
        counts = [(text, each["counts"][kind]) for kind, text in texts(SEED, CHARACTERS).items()]
        for text, tokens in [*counts, (each["found"], each["found_tokens"])]:
            bound = sized(text, is_escaped=is_escaped)[1].bound
            assert bound is not None
            assert tokens <= bound.text_tokens, (vocabulary, text[:50])


def test_a_token_a_byte_is_exceeded_by_what_is_normalized_and_by_nothing_else(report: dict[str, Any]) -> None:
    for each in report.values():
        for kind, text in texts(SEED, CHARACTERS).items():
            assert kind in GROWING or each["counts"][kind] <= 1.02 * len(text.encode()), kind
    assert report["claude-2"]["counts"][GROWING[0]] > 4 * len(texts(SEED, CHARACTERS)[GROWING[0]].encode())


def test_closer_counts_of_a_minutes_tokens_are_no_less_than_the_tokens(report: dict[str, Any]) -> None:
    for kind, text in texts(SEED, CHARACTERS).items():
        raw, size = sized(text, is_escaped=False)
        reserved = reserved_tokens(raw, size, 1)
        for each in report.values():
            assert kind in GROWING or each["counts"][kind] <= 1.05 * reserved, kind


def test_no_call_is_refused_for_its_bytes_once_it_is_counted() -> None:
    """Texts of 60 to 300 KB at a credit of half a dollar: docs/limits.md has the figures of a larger sample."""
    for vocabulary, found in refusals.measured(seed=SEED, calls=10, from_bytes=60_000, to_bytes=300_000).items():
        assert found.calls == 30, vocabulary
        assert found.by_bytes > 0, vocabulary
        assert found.by_count == 0, vocabulary
