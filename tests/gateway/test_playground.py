"""Calls of the playground: authenticated by a session instead of a key, otherwise like any other."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django.contrib.sessions.models import Session
from django.test import Client

from accounts.models import AuditEntry, Membership, Organization, User
from accounts.tests.factories import a_member, a_user
from billing.models import LedgerEntry, Plan
from billing.tests.factories import an_organization
from codexflow.lib.clock import now
from keys.models import ApiKey
from keys.services import playground_key
from keys.tests.factories import a_key
from tests.support.installation import Installation

BODY = {"model": "cfx-plan", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 30}


def cookie_of(user: User) -> str:
    client = Client()
    client.force_login(user)
    return client.cookies["sessionid"].value


def play(
    running: Installation,
    organization: Organization,
    cookie: str,
    *,
    origin: str | None = "",
    body: Any = BODY,
    others: str = "theme=dark",
    **headers: str,
) -> httpx.Response:
    where = f"http://{urlsplit(running.url).netloc}"
    sent = {"cookie": f"{others}; sessionid={cookie}", **headers}
    if origin is not None:
        sent["origin"] = origin or where
    return httpx.post(f"{where}/o/{organization.slug}/playground/chat", json=body, headers=sent, timeout=60)


def test_a_members_call_is_served_and_charged_like_any_other(running: Installation) -> None:
    organization = an_organization()
    ben = a_member(organization, "developer")
    response = play(running, organization, cookie_of(ben), body={**BODY, "stream": True})
    assert response.status_code == 200
    assert response.text.rstrip().endswith("data: [DONE]")
    assert response.headers["x-cfx-stage"] == "plan"
    row = running.row_of(response)
    key = ApiKey.objects.get(organization=organization)
    assert (row.key_id, row.user_id, row.organization_id) == (key.pk, ben.pk, organization.pk)
    assert (row.surface, row.endpoint, row.is_stream) == ("chat", "/v1/chat/completions", True)
    assert row.cost_nanos > 0
    assert LedgerEntry.objects.get(request_id=row.request_id).amount_nanos == -row.cost_nanos
    assert (key.kind, key.allowed_surfaces, key.created_by) == ("playground", ["chat"], ben)
    assert key.expires_at is not None
    assert now() < key.expires_at < now() + timedelta(hours=13)
    # The same key the next time, and renewed when it nears its end.
    ApiKey.objects.update(expires_at=now() + timedelta(hours=1))
    assert play(running, organization, cookie_of(ben)).status_code == 200
    assert ApiKey.objects.filter(organization=organization, expires_at__gt=now() + timedelta(hours=11)).count() == 1
    assert AuditEntry.objects.filter(organization=organization, action="key.issued").count() == 1


def test_stage_and_model_are_chosen_as_with_a_key(running: Installation) -> None:
    organization = an_organization()
    cookie = cookie_of(a_member(organization, "developer"))
    direct = play(running, organization, cookie, body={**BODY, "model": "gpt-6-luna"}, **{"x-cfx-stage": "direct"})
    assert (direct.headers["x-cfx-stage"], direct.headers["x-cfx-model"]) == ("direct", "gpt-6-luna")
    refused = play(running, organization, cookie, body={**BODY, "model": "nonsense"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "model_not_allowed")


@pytest.mark.parametrize(
    ("role", "status"), [("owner", 200), ("admin", 200), ("developer", 200), ("billing", 403), ("viewer", 403)]
)
def test_only_roles_that_may_spend_may_call(running: Installation, role: str, status: int) -> None:
    organization = an_organization()
    assert play(running, organization, cookie_of(a_member(organization, role))).status_code == status


def test_strangers_and_other_origins_get_404(running: Installation) -> None:
    organization, eve = an_organization(), a_user("eve")
    an_organization(owner=eve)
    assert play(running, organization, cookie_of(eve)).status_code == 404
    assert play(running, organization, "").status_code == 401
    assert play(running, organization, "x" * 32).status_code == 401
    cookie = cookie_of(a_member(organization, "developer"))
    for origin in (None, "null", "https://evil.example", "http://127.0.0.1:1"):
        assert play(running, organization, cookie, origin=origin).status_code == 404, origin
    assert httpx.get(f"{running.url}/o/{organization.slug}/playground/chat").status_code == 405
    assert not ApiKey.objects.filter(organization=organization, kind="playground").exists()


@pytest.mark.parametrize("others", ['g_state={"i_l": 0}', "user@x=1", "path=/", "prefs[a]=b", "alone"])
def test_unrelated_cookies_are_ignored(running: Installation, others: str) -> None:
    organization = an_organization()
    assert play(running, organization, cookie_of(a_member(organization)), others=others).status_code == 200


def test_a_key_does_not_authenticate_here(running: Installation) -> None:
    key = a_key()
    response = play(running, key.row.organization, "", authorization=f"Bearer {key.plain}")
    assert response.status_code == 401


def test_access_ends_with_session_membership_and_user(running: Installation) -> None:
    organization = an_organization()
    ben = a_member(organization, "developer")
    cookie = cookie_of(ben)
    assert play(running, organization, cookie).status_code == 200
    Membership.objects.filter(user=ben).update(role="viewer")
    assert play(running, organization, cookie).status_code == 403
    Membership.objects.filter(user=ben).delete()
    assert play(running, organization, cookie).status_code == 404
    Membership.objects.create(organization=organization, user=ben, role="developer")
    assert play(running, organization, cookie).status_code == 200
    Session.objects.filter(session_key=cookie).delete()
    assert play(running, organization, cookie).status_code == 401
    cookie = cookie_of(ben)
    User.objects.filter(pk=ben.pk).update(is_active=False)
    assert play(running, organization, cookie).status_code == 401


def test_the_plans_limits_apply(running: Installation) -> None:
    organization = an_organization(plan="free")
    cookie = cookie_of(a_member(organization, "developer"))
    limit = Plan.objects.get(slug="free").daily_requests
    assert play(running, organization, cookie).headers["x-ratelimit-limit"] == str(limit)
    assert play(running, organization, cookie, body={**BODY, "messages": "x"}).status_code == 400


def test_first_calls_at_once_share_one_key(running: Installation) -> None:
    organization = an_organization()
    cookie = cookie_of(a_member(organization, "developer"))
    with ThreadPoolExecutor(6) as pool:
        responses = list(pool.map(lambda _: play(running, organization, cookie), range(6)))
    assert {response.status_code for response in responses} == {200}
    assert ApiKey.objects.filter(organization=organization).count() == 1


def test_the_playgrounds_key_is_not_listed(running: Installation) -> None:
    boss = a_key()
    organization = boss.row.organization
    own = playground_key(organization, a_member(organization, "developer"))
    headers = {"Authorization": f"Bearer {boss.plain}"}
    assert [row["id"] for row in httpx.get(f"{running.url}/api/v1/keys", headers=headers).json()["data"]] == [
        str(boss.row.pk)
    ]
    for method, path, body in (("GET", "", None), ("PATCH", "", {"rpm": 1}), ("POST", "/rotate", {"overlap_s": 0})):
        response = httpx.request(method, f"{running.url}/api/v1/keys/{own.pk}{path}", headers=headers, json=body)
        assert response.status_code == 404
