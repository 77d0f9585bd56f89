"""Organizations and their people, committed or not as the test is."""

from accounts.models import Membership, Organization, User
from accounts.services import create_organization
from billing.services import open_account
from codexflow.lib.ids import random_id


def a_user(name: str = "ada", **fields: object) -> User:
    """Somebody with an address of their own."""
    return User.objects.create_user(f"{name}-{random_id().hex[:12]}@example.com", "correct horse battery", **fields)


def an_organization(*, owner: User | None = None, plan: str = "internal") -> Organization:
    """An organization that nobody else has touched, with its account on a plan."""
    organization = create_organization(name=f"Org {random_id().hex[:8]}", owner=owner or a_user())
    open_account(organization, plan=plan)
    return organization


def a_member(organization: Organization, role: str = "developer") -> User:
    user = a_user("ben")
    Membership.objects.create(organization=organization, user=user, role=role)
    return user
