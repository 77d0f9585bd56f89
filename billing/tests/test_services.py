"""Accounts: every organization has one from its creation."""

from importlib import import_module

import pytest
from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import Organization
from accounts.services import create_extra_organization, create_organization, create_personal_organization
from accounts.tests.factories import a_user
from billing.models import Account, LedgerEntry, Plan
from billing.selectors import account_of
from billing.services import OPENING, open_account

migration = import_module("billing.migrations.0006_account_for_every_organization")


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
