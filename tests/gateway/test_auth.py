"""Authentication and permissions of keys."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.tests.factories import a_user
from billing.tests.factories import an_organization
from codexflow.lib.clock import now
from keys import invalidation
from keys.services import revoke_key
from keys.tests.factories import a_key, with_another_secret
from routing.surfaces.table import COUNT_TOKENS, SURFACES
from tests.support.examples import examples
from tests.support.installation import Installation
from tests.support.waiting import until

REFUSAL = {"type": "invalid_request_error", "param": None, "code": "invalid_api_key"}


# Headers that differ with every response.
CHANGING = {"date", "request-id", "x-request-id", "x-cfx-request-id"}


def is_refused(response: httpx.Response) -> bool:
    return (
        response.status_code == 401
        and response.json()["error"].items() >= REFUSAL.items()
        and response.json()["error"]["message"].startswith("Invalid API key")
        and response.headers["www-authenticate"] == "Bearer"
        and len(response.headers["x-cfx-request-id"]) == 36
    )


def call(running: Installation, headers: dict[str, str]) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    return httpx.post(f"{running.url}/v1/chat/completions", json=body, headers=headers, timeout=30)


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    presented=st.one_of(st.none(), st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=80))
)
def test_only_a_key_that_was_issued_is_valid(running: Installation, presented: str | None) -> None:
    """Anything else presented gets the same 401."""
    assert is_refused(call(running, {} if presented is None else {"Authorization": f"Bearer {presented}"}))


def test_an_issued_key_is_valid_in_both_headers(running: Installation) -> None:
    key = a_key().plain
    assert call(running, {"Authorization": f"Bearer {key}"}).status_code == 200
    assert call(running, {"x-api-key": key}).status_code == 200


def test_every_invalid_key_gets_the_same_response(running: Installation) -> None:
    """A wrong secret of a key that works cannot be told from one of a revoked key, or of none."""
    good, revoked, unknown = a_key(), a_key(), a_key()
    revoke_key(revoked.row)
    expired = a_key(expires_at=now() - timedelta(seconds=1))
    over = [with_another_secret(each.plain) for each in (revoked, expired)]
    elsewhere = a_key(allowed_networks=("10.0.0.0/8",))
    unknown.row.delete()
    invalidation.invalidate_key(unknown.row.public_id)
    mistyped = good.plain[:-1] + ("A" if good.plain[-1] != "A" else "B")
    guessed = with_another_secret(good.plain)
    presented = (guessed, mistyped, *over, elsewhere.plain, unknown.plain)
    with httpx.Client(base_url=running.url) as client:
        for surface in (*SURFACES, COUNT_TOKENS):
            responses = [client.post(surface.path, json={}, headers={"x-api-key": key}) for key in presented]
            (status,) = {response.status_code for response in responses}
            (body,) = {response.content for response in responses}
            (headers,) = {tuple((k, v) for k, v in r.headers.items() if k not in CHANGING) for r in responses}
            assert (status, b"Invalid API key" in body, dict(headers)["www-authenticate"]) == (401, True, "Bearer")


@pytest.mark.parametrize(("code", "ended"), [("api_key_revoked", "revoked"), ("api_key_expired", "expired")])
def test_who_has_the_whole_secret_of_a_key_that_is_over_is_told_why(
    running: Installation, code: str, ended: str
) -> None:
    key = a_key(expires_at=now() - timedelta(seconds=1) if ended == "expired" else None)
    if ended == "revoked":
        revoke_key(key.row)
    bearer = {"Authorization": f"Bearer {key.plain}"}
    for method, path in (("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/api/v1/keys")):
        response = httpx.request(method, f"{running.url}{path}", headers=bearer)
        error = response.json()["error"]
        assert (response.status_code, error["code"], ended in error["message"]) == (401, code, True), path
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("presented", "words"),
    [
        ("sk-proj-0123456789abcdefghij", "keys begin with `cfx_`"),
        ("nonsense", "keys begin with `cfx_`"),
        ("cfx_AbCdEfGh…wxyz", "shortened"),
        ("cfx_AbCdEfGh...wxyz", "shortened"),
        ("cfx_AbCdEfGh_***", "shortened"),
        ("cfx_…", "shortened"),
        ("cfx_AbCdEfGh_", "incomplete"),
        ("cfx_AbCdEfGh_0123456789", "incomplete"),
        (f"cfx_AbCdEfGh_{'0' * 37}", "incomplete"),
        (f"cfx_AbCdEfGh_{'0' * 38}", None),
        ("cfx_nonsense", None),
    ],
)
def test_what_cannot_be_a_key_is_told_why(running: Installation, presented: str, words: str | None) -> None:
    for name, value in (("Authorization", f"Bearer {presented}"), ("x-api-key", presented)):
        response = httpx.get(f"{running.url}/v1/models", headers={name.encode(): value.encode()})
        assert is_refused(response)
        message = response.json()["error"]["message"]
        assert words in message if words else message == "Invalid API key"
        assert presented not in message


def test_a_refusal_names_what_the_key_may_use(running: Installation) -> None:
    key = a_key(allowed_models=("gemini-3.8-flash",)).plain
    may_use = "This key may use: gemini-3.8-flash, gemini-2.5-pro."  # the second is replaced by the first
    unknown = running.post(key, model="gpt-nope")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (400, "model_not_allowed")
    assert unknown.json()["error"]["message"] == f"The model 'gpt-nope' is not allowed. {may_use}"
    other = running.post(key, model="claude-3-5-haiku-latest")
    assert (other.status_code, other.json()["error"]["code"]) == (403, "model_not_allowed_for_key")
    named = "'claude-3-5-haiku-latest' (claude-haiku-5.5)"
    assert other.json()["error"]["message"] == f"This key may not use the model {named}. {may_use}"
    key = a_key(allowed_stages=("review", "plan")).plain
    refused = running.post(key, headers={"X-CFX-Stage": "code"})
    assert refused.json()["error"]["message"].endswith("'code'. This key may use the stages: plan, review.")
    unknown = running.post(key, headers={"X-CFX-Stage": "coding"})
    assert unknown.json()["error"]["message"] == "There is no stage 'coding'. This key may use: plan, review."
    key = a_key(allowed_surfaces=("messages",)).plain
    assert running.post(key).json()["error"]["message"].endswith("'chat'. This key may use the endpoints: messages.")


def test_a_revoked_key_is_refused_at_once(running: Installation) -> None:
    key = a_key()
    assert running.post(key.plain).status_code == 200
    revoke_key(key.row)
    until(lambda: running.post(key.plain).status_code == 401, what="refusal")


def test_a_suspended_account_gets_its_own_error(running: Installation) -> None:
    organization = an_organization(owner=a_user())
    key = a_key(organization)
    organization.is_active = False
    organization.save()
    response = running.post(key.plain)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "account_suspended")


@pytest.mark.parametrize(
    ("terms", "headers", "code"),
    [
        ({"allowed_stages": ("review",)}, {"X-CFX-Stage": "code"}, "stage_not_allowed"),
        ({"allowed_models": ("gpt-6.1-sol",)}, {"X-CFX-Stage": "code"}, "model_not_allowed_for_key"),
    ],
)
def test_a_key_is_restricted_to_its_policy(
    running: Installation, terms: dict[str, Any], headers: dict[str, str], code: str
) -> None:
    response = running.post(a_key(**terms).plain, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (403, code)


def test_a_fallback_that_the_key_may_not_use_is_left_out(running: Installation) -> None:
    running.upstream.set_fault("503", model="deepseek-v4.1-flash")
    allowed = running.post(a_key(allowed_models=("deepseek-v4.1-flash", "gpt-6-luna")).plain, model="cfx-code")
    assert allowed.headers["x-cfx-model"] == "gpt-6-luna"
    assert running.post(a_key(allowed_models=("deepseek-v4.1-flash",)).plain, model="cfx-code").status_code == 503
