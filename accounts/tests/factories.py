"""Factories of users and members."""

from functools import cache
from typing import Any

from django.contrib.auth.hashers import make_password

from accounts.models import Membership, Organization, User
from codexflow.lib.ids import random_id


def a_user(name: str = "ada", **fields: Any) -> User:
    """User with a unique address and the password "correct horse battery"."""
    address = f"{name}-{random_id().hex[:12]}@example.com"
    return User.objects.create(email=address, password=_hashed(), **fields)


@cache
def _hashed() -> str:
    """Only once in a process: it takes a third of a second on purpose, and most tests have a user."""
    return make_password("correct horse battery")


def a_member(organization: Organization, role: str = "developer") -> User:
    user = a_user("ben")
    Membership.objects.create(organization=organization, user=user, role=role)
    return user
