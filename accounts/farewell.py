"""The end of organizations and accounts.

Neither row is removed: money, logs and the audit trail point at them and are kept as long as they must be. What ends at
once is access; what goes at once is what names a person.
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
from accounts.models import Invitation, Membership, Organization, User
from accounts.signals import access_ended
from codexflow.lib.clock import now


def delete_organization(organization: Organization, *, actor: User, address: str | None = None) -> None:
    """Close it for good: keys stop within a second, nobody finds it any more. One transaction with its audit entry."""
    with transaction.atomic():
        row = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        if row.deleted_at is not None:
            return
        row.is_active, row.deleted_at, row.content_retention_days = False, now(), 0
        row.save(update_fields=["is_active", "deleted_at", "content_retention_days"])
        Invitation.objects.filter(organization=row, accepted_at=None, revoked_at=None).update(revoked_at=now())
        access_ended.send(Organization, organization=row, user=None, actor=actor, address=address)
        audit.record("organization.deleted", row, organization=row, actor=actor, address=address)


def organizations_in_the_way(user: User) -> list[Organization]:
    """Those that would be left to other members without an owner."""
    others = Membership.objects.filter(organization=OuterRef("pk")).exclude(user=user)
    owned = Organization.objects.filter(is_active=True, memberships__user=user, memberships__role=Membership.Role.OWNER)
    in_charge = others.filter(role=Membership.Role.OWNER, user__is_active=True)
    return list(owned.filter(Exists(others)).exclude(Exists(in_charge)))


def delete_account(user: User, *, address: str | None = None) -> None:
    """Empty the person's row and end every way in, in one transaction. Organizations without anybody else close; in
    those that go on the keys they made go on, too: keys belong to organizations.

    Raises Refused while others would be left without an owner.
    """
    with transaction.atomic():
        row = User.objects.select_for_update(no_key=True).get(pk=user.pk)
        # Locked in one order, so that two who delete their accounts at once wait instead of waiting for each other.
        joined = list(
            Organization.objects.filter(memberships__user=row)
            .order_by("pk")
            .select_for_update(no_key=True, of=("self",))
        )
        if organizations_in_the_way(row):
            raise Refused(_("You are the only owner of an organization with other members."))
        for organization in joined:
            if not organization.memberships.exclude(user=row).exists():
                delete_organization(organization, actor=row, address=address)
            else:
                audit.record("member.left", row, organization=organization, actor=row, address=address, keeps_keys=True)
        audit.record("account.deleted", row, organization=None, actor=row, address=address)
        _empty(row)


def _empty(row: User) -> None:
    Membership.objects.filter(user=row, organization__is_active=True).delete()
    Invitation.objects.filter(email=row.email).update(email="deleted@invalid", revoked_at=now())
    for model in (EmailAddress, Authenticator, SocialAccount, UserSession):
        model.objects.filter(user=row).delete()
    row.email, row.name = f"deleted-{row.pk}@invalid", ""
    row.is_active, row.deleted_at = False, now()
    row.role = User.Role.USER
    # Also what ends every session: they carry a hash of the password.
    row.set_unusable_password()
    row.save()
