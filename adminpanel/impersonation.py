"""Viewing as a member: an operator sees the pages that a member sees, and changes nothing.

The session keeps whom it shows and until when. Pages are answered for the member, so tenancy and roles are the member's
own; the operators' pages are not, and whatever writes is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _

from accounts import audit
from accounts.models import Organization, User
from accounts.tenancy import LAST_ORGANIZATION
from codexflow.lib.clock import now

SESSION_KEY: Final = "viewing_as"
LASTS: Final = timedelta(minutes=30)
# Names of routes that show what members wrote, or lead out of viewing.
CLOSED = frozenset(
    {
        "request-content",
        "export-download",
        "playground",
        "account-export",
        "usersessions_list",
        "mfa_index",
        "account_email",
        "socialaccount_connections",
    }
)


@dataclass(frozen=True, slots=True)
class Viewing:
    """An operator who views as a member of an organization, until a moment."""

    operator: User
    member: User
    organization_id: str
    until: datetime

    @property
    def minutes_left(self) -> int:
        return max(0, int((self.until - now()).total_seconds() + 59) // 60)


def begin(request: HttpRequest, organization: Organization, member: User, *, reason: str) -> None:
    """Show this session the pages of a member, for half an hour. The organization's audit log has who, whom and why."""
    until = now() + LASTS
    audit.record(
        "impersonation.started",
        member,
        organization=organization,
        **audit.acting(request),
        reason=reason,
        until=until.isoformat(timespec="seconds"),
    )
    request.session[SESSION_KEY] = {
        "member": member.pk,
        "organization": str(organization.pk),
        "until": until.timestamp(),
    }
    request.session[LAST_ORGANIZATION] = organization.slug


def end(request: HttpRequest) -> None:
    """Show the operator's own pages again."""
    stored = request.session.pop(SESSION_KEY, None)
    request.session.pop(LAST_ORGANIZATION, None)
    organization = Organization.objects.filter(pk=stored["organization"]).first() if stored else None
    member = User.objects.filter(pk=stored["member"]).first() if stored else None
    if organization is not None and member is not None:
        audit.record("impersonation.ended", member, organization=organization, **audit.acting(request))


def viewing_of(request: HttpRequest) -> Viewing | None:
    """The viewing of this session; None if there is none, it is over, or one of both may no longer."""
    stored: dict[str, Any] | None = request.session.get(SESSION_KEY)
    operator = request.user
    if stored is None or not isinstance(operator, User):
        return None
    until = datetime.fromtimestamp(stored["until"], tz=now().tzinfo)
    member = User.objects.filter(
        pk=stored["member"], is_active=True, memberships__organization=stored["organization"]
    ).first()
    if now() >= until or member is None or member.is_staff or not operator.has_perm("accounts.impersonate_user"):
        return None
    return Viewing(operator, member, stored["organization"], until)


class ViewingMiddleware:
    """Answers the pages of a session that views as a member for that member, and refuses whatever writes."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        # Also without a session cookie: reading the session then costs nothing.
        if SESSION_KEY not in request.session or request.path.startswith(("/ops/", "/static/", "/accounts/logout/")):
            return self.get_response(request)
        viewing = viewing_of(request)
        if viewing is None:
            end(request)
            return redirect("ops")
        if request.method not in ("GET", "HEAD") or request.path.startswith("/api/"):
            return self._refuse(request)
        vars(request)["viewing"] = viewing
        request.user = viewing.member
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *_view: Any) -> HttpResponse | None:
        """Close the pages that show what members wrote."""
        match = request.resolver_match
        if "viewing" in vars(request) and match is not None and match.view_name in CLOSED:
            return self._refuse(request)
        return None

    def _refuse(self, request: HttpRequest) -> HttpResponse:
        text = _("You are viewing as a member: nothing can be changed, and prompts and answers stay closed.")
        if request.path.startswith("/api/") or request.headers.get("HX-Request"):
            return HttpResponse(text, status=403, content_type="text/plain; charset=utf-8")
        messages.error(request, text)
        return redirect("home")


def viewing(request: HttpRequest) -> Viewing | None:
    """The viewing that this request is answered for, as the middleware found it."""
    found: Viewing | None = vars(request).get("viewing")
    return found
