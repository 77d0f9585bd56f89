"""The door of every page that belongs to an organization."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeAlias, cast

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import resolve_url
from django.utils.http import urlencode
from django_htmx.middleware import HtmxDetails

from accounts.models import Organization, User
from accounts.permissions import Action, may
from accounts.selectors import membership_of
from codexflow.lib import isolation

P = ParamSpec("P")

# Entries of the menu (templates/base_app.html).
Section: TypeAlias = Literal["overview", "log", "keys", "playground", "billing", "team", "settings"]
# Remembers where the person worked last, for pages that belong to no organization.
LAST_ORGANIZATION = "organization"


@dataclass(frozen=True, slots=True)
class Tenant:
    """An organization as one of its members sees it."""

    organization: Organization
    role: str

    def allows(self, action: Action) -> bool:
        return may(self.role, action)

    @property
    def can(self) -> dict[str, bool]:
        """For templates: `tenant.can.manage_keys`."""
        return {action.value: self.allows(action) for action in Action}


class PageRequest(HttpRequest):
    """A request of somebody who is signed in, behind our middleware."""

    user: User
    htmx: HtmxDetails
    tenant: Tenant


View: TypeAlias = Callable[Concatenate[PageRequest, P], HttpResponseBase]
TenantView: TypeAlias = Callable[Concatenate[PageRequest, Tenant, P], HttpResponseBase]


def signed_in(view: View[P]) -> Callable[Concatenate[HttpRequest, P], HttpResponseBase]:
    """Somebody who is signed in; all others are sent to the sign-in page, fragments included."""

    @wraps(view)
    def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        page = cast(PageRequest, request)
        if page.user.is_authenticated:
            return view(page, *args, **kwargs)
        if page.htmx:
            # A redirect would be followed silently and put the form into a panel.
            target = page.htmx.current_url_abs_path or "/"
            return HttpResponse(
                status=401, headers={"HX-Redirect": f"{resolve_url('account_login')}?{urlencode({'next': target})}"}
            )
        return redirect_to_login(request.get_full_path())

    return guarded


def organization_page(
    action: Action | None = None, *, section: Section
) -> Callable[[TenantView[P]], Callable[..., HttpResponseBase]]:
    """A page of the organization that the URL names, for members who may do `action`; without one, for all of them.

    To strangers the organization does not exist (404); a member whose role is not enough is told so (403).
    `section` is the entry of the menu that is lit while the page is shown.
    """

    def decorate(view: TenantView[P]) -> Callable[..., HttpResponseBase]:
        @signed_in
        @wraps(view)
        def guarded(request: PageRequest, slug: str, *args: Any, **kwargs: Any) -> HttpResponseBase:
            membership = membership_of(request.user, slug)
            if membership is None:
                raise Http404
            tenant = request.tenant = Tenant(membership.organization, membership.role)
            if request.session.get(LAST_ORGANIZATION) != slug:
                request.session[LAST_ORGANIZATION] = slug
            if action is not None and not tenant.allows(action):
                raise PermissionDenied
            with isolation.within(tenant.organization.pk, person_id=request.user.pk):
                return view(request, tenant, *args, **kwargs)

        guarded.section = section  # type: ignore[attr-defined]
        return guarded

    return decorate
