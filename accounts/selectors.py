"""Reading users and organizations."""

from collections.abc import Collection
from uuid import UUID

from allauth.account.models import EmailAddress
from django.db.models import QuerySet

from accounts import invitations
from accounts.models import Invitation, Membership, Organization, User
from codexflow.lib.clock import now

# In the session of a visitor: the token of the invitation that they came by.
INVITED = "invitation"


def memberships_of(user: User) -> QuerySet[Membership]:
    """The user's places in organizations that work, the personal one first."""
    return (
        Membership.objects.select_related("organization")
        .filter(user=user, organization__is_active=True)
        .order_by("-organization__is_personal", "organization__name")
    )


def membership_of(user: User, slug: str) -> Membership | None:
    """The user's place in one organization; None when there is none or no such organization: the same to them."""
    if "\0" in slug:
        return None  # PostgreSQL knows no such text
    return memberships_of(user).filter(organization__slug=slug).first()


def personal_organizations_of(user_ids: Collection[int]) -> dict[int, UUID]:
    """The personal organization of each of these people who has one."""
    places = Membership.objects.filter(
        user_id__in=user_ids, role=Membership.Role.OWNER, organization__is_personal=True
    ).order_by("-organization__created_at")
    return dict(places.values_list("user_id", "organization_id"))


def members_of(organization: Organization, *, after: int | None = None, limit: int) -> list[Membership]:
    """The longest members first, those after membership `after`."""
    rows = Membership.objects.filter(organization=organization).select_related("user")
    if after is not None:
        rows = rows.filter(pk__gt=after)
    return list(rows.order_by("pk")[:limit])


def member_of(organization: Organization, membership_id: int) -> Membership | None:
    """One place in the organization; None when there is none, or it is in another."""
    rows = Membership.objects.select_related("user", "organization")
    return rows.filter(organization=organization, pk=membership_id).first()


def open_invitations(organization: Organization) -> QuerySet[Invitation]:
    """Places that somebody may still take, the newest first."""
    rows = Invitation.objects.select_related("organization", "invited_by").filter(organization=organization)
    return rows.filter(accepted_at=None, revoked_at=None, expires_at__gt=now()).order_by("-pk")


def invitation_of(organization: Organization, invitation_id: UUID) -> Invitation | None:
    """One invitation of the organization that is neither used nor withdrawn; it may have expired."""
    rows = Invitation.objects.select_related("organization")
    return rows.filter(organization=organization, pk=invitation_id, accepted_at=None, revoked_at=None).first()


def invitation_by_token(token: str) -> Invitation | None:
    """The invitation that a link stands for; None when the link is invented, used, withdrawn, replaced or too old."""
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
    """The person's login and every other address that they proved to be theirs, in lower case."""
    proven = EmailAddress.objects.filter(user=user, verified=True).values_list("email", flat=True)
    return {user.email, *(email.lower() for email in proven)}
