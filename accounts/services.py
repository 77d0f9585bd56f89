"""Verbs on users and organizations."""

import secrets
from datetime import timedelta
from functools import partial

from django.db import transaction
from django.utils.text import slugify
from django.utils.translation import gettext

from accounts import audit
from accounts.errors import Refused
from accounts.models import Membership, Organization, SiteSettings, User
from accounts.signals import access_changed, organization_created
from codexflow.lib.clock import now

MAX_ORGANIZATIONS_PER_USER = 10


def create_organization(
    *, name: str, owner: User, is_personal: bool = False, slug: str = "", plan: str = ""
) -> Organization:
    """Create an organization with its owner and its account, in one transaction.

    The slug is made unique unless it is given. `plan` is the slug of the plan that the account begins on; "" is the
    default plan. The apps above open what belongs to a new organization when they receive `organization_created`.
    """
    # slugify drops the dotless i: it is the one Turkish letter that does not decompose to an ASCII letter.
    base = slug or slugify(name.replace("ı", "i"))[:50] or "organization"
    with transaction.atomic():
        candidate = base
        while not slug and Organization.objects.filter(slug=candidate).exists():
            candidate = f"{base}-{secrets.token_hex(3)}"
        organization = Organization.objects.create(name=name, slug=candidate, is_personal=is_personal, created_by=owner)
        Membership.objects.create(organization=organization, user=owner, role=Membership.Role.OWNER)
        organization_created.send(Organization, organization=organization, plan=plan)
    return organization


def create_extra_organization(*, name: str, owner: User, address: str | None = None) -> Organization:
    """Create another organization for a user, in one transaction with the audit entry.

    Raises Refused above MAX_ORGANIZATIONS_PER_USER.
    """
    with transaction.atomic():
        # Lock the user, so that a double click cannot pass the limit.
        User.objects.select_for_update(no_key=True).get(pk=owner.pk)
        if Organization.objects.filter(created_by=owner, is_active=True).count() >= MAX_ORGANIZATIONS_PER_USER:
            raise Refused(gettext("You've reached the number of organizations that one person can create."))
        organization = create_organization(name=name, owner=owner)
        audit.record("organization.created", organization, organization=organization, actor=owner, address=address)
    return organization


def create_user_with_organization(*, email: str, password: str | None, name: str = "", **fields: object) -> User:
    """Create a user and their personal organization, in one transaction."""
    with transaction.atomic():
        user = User.objects.create_user(email, password, name=name, **fields)
        create_personal_organization(user)
    return user


def create_personal_organization(user: User) -> Organization:
    """Create the organization that every user starts with, in one transaction with the audit entry."""
    with transaction.atomic():
        organization = create_organization(name=user.name or user.email.partition("@")[0], owner=user, is_personal=True)
        audit.record("organization.created", organization, organization=organization, actor=user)
    return organization


def rename_organization(organization: Organization, *, name: str, actor: User, address: str | None) -> None:
    """Rename an organization, in one transaction with the audit entry. The slug does not change."""
    old_name = Organization.objects.values_list("name", flat=True).get(pk=organization.pk)
    with transaction.atomic():
        organization.name = name
        organization.save(update_fields=["name"])
        audit.record(
            "organization.renamed",
            organization,
            organization=organization,
            actor=actor,
            address=address,
            old_name=old_name,
            name=name,
        )


def suspend_organization(
    organization: Organization, *, reason: str, actor: User | None = None, address: str | None = None
) -> None:
    """Suspend an organization, in one transaction with the audit entry: its keys get 403 at once, its pages are closed.

    Raises Refused if it is suspended or deleted already.
    """
    _set_active(organization, False, reason=reason, actor=actor, address=address)


def reactivate_organization(
    organization: Organization, *, reason: str, actor: User | None = None, address: str | None = None
) -> None:
    """Lift a suspension, in one transaction with the audit entry. Raises Refused if there is none."""
    _set_active(organization, True, reason=reason, actor=actor, address=address)


def _set_active(
    organization: Organization, is_active: bool, *, reason: str, actor: User | None, address: str | None
) -> None:
    with transaction.atomic():
        row = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        if row.deleted_at is not None:
            raise Refused(gettext("The organization is deleted."))
        if row.is_active == is_active:
            raise Refused(
                gettext("The organization is not suspended.")
                if is_active
                else gettext("The organization is already suspended.")
            )
        row.is_active = is_active
        row.save(update_fields=["is_active"])
        audit.record(
            "organization.reactivated" if is_active else "organization.suspended",
            row,
            organization=row,
            actor=actor,
            address=address,
            reason=reason,
        )
        transaction.on_commit(partial(access_changed.send, Organization, organization_id=row.pk))
    organization.is_active = is_active


def set_content_retention(
    organization: Organization, *, days: int, actor: User | None = None, address: str | None = None
) -> None:
    """Set how many days prompts and responses are kept (0: not at all), in one transaction with the audit entry.

    Content that a shorter retention no longer covers becomes unreadable at once and stays so if retention is extended
    again; the worker deletes it. Every gateway process is notified.
    """
    with transaction.atomic():
        row = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        before = row.content_retention_days
        if before == days:
            return
        moment = now()
        kept_from = row.content_from(moment) or moment
        row.content_kept_since = max(kept_from, moment - timedelta(days=days))
        row.content_retention_days = days
        row.save(update_fields=["content_retention_days", "content_kept_since"])
        audit.record(
            "organization.content_retention",
            row,
            organization=row,
            actor=actor,
            address=address,
            from_days=before,
            to_days=days,
        )
        transaction.on_commit(partial(access_changed.send, Organization, organization_id=row.pk))
    organization.content_retention_days = row.content_retention_days
    organization.content_kept_since = row.content_kept_since


def ensure_site_settings() -> SiteSettings:
    """Return the one row of site settings, created if missing."""
    settings, _ = SiteSettings.objects.get_or_create(id=1)
    return settings
