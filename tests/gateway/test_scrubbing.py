"""Scrubbing: keys, prompts and the upstream's details are removed, OpenAI's error codes are kept."""

from typing import Any

import httpx
import pytest

from keys.tests.factories import a_key
from tests.gateway.test_surfaces import SURFACE_CASES, SurfaceCase, error_of
from tests.support.installation import Gateway, Installation

BY_PATH = [
    pytest.param(case, id=case.path)
    for case in SURFACE_CASES
    if "?" not in case.path and case.path != "/chat/completions"
]
# As in codexflow/dev/demo_upstream/errors.py -> the caller's error code.
CODES = {
    "context": "context_length_exceeded",
    "too_long": "context_length_exceeded",
    "policy": "content_policy_violation",
    "filter": "content_filter",
    "echo": "upstream_refused",
}
ABOUT_US = ("key", "credit", "model")
# Headers that responses may have, whatever the upstream sends.
OURS = {
    "cache-control", "connection", "content-length", "content-type", "date", "request-id", "retry-after",
    "transfer-encoding", "www-authenticate", "x-accel-buffering", "x-request-id", "x-should-retry",
}  # fmt: skip
# Headers that the upstream may see.
PASSED = {
    "host", "authorization", "content-type", "content-length", "accept-encoding", "user-agent",
    "x-litellm-num-retries", "x-litellm-call-id",
}  # fmt: skip


@pytest.fixture
def key(running: Installation) -> str:
    return a_key().plain


def ask(gateway: Gateway, key: str, case: SurfaceCase, text: str, **more: Any) -> httpx.Response:
    url, body = gateway.url + case.path, case.body(text, **more)
    return httpx.post(url, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=30)


@pytest.mark.parametrize("case", BY_PATH)
def test_openais_error_codes_are_recovered_on_every_surface(
    running: Installation, unbreakable: Gateway, key: str, case: SurfaceCase
) -> None:
    for says, code in CODES.items():
        for stream in (False, True) if case.streams else (False,):
            response = ask(unbreakable, key, case, f"[[fault:400 says={says}]] hello", stream=stream)
            error = error_of(case, response.json())
            assert (response.status_code, error["code"]) == (400, code)
            assert error["type"] == "invalid_request_error"
            assert "litellm" not in response.text.lower()


@pytest.mark.parametrize("case", BY_PATH)
def test_errors_of_our_own_account_never_look_like_the_callers(
    running: Installation, unbreakable: Gateway, key: str, case: SurfaceCase
) -> None:
    for fault in ("401", "402", *(f"{status} says={says}" for says in ABOUT_US for status in (400, 403))):
        response = ask(unbreakable, key, case, f"[[fault:{fault}]]")
        assert (response.status_code, error_of(case, response.json())["code"]) == (503, "upstream_unavailable"), fault
        assert "key" not in response.text
        assert "credit" not in response.text


def test_a_message_about_keys_opens_no_circuit(running: Installation, key: str) -> None:
    """The message of a 400 may quote the caller, so it must not open the circuit for all."""
    for _ in range(8):
        response = running.say(key, "incorrect api key [[fault:400 says=echo]]", model="gpt-6-luna")
        assert response.status_code == 503
    assert running.post(key, model="gpt-6-luna").status_code == 200


def test_a_timeout_inside_of_the_upstream_is_a_timeout(running: Installation, key: str) -> None:
    running.upstream.set_fault("408", model="deepseek-v4.1-flash")
    assert running.post(key, model="cfx-code").headers["x-cfx-model"] == "gpt-6-luna"
    running.upstream.set_fault("408", model="gpt-6-luna")
    response = running.post(key, model="gpt-6-luna")
    assert (response.status_code, response.json()["error"]["code"]) == (504, "upstream_timeout")


@pytest.mark.parametrize("case", BY_PATH)
def test_keys_hosts_and_wrappings_are_removed_from_messages(
    running: Installation, unbreakable: Gateway, key: str, case: SurfaceCase
) -> None:
    text = ask(unbreakable, key, case, "[[fault:400 says=secrets]]").text
    assert "value not supported" in text
    for secret in ("sk-", "demo-provider", "10.1.2.3", "litellm", "LiteLLM", "OpenAIException", "BadRequestError"):
        assert secret not in text, secret


@pytest.mark.parametrize("case", BY_PATH)
def test_only_listed_headers_pass_in_either_direction(
    running: Installation, unbreakable: Gateway, key: str, case: SurfaceCase
) -> None:
    hostile = {
        "Connection": "keep-alive, X-Api-Key, X-Secret",
        "X-Secret": "s",
        "Cookie": "session=1",
        "Proxy-Authorization": "Basic eA==",
        "X-Forwarded-For": "10.0.0.1",
        "X-LiteLLM-Tags": "a",
        "x-litellm-api-base": "http://elsewhere",
        "OpenAI-Organization": "org",
        "TE": "trailers",
        "X-Api-Key": "cfx_other",
        "Accept-Encoding": "gzip, br",
    }
    for words in ("hello", "[[fault:400 says=context]]", "[[fault:503]]", "[[fault:gzip_bomb bytes=1000]]"):
        for stream in (False, True) if case.streams else (False,):
            response = httpx.post(
                unbreakable.url + case.path,
                json=case.body(words, stream=stream),
                headers={**hostile, "Authorization": f"Bearer {key}"},
                timeout=30,
            )
            names = set(response.headers)
            foreign = {n for n in names - OURS if not n.startswith(("x-cfx-", "x-ratelimit-"))}
            assert not foreign, (words, stream, foreign)
            assert not [value for value in response.headers.values() if "litellm" in value.lower()]
            request_id = response.headers["x-cfx-request-id"]
            seen = running.upstream.ledger(call_id=f"{request_id}.1", wait=1)
            assert seen, (words, stream, response.status_code, response.text[:300])
            for entry in seen:
                assert set(entry["header_names"]) <= PASSED, entry["header_names"]
                assert entry["litellm_headers"]["x-litellm-num-retries"] == "0"
