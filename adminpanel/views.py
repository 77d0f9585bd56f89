"""Pages of operators: the state of the installation, customers, models and prices, announcements."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts import services
from accounts.audit import acting, record
from accounts.errors import Refused
from accounts.models import Organization, User
from accounts.tenancy import PageRequest, Tenant
from adminpanel import checks, impersonation
from adminpanel import customers as found_customers
from adminpanel.access import operator_page
from adminpanel.conditions import lines_of
from adminpanel.editor import Conflict, apply_edit, changes_of, newest_version, problems_of
from adminpanel.forms import AnnouncementForm, CatalogueForm, ImpersonationForm, LitellmKeyForm, ReasonForm
from adminpanel.models import Announcement, Incident
from adminpanel.overview import overview
from codexflow.catalogue import directory
from codexflow.catalogue import services as catalogue_services
from codexflow.catalogue.models import ConfigVersion
from codexflow.catalogue.schema import CatalogueError, shown_of
from codexflow.lib.admin import site
from codexflow.lib.clock import now
from keys.models import ApiKey
from keys.services import map_litellm_key, revoke_key
from keys.views import without_secret
from logs.requests.selectors import request_of
from logs.requests.views import detail_context

# Where a line of the health page leads.
LINE_PAGES = {
    "dead_letters": "admin:logs_deadletter_changelist",
    "catalogue": "ops-catalogue",
    "payments": "admin:billing_paymentevent_changelist",
    "reports": "admin:logs_unmatchedreport_changelist",
    "margin": "admin:logs_daymargin_changelist",
    "sync": "admin:logs_syncrun_changelist",
}
ALL_DAYS = 36_500


@operator_page(section="start")
@require_safe
@never_cache
def start(request: PageRequest) -> HttpResponseBase:
    """Show the state of every part, and usage, revenue and errors."""
    at = now()
    lines = lines_of(checks.read_facts(at))
    since, names = checks.note_incidents(lines, at), {line.key: line.name for line in lines}
    past = Incident.objects.exclude(ended_at=None).order_by("-ended_at")[:5]
    context = {
        "lines": [(line, since.get(line.key), LINE_PAGES.get(line.page, "")) for line in lines if line.level != "ok"],
        "well": [line for line in lines if line.level == "ok"],
        "is_error": any(line.level == "error" for line in lines),
        "past": [(names.get(each.key, each.key), each) for each in past],
        "sums": overview(at),
    }
    return render(request, "adminpanel/start.html#body" if request.htmx else "adminpanel/start.html", context)


@operator_page(section="tables")
@require_safe
def tables(request: PageRequest) -> HttpResponseBase:
    """Show the list of all tables."""
    page: HttpResponse = site.index(request)
    return page


@operator_page(section="customers")
@require_http_methods(["GET", "HEAD", "POST"])
def customers(request: PageRequest) -> HttpResponseBase:
    """Find customers. A term is posted, since it may be a key, and only what is no secret gets into the address."""
    if request.method == "POST":
        term = without_secret(request.POST.get("q", ""))
        found = found_customers.find_customers(term) if term else []
        if len(found) == 1:
            return redirect("ops-customer", found[0].account.organization_id)
        return redirect(f"{reverse('ops-customers')}?{urlencode({'q': term})}" if term else "ops-customers")
    term = without_secret(request.GET.get("q", ""))
    return render(request, "adminpanel/customers.html", {"q": term, "found": found_customers.find_customers(term)})


@operator_page(section="customers")
@require_safe
def customer(request: PageRequest, organization_id: UUID) -> HttpResponseBase:
    """Show all of one customer."""
    facts = found_customers.customer_of(organization_id)
    if facts is None:
        raise Http404
    return render(request, "adminpanel/customer.html", facts)


@operator_page(section="customers")
@require_safe
def request_detail(request: PageRequest, organization_id: UUID, request_id: UUID) -> HttpResponseBase:
    """Show one request as its customer sees it, without prompt and answer."""
    organization = get_object_or_404(Organization, pk=organization_id)
    found = request_of(organization.pk, request_id, retention_days=ALL_DAYS)
    if found is None:
        raise Http404
    tenant = Tenant(organization, "billing")
    context = {**detail_context(tenant, found), "shell": {"tenant": tenant, "organization": organization}}
    template = "adminpanel/request.html#body" if request.htmx else "adminpanel/request.html"
    return render(request, template, {**context, "organization": organization})


@operator_page("accounts.suspend_organization", section="customers")
@require_http_methods(["GET", "POST"])
def suspend(request: PageRequest, organization_id: UUID) -> HttpResponseBase:
    """Suspend a customer, with a reason."""
    return _with_reason(request, organization_id, services.suspend_organization, is_suspending=True)


@operator_page("accounts.suspend_organization", section="customers")
@require_http_methods(["GET", "POST"])
def reactivate(request: PageRequest, organization_id: UUID) -> HttpResponseBase:
    """Lift a suspension, with a reason."""
    return _with_reason(request, organization_id, services.reactivate_organization, is_suspending=False)


def _with_reason(request: PageRequest, organization_id: UUID, act: Any, *, is_suspending: bool) -> HttpResponseBase:
    organization = get_object_or_404(Organization, pk=organization_id)
    form = ReasonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            act(organization, reason=form.cleaned_data["reason"], **acting(request))
        except Refused as refused:
            messages.error(request, str(refused))
        else:
            done = _("%(name)s is suspended.") if is_suspending else _("The suspension of %(name)s is lifted.")
            messages.success(request, done % {"name": organization.name})
        return redirect("ops-customer", organization.pk)
    context = {"form": form, "organization": organization, "is_suspending": is_suspending}
    return _dialog(request, "adminpanel/reason.html", context, form)


@operator_page("keys.revoke_apikey", section="customers")
@require_http_methods(["GET", "POST"])
def key_revoke(request: PageRequest, organization_id: UUID, key_id: UUID) -> HttpResponseBase:
    """Revoke a customer's key at once."""
    key = get_object_or_404(ApiKey.objects.select_related("organization"), organization=organization_id, pk=key_id)
    if request.method == "POST":
        if key.revoked_at is None:
            revoke_key(key, actor_label="operator", **acting(request))
        messages.success(request, _("The key %(name)s is revoked.") % {"name": key.name})
        return redirect("ops-customer", organization_id)
    return _dialog(request, "adminpanel/key_revoke.html", {"key": key, "organization": key.organization})


