"""Context of every page: theme, addresses, menu and the state of the organization's plan."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from accounts.models import Membership, Organization, User
from accounts.selectors import memberships_of, support_email
from accounts.tenancy import LAST_ORGANIZATION, Tenant
from accounts.views import THEME_COOKIE, THEMES
from adminpanel.impersonation import viewing
from adminpanel.selectors import announcements_for
from billing.meters import Meter
from billing.models import Account, Order
from billing.renewals import ANNOUNCED, forecast_of, past_due_of
from billing.selectors import account_shown
from billing.subscriptions import periods_of
from codexflow.lib.addresses import api_url, site_url
from codexflow.lib.clock import now
from codexflow.lib.snippets import snippets
from codexflow.pages.meters import Banner, meters_of, shown_nearest, visible, warnings_of
from codexflow.pages.middleware import request_id_of


@dataclass(frozen=True, slots=True)
class Shell:
    """Frame of the signed-in pages: current organization, other organizations, and what stops calls next."""

    tenant: Tenant
    memberships: list[Membership]
    plan_name: str
    # What stops calls first, with its words; None: nothing does.
    nearest: tuple[Meter, str] | None
    # Limits that are nearly used up, or are.
    warnings: list[Banner]
    # When the bought plan ends, if that is soon.
    plan_ends_at: datetime | None
    # The order of the next month, if the saved card was declined for it.
    past_due: Order | None
    # Why automatic top-ups went off by themselves; empty: they did not.
    recharge_stopped: str

    @property
    def organization(self) -> Organization:
        return self.tenant.organization

    @property
    def frame_key(self) -> str:
        """Everything that menu and palette show of the organizations: their cached HTML is for this."""
        known = [(each.organization.slug, each.organization.name, each.role) for each in self.memberships]
        return repr((self.organization.slug, self.tenant.role, known))


def page(request: HttpRequest) -> dict[str, Any]:
    """Context processor. The shell is lazy: only pages that show it pay for its queries."""
    theme = request.COOKIES.get(THEME_COOKIE, "")
    return {
        "theme": theme if theme in THEMES else "",
        "is_demo_upstream": settings.ENV.is_demo_upstream,
        "api_url": api_url(settings.ENV),
        "snippets": snippets(api_url(settings.ENV)),
        "site_url": site_url(settings.ENV),
        "sends_mail": settings.ENV.mail is not None,
        "is_production": settings.ENV.is_production,
        "nav": section_of(request),
        "request_id": request_id_of(request),
        "shell": SimpleLazyObject(lambda: shell_of(request)),
        "viewing": viewing(request),
        "support_email": SimpleLazyObject(support_email),
        "announcements": SimpleLazyObject(lambda: announcements_for(getattr(request, "user", None))),
    }


def section_of(request: HttpRequest) -> str:
    """Menu entry of a page: its view's `section`. Pages of the user's own account belong to the settings."""
    view = request.resolver_match.func if request.resolver_match else None
    return getattr(view, "section", "settings")


def shell_of(request: HttpRequest) -> Shell | None:
    """Shell of the organization in the URL, or of the one the user visited last; None for visitors."""
    user = getattr(request, "user", None)
    if user is None or not isinstance(user, User):
        return None
    memberships = list(memberships_of(user))
    if not memberships:
        return None
    tenant: Tenant = getattr(request, "tenant", None) or _last(request, memberships)
    account, moment = account_shown(tenant.organization), now()
    ends_at = account.plan_ends_at
    meters = visible(meters_of(account, moment), tenant)
    is_end_near = _is_end_near(account, moment)
    past_due = past_due_of(account, moment) if is_end_near else None
    is_renewed = is_end_near and past_due is None and forecast_of(account, moment) is not None
    recharge = getattr(account.organization, "auto_recharge", None)
    return Shell(
        tenant=tenant,
        memberships=memberships,
        plan_name=account.plan.name,
        nearest=shown_nearest(meters),
        warnings=warnings_of(meters, tenant),
        plan_ends_at=ends_at if is_end_near and not is_renewed else None,
        past_due=past_due,
        recharge_stopped=str(recharge.get_stopped_display()) if recharge is not None and recharge.stopped else "",
    )


def _is_end_near(account: Account, at: datetime) -> bool:
    """Return whether a bought plan ends within days and its next month is not paid."""
    if account.plan_ends_at is None or account.plan_ends_at - at > ANNOUNCED:
        return False
    return all(each.has_begun for each in periods_of(account.organization, at))


def _last(request: HttpRequest, memberships: list[Membership]) -> Tenant:
    slug = request.session.get(LAST_ORGANIZATION)
    chosen = next((each for each in memberships if each.organization.slug == slug), memberships[0])
    return Tenant(chosen.organization, chosen.role)
