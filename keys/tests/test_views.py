"""Pages and management API of keys."""

import ast
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils.html import escape

from accounts.models import AuditEntry, User
from billing.models import Account, Plan
from billing.services import set_budgets
from codexflow.lib.clock import now
from keys.models import ApiKey
from keys.services import issue_key
from tests.support.cast import Cast

HTMX = {"hx-request": "true"}


@pytest.fixture
def page(client: Client, cast: Cast) -> Client:
    client.force_login(cast.ben)
    return client


def test_the_secret_is_shown_only_once(page: Client, cast: Cast) -> None:
    response = page.post(reverse("key-create", args=[cast.slug]), {"name": "laptop"}, headers=HTMX)
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    secret = response.context["secret"]
    assert secret.startswith("cfx_")
    assert secret in response.content.decode()
    assert ApiKey.objects.get(name="laptop").created_by == cast.ben
    for name in ("keys", "overview", "log", "key-create"):
        assert secret not in page.get(reverse(name, args=[cast.slug])).content.decode()
    assert secret not in str(list(AuditEntry.objects.values_list("facts", flat=True)))


def test_the_new_key_comes_with_commands_that_work_as_they_are(page: Client, cast: Cast) -> None:
    response = page.post(reverse("key-create", args=[cast.slug]), {"name": "laptop"}, headers=HTMX)
    commands = {each.slug: each.code for each in response.context["commands"]}
    assert list(commands) == ["curl", "python", "node", "claude-code", "codex", "cursor"]
    text = response.content.decode()
    for slug, code in commands.items():
        assert response.context["secret"] in code, slug
        assert escape(code) in text, slug
        for unset in ("$CODEXFLOW_API_KEY", "environ", "process.env", "…", "{"):
            assert unset not in code or (slug, unset) in (("curl", "{"), ("python", "{"), ("node", "{")), (slug, unset)
    ast.parse(commands["python"])


def test_without_htmx_the_secret_is_shown_on_a_page(page: Client, cast: Cast) -> None:
    response = page.post(reverse("key-create", args=[cast.slug]), {"name": "laptop"})
    assert "no-store" in response["Cache-Control"]
    assert response.context["secret"] in response.content.decode()
    assert "<html" in response.content.decode()


def test_a_new_key_gets_its_limits_and_expiry(page: Client, cast: Cast) -> None:
    page.post(
        reverse("key-create", args=[cast.slug]),
        {"name": "ci", "rpm": "5", "budget_usd": "1.50", "day_budget_usd": "0.25", "expires_in_days": "30"},
    )
    key = ApiKey.objects.get(name="ci")
    assert (key.rpm, key.budget_month_nanos, key.daily_requests) == (5, 1_500_000_000, None)
    assert key.budget_day_nanos == 250_000_000
    assert key.expires_at is not None
    assert (key.expires_at - key.created_at).days in (29, 30)


@pytest.mark.parametrize(
    "wrong", [{"name": ""}, {"name": "a", "rpm": "11"}, {"name": "a", "rpm": "0"}, {"name": "a", "budget_usd": "-1"}]
)
def test_an_invalid_form_is_returned_with_its_errors(page: Client, cast: Cast, wrong: dict[str, str]) -> None:
    response = page.post(reverse("key-create", args=[cast.slug]), wrong, headers=HTMX)
    assert response.status_code == 422
    assert 'aria-invalid="true"' in response.content.decode()
    assert ApiKey.objects.count() == 1


