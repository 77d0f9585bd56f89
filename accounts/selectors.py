"""Selectors of users, memberships and invitations."""

from collections.abc import Collection
from uuid import UUID

from allauth.account.models import EmailAddress
from django.db.models import QuerySet

from accounts import invitations
from accounts.models import Invitation, Membership, Organization, SiteSettings, User
from accounts.permissions import Action, roles_that_may
from codexflow.lib.clock import now

# Session key: token of the invitation by which a visitor arrived.
INVITATION_SESSION_KEY = "invitation"


def support_email() -> str:
    """Address that operators have set for questions; empty if they have not."""
    return SiteSettings.objects.values_list("support_email", flat=True).first() or ""


def memberships_of(user: User) -> QuerySet[Membership]:
    """Memberships of a user in active organizations, the personal one first."""
    return (
        Membership.objects.select_related("organization")
        .filter(user=user, organization__is_active=True)
        .order_by("-organization__is_personal", "organization__name")
    )


def membership_of(user: User, slug: str) -> Membership | None:
    """Membership of a user in one organization; None if there is none or no such organization: callers cannot tell."""
    if "\0" in slug:
        return None  # PostgreSQL text cannot contain NUL
    return memberships_of(user).filter(organization__slug=slug).first()


def personal_organizations_of(user_ids: Collection[int]) -> dict[int, UUID]:
    """Id of each user's personal organization, by user id; users without one are left out."""
    places = Membership.objects.filter(
        user_id__in=user_ids, role=Membership.Role.OWNER, organization__is_personal=True
    ).order_by("-organization__created_at")
    return dict(places.values_list("user_id", "organization_id"))


def members_of(organization: Organization, *, after: int | None = None, limit: int) -> list[Membership]:
    """One page of members, oldest membership first, after membership id `after`."""
    rows = Membership.objects.filter(organization=organization).select_related("user")
    if after is not None:
        rows = rows.filter(pk__gt=after)
    return list(rows.order_by("pk")[:limit])


def member_of(organization: Organization, membership_id: int) -> Membership | None:
    """One membership of the organization; None if there is none with that id."""
    rows = Membership.objects.select_related("user", "organization")
    return rows.filter(organization=organization, pk=membership_id).first()


def open_invitations(organization: Organization) -> QuerySet[Invitation]:
    """Invitations that can still be accepted, newest first."""
    rows = Invitation.objects.select_related("organization", "invited_by").filter(organization=organization)
    return rows.filter(accepted_at=None, revoked_at=None, expires_at__gt=now()).order_by("-pk")


def invitations_to(user: User) -> QuerySet[Invitation]:
    """Invitations to a user's addresses that can still be accepted, the newest first."""
    rows = Invitation.objects.select_related("organization").filter(email__in=addresses_of(user))
    is_open = {"accepted_at": None, "revoked_at": None, "expires_at__gt": now(), "organization__is_active": True}
    return rows.filter(**is_open).exclude(organization__memberships__user=user).order_by("-pk")


def invitation_of(organization: Organization, invitation_id: UUID) -> Invitation | None:
    """One invitation of the organization that is neither accepted nor withdrawn; it may have expired."""
    rows = Invitation.objects.select_related("organization")
    return rows.filter(organization=organization, pk=invitation_id, accepted_at=None, revoked_at=None).first()


def invitation_by_token(token: str) -> Invitation | None:
    """Invitation of a link's token; None if the token is forged, used, withdrawn, replaced or expired."""
    parsed = invitations.parse(token)
    if parsed is None:
        return None
    invitation_id, ends_s = parsed
    rows = Invitation.objects.select_related("organization", "invited_by")
    row = rows.filter(
        pk=invitation_id, accepted_at=None, revoked_at=None, expires_at__gt=now(), organization__is_active=True
    ).first()
    return row if row is not None and int(row.expires_at.timestamp()) == ends_s else None


def addresses_of(user: User) -> set[str]:
    """Login address of a user and their other verified addresses, in lower case."""
    proven = EmailAddress.objects.filter(user=user, verified=True).values_list("email", flat=True)
    return {user.email, *(email.lower() for email in proven)}


def is_member(user: User, organization: Organization) -> bool:
    """Return whether a user belongs to an organization. Whoever has left it is told nothing of what they made there."""
    return Membership.objects.filter(user=user, organization=organization).exists()


def billing_managers(organization: Organization) -> list[User]:
    """Members who may do something about money."""
    roles = roles_that_may(Action.MANAGE_BILLING)
    members = Membership.objects.filter(organization=organization, role__in=roles).select_related("user")
    return [each.user for each in members]
