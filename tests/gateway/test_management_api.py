"""The management API, by bearer and by session, and closed to strangers."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.test import Client

from accounts.models import AuditEntry
from accounts.tests.factories import a_member, a_user
from billing.tests.factories import an_organization
from codexflow.lib.clock import now
from codexflow.lib.ids import new_id
from codexflow.testing.live import Live
from codexflow.testing.waiting import until
from keys.models import ApiKey
from keys.tests.factories import a_key


def api(live: Live, key: str, method: str, path: str, **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.request(method, f"{live.url}/api/v1/{path}", headers=headers, timeout=20, **more)


def test_a_key_is_made_listed_renamed_and_revoked(live: Live) -> None:
    key = a_key()
    made = api(live, key.plain, "POST", "keys", json={"name": "ci", "daily_requests": 5, "budget_month_usd": "1.50"})
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    secret, key_id = made.json()["key"], made.json()["id"]
    assert live.post(secret).headers["x-ratelimit-limit"] == "5"
    listed = api(live, key.plain, "GET", "keys").json()["data"]
    assert [row["name"] for row in listed] == ["ci", "test"]
    assert listed[0]["budget_month_usd"] == "1.500000"
    assert secret not in api(live, key.plain, "GET", "keys").text
    assert api(live, key.plain, "PATCH", f"keys/{key_id}", json={"name": "ci 2"}).json()["name"] == "ci 2"
    assert api(live, key.plain, "DELETE", f"keys/{key_id}").json()["state"] == "revoked"
    until(lambda: live.post(secret).status_code == 401, within_s=1, what="refusal")
    actions = AuditEntry.objects.filter(object_id=key_id).order_by("id").values_list("action", flat=True)
    assert list(actions) == ["key.issued", "key.renamed", "key.revoked"]


def test_a_key_makes_none_that_may_do_more_than_itself(live: Live) -> None:
    small = a_key(daily_requests=10, allowed_stages=("review",), expires_at=now() + timedelta(hours=1))
    made = api(live, small.plain, "POST", "keys", json={"name": "greedy", "daily_requests": 1000}).json()
    assert (made["daily_requests"], made["allowed_stages"]) == (10, ["review"])
    assert made["expires_at"] is not None


def test_bad_input_names_its_field(live: Live) -> None:
    key = a_key().plain
    for body, param in (
        ({}, "name"),
        ({"name": "x", "rpm": "many"}, "rpm"),
        ({"name": "x", "budget_month_usd": -1}, "budget_month_usd"),
    ):
        response = api(live, key, "POST", "keys", json=body)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert api(live, key, "GET", "requests?limit=0").json()["error"]["param"] == "limit"
    assert api(live, key, "GET", "usage?start=2026-02-02&end=2026-01-01").json()["error"]["param"] == "start"


def test_strangers_see_nothing(live: Live) -> None:
    ada, eve = a_key(), a_key()
    request_id = live.row_of(live.post(ada.plain)).request_id
    for method, path in (
        ("GET", f"keys/{ada.row.id}"), ("PATCH", f"keys/{ada.row.id}"), ("DELETE", f"keys/{ada.row.id}"),
        ("GET", f"requests/{request_id}"), ("GET", f"keys/{new_id()}"),
    ):  # fmt: skip
        assert api(live, eve.plain, method, path, json={"name": "mine"}).status_code == 404, path
    assert str(ada.row.id) not in api(live, eve.plain, "GET", "keys").text
    assert api(live, eve.plain, "GET", "requests").json()["data"] == []
    assert api(live, eve.plain, "GET", "usage").json()["data"] == []
    for path in ("keys", "requests", "usage", f"keys/{ada.row.id}", f"requests/{request_id}"):
        response = httpx.get(f"{live.url}/api/v1/{path}")
        assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")


def test_requests_are_paged_and_filtered(live: Live) -> None:
    key = a_key().plain
    for model in ("cfx-code", "cfx-review", "cfx-code"):
        live.row_of(live.post(key, model=model))
    live.row_of(live.say(key, "[[fault:400]]", model="cfx-plan"))
    first = api(live, key, "GET", "requests?limit=3").json()
    second = api(live, key, "GET", f"requests?limit=3&before={first['next']}").json()
    assert [row["stage"] for row in first["data"] + second["data"]] == ["plan", "code", "review", "code"]
    assert (len(first["data"]), second["next"]) == (3, None)
    assert [row["stage"] for row in api(live, key, "GET", "requests?status=errors").json()["data"]] == ["plan"]
    assert len(api(live, key, "GET", "requests?stage=code").json()["data"]) == 2


def test_usage_by_day_adds_up(live: Live) -> None:
    key = a_key().plain
    rows = [live.row_of(live.post(key, model=model)) for model in ("cfx-code", "cfx-review")]
    (day,) = api(live, key, "GET", "usage").json()["data"]
    assert (day["requests"], day["cost_nanos"]) == (2, sum(row.cost_nanos for row in rows))
    by_stage = api(live, key, "GET", "usage?group=stage").json()["data"]
    assert [(row["group"], row["requests"]) for row in by_stage] == [("code", 1), ("review", 1)]


def session_of(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.parametrize(("role", "status"), [("owner", 201), ("developer", 201), ("viewer", 403), ("billing", 403)])
def test_a_session_may_what_its_role_may(live: Live, role: str, status: int) -> None:
    organization = an_organization()
    user = organization.members.get() if role == "owner" else a_member(organization, role)
    client = session_of(user)
    url = f"/api/v1/keys?organization={organization.slug}"
    response = client.post(url, {"name": "page"}, content_type="application/json")
    assert response.status_code == status
    assert client.get(url).status_code == 200
    assert ApiKey.objects.filter(organization=organization).count() == (status == 201)


def test_a_session_of_somebody_else_finds_no_such_organization(live: Live) -> None:
    organization = an_organization()
    client = session_of(a_user("eve"))
    assert client.get(f"/api/v1/keys?organization={organization.slug}").status_code == 404
    assert client.get("/api/v1/keys?organization=no-such").status_code == 404


def test_a_session_needs_its_csrf_token_to_write(live: Live) -> None:
    organization = an_organization()
    client = Client(enforce_csrf_checks=True)
    client.force_login(organization.members.get())
    response = client.post("/api/v1/keys", {"name": "forged"}, content_type="application/json")
    assert response.status_code == 403
    assert not ApiKey.objects.filter(organization=organization).exists()


def test_the_schema_describes_it_all(live: Live) -> None:
    schema = httpx.get(f"{live.url}/api/v1/schema").json()
    assert set(schema["paths"]) >= {"/api/v1/keys", "/api/v1/keys/{key_id}", "/api/v1/requests", "/api/v1/usage"}