def test_a_name_and_starting_points_are_suggested_within_the_plan(page: Client, cast: Cast) -> None:
    where = reverse("key-create", args=[cast.slug])

    def presets() -> dict[str, dict[str, Any]]:
        return {label: json.loads(values) for label, values in page.get(where).context["form"].presets()}

    Plan.objects.filter(slug="free").update(rpm=20, max_keys=9, allowed_stages=["review"])
    found = presets()
    assert [*found] == ["Coding agent", "CI", "Short trial", "Reports, no model calls"]
    assert (found["CI"]["rpm"], found["CI"]["allowed_stages"], found["CI"]["day_budget_usd"]) == (20, ["review"], 5)
    assert found["Reports, no model calls"]["allowed_surfaces"] == ["management"]
    assert page.get(where).context["form"]["name"].value() in found["CI"]["name"]
    for number, values in enumerate(found.values()):
        page.post(where, {**values, "name": f"preset {number}"})
    assert ApiKey.objects.filter(name__startswith="preset").count() == len(found), "a preset is refused"
    Plan.objects.filter(slug="free").update(allowed_stages=["plan"])
    Account.objects.update(budget_day_nanos=500_000_000)
    found = presets()
    assert "CI" not in found
    assert "day_budget_usd" not in found["Short trial"]


def test_placeholders_have_digit_groups(page: Client, cast: Cast) -> None:
    Plan.objects.filter(slug="free").update(tpm=1_000_000)
    form = page.get(reverse("key-create", args=[cast.slug])).context["form"]
    assert form.fields["tpm"].widget.attrs["placeholder"] == "1,000,000"
    assert form.fields["tpm"].widget.attrs["max"] == 1_000_000


def test_keys_beyond_the_plan_are_refused(page: Client, cast: Cast) -> None:
    Plan.objects.filter(slug="free").update(max_keys=1)
    response = page.post(reverse("key-create", args=[cast.slug]), {"name": "one too many"}, headers=HTMX)
    assert response.status_code == 422
    assert "reached your plan" in response.content.decode()
    assert ApiKey.objects.count() == 1


def test_revoking_asks_for_confirmation_and_is_audited(page: Client, cast: Cast) -> None:
    where = reverse("key-revoke", args=[cast.slug, cast.key.pk])
    question = page.get(where).content.decode()
    assert cast.key.name in question
    assert ApiKey.objects.get().revoked_at is None
    page.post(where)
    assert ApiKey.objects.get().revoked_at is not None
    entry = AuditEntry.objects.get(action="key.revoked")
    assert (entry.actor, entry.organization, entry.address) == (cast.ben, cast.organization, "127.0.0.1")


def edited(cast: Cast, **fields: Any) -> dict[str, Any]:
    """Form data of the key `prod-web`, with some fields changed."""
    return {"name": cast.key.name, "expires_in_days": "", **fields}


def test_name_and_terms_of_a_key_can_be_changed(page: Client, cast: Cast) -> None:
    where = reverse("key-edit", args=[cast.slug, cast.key.pk])
    page.post(
        where,
        edited(
            cast,
            name="prod-api",
            rpm="4",
            budget_usd="2.5",
            allowed_stages=["plan", "review"],
            allowed_models=["gpt-6.1-sol"],
            allowed_surfaces=["chat"],
            networks="10.0.0.0/8\n2001:db8::1",
            expires_in_days="30",
        ),
    )
    key = ApiKey.objects.get()
    assert (key.name, key.rpm, key.budget_month_nanos) == ("prod-api", 4, 2_500_000_000)
    assert (key.allowed_stages, key.allowed_models, key.allowed_surfaces) == (
        ["plan", "review"],
        ["gpt-6.1-sol"],
        ["chat"],
    )
    assert key.allowed_networks == ["10.0.0.0/8", "2001:db8::1/128"]
    assert key.expires_at is not None
    assert set(AuditEntry.objects.filter(action__startswith="key.").values_list("action", flat=True)) == {
        "key.issued", "key.renamed", "key.changed",
    }  # fmt: skip
    # Submitting the form unchanged changes nothing.
    form = page.get(where).context["form"]
    shown = {name: form[name].value() for name in form.fields}
    assert (shown["budget_usd"], shown["networks"]) == ("2.5", "10.0.0.0/8\n2001:db8::1/128")
    entries = AuditEntry.objects.count()
    page.post(where, {name: "" if value is None else value for name, value in shown.items()})
    assert AuditEntry.objects.count() == entries
    unchanged = ApiKey.objects.get()
    assert (unchanged.expires_at, unchanged.rpm) == (key.expires_at, 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rpm": "11"}, "at most 10"),
        ({"daily_requests": "51"}, "at most 50"),
        ({"tpm": "20001"}, "at most 20,000"),
        ({"concurrent_streams": "2"}, "at most 1"),
        ({"networks": "10.0.0.0/33"}, "neither an address nor a network"),
        ({"networks": f"fe80::1%{'x' * 60}"}, "neither an address nor a network"),
        ({"allowed_stages": "nonsense"}, "nonsense"),
    ],
)
def test_a_key_cannot_exceed_its_plan(page: Client, cast: Cast, wrong: dict[str, str], message: str) -> None:
    response = page.post(reverse("key-edit", args=[cast.slug, cast.key.pk]), edited(cast, **wrong))
    assert response.status_code == 422
    assert message in response.content.decode()
    assert not AuditEntry.objects.filter(action="key.changed").exists()


