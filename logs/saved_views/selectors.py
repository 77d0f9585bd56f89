"""Saved views of the log, as one member sees them."""

from dataclasses import dataclass
from urllib.parse import parse_qsl
from uuid import UUID

from django.db.models import Q, QuerySet

from accounts.models import Organization, User
from accounts.permissions import Action
from accounts.tenancy import Tenant
from logs.models import SavedView


@dataclass(frozen=True, slots=True)
class ListedView:
    """A view among the links; `is_current`: its filters are those of the page."""

    view: SavedView
    is_current: bool
    may_change: bool


def views_of(organization: Organization, user: User) -> QuerySet[SavedView]:
    """Views that the organization shares, and the user's own, by name."""
    mine = Q(is_shared=True) | Q(created_by=user)
    return SavedView.objects.filter(mine, organization=organization).order_by("name", "created_at")


def listed_views(tenant: Tenant, user: User, query: str) -> list[ListedView]:
    """Return the links of a page whose address has the query."""
    shown = sorted(parse_qsl(query))
    return [
        ListedView(view, sorted(parse_qsl(view.query)) == shown, may_change(tenant, user, view))
        for view in views_of(tenant.organization, user)
    ]


def view_of(organization: Organization, user: User, view_id: UUID) -> SavedView | None:
    """One of these views; None for any other."""
    return views_of(organization, user).filter(pk=view_id).first()


def may_change(tenant: Tenant, user: User, view: SavedView) -> bool:
    """Return whether the user may rename, share and delete it: their own, and as a manager what is shared."""
    return view.created_by_id == user.pk or (view.is_shared and tenant.allows(Action.MANAGE_MEMBERS))
