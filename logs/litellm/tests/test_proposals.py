"""Proposals of a key for unmatched reports, from LiteLLM's key list."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.test import Client

from accounts.models import AuditEntry, User
from accounts.services import create_personal_organization
from accounts.tests.factories import a_user
from keys.models import ApiKey
from keys.services import issue_key, revoke_key
from logs.litellm.ingest import take
from logs.litellm.proposals import proposals_for, users_of
from logs.litellm.tests.factories import a_payload, mapped
from logs.models import UnmatchedReport
from tests.support.litellm_admin import ADMIN_KEY, LitellmAdmin

pytestmark = pytest.mark.django_db(transaction=True)
LIST = "/ops/logs/unmatchedreport/"
HASH = hashlib.sha256(b"sk-nobody-yet").hexdigest()


@pytest.fixture
def litellm(settings: Any) -> Iterator[LitellmAdmin]:
    with LitellmAdmin() as server:
        settings.ENV = replace(
            settings.ENV, litellm_url=server.url, litellm_admin_key=ADMIN_KEY, is_demo_upstream=False
        )
        yield server


def a_key_of(user: User, name: str = "laptop") -> ApiKey:
    return issue_key(create_personal_organization(user), name=name, created_by=user).row


def reports(count: int = 2) -> list[UnmatchedReport]:
    take(mapped(*(a_payload(f"c{n}", key_hash=HASH) for n in range(count))))
    return list(UnmatchedReport.objects.all())


@pytest.mark.parametrize(
    ("row", "users"),
    [
        ({"metadata": {"user_id": 7}}, [("metadata.user_id", "7")]),
        (
            {"metadata": {"user_email": " ada@example.org "}, "user_id": "u-1"},
            [("metadata.user_email", "ada@example.org"), ("user_id", "u-1")],
        ),
        ({"metadata": "text", "user_id": "default_user_id", "user_email": None}, []),
        ({"metadata": {"user_id": True, "user_email": ["a@b"]}}, []),
        ({}, []),
    ],
)
def test_users_are_read_from_the_list(row: dict[str, Any], users: list[tuple[str, str]]) -> None:
    assert users_of(row) == users


def test_the_keys_of_the_named_user_are_proposed(litellm: LitellmAdmin) -> None:
    ada, eve = a_user(), a_user("eve")
    key, revoked = a_key_of(ada), a_key_of(ada, "old")
    revoke_key(revoked)
    a_key_of(eve)
    waiting = reports()
    other = {"token": "another", "metadata": {"user_email": eve.email}}
    for row, field in (
        ({"metadata": {"user_email": ada.email.upper()}}, "metadata.user_email"),
        ({"metadata": {"user_id": str(ada.pk)}}, "metadata.user_id"),
        ({"user_email": ada.email}, "user_email"),
    ):
        litellm.keys = [other, {"token": HASH, **row}]
        (found,) = proposals_for(waiting).found
        assert (found.key, found.field) == (key, field)
    for nobody in ({"metadata": {"user_email": "nobody@example.org"}}, {"user_id": "99999999999"}, {"user_id": "x"}):
        litellm.keys = [{"token": HASH, **nobody}]
        assert proposals_for(waiting).found == []


def test_nothing_is_proposed_without_a_key_or_a_list(litellm: LitellmAdmin, settings: Any) -> None:
    waiting = reports()
    assert proposals_for(waiting).found == ()
    take(mapped(a_payload("other", key_hash=hashlib.sha256(b"other").hexdigest())))
    asked = len(litellm.asked)
    assert proposals_for(list(UnmatchedReport.objects.all())).found == ()
    assert len(litellm.asked) == asked, "reports of two keys"
    litellm.fail_next = 1
    assert "503" in proposals_for(waiting).problem
    settings.ENV = replace(settings.ENV, litellm_admin_key="")
    assert (proposals_for(waiting).found, proposals_for(waiting).problem) == ((), "")


def test_an_operator_accepts_a_proposal_with_one_click(litellm: LitellmAdmin, client: Client) -> None:
    ada = a_user()
    key = a_key_of(ada)
    waiting = reports()
    litellm.keys = [{"token": HASH, "metadata": {"user_email": ada.email}}]
    client.force_login(User.objects.create_superuser("root@example.org"))
    chosen = {"action": "map_to_key", "_selected_action": [str(waiting[0].pk)]}
    shown = client.post(LIST, chosen).content.decode()
    assert UnmatchedReport.objects.count() == 2, "nothing is mapped by looking"
    for text in (key.prefix, key.organization.name, "metadata.user_email", ada.email):
        assert text in shown, text
    accepted = {**chosen, "key": key.public_id, "rests_on": "metadata.user_email"}
    assert "2 reports were mapped." in client.post(LIST, accepted, follow=True).content.decode()
    assert ApiKey.objects.get(pk=key.pk).litellm_key_id == HASH
    facts = AuditEntry.objects.get(action="reports.mapped").facts
    assert (facts["rests_on"], facts["count"]) == ("metadata.user_email", 2)


def test_what_a_proposal_rests_on_is_one_of_the_list_s_fields(litellm: LitellmAdmin, client: Client) -> None:
    key = a_key_of(a_user())
    client.force_login(User.objects.create_superuser("root@example.org"))
    chosen = {"action": "map_to_key", "_selected_action": [str(reports()[0].pk)]}
    client.post(LIST, {**chosen, "key": key.public_id, "rests_on": "my own words"})
    assert "rests_on" not in AuditEntry.objects.get(action="reports.mapped").facts