def test_a_key_budget_cannot_exceed_the_organization_budget(page: Client, cast: Cast) -> None:
    set_budgets(cast.organization, day_nanos=None, month_nanos=3_000_000_000)
    where = reverse("key-edit", args=[cast.slug, cast.key.pk])
    assert "own budget is $3.00" in page.post(where, edited(cast, budget_usd="3.01")).content.decode()
    assert page.post(where, edited(cast, budget_usd="3")).status_code == 302


def test_rotation_shows_the_new_secret_once_and_both_keys_work(page: Client, cast: Cast) -> None:
    ApiKey.objects.update(rpm=3, allowed_stages=["plan"])
    where = reverse("key-rotate", args=[cast.slug, cast.key.pk])
    assert "24 hours" in page.get(where).content.decode()
    response = page.post(where, {"overlap_s": "3600"}, headers=HTMX)
    assert "no-store" in response["Cache-Control"]
    secret = response.context["secret"]
    assert secret in response.content.decode()
    old, new = ApiKey.objects.get(pk=cast.key.pk), ApiKey.objects.exclude(pk=cast.key.pk).get()
    assert (old.state(now()), old.rotated_to) == (ApiKey.State.ROTATED, new)
    assert old.state(now() + timedelta(hours=1)) == ApiKey.State.REVOKED
    assert (new.name, new.rpm, new.allowed_stages, new.created_by) == ("prod-web", 3, ["plan"], cast.ben)
    text = page.get(reverse("keys", args=[cast.slug])).content.decode()
    assert "Rotated" in text
    assert "until" in text
    assert secret not in text
    # While the old key works, neither key can be rotated.
    for key in (old, new):
        response = page.post(reverse("key-rotate", args=[cast.slug, key.pk]), {"overlap_s": "0"})
        assert response.status_code == 422
    assert ApiKey.objects.count() == 2


def test_rotation_without_overlap_revokes_the_old_key(page: Client, cast: Cast) -> None:
    response = page.post(reverse("key-rotate", args=[cast.slug, cast.key.pk]), {"overlap_s": "0"})
    assert "has stopped working" in response.content.decode()
    assert ApiKey.objects.get(pk=cast.key.pk).state(now()) == ApiKey.State.REVOKED
    assert page.post(reverse("key-rotate", args=[cast.slug, cast.key.pk]), {"overlap_s": "1"}).status_code == 422


def test_a_rotated_key_does_not_count_against_the_plan(page: Client, cast: Cast) -> None:
    Plan.objects.filter(slug="free").update(max_keys=1)
    assert page.post(reverse("key-rotate", args=[cast.slug, cast.key.pk]), {"overlap_s": "3600"}).status_code == 200
    response = page.post(reverse("key-create", args=[cast.slug]), {"name": "one too many"})
    assert response.status_code == 422


