"""Verbs on members: invite, accept, change roles, remove, leave, transfer ownership.

All but withdraw lock the organization's row first: two at once must not take the last seat or leave no owner.
"""

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from accounts import audit
from accounts.errors import Refused
from accounts.invitations import LIFETIME
from accounts.models import AuditEntry, Invitation, Membership, Organization, User
from accounts.permissions import may_manage, roles_given_by
from accounts.seats import seat_limit
from accounts.selectors import addresses_of, open_invitations
from accounts.signals import access_ended
from codexflow.lib.clock import now

Role = Membership.Role
# Invitation mails that one organization may send in 24 hours.
MAX_INVITATIONS_PER_DAY = 50


def invite(
    organization: Organization, *, email: str, role: str, by_role: str, actor: User, address: str | None = None
) -> Invitation:
    """Invite an address, in one transaction with the audit entry. The caller sends the link.

    Raises Refused: role that the inviter may not assign, no seat left, already a member, already invited, too many
    mails.
    """
    email = email.lower()
    with transaction.atomic():
        _lock(organization)
        _require(role in roles_given_by(by_role), _("Your role can't assign this role."))
        if organization.memberships.filter(user__email=email).exists():
            raise Refused(_("This person is already a member."))
        if open_invitations(organization).filter(email=email).exists():
            raise Refused(_("This address has already been invited. Resend the invitation instead."))
        _require_seat(organization)
        _require_invitation_quota(organization)
        # An expired invitation is revoked, so that the new one passes the unique constraint.
        Invitation.objects.filter(
            organization=organization, email=email, accepted_at=None, revoked_at=None, expires_at__lte=now()
        ).update(revoked_at=now())
        invitation = Invitation.objects.create(
            organization=organization, email=email, role=role, invited_by=actor, expires_at=now() + LIFETIME
        )
        audit.record(
            "invitation.created", invitation, organization=organization, actor=actor, address=address, role=role
        )
    return invitation


def resend(invitation: Invitation, *, by_role: str, actor: User, address: str | None = None) -> Invitation:
    """Renew an open invitation for LIFETIME; earlier links stop working. Raises Refused."""
    with transaction.atomic():
        _lock(invitation.organization)
        row = Invitation.objects.select_for_update().get(pk=invitation.pk)
        _require(may_manage(by_role, row.role), _("Your role can't change this invitation."))
        _require(is_unused(row), _("This invitation was used or revoked."))
        _require_invitation_quota(row.organization)
        row.expires_at, row.sent_at = now() + LIFETIME, now()
        row.save(update_fields=["expires_at", "sent_at"])
        audit.record("invitation.resent", row, organization=row.organization, actor=actor, address=address)
    return row


def withdraw(invitation: Invitation, *, by_role: str, actor: User, address: str | None = None) -> None:
    """Withdraw an open invitation; its link stops working. Raises Refused."""
    with transaction.atomic():
        row = Invitation.objects.select_for_update().get(pk=invitation.pk)
        _require(may_manage(by_role, row.role), _("Your role can't change this invitation."))
        _require(is_unused(row), _("This invitation was used or revoked."))
        row.revoked_at = now()
        row.save(update_fields=["revoked_at"])
        audit.record("invitation.withdrawn", row, organization=row.organization, actor=actor, address=address)


def is_unused(invitation: Invitation) -> bool:
    return invitation.accepted_at is None and invitation.revoked_at is None


def accept(invitation: Invitation, *, actor: User, address: str | None = None) -> Membership:
    """Accept an invitation, once. Raises Refused when it is no longer valid, or for another address."""
    with transaction.atomic():
        _lock(invitation.organization)
        row = Invitation.objects.select_for_update().select_related("organization").get(pk=invitation.pk)
        is_open = is_unused(row) and row.expires_at > now() and row.organization.is_active
        _require(is_open, _("This invitation is no longer valid. Ask for a new one."))
        _require(row.email in addresses_of(actor), _("This invitation is for another address."))
        _require(not row.organization.memberships.filter(user=actor).exists(), _("You're already a member."))
        if row.organization.memberships.count() >= seat_limit(row.organization):
            raise Refused(_("The organization has no free seats. Ask an owner to make room."))
        row.accepted_at = now()
        row.save(update_fields=["accepted_at"])
        membership = Membership.objects.create(organization=row.organization, user=actor, role=row.role)
        audit.record(
            "invitation.accepted", row, organization=row.organization, actor=actor, address=address, role=row.role
        )
    return membership


