"""Reading users and organizations."""

from django.db.models import QuerySet

from accounts.models import Membership, User


def memberships_of(user: User) -> QuerySet[Membership]:
    """The user's places in organizations that work, the personal one first."""
    return (
        Membership.objects.select_related("organization")
        .filter(user=user, organization__is_active=True)
        .order_by("-organization__is_personal", "organization__name")
    )


def membership_of(user: User, slug: str) -> Membership | None:
    """The user's place in one organization; None when there is none or no such organization: the same to them."""
    return memberships_of(user).filter(organization__slug=slug).first()
