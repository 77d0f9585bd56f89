"""Pages of members, invitations and the audit log."""

from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts import audit, mail, members
from accounts.audit import acting
from accounts.audit_details import details_of
from accounts.errors import Refused
from accounts.forms import InvitationForm, RoleForm, TransferForm
from accounts.invitations import token_of
from accounts.models import Invitation, Membership, User
from accounts.permissions import Action, may_manage
from accounts.reauthentication import is_recently_authenticated, reauthentication_redirect, recently_authenticated
from accounts.seats import seat_limit
from accounts.selectors import (
    INVITATION_SESSION_KEY,
    addresses_of,
    invitation_by_token,
    invitation_of,
    member_of,
    members_of,
    open_invitations,
)
from accounts.tenancy import PageRequest, Tenant, organization_page

PAGE = 50


@organization_page(section="team")
@require_safe
def member_list(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """List members and, for roles that may invite, open invitations."""
    after = _number(request.GET.get("after", ""))
    found = members_of(tenant.organization, after=after, limit=PAGE + 1)
    rows = [(each, may_manage(tenant.role, each.role)) for each in found[:PAGE]]
    page = {"rows": rows, "more": found[PAGE - 1].pk if len(found) > PAGE else None}
    if request.htmx and not request.htmx.history_restore_request:
        return render(request, "accounts/members.html#rows", page)
    is_manager = tenant.allows(Action.MANAGE_MEMBERS)
    invited = list(open_invitations(tenant.organization)[: 2 * PAGE]) if is_manager else []
    seats, taken = seat_limit(tenant.organization), tenant.organization.memberships.count() + len(invited)
    return render(
        request,
        "accounts/members.html",
        {
            **page,
            "invited": [(each, _link(request, each), may_manage(tenant.role, each.role)) for each in invited],
            "seats": seats,
            "taken": taken,
            "is_full": taken >= seats,
            "is_first_page": after is None,
        },
    )


@organization_page(Action.MANAGE_MEMBERS, section="team")
@require_http_methods(["GET", "POST"])
def invite(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Invite an address to the organization."""
    form = InvitationForm(request.POST or None, by_role=tenant.role)
    if request.method == "POST" and form.is_valid():
        if _needs_reauthentication(request, form):
            return reauthentication_redirect(request)
        try:
            invitation = members.invite(
                tenant.organization,
                email=form.cleaned_data["email"],
                role=form.cleaned_data["role"],
                by_role=tenant.role,
                **acting(request),
            )
        except Refused as exc:
            form.add_error("email", str(exc))
        else:
            _send(request, invitation)
            return _to_members(request, tenant)
    return _dialog(request, "accounts/invite.html", {"form": form}, is_wrong=bool(form.errors))


@organization_page(Action.MANAGE_MEMBERS, section="team")
@require_POST
def invitation_resend(request: PageRequest, tenant: Tenant, invitation_id: UUID) -> HttpResponseBase:
    """Send an invitation again, with a new link."""
    invitation = _invitation_or_404(tenant, invitation_id)
    try:
        _send(request, members.resend(invitation, by_role=tenant.role, **acting(request)))
    except Refused as exc:
        messages.error(request, str(exc))
    return redirect("members", slug=tenant.organization.slug)


@organization_page(Action.MANAGE_MEMBERS, section="team")
@require_POST
def invitation_withdraw(request: PageRequest, tenant: Tenant, invitation_id: UUID) -> HttpResponseBase:
    """Withdraw an invitation."""
    invitation = _invitation_or_404(tenant, invitation_id)
    try:
        members.withdraw(invitation, by_role=tenant.role, **acting(request))
    except Refused as exc:
        messages.error(request, str(exc))
    else:
        messages.success(request, _("Invitation revoked."))
    return redirect("members", slug=tenant.organization.slug)


@never_cache
@require_http_methods(["GET", "POST"])
def invitation(request: HttpRequest, token: str) -> HttpResponseBase:
    """Landing page of an invitation link: sign in or sign up, then accept."""
    row = invitation_by_token(token)
    if row is None:
        return render(request, "accounts/invitation_over.html", status=404)
    user = request.user if isinstance(request.user, User) else None
    if user is None:
        # Allows sign-up even while it is closed.
        request.session[INVITATION_SESSION_KEY] = token
    is_for_user = user is not None and row.email in addresses_of(user)
    if request.method == "POST" and user is not None:
        try:
            membership = members.accept(row, **acting(request))
        except Refused as exc:
            messages.error(request, str(exc))
        else:
            messages.success(request, _("Welcome to %(name)s.") % {"name": row.organization.name})
            return redirect("overview", slug=membership.organization.slug)
    return render(
        request,
        "accounts/invitation.html",
        {"invitation": row, "is_theirs": is_for_user, "has_account": User.objects.filter(email=row.email).exists()},
    )


@organization_page(Action.MANAGE_MEMBERS, section="team")
@require_http_methods(["GET", "POST"])
def role(request: PageRequest, tenant: Tenant, membership_id: int) -> HttpResponseBase:
    """Change a member's role."""
    member = _member_or_404(tenant, membership_id)
    form = RoleForm(request.POST or None, by_role=tenant.role, initial={"role": member.role})
    if request.method == "POST" and form.is_valid():
        chosen = form.cleaned_data["role"]
        if _needs_reauthentication(request, form):
            return reauthentication_redirect(request)
        try:
            members.change_role(member, role=chosen, by_role=tenant.role, **acting(request))
        except Refused as exc:
            form.add_error("role", str(exc))
        else:
            messages.success(request, _("Role changed."))
            return _to_members(request, tenant)
    return _dialog(request, "accounts/role.html", {"form": form, "member": member}, is_wrong=bool(form.errors))


@organization_page(Action.MANAGE_MEMBERS, section="team")
@require_http_methods(["GET", "POST"])
def remove(request: PageRequest, tenant: Tenant, membership_id: int) -> HttpResponseBase:
    """Remove a member."""
    member = _member_or_404(tenant, membership_id)
    if request.method == "POST":
        try:
            members.remove(member, by_role=tenant.role, keeps_keys="keeps_keys" in request.POST, **acting(request))
        except Refused as exc:
            messages.error(request, str(exc))
        else:
            messages.success(request, _("%(email)s is no longer a member.") % {"email": member.user.email})
        return redirect("members", slug=tenant.organization.slug)
    return _dialog(request, "accounts/remove.html", {"member": member})


@organization_page(section="team")
@require_http_methods(["GET", "POST"])
def leave(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Leave the organization."""
    if request.method == "POST":
        member = tenant.organization.memberships.select_related("organization").get(user=request.user)
        try:
            members.leave(member, address=acting(request)["address"])
        except Refused as exc:
            messages.error(request, str(exc))
            return redirect("members", slug=tenant.organization.slug)
        messages.success(request, _("You have left %(name)s.") % {"name": tenant.organization.name})
        return redirect("home")
    return _dialog(request, "accounts/leave.html", {})


@organization_page(Action.MANAGE_ORGANIZATION, section="team")
@require_http_methods(["GET", "POST"])
@recently_authenticated
def transfer(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Transfer ownership to another member."""
    form = TransferForm(
        request.POST or None,
        organization=tenant.organization,
        owner=request.user,
        word=tenant.organization.name,
        label=_("The organization's name"),
    )
    if request.method == "POST" and form.is_valid():
        new_owner: Membership = form.cleaned_data["heir"]
        try:
            members.transfer_ownership(tenant.organization, to=new_owner, **acting(request))
        except Refused as exc:
            form.add_error("heir", str(exc))
        else:
            facts = {"organization": tenant.organization.name, "by": request.user.name or request.user.email}
            mail.send("ownership", new_owner.user.email, language=new_owner.user.language, **facts)
            messages.success(request, _("%(email)s is now the owner.") % {"email": new_owner.user.email})
            return redirect("members", slug=tenant.organization.slug)
    return render(request, "accounts/transfer.html", {"form": form}, status=422 if form.errors else 200)


@organization_page(Action.SEE_AUDIT, section="team")
@require_safe
def audit_log(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Audit log of the organization, newest first."""
    area = request.GET.get("area", "")
    area = area if area in audit.areas() else ""
    actor_id, before = _number(request.GET.get("member", "")), _number(request.GET.get("before", ""))
    found = audit.trail_of(tenant.organization, area=area, actor_id=actor_id, before=before, limit=PAGE + 1)
    entries = found[:PAGE]
    names, labels, kinds = audit.names_of(tenant.organization, entries), audit.labels(), audit.kinds()
    query = request.GET.copy()
    query.pop("before", None)
    newest = query.urlencode()
    if len(found) > PAGE:
        query["before"] = str(entries[-1].pk)
    page = {
        "rows": [
            {
                "entry": entry,
                "label": labels.get(entry.action, entry.action),
                "object": names.get((entry.object_kind, entry.object_id)) or entry.facts.get("name", ""),
                "kind": kinds[entry.object_kind]._meta.verbose_name
                if entry.object_kind in kinds
                else entry.object_kind,
                "details": details_of(entry.action, entry.facts, kind),
            }
            for entry, kind in ((entry, kinds.get(entry.object_kind)) for entry in entries)
        ],
        "older": query.urlencode() if len(found) > PAGE else "",
    }
    if request.htmx and not request.htmx.history_restore_request:
        part = "rows" if before is not None else "results"
        return render(request, f"accounts/audit.html#{part}", {**page, "has_filters": bool(area or actor_id)})
    return render(
        request,
        "accounts/audit.html",
        {
            **page,
            "area": area,
            "areas": audit.areas().items(),
            "member": actor_id,
            "members": members_of(tenant.organization, limit=2 * PAGE),
            "has_filters": bool(area or actor_id),
            "is_first_page": before is None,
            "newest": newest,
        },
    )


def _needs_reauthentication(request: PageRequest, form: RoleForm) -> bool:
    """Making an owner gives away every right, as a transfer does: it requires a recent authentication."""
    return form.cleaned_data["role"] == Membership.Role.OWNER and not is_recently_authenticated(request, request.user)


def _send(request: PageRequest, row: Invitation) -> None:
    """Mail the link, in the language of the invited user; for an unknown address, in the inviter's."""
    known = User.objects.filter(email=row.email).first()
    is_sent = mail.send(
        "invitation",
        row.email,
        language=known.language if known else request.user.language,
        organization=row.organization.name,
        by=request.user.name or request.user.email,
        link=_link(request, row),
        ends_at=row.expires_at,
    )
    if is_sent:
        messages.success(request, _("%(email)s has been invited.") % {"email": row.email})
    else:
        messages.error(request, _("The mail could not be sent. Give them the link yourself, or try again."))


def _link(request: PageRequest, row: Invitation) -> str:
    return request.build_absolute_uri(reverse("invitation", args=[token_of(row)]))


def _dialog(
    request: PageRequest, template: str, facts: dict[str, object], *, is_wrong: bool = False
) -> HttpResponseBase:
    """Render the dialog's body for htmx, otherwise the whole page."""
    return render(request, f"{template}#body" if request.htmx else template, facts, status=422 if is_wrong else 200)


def _to_members(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Redirect to the list of members: htmx would follow an ordinary redirect and put the page into the dialog."""
    where = reverse("members", args=[tenant.organization.slug])
    return HttpResponse(status=204, headers={"HX-Redirect": where}) if request.htmx else redirect(where)


def _member_or_404(tenant: Tenant, membership_id: int) -> Membership:
    member = member_of(tenant.organization, membership_id)
    if member is None:
        raise Http404
    return member


def _invitation_or_404(tenant: Tenant, invitation_id: UUID) -> Invitation:
    row = invitation_of(tenant.organization, invitation_id)
    if row is None:
        raise Http404
    return row


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None
