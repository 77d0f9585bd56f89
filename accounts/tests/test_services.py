"""Creation of organizations."""

import pytest
from django.test import Client
from django.urls import reverse

from accounts import deletion, services
from accounts.errors import Refused
from accounts.models import AuditEntry, Organization, User
from billing.selectors import account_of
from tests.support.cast import Cast


@pytest.fixture
def page(client: Client, cast: Cast) -> Client:
    client.force_login(cast.ada)
    return client


def test_another_organization_has_its_creator_as_owner(page: Client, cast: Cast) -> None:
    response = page.post(reverse("organization-create"), {"name": "Second House"})
    made = Organization.objects.get(name="Second House")
    assert response["Location"] == reverse("overview", args=[made.slug])
    assert made.memberships.get().role == "owner"
    assert AuditEntry.objects.filter(action="organization.created", organization=made, actor=cast.ada).exists()


def test_free_credit_is_granted_once_per_user(cast: Cast) -> None:
    assert account_of(cast.organization).credit_nanos == 500_000_000
    second = services.create_extra_organization(name="Second", owner=cast.ada)
    assert account_of(second).credit_nanos == 0
    deletion.delete_organization(cast.organization, actor=cast.ada)
    third = services.create_extra_organization(name="Third", owner=cast.ada)
    assert account_of(third).credit_nanos == 0
    other = services.create_extra_organization(name="Eve's", owner=User.objects.create_user("new@example.org"))
    assert account_of(other).credit_nanos == 500_000_000


def test_the_number_of_organizations_per_user_is_limited(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "MAX_ORGANIZATIONS_PER_USER", 2)
    services.create_extra_organization(name="Second", owner=cast.ada)
    with pytest.raises(Refused):
        services.create_extra_organization(name="Third", owner=cast.ada)
