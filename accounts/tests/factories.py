"""Factories of users and members."""

from accounts.models import Membership, Organization, User
from codexflow.lib.ids import random_id


def a_user(name: str = "ada", **fields: object) -> User:
    """User with a unique address."""
    return User.objects.create_user(f"{name}-{random_id().hex[:12]}@example.com", "correct horse battery", **fields)


def a_member(organization: Organization, role: str = "developer") -> User:
    user = a_user("ben")
    Membership.objects.create(organization=organization, user=user, role=role)
    return user