def change_role(
    membership: Membership, *, role: str, by_role: str, actor: User, address: str | None = None
) -> Membership:
    """Change a member's role, in one transaction with the audit entry. Raises Refused."""
    with transaction.atomic():
        row = _locked_member(membership)
        is_allowed = may_manage(by_role, row.role) and role in roles_given_by(by_role)
        _require(is_allowed, _("Your role can't assign this role."))
        if role != Role.OWNER:
            _require_other_owner(row)
        old, row.role = row.role, role
        if old != role:
            row.save(update_fields=["role"])
            facts = {"old": old, "new": role}
            audit.record(
                "member.role_changed", row.user, organization=row.organization, actor=actor, address=address, **facts
            )
    return row


def remove(membership: Membership, *, by_role: str, keeps_keys: bool, actor: User, address: str | None = None) -> None:
    """Remove a member and revoke the keys they made, unless `keeps_keys`. Raises Refused."""
    with transaction.atomic():
        row = _locked_member(membership)
        _require(may_manage(by_role, row.role), _("Your role can't remove this member."))
        _require_other_owner(row)
        _end(row, "member.removed", keeps_keys=keeps_keys, actor=actor, address=address)


def leave(membership: Membership, *, address: str | None = None) -> None:
    """Leave the organization; the keys the member made are revoked. Raises Refused for the last owner."""
    with transaction.atomic():
        row = _locked_member(membership)
        _require_other_owner(row)
        _end(row, "member.left", keeps_keys=False, actor=row.user, address=address)


def transfer_ownership(organization: Organization, *, to: Membership, actor: User, address: str | None = None) -> None:
    """Make another member the owner and the acting owner an administrator. Raises Refused."""
    with transaction.atomic():
        new_owner = _locked_member(to)
        owner = organization.memberships.filter(user=actor, role=Role.OWNER).first()
        if owner is None or new_owner.user_id == actor.pk or not new_owner.user.is_active:
            raise Refused(_("Choose another member as the owner."))
        owner.role, new_owner.role = Role.ADMIN, Role.OWNER
        Membership.objects.bulk_update([owner, new_owner], ["role"])
        audit.record("ownership.transferred", new_owner.user, organization=organization, actor=actor, address=address)


def _end(row: Membership, action: str, *, keeps_keys: bool, actor: User, address: str | None) -> None:
    who: dict[str, Any] = {"organization": row.organization, "actor": actor, "address": address}
    audit.record(action, row.user, role=row.role, keeps_keys=keeps_keys, **who)
    if not keeps_keys:
        access_ended.send(Membership, user=row.user, **who)
    row.delete()


def _lock(organization: Organization) -> None:
    Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)


def _locked_member(membership: Membership) -> Membership:
    """Return the current row, with its organization locked. Raises Refused if the user is no longer a member."""
    _lock(membership.organization)
    row = Membership.objects.select_related("organization", "user").filter(pk=membership.pk).first()
    if row is None:
        raise Refused(_("This person is no longer a member."))
    return row


def _require(is_allowed: bool, text: str) -> None:
    if not is_allowed:
        raise Refused(text)


def _require_other_owner(row: Membership) -> None:
    if row.role != Role.OWNER:
        return
    # A suspended owner does not count.
    others = row.organization.memberships.filter(role=Role.OWNER, user__is_active=True).exclude(pk=row.pk)
    _require(others.exists(), _("An organization needs an owner. Make another member the owner first."))


def _require_seat(organization: Organization) -> None:
    taken = organization.memberships.count() + open_invitations(organization).count()
    if taken >= seat_limit(organization):
        raise Refused(_("All seats of your plan are taken, pending invitations included."))


def _require_invitation_quota(organization: Organization) -> None:
    sent = AuditEntry.objects.filter(
        organization=organization,
        action__in=("invitation.created", "invitation.resent"),
        at__gte=now() - timedelta(days=1),
    ).count()
    if sent >= MAX_INVITATIONS_PER_DAY:
        raise Refused(_("Your organization has sent too many invitations today. Try again tomorrow."))
