"""Operators' pages of unmatched reports and the reconciliation."""

import hashlib

import pytest
from django.test import Client

from accounts.models import AuditEntry, User
from codexflow.lib import clock
from keys.models import ApiKey
from keys.tests.factories import a_key
from logs.litellm.ingest import take
from logs.litellm.tests.factories import a_payload, mapped
from logs.models import DayReconciled, RequestLog, UnmatchedReport

pytestmark = pytest.mark.django_db(transaction=True)
LIST = "/ops/logs/unmatchedreport/"
HASH = hashlib.sha256(b"sk-nobody-yet").hexdigest()


@pytest.fixture
def root(client: Client) -> User:
    user = User.objects.create_superuser("root@example.org")
    client.force_login(user)
    return user


def test_reports_are_mapped_to_a_key_together_with_later_ones(client: Client, root: User) -> None:
    take(mapped(*(a_payload(f"c{n}", key_hash=HASH) for n in range(3))))
    key = a_key().row
    chosen = {"action": "map_to_key", "_selected_action": [str(UnmatchedReport.objects.values_list("pk")[0][0])]}
    asked = client.post(LIST, chosen)
    assert b'name="key"' in asked.content
    assert b"There is no such key." in client.post(LIST, {**chosen, "key": "nonsense"}).content
    done = client.post(LIST, {**chosen, "key": key.public_id}, follow=True)
    assert "3 reports were mapped." in done.content.decode()
    assert UnmatchedReport.objects.count() == 0
    assert ApiKey.objects.get(pk=key.pk).litellm_key_id == HASH
    assert AuditEntry.objects.get(action="reports.mapped").facts["count"] == 3
    take(mapped(a_payload("later", key_hash=HASH)))
    assert RequestLog.objects.filter(organization_id=key.organization_id, cost_nanos=0).count() == 4


def test_an_unmatched_report_shows_the_user_that_it_names(client: Client, root: User) -> None:
    facts = {"model": "m", "usage": {"total_tokens": 3}}
    take(mapped({**facts, "user_id": "cf_abc123"}, {**facts, "user_id": "ada@example.org"}))
    take(mapped({**facts, "metadata": {"laravel_user_id": 4711}}))
    shown = client.get(LIST).content.decode()
    assert f"sha256:{hashlib.sha256(b'cf_abc123').hexdigest()}" in shown, "it may be a key: its text was not kept"
    assert "ada@example.org" in shown
    assert "4711" in shown


def test_a_key_that_is_mapped_already_takes_only_the_chosen_reports(client: Client, root: User) -> None:
    take(mapped(a_payload("a", key_hash=HASH), a_payload("b", key_hash=HASH)))
    key = a_key().row
    ApiKey.objects.filter(pk=key.pk).update(litellm_key_id="another")
    first = UnmatchedReport.objects.order_by("pk").values_list("pk", flat=True)[0]
    client.post(LIST, {"action": "map_to_key", "_selected_action": [str(first)], "key": f"cfx_{key.public_id}"})
    assert UnmatchedReport.objects.count() == 1
    assert ApiKey.objects.get(pk=key.pk).litellm_key_id == "another"


def test_an_administrator_sees_reports_without_prompts_and_maps_them(client: Client) -> None:
    client.force_login(User.objects.create_user("admin@example.org", role=User.Role.ADMIN))
    take(mapped(a_payload("a", key_hash=HASH)))
    first = UnmatchedReport.objects.get()
    assert client.get(LIST).status_code == 200
    assert "prompt-words" not in client.get(f"{LIST}{first.pk}/change/").content.decode()
    key = a_key().row
    client.post(LIST, {"action": "map_to_key", "_selected_action": [str(first.pk)], "key": key.public_id})
    assert UnmatchedReport.objects.count() == 0
    assert ApiKey.objects.get(pk=key.pk).litellm_key_id == HASH


def test_the_page_of_a_day_shows_its_models(client: Client, root: User) -> None:
    today = clock.now().date()
    zeros = dict.fromkeys(
        ("matched", "missing_there", "past_gateway", "differing", "token_drift", "cost_drift_nanos"), 0
    )
    DayReconciled.objects.create(day=today, compared_at=clock.now(), missing_here=1, **zeros)
    take(mapped(a_payload("nobody's", key_hash=HASH, model_group="deepseek-v3")))
    days = client.get("/ops/logs/dayreconciled/").content.decode()
    assert f"/ops/logs/dayreconciled/{today}/change/" in days
    page = client.get(f"/ops/logs/dayreconciled/{today}/change/").content.decode()
    models = page[page.index("Missing there: ") :]
    assert "deepseek-v3" in models
    assert 'name="_save"' not in page
    assert client.get("/ops/logs/dayreconciled/2020-01-01/change/").status_code == 302
