"""Factories of keys."""

from typing import Any

from accounts.models import Organization
from billing.tests.factories import an_organization
from keys.secret import split, with_checksum
from keys.services import IssuedKey, KeyTerms, issue_key


def a_key(organization: Organization | None = None, **terms: Any) -> IssuedKey:
    """A key of an organization, by default of a new one; `terms` as for KeyTerms."""
    organization = organization or an_organization()
    owner = organization.memberships.get(role="owner").user
    return issue_key(organization, name="test", created_by=owner, terms=KeyTerms(**terms))


def with_another_secret(key: str) -> str:
    """Key as an attacker would guess it: the same public id, another secret, a valid checksum."""
    secret = "B" if key[13] == "A" else "A"
    guessed = with_checksum(f"{key[:13]}{secret}{key[14:-6]}")
    assert split(guessed) == split(key)
    return guessed
