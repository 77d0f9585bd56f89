"""Deletion of organizations and users.

Neither row is removed: ledger, logs and the audit log refer to them and are kept. Access ends and personal data is
erased at once.
"""

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils.translation import gettext as _

from accounts import audit
from accounts.errors import Refused
from accounts.models import Invitation, Membership, Organization, User, WebhookEndpoint
from accounts.signals import access_ended
from codexflow.lib.clock import now


def delete_organization(organization: Organization, *, actor: User, address: str | None = None) -> None:
    """Delete an organization: its keys stop within a second and its pages return 404. Idempotent.

    One transaction with its audit entry.
    """
    with transaction.atomic():
        row = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        if row.deleted_at is not None:
            return
        row.is_active, row.deleted_at, row.content_retention_days = False, now(), 0
        row.save(update_fields=["is_active", "deleted_at", "content_retention_days"])
        Invitation.objects.filter(organization=row, accepted_at=None, revoked_at=None).update(revoked_at=now())
        WebhookEndpoint.objects.filter(organization=row).update(is_active=False)
        access_ended.send(Organization, organization=row, user=None, actor=actor, address=address)
        audit.record("organization.deleted", row, organization=row, actor=actor, address=address)


def organizations_blocking_deletion(user: User) -> list[Organization]:
    """Organizations with other members that would be left without an active owner."""
    others = Membership.objects.filter(organization=OuterRef("pk")).exclude(user=user)
    owned = Organization.objects.filter(is_active=True, memberships__user=user, memberships__role=Membership.Role.OWNER)
    other_owners = others.filter(role=Membership.Role.OWNER, user__is_active=True)
    return list(owned.filter(Exists(others)).exclude(Exists(other_owners)))


def delete_account(user: User, *, address: str | None = None) -> None:
    """Anonymize the user and remove every sign-in method, in one transaction with its audit entries.

    Organizations without other members are deleted. In the others the user's keys keep working: keys belong to
    organizations. Raises Refused while an organization with other members would be left without an owner.
    """
    with transaction.atomic():
        row = User.objects.select_for_update(no_key=True).get(pk=user.pk)
        # Lock organizations in primary-key order, so that simultaneous deletions cannot deadlock.
        organizations = list(
            Organization.objects.filter(memberships__user=row)
            .order_by("pk")
            .select_for_update(no_key=True, of=("self",))
        )
        if organizations_blocking_deletion(row):
            raise Refused(_("You are the only owner of an organization with other members."))
        for organization in organizations:
            if not organization.memberships.exclude(user=row).exists():
                delete_organization(organization, actor=row, address=address)
            else:
                audit.record("member.left", row, organization=organization, actor=row, address=address, keeps_keys=True)
        audit.record("account.deleted", row, organization=None, actor=row, address=address)
        _anonymize(row)


def _anonymize(row: User) -> None:
    Membership.objects.filter(user=row, organization__is_active=True).delete()
    Invitation.objects.filter(email=row.email).update(email="deleted@invalid", revoked_at=now())
    for model in (EmailAddress, Authenticator, SocialAccount, UserSession):
        model.objects.filter(user=row).delete()
    row.email, row.name = f"deleted-{row.pk}@invalid", ""
    row.is_active, row.deleted_at = False, now()
    row.role = User.Role.USER
    # Also ends every session: sessions carry a hash of the password.
    row.set_unusable_password()
    row.save()
