"""Access control of pages that belong to an organization."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeAlias, cast
from urllib.parse import urlsplit, urlunsplit

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import resolve_url
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django_htmx.middleware import HtmxDetails

from accounts.models import Organization, User
from accounts.permissions import Action, may
from accounts.selectors import membership_of
from codexflow.lib import isolation

P = ParamSpec("P")

# Entries of the menu (templates/base_app.html).
Section: TypeAlias = Literal["overview", "log", "keys", "playground", "billing", "team", "settings"]
# Session key: slug of the organization visited last, for pages that belong to no organization.
LAST_ORGANIZATION = "organization"


@dataclass(frozen=True, slots=True)
class Tenant:
    """An organization and the role of the current user in it."""

    organization: Organization
    role: str

    def allows(self, action: Action) -> bool:
        return may(self.role, action)

    @property
    def can(self) -> dict[str, bool]:
        """Permissions by name, for templates: `tenant.can.manage_keys`."""
        return {action.value: self.allows(action) for action in Action}


class PageRequest(HttpRequest):
    """Request of a signed-in user, with the attributes that middleware sets."""

    user: User
    htmx: HtmxDetails
    tenant: Tenant


View: TypeAlias = Callable[Concatenate[PageRequest, P], HttpResponseBase]
TenantView: TypeAlias = Callable[Concatenate[PageRequest, Tenant, P], HttpResponseBase]


def return_path(request: PageRequest) -> str:
    """Return the path to come back to after signing in: this one if it answers GET, otherwise the form's page."""
    if request.method in ("GET", "HEAD"):
        return request.get_full_path()
    if request.htmx and request.htmx.current_url_abs_path:
        return request.htmx.current_url_abs_path
    came_from = urlsplit(request.headers.get("referer", ""))
    is_ours = came_from.netloc == request.get_host() and came_from.path.startswith("/")
    return urlunsplit(("", "", came_from.path, came_from.query, "")) if is_ours else "/"


def signed_in(view: View[P]) -> Callable[Concatenate[HttpRequest, P], HttpResponseBase]:
    """Require a signed-in user; redirect others to the sign-in page, also from fragments."""

    @wraps(view)
    def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        page = cast(PageRequest, request)
        if page.user.is_authenticated:
            return view(page, *args, **kwargs)
        if request.method not in ("GET", "HEAD"):
            messages.error(request, _("Your session ended before this was saved. Sign in, then send it again."))
        elif _has_ended(page):
            messages.info(request, _("Your session has ended. Sign in again."))
        if page.htmx:
            # htmx would follow a redirect and put the form into a panel.
            target = page.htmx.current_url_abs_path or "/"
            return HttpResponse(
                status=401, headers={"HX-Redirect": f"{resolve_url('account_login')}?{urlencode({'next': target})}"}
            )
        return redirect_to_login(return_path(page))

    return guarded


def _has_ended(request: PageRequest) -> bool:
    """Return whether the browser still names a session that is gone: signing out by oneself removes its cookie."""
    return bool(request.COOKIES.get(settings.SESSION_COOKIE_NAME)) and request.session.session_key is None


def organization_page(
    action: Action | None = None, *, section: Section
) -> Callable[[TenantView[P]], Callable[..., HttpResponseBase]]:
    """Restrict a page to members of the organization in the URL who may do `action` (None: to all members).

    Others get 404, as if the organization did not exist; a member whose role lacks the permission gets 403.
    `section` is the menu entry that is lit while the page is shown.
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
