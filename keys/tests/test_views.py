"""The page of API keys."""

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts.models import AuditEntry
from billing.models import Plan
from codexflow.testing.cast import Cast
from keys.models import ApiKey
from keys.services import issue_key

HTMX = {"hx-request": "true"}


@pytest.fixture
def page(client: Client, cast: Cast) -> Client:
    client.force_login(cast.ben)
    return client


def test_the_secret_is_shown_once_and_never_again(page: Client, cast: Cast) -> None:
    answer = page.post(reverse("key-create", args=[cast.slug]), {"name": "laptop"}, headers=HTMX)
    assert answer.status_code == 200
    assert answer["Cache-Control"] == "no-store"
    secret = answer.context["secret"]
    assert secret.startswith("cfx_")
    assert secret in answer.content.decode()
    assert ApiKey.objects.get(name="laptop").created_by == cast.ben
    for name in ("keys", "overview", "log", "key-create"):
        assert secret not in page.get(reverse(name, args=[cast.slug])).content.decode()
    assert secret not in str(list(AuditEntry.objects.values_list("facts", flat=True)))


def test_without_scripts_the_secret_is_a_page(page: Client, cast: Cast) -> None:
    answer = page.post(reverse("key-create", args=[cast.slug]), {"name": "laptop"})
    assert answer["Cache-Control"] == "no-store"
    assert answer.context["secret"] in answer.content.decode()
    assert "<html" in answer.content.decode()


def test_a_key_gets_its_limits_and_its_end(page: Client, cast: Cast) -> None:
    page.post(
        reverse("key-create", args=[cast.slug]),
        {"name": "ci", "rpm": "5", "budget_usd": "1.50", "expires_in_days": "30"},
    )
    key = ApiKey.objects.get(name="ci")
    assert (key.rpm, key.budget_month_nanos, key.daily_requests) == (5, 1_500_000_000, None)
    assert key.expires_at is not None
    assert (key.expires_at - key.created_at).days in (29, 30)


@pytest.mark.parametrize(
    "wrong", [{"name": ""}, {"name": "a", "rpm": "11"}, {"name": "a", "rpm": "0"}, {"name": "a", "budget_usd": "-1"}]
)
def test_a_wrong_form_comes_back_with_its_errors(page: Client, cast: Cast, wrong: dict[str, str]) -> None:
    answer = page.post(reverse("key-create", args=[cast.slug]), wrong, headers=HTMX)
    assert answer.status_code == 422
    assert 'aria-invalid="true"' in answer.content.decode()
    assert ApiKey.objects.count() == 1


def test_more_keys_than_the_plan_allows_are_refused(page: Client, cast: Cast) -> None:
    Plan.objects.filter(slug="free").update(max_keys=1)
    answer = page.post(reverse("key-create", args=[cast.slug]), {"name": "one too many"}, headers=HTMX)
    assert answer.status_code == 422
    assert "used up" in answer.content.decode()
    assert ApiKey.objects.count() == 1


def test_revoking_asks_first_and_is_written_down(page: Client, cast: Cast) -> None:
    where = reverse("key-revoke", args=[cast.slug, cast.key.pk])
    question = page.get(where).content.decode()
    assert cast.key.name in question
    assert ApiKey.objects.get().revoked_at is None
    page.post(where)
    assert ApiKey.objects.get().revoked_at is not None
    entry = AuditEntry.objects.get(action="key.revoked")
    assert (entry.actor, entry.organization, entry.address) == (cast.ben, cast.organization, "127.0.0.1")


def test_renaming(page: Client, cast: Cast) -> None:
    page.post(reverse("key-rename", args=[cast.slug, cast.key.pk]), {"name": "prod-api"})
    assert ApiKey.objects.get().name == "prod-api"


def test_a_name_is_text_wherever_it_stands(page: Client, cast: Cast) -> None:
    name = "\"><b id='x'>{{ 1 }}"
    ApiKey.objects.update(name=name)
    for where in (
        reverse("keys", args=[cast.slug]),
        reverse("key-revoke", args=[cast.slug, cast.key.pk]),
        reverse("key-rename", args=[cast.slug, cast.key.pk]),
        reverse("log", args=[cast.slug]),
        reverse("overview", args=[cast.slug]),
    ):
        text = page.get(where).content.decode()
        assert "<b id=" not in text, where
        assert "&gt;&lt;b id=" in text, where


def test_the_number_of_queries_does_not_grow_with_the_keys(page: Client, cast: Cast) -> None:
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