def test_the_detail_page_shows_the_terms_of_a_key(page: Client, cast: Cast) -> None:
    ApiKey.objects.update(rpm=7, allowed_networks=["10.0.0.0/8"], budget_month_nanos=5_000_000_000)
    where = reverse("key", args=[cast.slug, cast.key.pk])
    for headers in ({}, HTMX):
        text = page.get(where, headers=headers).content.decode()
        for shown in ("10.0.0.0/8", "of $5.00", cast.key.prefix, "Rotate", "Ada", "(plan)"):
            assert shown in text, shown
    assert "<html" not in text


def test_a_viewer_sees_a_key_but_no_actions(client: Client, cast: Cast) -> None:
    client.force_login(cast.vic)
    text = client.get(reverse("key", args=[cast.slug, cast.key.pk])).content.decode()
    assert cast.key.prefix in text
    assert reverse("key-rotate", args=[cast.slug, cast.key.pk]) not in text


@pytest.mark.parametrize("name", ["key-create", "key-rotate"])
def test_creating_and_rotating_keys_requires_reauthentication(client: Client, cast: Cast, name: str) -> None:
    cast.ben.set_password("correct horse battery")
    cast.ben.created_at -= timedelta(hours=1)
    cast.ben.save()
    client.post(reverse("account_login"), {"login": cast.ben.email, "password": "correct horse battery"})
    where = reverse(name, args=[cast.slug] if name == "key-create" else [cast.slug, cast.key.pk])
    assert client.get(where).status_code == 200
    session = client.session
    for record in session["account_authentication_methods"]:
        record["at"] -= 31 * 60
    session.save()
    assert client.get(where)["Location"].startswith(reverse("account_reauthenticate"))
    User.objects.filter(pk=cast.ben.pk).update(created_at=now())
    assert client.get(where).status_code == 200, "a user who has just signed up need not reauthenticate"
    User.objects.filter(pk=cast.ben.pk).update(created_at=now() - timedelta(hours=1))
    assert client.post(where, {"name": "x"}, headers=HTMX)["HX-Redirect"].startswith(reverse("account_reauthenticate"))
    client.post(reverse("account_reauthenticate"), {"password": "correct horse battery"})
    assert client.get(where).status_code == 200


def test_a_name_is_escaped_on_every_page(page: Client, cast: Cast) -> None:
    name = "\"><b id='x'>{{ 1 }}"
    ApiKey.objects.update(name=name)
    for where in (
        reverse("keys", args=[cast.slug]),
        reverse("key-revoke", args=[cast.slug, cast.key.pk]),
        reverse("key", args=[cast.slug, cast.key.pk]),
        reverse("key-edit", args=[cast.slug, cast.key.pk]),
        reverse("key-rotate", args=[cast.slug, cast.key.pk]),
        reverse("log", args=[cast.slug]),
        reverse("overview", args=[cast.slug]),
    ):
        text = page.get(where).content.decode()
        assert "<b id=" not in text, where
        assert "&gt;&lt;b id=" in text, where


def test_the_number_of_queries_does_not_grow_with_the_number_of_keys(page: Client, cast: Cast) -> None:
    where = reverse("keys", args=[cast.slug])
    page.get(where)
    with CaptureQueriesContext(connection) as few:
        page.get(where)
    Plan.objects.update(max_keys=100)
    for n in range(20):
        issue_key(cast.organization, name=f"key {n}", created_by=cast.ada)
    with CaptureQueriesContext(connection) as many:
        page.get(where)
    assert len(many) == len(few)


