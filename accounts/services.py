"""Verbs on users and organizations."""

import secrets

from django.db import transaction
from django.utils.text import slugify

from accounts.models import Membership, Organization, SiteSettings, User


def create_organization(*, name: str, owner: User, is_personal: bool = False, slug: str = "") -> Organization:
    """A new organization with its owner, in one transaction. The slug is made unique unless it was given."""
    base = slug or slugify(name)[:50] or "organization"
    with transaction.atomic():
        candidate = base
        while not slug and Organization.objects.filter(slug=candidate).exists():
            candidate = f"{base}-{secrets.token_hex(3)}"
        organization = Organization.objects.create(name=name, slug=candidate, is_personal=is_personal)
        Membership.objects.create(organization=organization, user=owner, role=Membership.Role.OWNER)
    return organization


def create_user_with_organization(*, email: str, password: str | None, name: str = "", **fields: object) -> User:
    """Sign-up: a user and a personal organization, in one transaction."""
    with transaction.atomic():
        user = User.objects.create_user(email, password, name=name, **fields)
        create_organization(name=name or email.partition("@")[0], owner=user, is_personal=True)
    return user


def ensure_site_settings() -> SiteSettings:
    """The one row of site settings. Idempotent."""
    settings, _ = SiteSettings.objects.get_or_create(id=1)
    return settings
