"""Reports of leaked keys: the key is revoked and its people are told once; nothing of it is kept."""

import json
from typing import Any

import pytest
from django.core import mail
from django.test import Client

from accounts.models import AuditEntry, Membership, User, WebhookDelivery
from accounts.webhooks.services import add_endpoint
from codexflow.lib.ids import random_id
from keys.leaks import report_leak, shown_place
from keys.models import ApiKey
from keys.services import IssuedKey, issue_key
from tests.support.cast import Cast

URL = "/api/v1/leaked-keys"


@pytest.fixture
def issued(cast: Cast) -> IssuedKey:
    return issue_key(cast.organization, name="ci", created_by=cast.ben)


@pytest.fixture
def client() -> Client:
    """A client with an address of its own, whose reports nobody has counted yet."""
    return Client(REMOTE_ADDR=f"2001:db8::{random_id().hex[:4]}:{random_id().hex[:4]}")


def reported(client: Client, body: Any) -> Any:
    return client.post(URL, json.dumps(body), content_type="application/json")


def test_a_leaked_key_is_revoked_and_its_people_are_told_once(
    client: Client, cast: Cast, issued: IssuedKey, django_capture_on_commit_callbacks: Any
) -> None:
    url = "https://hook.example.com/in"
    add_endpoint(cast.organization, url=url, events=["key.leaked"], actor=cast.ada, address=None)
    found = {"token": issued.plain, "type": "codexflow_api_key", "url": "https://example.com/a", "source": "commit"}
    with django_capture_on_commit_callbacks(execute=True):
        first = reported(client, [found])
    assert first.json() == [{"token_type": "codexflow_api_key", "label": "true_positive"}]
    assert ApiKey.objects.get(pk=issued.row.pk).revoked_at is not None
    assert {message.to[0] for message in mail.outbox} == {"ada@example.org", "ben@example.org"}
    assert "https://example.com/a" in mail.outbox[0].body
    assert WebhookDelivery.objects.get().event == "key.leaked"
    with django_capture_on_commit_callbacks(execute=True):
        again = reported(client, found)
    assert again.json()[0]["label"] == "true_positive"
    assert len(mail.outbox) == 2
    assert AuditEntry.objects.filter(action="key.leaked").count() == 1


def test_nothing_of_the_key_is_kept(client: Client, issued: IssuedKey, caplog: Any) -> None:
    reported(client, {"token": issued.plain, "url": f"https://example.com/?key={issued.plain}&other=sk-abcdef"})
    kept = str([entry.facts for entry in AuditEntry.objects.all()]) + caplog.text + str(mail.outbox)
    assert issued.plain not in kept
    assert "sk-abcdef" not in kept


@pytest.mark.parametrize("token", ["cfx_nonsense", "sk-1234567890", "x"])
def test_other_keys_are_false_positives(client: Client, issued: IssuedKey, token: str) -> None:
    assert reported(client, {"token": token}).json()[0]["label"] == "false_positive"
    assert ApiKey.objects.get(pk=issued.row.pk).revoked_at is None


def test_a_public_id_alone_is_no_proof(client: Client, cast: Cast, issued: IssuedKey) -> None:
    other = issue_key(cast.organization, name="other", created_by=cast.ada).plain
    parts = issued.plain.split("_")
    forged = "_".join([parts[0], parts[1], *other.split("_")[2:]])
    assert reported(client, {"token": forged}).json()[0]["label"] == "false_positive"
    assert not ApiKey.objects.exclude(revoked_at=None).exists()


@pytest.mark.parametrize("body", [[], {}, {"token": ""}, {"token": 5.5, "url": []}, [{"token": "a"}] * 101, "text", 5])
def test_a_body_of_another_form_is_refused(client: Client, cast: Cast, body: Any) -> None:
    assert reported(client, body).status_code == 400


def test_an_address_may_try_thirty_times_a_minute(client: Client, cast: Cast) -> None:
    answers = [reported(client, {"token": "cfx_x"}) for _ in range(31)]
    assert [each.status_code for each in answers] == [200] * 30 + [429]
    assert answers[-1].json()["error"]["code"] == "too_many_reports"
    assert 1 <= int(answers[-1]["Retry-After"]) <= 60


def test_a_suspended_maker_gets_no_mail(cast: Cast, issued: IssuedKey, django_capture_on_commit_callbacks: Any) -> None:
    User.objects.filter(pk=cast.ben.pk).update(is_active=False)
    Membership.objects.filter(user=cast.ben).update(role="viewer")
    with django_capture_on_commit_callbacks(execute=True):
        assert report_leak(issued.plain).is_new
    assert [message.to for message in mail.outbox] == [["ada@example.org"]]


def test_a_maker_who_has_left_gets_no_mail(
    cast: Cast, issued: IssuedKey, django_capture_on_commit_callbacks: Any
) -> None:
    cast.organization.memberships.filter(user=cast.ben).delete()
    with django_capture_on_commit_callbacks(execute=True):
        assert report_leak(issued.plain).is_new
    assert [message.to for message in mail.outbox] == [["ada@example.org"]]


def test_the_place_is_one_short_line_without_keys() -> None:
    assert shown_place("a\n b\tc") == "a b c"
    assert len(shown_place("x" * 1_000)) == 300
    assert shown_place("see ghp_abcdefghij and cfx_a1b2_c3") == "see … and …"
