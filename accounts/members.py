"""Verbs on the people of an organization: invite, accept, change roles, remove, leave, hand over.

Each locks the organization's row first: two at once must not take the last seat, or leave nobody in charge.
"""

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from accounts import audit
from accounts.errors import Refused
from accounts.invitations import LIVES
from accounts.models import AuditEntry, Invitation, Membership, Organization, User
from accounts.permissions import may_manage, roles_given_by
from accounts.seats import seats_of
from accounts.selectors import addresses_of, open_invitations
from accounts.signals import access_ended
from codexflow.lib.clock import now

Role = Membership.Role
# Mails that one organization may send to strangers in a day.
INVITATIONS_A_DAY = 50


def invite(
    organization: Organization, *, email: str, role: str, by_role: str, actor: User, address: str | None = None
) -> Invitation:
    """Open a place for an address, in one transaction with its audit entry. The caller sends the link.

    Raises Refused: role not the inviter's to give, no seat left, already a member, already invited, too many mails.
    """
    email = email.lower()
    with transaction.atomic():
        _lock(organization)
        _require(role in roles_given_by(by_role), _("Your role may not give this role."))
        if organization.memberships.filter(user__email=email).exists():
            raise Refused(_("This person is a member already."))
        if open_invitations(organization).filter(email=email).exists():
            raise Refused(_("This address is invited already. Send the invitation again instead."))
        _require_seat(organization)
        _require_postage(organization)
        # One that nobody accepted in time makes room for the new one.
        Invitation.objects.filter(
            organization=organization, email=email, accepted_at=None, revoked_at=None, expires_at__lte=now()
        ).update(revoked_at=now())
        invitation = Invitation.objects.create(
            organization=organization, email=email, role=role, invited_by=actor, expires_at=now() + LIVES
        )
        audit.record(
            "invitation.created", invitation, organization=organization, actor=actor, address=address, role=role
        )
    return invitation


def resend(invitation: Invitation, *, by_role: str, actor: User, address: str | None = None) -> Invitation:
    """A new week for an open invitation; links sent before end. Raises Refused."""
    with transaction.atomic():
        _lock(invitation.organization)
        row = Invitation.objects.select_for_update().get(pk=invitation.pk)
        _require(may_manage(by_role, row.role), _("Your role may not change this invitation."))
        _require(is_unused(row), _("This invitation is used or withdrawn."))
        _require_postage(row.organization)
        row.expires_at, row.sent_at = now() + LIVES, now()
        row.save(update_fields=["expires_at", "sent_at"])
        audit.record("invitation.resent", row, organization=row.organization, actor=actor, address=address)
    return row


def withdraw(invitation: Invitation, *, by_role: str, actor: User, address: str | None = None) -> None:
    """The link leads nowhere from now on. Raises Refused."""
    with transaction.atomic():
        row = Invitation.objects.select_for_update().get(pk=invitation.pk)
        _require(may_manage(by_role, row.role), _("Your role may not change this invitation."))
        _require(is_unused(row), _("This invitation is used or withdrawn."))
        row.revoked_at = now()
        row.save(update_fields=["revoked_at"])
        audit.record("invitation.withdrawn", row, organization=row.organization, actor=actor, address=address)


def is_unused(invitation: Invitation) -> bool:
    return invitation.accepted_at is None and invitation.revoked_at is None


def accept(invitation: Invitation, *, actor: User, address: str | None = None) -> Membership:
    """Take the place, once. Raises Refused when it is gone, or meant for somebody else."""
    with transaction.atomic():
        _lock(invitation.organization)
        row = Invitation.objects.select_for_update().select_related("organization").get(pk=invitation.pk)
        is_open = is_unused(row) and row.expires_at > now() and row.organization.is_active
        _require(is_open, _("This invitation is no longer valid. Ask for a new one."))
        _require(row.email in addresses_of(actor), _("This invitation is for another address."))
        _require(not row.organization.memberships.filter(user=actor).exists(), _("You are a member of it already."))
        if row.organization.memberships.count() >= seats_of(row.organization):
            raise Refused(_("The organization has no free seat any more. Ask an owner to make room."))
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
    """Give a member another role, with its audit entry. Raises Refused."""
    with transaction.atomic():
        row = _member(membership)
        is_allowed = may_manage(by_role, row.role) and role in roles_given_by(by_role)
        _require(is_allowed, _("Your role may not give this role."))
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
    """Take a member's place away; the keys they made end, unless they are to be kept. Raises Refused."""
    with transaction.atomic():
        row = _member(membership)
        _require(may_manage(by_role, row.role), _("Your role may not remove this member."))
        _require_other_owner(row)
        _end(row, "member.removed", keeps_keys=keeps_keys, actor=actor, address=address)


def leave(membership: Membership, *, address: str | None = None) -> None:
    """Go by oneself. The keys that one made end. Raises Refused for the last owner."""
    with transaction.atomic():
        row = _member(membership)
        _require_other_owner(row)
        _end(row, "member.left", keeps_keys=False, actor=row.user, address=address)


def transfer_ownership(organization: Organization, *, to: Membership, actor: User, address: str | None = None) -> None:
    """The acting owner becomes an administrator and another member the owner. Raises Refused."""
    with transaction.atomic():
        heir = _member(to)
        owner = organization.memberships.filter(user=actor, role=Role.OWNER).first()
        if owner is None or heir.user_id == actor.pk or not heir.user.is_active:
            raise Refused(_("Choose another member as the owner."))
        owner.role, heir.role = Role.ADMIN, Role.OWNER
        Membership.objects.bulk_update([owner, heir], ["role"])
        audit.record("ownership.transferred", heir.user, organization=organization, actor=actor, address=address)


def _end(row: Membership, action: str, *, keeps_keys: bool, actor: User, address: str | None) -> None:
    who: dict[str, Any] = {"organization": row.organization, "actor": actor, "address": address}
    audit.record(action, row.user, role=row.role, keeps_keys=keeps_keys, **who)
    if not keeps_keys:
        access_ended.send(Membership, user=row.user, **who)
    row.delete()


def _lock(organization: Organization) -> None:
    Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)


def _member(membership: Membership) -> Membership:
    """The row as it is once nobody else changes it."""
    _lock(membership.organization)
    row = Membership.objects.select_related("organization", "user").filter(pk=membership.pk).first()
    if row is None:
        raise Refused(_("This person is no longer a member."))
    return row


def _require(is_so: bool, text: str) -> None:
    if not is_so:
        raise Refused(text)


def _require_other_owner(row: Membership) -> None:
    if row.role != Role.OWNER:
        return
    # Somebody who is suspended cannot be in charge.
    others = row.organization.memberships.filter(role=Role.OWNER, user__is_active=True).exclude(pk=row.pk)
    _require(others.exists(), _("An organization needs an owner: make somebody else the owner first."))


def _require_seat(organization: Organization) -> None:
    seats = seats_of(organization)
    taken = organization.memberships.count() + open_invitations(organization).count()
    if taken >= seats:
        raise Refused(_("All seats of your plan are taken, open invitations included."))


def _require_postage(organization: Organization) -> None:
    sent = AuditEntry.objects.filter(
        organization=organization,
        action__in=("invitation.created", "invitation.resent"),
        at__gte=now() - timedelta(days=1),
    ).count()
    _require(sent < INVITATIONS_A_DAY, _("Your organization has sent many invitations today. Try again tomorrow."))
