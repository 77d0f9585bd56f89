"""The management API, by bearer and by session, and closed to strangers."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.test import Client
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from accounts.models import AuditEntry
from accounts.tests.factories import a_member, a_user
from billing.tests.factories import an_organization
from codexflow.lib.clock import now
from codexflow.lib.ids import new_id
from keys.models import ApiKey
from keys.tests.factories import a_key
from logs.models import RequestLog
from tests.support.installation import Installation
from tests.support.waiting import until


def api(running: Installation, key: str, method: str, path: str, **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.request(method, f"{running.url}/api/v1/{path}", headers=headers, timeout=60, **more)


def test_a_key_is_made_listed_renamed_and_revoked(running: Installation) -> None:
    key = a_key()
    made = api(running, key.plain, "POST", "keys", json={"name": "ci", "daily_requests": 5, "budget_month_usd": "1.50"})
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    secret, key_id = made.json()["key"], made.json()["id"]
    assert running.post(secret).headers["x-ratelimit-limit"] == "5"
    listed = api(running, key.plain, "GET", "keys").json()["data"]
    assert [row["name"] for row in listed] == ["ci", "test"]
    assert listed[0]["budget_month_usd"] == "1.500000"
    assert secret not in api(running, key.plain, "GET", "keys").text
    assert api(running, key.plain, "PATCH", f"keys/{key_id}", json={"name": "ci 2"}).json()["name"] == "ci 2"
    assert api(running, key.plain, "DELETE", f"keys/{key_id}").json()["state"] == "revoked"
    until(lambda: running.post(secret).status_code == 401, what="refusal")
    actions = AuditEntry.objects.filter(object_id=key_id).order_by("id").values_list("action", flat=True)
    assert list(actions) == ["key.issued", "key.renamed", "key.revoked"]


def test_a_key_cannot_make_a_more_powerful_one(running: Installation) -> None:
    small = a_key(allowed_stages=("review",), expires_at=now() + timedelta(hours=1))
    made = api(running, small.plain, "POST", "keys", json={"name": "greedy", "daily_requests": 1000}).json()
    assert (made["daily_requests"], made["allowed_stages"]) == (1000, ["review"])
    assert made["expires_at"] is not None
    limited = a_key(daily_requests=10)
    refused = api(running, limited.plain, "POST", "keys", json={"name": "second", "daily_requests": 1})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "action_not_allowed")


@pytest.mark.parametrize("limit", [{"daily_requests": 3}, {"budget_month_nanos": 20_000_000}])
@pytest.mark.parametrize("overlap_s", [0, 3600])
def test_rotation_carries_on_what_was_used(running: Installation, limit: dict[str, Any], overlap_s: int) -> None:
    """Old and new key share one counter, in every process, after a restart, and when Redis has lost it."""
    key = a_key(**limit)
    plain, key_id, passed, keys = key.plain, str(key.row.id), 0, [key.plain]
    for _ in range(4):
        response = running.post(plain)
        passed += response.status_code == 200
        rotated = api(running, plain, "POST", f"keys/{key_id}/rotate", json={"overlap_s": overlap_s})
        if rotated.status_code != 201:
            assert (overlap_s, rotated.status_code) == (3600, 409)
            continue
        plain, key_id = rotated.json()["key"], rotated.json()["id"]
        keys.append(plain)
    while (response := running.post(plain)).status_code == 200:
        passed += 1
    assert response.status_code in (402, 429)
    assert running.scope("k", key.row.id)["n"] == passed
    if "daily_requests" in limit:
        assert passed == 3
    until(lambda: RequestLog.objects.filter(organization_id=key.row.organization_id).count() == passed, what="all rows")
    running.redis.delete(*running.keys("*scope:*"))
    other = running.new_gateway()
    for each in keys if overlap_s else [plain]:
        for url in (running.url, other.url):
            assert running.post(each, url=url).status_code in (402, 429), each
    other.stop()


def test_a_key_changes_no_stronger_one(running: Installation) -> None:
    """Whatever restricts a key, it neither renames, narrows, revokes nor rotates one that may do more."""
    strong = a_key()
    restrictions: list[dict[str, Any]] = [
        {"daily_requests": 5}, {"rpm": 5}, {"tpm": 5_000}, {"concurrent_streams": 1}, {"budget_day_nanos": 10**9},
        {"budget_month_nanos": 10**9}, {"allowed_stages": ("review",)}, {"allowed_networks": ("127.0.0.0/8",)},
        {"allowed_surfaces": ("management", "chat")}, {"expires_at": now() + timedelta(hours=1)},
    ]  # fmt: skip
    for terms in restrictions:
        weak = a_key(strong.row.organization, **terms)
        for method, path, body in (
            ("PATCH", f"keys/{strong.row.id}", {"name": "mine"}),
            ("PATCH", f"keys/{strong.row.id}", {"rpm": 1}),
            ("DELETE", f"keys/{strong.row.id}", None),
            ("POST", f"keys/{strong.row.id}/rotate", {"overlap_s": 0}),
        ):
            response = api(running, weak.plain, method, path, json=body)
            assert (response.status_code, response.json()["error"]["code"]) == (403, "action_not_allowed"), terms
        # Itself it may rename, narrow and revoke.
        renamed = api(running, weak.plain, "PATCH", f"keys/{weak.row.id}", json={"name": "own"})
        assert (renamed.status_code, renamed.json()["name"]) == (200, "own")
        assert api(running, weak.plain, "DELETE", f"keys/{weak.row.id}").status_code == 200


def test_a_lowered_limit_binds_the_predecessor_too(running: Installation) -> None:
    boss = a_key()
    old = a_key(boss.row.organization, daily_requests=100)
    new = api(running, boss.plain, "POST", f"keys/{old.row.id}/rotate", json={"overlap_s": 3600}).json()
    assert running.post(old.plain).status_code == running.post(new["key"]).status_code == 200
    api(running, boss.plain, "PATCH", f"keys/{new['id']}", json={"daily_requests": 2})
    until(lambda: running.post(old.plain).status_code == 429, what="the old key's refusal")
    assert running.post(new["key"]).status_code == 429
    # By itself the old key narrows only itself: its successor outlasts it. The successor may end it.
    api(running, old.plain, "PATCH", f"keys/{old.row.id}", json={"daily_requests": 1})
    limits = [
        api(running, boss.plain, "GET", f"keys/{each}").json()["daily_requests"] for each in (old.row.id, new["id"])
    ]
    assert limits == [1, 2]
    assert api(running, old.plain, "DELETE", f"keys/{new['id']}").status_code == 403
    assert api(running, new["key"], "DELETE", f"keys/{old.row.id}").status_code == 200


def test_both_keys_work_until_the_overlap_is_over(running: Installation) -> None:
    old = a_key(rpm=100)
    response = api(running, old.plain, "POST", f"keys/{old.row.id}/rotate", json={"overlap_s": 3600})
    assert (response.status_code, response.headers["cache-control"]) == (201, "no-store")
    new = response.json()
    assert (new["name"], new["rpm"], new["state"]) == ("test", 100, "active")
    assert running.post(old.plain).status_code == running.post(new["key"]).status_code == 200
    shown = api(running, new["key"], "GET", f"keys/{old.row.id}").json()
    assert (shown["state"], shown["rotated_to"]) == ("rotated", new["id"])
    again = api(running, new["key"], "POST", f"keys/{new['id']}/rotate", json={"overlap_s": 0})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "key_not_rotatable")
    # The hour is over: what every process has cached of the key ends by itself, without an announcement.
    ApiKey.objects.filter(pk=old.row.id).update(rotation_ends_at=now())
    assert api(running, old.plain, "GET", "keys").status_code == 401
    assert api(running, new["key"], "GET", f"keys/{old.row.id}").json()["state"] == "revoked"


def test_a_key_in_its_overlap_makes_none_that_outlives_it(running: Installation) -> None:
    old = a_key()
    other = a_key(old.row.organization)
    assert api(running, old.plain, "POST", f"keys/{old.row.id}/rotate", json={"overlap_s": 3600}).status_code == 201
    ends = api(running, old.plain, "GET", f"keys/{old.row.id}").json()["rotation_ends_at"]
    assert api(running, old.plain, "POST", "keys", json={"name": "heir"}).json()["expires_at"] == ends
    refused = api(running, old.plain, "POST", f"keys/{other.row.id}/rotate", json={"overlap_s": 0})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "action_not_allowed")


def test_a_key_rotated_without_overlap_is_refused_at_once(running: Installation) -> None:
    old = a_key()
    assert running.post(old.plain).status_code == 200
    new = api(running, old.plain, "POST", f"keys/{old.row.id}/rotate", json={"overlap_s": 0}).json()["key"]
    until(lambda: running.post(old.plain).status_code == 401, what="refusal")
    assert running.post(new).status_code == 200


def test_changed_terms_take_effect_at_once(running: Installation) -> None:
    key = a_key()
    boss = a_key(key.row.organization)
    assert running.post(key.plain).status_code == 200
    changes = {
        "daily_requests": 3, "allowed_stages": ["review"], "allowed_networks": ["127.0.0.0/8"],
        "budget_day_usd": "1.25", "expires_at": (now() + timedelta(hours=1)).isoformat(),
    }  # fmt: skip
    response = api(running, boss.plain, "PATCH", f"keys/{key.row.id}", json=changes)
    assert response.status_code == 200, response.text
    assert (response.json()["daily_requests"], response.json()["budget_day_usd"]) == (3, "1.250000")
    until(lambda: running.post(key.plain, model="cfx-plan").status_code == 403, what="the stage's refusal")
    assert running.post(key.plain, model="cfx-review").headers["x-ratelimit-limit"] == "3"
    api(running, boss.plain, "PATCH", f"keys/{key.row.id}", json={"allowed_networks": ["10.0.0.0/8"]})
    until(lambda: running.post(key.plain, model="cfx-review").status_code == 401, what="the address's refusal")
    api(running, boss.plain, "PATCH", f"keys/{key.row.id}", json={"allowed_networks": [], "allowed_stages": []})
    until(lambda: running.post(key.plain, model="cfx-plan").status_code == 200, what="the end of both")


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"rpm": 11}, "at most 10"),
        ({"allowed_models": ["nonsense"]}, "There is no model nonsense"),
        ({"allowed_surfaces": ["nonsense"]}, "nonsense"),
        ({"allowed_networks": ["10.0.0.0/33"]}, "10.0.0.0/33"),
    ],
)
def test_a_key_gets_no_more_than_the_plan_allows(running: Installation, terms: dict[str, Any], message: str) -> None:
    key = a_key(an_organization(plan="free"))
    for method, path, body in (
        ("POST", "keys", {"name": "x", **terms}),
        ("PATCH", f"keys/{key.row.id}", terms),
    ):
        response = api(running, key.plain, method, path, json=body)
        assert response.status_code == 400
        assert message in response.json()["error"]["message"]


def test_a_restricted_key_gets_nothing_more_by_changing_or_rotating_keys(running: Installation) -> None:
    small = a_key(daily_requests=10, allowed_stages=("review",), allowed_networks=("127.0.0.0/8",))
    greedy: dict[str, Any] = {"daily_requests": None, "allowed_stages": [], "allowed_networks": []}
    changed = api(running, small.plain, "PATCH", f"keys/{small.row.id}", json=greedy).json()
    assert (changed["daily_requests"], changed["allowed_stages"]) == (10, ["review"])
    assert changed["allowed_networks"] == ["127.0.0.0/8"]
    disjoint = api(running, small.plain, "PATCH", f"keys/{small.row.id}", json={"allowed_stages": ["plan"]})
    assert disjoint.status_code == 403
    other = a_key(small.row.organization)
    refused = api(running, small.plain, "POST", f"keys/{other.row.id}/rotate", json={"overlap_s": 0})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "action_not_allowed")
    assert api(running, small.plain, "POST", f"keys/{small.row.id}/rotate", json={"overlap_s": 0}).status_code == 201


def test_bad_input_names_its_field(running: Installation) -> None:
    key = a_key().plain
    for body, param in (
        ({}, "name"),
        ({"name": "x", "rpm": "many"}, "rpm"),
        ({"name": "x", "budget_month_usd": -1}, "budget_month_usd"),
    ):
        response = api(running, key, "POST", "keys", json=body)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert api(running, key, "GET", "requests?limit=0").json()["error"]["param"] == "limit"
    assert api(running, key, "GET", "usage?start=2026-02-02&end=2026-01-01").json()["error"]["param"] == "start"


def test_strangers_see_nothing(running: Installation) -> None:
    ada, eve = a_key(), a_key()
    request_id = running.row_of(running.post(ada.plain)).request_id
    for method, path in (
        ("GET", f"keys/{ada.row.id}"), ("PATCH", f"keys/{ada.row.id}"), ("DELETE", f"keys/{ada.row.id}"),
        ("POST", f"keys/{ada.row.id}/rotate"),
        ("GET", f"requests/{request_id}"), ("GET", f"keys/{new_id()}"),
    ):  # fmt: skip
        assert api(running, eve.plain, method, path, json={"name": "mine"}).status_code == 404, path
    assert str(ada.row.id) not in api(running, eve.plain, "GET", "keys").text
    assert api(running, eve.plain, "GET", "requests").json()["data"] == []
    assert api(running, eve.plain, "GET", "usage").json()["data"] == []
    for path in ("keys", "requests", "usage", f"keys/{ada.row.id}", f"requests/{request_id}"):
        response = httpx.get(f"{running.url}/api/v1/{path}")
        assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")


def test_requests_are_paged_and_filtered(running: Installation) -> None:
    key = a_key().plain
    for model in ("cfx-code", "cfx-review", "cfx-code"):
        running.row_of(running.post(key, model=model))
    running.row_of(running.say(key, "[[fault:400]]", model="cfx-plan"))
    first = api(running, key, "GET", "requests?limit=3").json()
    second = api(running, key, "GET", f"requests?limit=3&before={first['next']}").json()
    assert [row["stage"] for row in first["data"] + second["data"]] == ["plan", "code", "review", "code"]
    assert (len(first["data"]), second["next"]) == (3, None)
    assert [row["stage"] for row in api(running, key, "GET", "requests?status=errors").json()["data"]] == ["plan"]
    assert len(api(running, key, "GET", "requests?stage=code").json()["data"]) == 2


def test_usage_by_day_adds_up(running: Installation) -> None:
    key = a_key().plain
    rows = [running.row_of(running.post(key, model=model)) for model in ("cfx-code", "cfx-review")]
    (day,) = api(running, key, "GET", "usage").json()["data"]
    assert (day["requests"], day["cost_nanos"]) == (2, sum(row.cost_nanos for row in rows))
    by_stage = api(running, key, "GET", "usage?group=stage").json()["data"]
    assert [(row["group"], row["requests"]) for row in by_stage] == [("code", 1), ("review", 1)]


def session_of(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.parametrize(("role", "status"), [("owner", 201), ("developer", 201), ("viewer", 403), ("billing", 403)])
def test_a_session_has_the_permissions_of_its_role(running: Installation, role: str, status: int) -> None:
    organization = an_organization()
    user = organization.members.get() if role == "owner" else a_member(organization, role)
    client = session_of(user)
    url = f"/api/v1/keys?organization={organization.slug}"
    response = client.post(url, {"name": "page"}, content_type="application/json")
    assert response.status_code == status
    assert client.get(url).status_code == 200
    assert ApiKey.objects.filter(organization=organization).count() == (status == 201)


@pytest.mark.parametrize(("role", "status"), [("owner", 200), ("billing", 200), ("developer", 403), ("viewer", 403)])
def test_budgets_are_set_by_those_who_manage_billing(running: Installation, role: str, status: int) -> None:
    organization = an_organization()
    user = organization.members.get() if role == "owner" else a_member(organization, role)
    client, url = session_of(user), f"/api/v1/budgets?organization={organization.slug}"
    wanted = {"budget_day_usd": "0.50", "budget_month_usd": None}
    found = client.put(url, wanted, content_type="application/json")
    assert found.status_code == status
    if status == 200:
        assert client.get(url).json() == found.json() == {"budget_day_usd": "0.500000", "budget_month_usd": None}
        entry = AuditEntry.objects.get(action="account.budgets_set", organization=organization)
        assert (entry.actor, entry.facts["day_nanos"]) == (user, 500_000_000)
        assert client.put(url, {"budget_day_usd": "-1"}, content_type="application/json").status_code == 400


def test_no_key_lifts_a_budget(running: Installation) -> None:
    key = a_key()
    assert api(running, key.plain, "GET", "budgets").json() == {"budget_day_usd": None, "budget_month_usd": None}
    response = api(running, key.plain, "PUT", "budgets", json={"budget_day_usd": "5", "budget_month_usd": None})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "action_not_allowed")


def test_a_session_of_a_stranger_gets_404(running: Installation) -> None:
    organization = an_organization()
    client = session_of(a_user("eve"))
    assert client.get(f"/api/v1/keys?organization={organization.slug}").status_code == 404
    assert client.get("/api/v1/keys?organization=no-such").status_code == 404


def test_a_user_who_must_choose_a_password_may_do_nothing_before(running: Installation) -> None:
    organization = an_organization()
    user = organization.members.get()
    user.must_change_password = True
    user.save()
    client = session_of(user)
    for path in ("keys", "requests", "usage", "budgets"):
        response = client.get(f"/api/v1/{path}?organization={organization.slug}")
        assert (response.status_code, response.json()["error"]["code"]) == (403, "action_not_allowed"), path
        assert "/accounts/password/change/" in response.json()["error"]["message"]
    made = client.post(f"/api/v1/keys?organization={organization.slug}", {"name": "x"}, content_type="application/json")
    assert made.status_code == 403
    assert not ApiKey.objects.filter(organization=organization).exists()


def test_a_session_needs_its_csrf_token_to_write(running: Installation) -> None:
    organization = an_organization()
    client = Client(enforce_csrf_checks=True)
    client.force_login(organization.members.get())
    response = client.post("/api/v1/keys", {"name": "forged"}, content_type="application/json")
    assert response.status_code == 403
    assert not ApiKey.objects.filter(organization=organization).exists()


def test_the_schema_describes_every_endpoint(running: Installation) -> None:
    schema = httpx.get(f"{running.url}/api/v1/schema").json()
    assert set(schema["paths"]) >= {"/api/v1/keys", "/api/v1/keys/{key_id}", "/api/v1/requests", "/api/v1/usage"}


def test_responses_match_the_schema(running: Installation) -> None:
    """Every documented field is present, and no other."""
    schema = httpx.get(f"{running.url}/api/v1/schema").json()
    components = strict(schema["components"])
    key = a_key().plain
    request_id = running.row_of(running.post(key)).request_id

    def ask(method: str, template: str, *, query: str = "", json: Any = None, **ids: Any) -> Any:
        path = template.format(**ids).removeprefix("/api/v1/")
        response = api(running, key, method, f"{path}{query}", json=json)
        documented = schema["paths"][template][method.lower()]["responses"]
        content = documented.get(str(response.status_code), documented["default"])["content"]["application/json"]
        Draft202012Validator({**strict(content["schema"]), "components": components}).validate(response.json())
        return response.json()

    key_id = ask("GET", "/api/v1/keys")["data"][0]["id"]
    ask("GET", "/api/v1/keys/{key_id}", key_id=key_id)
    ask("GET", "/api/v1/budgets")
    ask("GET", "/api/v1/requests")
    ask("GET", "/api/v1/requests", query="?limit=0")
    ask("GET", "/api/v1/requests/{request_id}", request_id=request_id)
    ask("GET", "/api/v1/requests/{request_id}", request_id=new_id())
    ask("GET", "/api/v1/reconciliation")
    ask("GET", "/api/v1/margin")
    ask("GET", "/api/v1/refusals", query="?start=2026-11-01T00:00:00Z")
    for interval, group in (("hour", "none"), ("day", "key"), ("month", "user")):
        ask("GET", "/api/v1/usage", query=f"?interval={interval}&group={group}&tz=Asia/Kolkata")
    export_id = ask("POST", "/api/v1/exports", json={"format": "csv"})["id"]
    ask("GET", "/api/v1/exports")
    ask("GET", "/api/v1/exports/{export_id}", export_id=export_id)
    ask("POST", "/api/v1/exports/{export_id}/cancel", export_id=export_id)
    ask("POST", "/api/v1/exports", json={"format": "xml"})


def strict(part: Any) -> Any:
    """Convert OpenAPI 3.0 to JSON Schema: nullable fields, and objects without further fields."""
    if isinstance(part, list):
        return [strict(each) for each in part]
    if not isinstance(part, dict):
        return part
    found = {name: strict(each) for name, each in part.items() if name != "nullable"}
    if part.get("type") == "object" and "properties" in part:
        found.setdefault("additionalProperties", False)
        assert set(part["properties"]) >= set(part.get("required", ()))
    return {"anyOf": [found, {"type": "null"}]} if part.get("nullable") is True else found
