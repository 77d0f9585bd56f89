"""Accounts: every organization has one from its creation."""

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.account.signals import email_confirmed
from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from accounts.deletion import delete_account
from accounts.models import Organization, User
from accounts.services import create_extra_organization, create_organization, create_personal_organization
from accounts.tests.factories import a_user
from billing.mailbox import mailbox_of
from billing.models import Account, FreeCredit, LedgerEntry, Plan
from billing.selectors import account_of
from billing.services import OPENING, open_account

free_credit_migration = import_module("billing.migrations.0007_free_credit_once")
migration = import_module("billing.migrations.0006_account_for_every_organization")


def a_user_at(address: str) -> User:
    return User.objects.create_user(address, "correct horse battery")


def opening_of(organization: Organization) -> int:
    entries = LedgerEntry.objects.filter(organization=organization, reference=OPENING)
    return sum(entries.values_list("amount_nanos", flat=True))


@pytest.mark.django_db
def test_an_organization_is_created_with_its_account_and_opening_credit() -> None:
    """Also before `seed` has run: missing plans of every installation are created."""
    organization = create_personal_organization(a_user())
    account = account_of(organization)
    assert (account.plan.slug, account.credit_nanos) == ("free", account.plan.included_credit_nanos)
    assert opening_of(organization) == account.credit_nanos > 0


@pytest.mark.django_db
def test_an_organization_may_begin_on_another_plan() -> None:
    organization = create_organization(name="Site", owner=a_user(), plan="internal")
    assert account_of(organization).plan.slug == "internal"
    assert opening_of(organization) == account_of(organization).plan.included_credit_nanos


@pytest.mark.django_db
def test_included_credit_of_a_free_plan_is_granted_once_per_user() -> None:
    ada = a_user()
    first, second = create_personal_organization(ada), create_extra_organization(name="Second", owner=ada)
    assert opening_of(first) > 0
    assert (opening_of(second), account_of(second).credit_nanos) == (0, 0)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("address", "again"),
    [
        ("grace@example.org", "grace@example.org"),
        ("grace@example.org", "Grace+2@Example.ORG"),
        ("g.race@gmail.com", "grac.e+x@googlemail.com"),
        ("grace@b\u00fccher.example", "grace@xn--bcher-kva.example"),
        ("grace@example.org", "\uff47race@example.org"),
    ],
)
def test_a_mailbox_gets_free_credit_once_also_after_deletion(address: str, again: str) -> None:
    first = a_user_at(address)
    assert opening_of(create_personal_organization(first)) > 0
    delete_account(first)
    second = a_user_at(again)
    assert opening_of(create_personal_organization(second)) == 0
    other = a_user_at(f"not-{address}")
    assert opening_of(create_personal_organization(other)) > 0


@pytest.mark.django_db
def test_an_address_that_was_added_counts_as_the_same_person(settings: Any) -> None:
    user = a_user()
    create_personal_organization(user)
    added = EmailAddress.objects.create(user=user, email="second@example.org", verified=True)
    email_confirmed.send(EmailAddress, request=None, email_address=added)
    delete_account(user)
    assert opening_of(create_personal_organization(a_user_at("second+1@example.org"))) == 0
    # A salt that was replaced still recognizes who had it.
    salt = settings.ENV.hash_salt
    settings.ENV = replace(settings.ENV, hash_salt="n" * 40, hash_salt_previous=salt)
    assert opening_of(create_personal_organization(a_user_at("second+2@example.org"))) == 0


@pytest.mark.django_db
def test_the_migration_remembers_who_had_free_credit() -> None:
    user = a_user_at("Old.One+x@gmail.com")
    create_personal_organization(user)
    FreeCredit.objects.all().delete()
    free_credit_migration.remember_granted(apps, None)
    free_credit_migration.remember_granted(apps, None)
    delete_account(user)
    assert opening_of(create_personal_organization(a_user_at("oldone@googlemail.com"))) == 0


@given(st.emails())
def test_the_migration_hashes_as_the_service_does(address: str) -> None:
    assert free_credit_migration.mailbox_of(address) == mailbox_of(address) == mailbox_of(mailbox_of(address))


@pytest.mark.django_db
def test_an_organization_whose_account_cannot_be_opened_is_not_created() -> None:
    with pytest.raises(Plan.DoesNotExist):
        create_organization(name="Nowhere", owner=a_user(), plan="no-such-plan")
    assert not Organization.objects.filter(name="Nowhere").exists()


@pytest.mark.django_db
def test_reading_an_account_writes_nothing() -> None:
    organization = create_personal_organization(a_user())
    with CaptureQueriesContext(connection) as captured:
        account_of(organization)
    assert [each["sql"].split()[0] for each in captured] == ["SELECT"]
    Account.objects.all().delete()
    with pytest.raises(Account.DoesNotExist):
        account_of(organization)


@pytest.mark.django_db
def test_opening_an_account_again_changes_nothing() -> None:
    organization = create_personal_organization(a_user())
    before = account_of(organization)
    assert open_account(organization, plan="pro").plan.slug == "free"
    assert account_of(organization).credit_nanos == before.credit_nanos


@pytest.mark.django_db
def test_the_migration_opens_missing_accounts() -> None:
    ada, ben = a_user(), a_user()
    old = create_personal_organization(ada)
    without, of_ben = (
        Organization.objects.create(name=name, slug=name.lower(), created_by=owner)
        for name, owner in (("A", ada), ("B", ben))
    )
    migration.open_missing_accounts(apps, None)
    migration.open_missing_accounts(apps, None)
    assert Account.objects.count() == Organization.objects.count()
    # Ada had hers with her first organization.
    assert (opening_of(old) > 0, opening_of(without), opening_of(of_ben) > 0) == (True, 0, True)
    for organization in (old, without, of_ben):
        assert account_of(organization).credit_nanos == opening_of(organization)
