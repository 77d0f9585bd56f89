"""Who belongs where."""

from accounts.models import Membership, User


def membership_of(user: User, slug: str) -> Membership | None:
    """The person's place in the organization named `slug`; None for strangers and for names that do not exist."""
    return Membership.objects.select_related("organization").filter(user=user, organization__slug=slug).first()


def memberships_of(user: User) -> list[Membership]:
    """Every organization of the person, the personal one first."""
    return list(
        Membership.objects.select_related("organization")
        .filter(user=user)
        .order_by("-organization__is_personal", "organization__name", "organization_id")
    )