@operator_page("keys.map_apikey", section="customers")
@require_http_methods(["GET", "POST"])
def key_litellm(request: PageRequest, organization_id: UUID, key_id: UUID) -> HttpResponseBase:
    """Map a customer's key to LiteLLM's id of one, so that its reports find their owner."""
    key = get_object_or_404(ApiKey.objects.select_related("organization"), organization=organization_id, pk=key_id)
    form = LitellmKeyForm(request.POST or None, initial={"litellm_key_id": key.litellm_key_id})
    if request.method == "POST" and form.is_valid():
        try:
            map_litellm_key(key, form.cleaned_data["litellm_key_id"].strip(), **acting(request))
        except Refused as refused:
            form.add_error("litellm_key_id", str(refused))
        else:
            messages.success(request, _("Mapping saved. Waiting reports are matched within the hour."))
            return redirect("ops-customer", organization_id)
    context = {"form": form, "key": key, "organization": key.organization}
    return _dialog(request, "adminpanel/key_litellm.html", context, form)


@operator_page("accounts.impersonate_user", section="customers")
@require_http_methods(["GET", "POST"])
def view_as(request: PageRequest, organization_id: UUID) -> HttpResponseBase:
    """Begin to view the pages as a member sees them."""
    organization = get_object_or_404(Organization, pk=organization_id, is_active=True)
    members = User.objects.filter(memberships__organization=organization, is_active=True, role=User.Role.USER).order_by(
        "memberships__created_at"
    )
    form = ImpersonationForm(request.POST or None, members=members, initial={"member": members.first()})
    if request.method == "POST" and form.is_valid():
        impersonation.begin(request, organization, form.cleaned_data["member"], reason=form.cleaned_data["reason"])
        return redirect("overview", organization.slug)
    context = {"form": form, "organization": organization, "minutes": int(impersonation.LASTS.total_seconds()) // 60}
    return _dialog(request, "adminpanel/view_as.html", context, form)


@operator_page(section="customers")
@require_POST
def view_end(request: PageRequest) -> HttpResponseBase:
    """Go back to the operator's own pages."""
    stored = request.session.get(impersonation.SESSION_KEY)
    impersonation.end(request)
    return redirect("ops-customer", stored["organization"]) if stored else redirect("ops")


@operator_page(section="catalogue")
@require_http_methods(["GET", "HEAD", "POST"])
def catalogue(request: PageRequest) -> HttpResponseBase:
    """Show models.yaml in force and its history; check an edit, show what it changes, and put it in force."""
    newest = newest_version()
    first = {"text": newest.text if newest else "", "base_id": newest.pk if newest else None}
    form = CatalogueForm(request.POST or None, initial=first)
    planner = directory.in_force().planner
    context: dict[str, Any] = {
        "form": form,
        "newest": newest,
        "versions": ConfigVersion.objects.defer("text")[:20],
        "planner": shown_of(planner).items() if planner is not None else (),
        "planner_file": directory.planner_file(),
    }
    if request.method != "POST":
        return render(request, "adminpanel/catalogue.html", context)
    if not request.user.has_perm("codexflow.change_configversion"):
        return redirect("ops-catalogue")
    if not form.is_valid():
        return render(request, "adminpanel/catalogue.html", context, status=422)
    # Browsers send lines that end with CR LF.
    text, base_id = form.cleaned_data["text"].replace("\r\n", "\n"), form.cleaned_data["base_id"]
    context["changes"] = changes_of(newest.text if newest else "", text)
    context["problems"], context["warnings"] = problems_of(text)
    if context["problems"]:
        return render(request, "adminpanel/catalogue.html", context, status=422)
    if "apply" not in request.POST:
        return render(request, "adminpanel/catalogue.html", {**context, "is_checked": True})
    try:
        made = apply_edit(text, base_id=base_id, note=form.cleaned_data["note"], **acting(request))
    except Conflict as conflict:
        theirs = changes_of(conflict.base.text if conflict.base else "", conflict.newest.text)
        context |= {"conflict": conflict, "their_changes": theirs, "newest": conflict.newest}
        return render(request, "adminpanel/catalogue.html", context, status=409)
    messages.success(request, _("Version %(id)s is in force in every process within seconds.") % {"id": made.pk})
    return redirect("ops-catalogue")


@operator_page(section="catalogue")
@require_safe
def catalogue_version(request: PageRequest, version_id: int) -> HttpResponseBase:
    """Show an earlier version, and what has changed since."""
    version = get_object_or_404(ConfigVersion, pk=version_id)
    newest = newest_version() or version
    context = {"version": version, "newest": newest, "changes": changes_of(version.text, newest.text)}
    return render(request, "adminpanel/catalogue_version.html", context)


@operator_page("codexflow.change_configversion", section="catalogue")
@require_POST
def catalogue_rollback(request: PageRequest, version_id: int) -> HttpResponseBase:
    """Put an earlier version in force again."""
    version = get_object_or_404(ConfigVersion, pk=version_id)
    try:
        with transaction.atomic():
            made = catalogue_services.roll_back(version, author=request.user.email)
            record("catalogue.rolled_back", made, organization=None, **acting(request), to=version.pk)
    except CatalogueError as exc:
        messages.error(request, " ".join([_("This version is not valid any more."), *exc.problems[:3]]))
        return redirect("ops-catalogue-version", version.pk)
    messages.success(request, _("Version %(id)s is in force in every process within seconds.") % {"id": made.pk})
    return redirect("ops-catalogue")


@operator_page(section="announcements")
@require_http_methods(["GET", "HEAD", "POST"])
def announcements(request: PageRequest) -> HttpResponseBase:
    """List announcements, and make one."""
    may = request.user.has_perm("adminpanel.announce")
    form = AnnouncementForm(request.POST or None, initial={"starts_at": now()})
    if request.method == "POST" and may and form.is_valid():
        made = form.save()
        record("announcement.created", made, organization=None, **acting(request), text=made.text_en)
        messages.success(request, _("The announcement is shown on every page from its time on."))
        return redirect("ops-announcements")
    at = now()
    rows = [(each, each.state(at)) for each in Announcement.objects.order_by("-starts_at")[:50]]
    context = {"form": form, "rows": rows, "may": may}
    return render(request, "adminpanel/announcements.html", context, status=422 if form.errors else 200)


@operator_page("adminpanel.announce", section="announcements")
@require_POST
def announcement_end(request: PageRequest, announcement_id: int) -> HttpResponseBase:
    """Stop showing an announcement; one that has not begun is deleted."""
    row, at = get_object_or_404(Announcement, pk=announcement_id), now()
    if row.starts_at >= at:
        record("announcement.ended", row, organization=None, **acting(request))
        row.delete()
    elif row.ends_at > at:
        row.ends_at = at
        row.save(update_fields=["ends_at"])
        record("announcement.ended", row, organization=None, **acting(request))
    return redirect("ops-announcements")


def _dialog(request: PageRequest, template: str, context: dict[str, Any], form: Any = None) -> HttpResponseBase:
    """Render a dialog, or the page of it for browsers without scripts."""
    status = 422 if form is not None and form.errors else 200
    return render(request, f"{template}#body" if request.htmx else template, context, status=status)