def test_editing_a_key_never_widens_its_permissions(page: Client, cast: Cast) -> None:
    """A rename must not empty an allow-list whose names the plan no longer offers: an empty list allows everything."""
    ApiKey.objects.update(allowed_models=["withdrawn-model"], allowed_stages=["plan"])
    Plan.objects.filter(slug="free").update(allowed_stages=["code", "review"])
    where = reverse("key-edit", args=[cast.slug, cast.key.pk])
    form = page.get(where).context["form"]
    shown = {name: form[name].value() for name in form.fields}
    sent = {name: "" if value is None else value for name, value in shown.items()}
    for name in ("allowed_models", "allowed_stages"):
        # A browser sends the ticked boxes, and only choices that are offered can be ticked.
        sent[name] = [value for value in shown[name] if value in dict(form.fields[name].choices)]
    assert page.post(where, {**sent, "name": "renamed"}).status_code == 302
    key = ApiKey.objects.get()
    assert (key.name, key.allowed_models, key.allowed_stages) == ("renamed", ["withdrawn-model"], ["plan"])


def test_the_end_that_is_kept_is_the_day_that_the_list_shows(page: Client, cast: Cast) -> None:
    User.objects.update(timezone="Asia/Tokyo")
    ApiKey.objects.update(expires_at=datetime(2090, 5, 7, 22, tzinfo=UTC))
    where = reverse("key-edit", args=[cast.slug, cast.key.pk])
    assert "Unchanged: 8 May 2090" in page.get(where).content.decode()
    assert "8 May 2090" in page.get(reverse("keys", args=[cast.slug])).content.decode()


def api(page: Client, where: str, **wanted: Any) -> Any:
    return page.post(where, wanted, content_type="application/json")


def test_an_expiry_after_the_year_9999_is_refused(page: Client, cast: Cast) -> None:
    """East of Greenwich the last hours of 9999 lie in the year 10000, which datetime cannot represent."""
    User.objects.filter(pk=cast.ben.pk).update(timezone="Europe/Istanbul")
    for moment in ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59"):
        response = api(page, reverse("api-keys"), name="for ever", expires_at=moment)
        assert (response.status_code, response.json()["error"]["param"]) == (400, "expires_at")
    assert api(page, reverse("api-keys"), name="long", expires_at="9998-12-31T23:59:59Z").status_code == 201
    assert page.get(reverse("keys", args=[cast.slug])).status_code == 200


@pytest.mark.parametrize("amount", ["1e999999", "1e200000", "-1e999999"])
def test_a_huge_budget_is_refused(page: Client, cast: Cast, amount: str) -> None:
    response = api(page, reverse("api-keys"), name="rich", budget_day_usd=amount)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "budget_day_usd")


@pytest.mark.parametrize("name", ["api-keys", "api-key-rotate"])
def test_the_management_api_requires_reauthentication_for_secrets(client: Client, cast: Cast, name: str) -> None:
    cast.ben.set_password("correct horse battery")
    cast.ben.created_at -= timedelta(hours=1)
    cast.ben.save()
    client.force_login(cast.ben)
    where = reverse(name, args=[] if name == "api-keys" else [cast.key.pk])
    response = api(client, where, name="x", overlap_s=0)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "reauthentication_required")
    assert ApiKey.objects.count() == 1
    client.post(reverse("account_reauthenticate"), {"password": "correct horse battery"})
    assert api(client, where, name="x", overlap_s=0).status_code == 201


def test_the_command_palette_finds_keys_by_name_and_public_id(client: Client, cast: Cast) -> None:
    where = reverse("keys-named", args=[cast.slug])
    client.force_login(cast.vic)

    def found(text: str) -> list[str]:
        return [each["name"] for each in client.get(where, {"q": text}).json()["keys"]]

    assert found("PROD") == ["prod-web"]
    assert found(cast.key.public_id) == found(cast.key.prefix) == ["prod-web"]
    assert found("") == found("nothing-like-it") == []
    (key,) = client.get(where, {"q": "prod"}).json()["keys"]
    assert key == {"name": "prod-web", "prefix": cast.key.prefix, "url": reverse("key", args=[cast.slug, cast.key.pk])}
    client.force_login(cast.eve)
    assert client.get(where, {"q": "prod"}).status_code == 404
    own = reverse("keys-named", args=[cast.eve.organizations.get().slug])
    assert client.get(own, {"q": "prod"}).json() == {"keys": []}
