"""Deletion of organizations and users."""

from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.test import Client
from django.urls import reverse

from accounts import deletion, members
from accounts.models import AuditEntry, Membership, User
from billing.models import Account, LedgerEntry
from billing.selectors import account_of
from keys import invalidation
from keys.models import ApiKey
from keys.selectors import principal_of
from keys.services import issue_key
from tests.support.cast import Cast


@pytest.fixture
def page(client: Client, cast: Cast) -> Client:
    client.force_login(cast.ada)
    return client


def test_deleting_an_organization_ends_access_and_keeps_the_ledger(page: Client, cast: Cast) -> None:
    account_of(cast.organization)
    where = reverse("organization-delete", args=[cast.slug])
    assert page.post(where, {"typed": "analytical engines"}).status_code == 422
    assert page.post(where, {"typed": "Analytical Engines"})["Location"] == reverse("home")
    cast.organization.refresh_from_db()
    cast.key.refresh_from_db()
    assert cast.organization.deleted_at is not None
    assert cast.key.revoked_at is not None
    assert page.get(reverse("overview", args=[cast.slug])).status_code == 404
    assert LedgerEntry.objects.filter(organization=cast.organization).exists()
    assert Account.objects.filter(organization=cast.organization).exists()
    actions = set(AuditEntry.objects.filter(organization=cast.organization).values_list("action", flat=True))
    assert {"organization.deleted", "key.revoked"} <= actions
    # A user without any organization gets a new personal one.
    assert page.get(reverse("home")).status_code == 302
    assert cast.ada.organizations.filter(is_active=True).count() == 1


def test_deleting_an_organization_invalidates_its_keys_in_every_gateway(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    invalidated: list[str] = []
    monkeypatch.setattr(invalidation, "invalidate_key", invalidated.append)
    with django_capture_on_commit_callbacks(execute=True):
        deletion.delete_organization(cast.organization, actor=cast.ada)
    assert invalidated == [cast.key.public_id]


def test_a_deleted_user_is_anonymized_and_loses_access(client: Client, cast: Cast) -> None:
    EmailAddress.objects.create(user=cast.eve, email=cast.eve.email, verified=True, primary=True)
    own = cast.eve.organizations.get()
    client.force_login(cast.eve)
    where = reverse("account-delete")
    assert client.post(where, {"typed": "EVE@example.org"}).status_code == 422
    assert client.post(where, {"typed": "eve@example.org"})["Location"] == reverse("landing")
    row = User.objects.get(pk=cast.eve.pk)
    assert (row.email, row.name, row.is_active) == (f"deleted-{row.pk}@invalid", "", False)
    assert not row.has_usable_password()
    assert not EmailAddress.objects.filter(user=row).exists()
    own.refresh_from_db()
    assert own.deleted_at is not None
    assert client.get(reverse("profile")).status_code == 302
    assert mail.outbox[-1].to == ["eve@example.org"]
    # The address is free again.
    User.objects.create_user("eve@example.org")


def test_all_sessions_of_a_deleted_user_end(cast: Cast) -> None:
    other = Client()
    other.force_login(cast.ben)
    assert other.get(reverse("profile")).status_code == 200
    deletion.delete_account(cast.ben)
    assert other.get(reverse("profile")).status_code == 302


def test_the_only_owner_of_other_members_cannot_delete_the_account(page: Client, cast: Cast) -> None:
    text = page.get(reverse("account-delete")).content.decode()
    assert "Analytical Engines" in text
    assert "Type" not in text.partition("<main")[2]
    assert page.post(reverse("account-delete"), {"typed": cast.ada.email}).status_code == 422
    Membership.objects.filter(organization=cast.organization, user=cast.ben).update(role="owner")
    page.post(reverse("account-delete"), {"typed": cast.ada.email})
    cast.organization.refresh_from_db()
    assert cast.organization.is_active
    # Keys belong to the organization, not to the user who made them.
    assert ApiKey.objects.filter(organization=cast.organization, revoked_at=None).exists()
    assert list(cast.organization.memberships.filter(role="owner").values_list("user", flat=True)) == [cast.ben.pk]


def test_keys_of_a_deleted_user_stay_with_the_organization(cast: Cast, client: Client) -> None:
    left = issue_key(cast.organization, name="ci", created_by=cast.ben).row
    gone = issue_key(cast.eve.organizations.get(), name="alone", created_by=cast.eve).row
    client.force_login(cast.ben)
    assert "belong to those and keep working" in client.get(reverse("account-delete")).content.decode()
    deletion.delete_account(cast.ben)
    deletion.delete_account(cast.eve)
    kept, ended = principal_of(left.public_id), principal_of(gone.public_id)
    assert kept is not None
    assert ended is not None
    assert (kept.is_revoked, kept.is_suspended) == (False, False)
    assert ended.is_revoked
    facts = AuditEntry.objects.get(action="member.left", organization=cast.organization).facts
    assert facts["keeps_keys"] is True
    client.force_login(cast.ada)
    text = client.get(reverse("key", args=[cast.slug, left.pk])).content.decode()
    assert "deleted account" in text
    assert "@invalid" not in text


def test_keys_kept_at_a_removal_survive_deletion_of_the_user(cast: Cast) -> None:
    left = issue_key(cast.organization, name="ci", created_by=cast.ben).row
    place = cast.organization.memberships.get(user=cast.ben)
    members.remove(place, by_role="owner", keeps_keys=True, actor=cast.ada)
    deletion.delete_account(cast.ben)
    principal = principal_of(left.public_id)
    assert principal is not None
    assert not principal.is_suspended


def test_keys_of_a_suspended_user_stop(cast: Cast) -> None:
    User.objects.filter(pk=cast.ada.pk).update(is_active=False)
    principal = principal_of(cast.key.public_id)
    assert principal is not None
    assert principal.is_suspended
