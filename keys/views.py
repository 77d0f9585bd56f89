"""Pages of an organization's API keys."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from accounts.models import Organization
from accounts.permissions import Action
from accounts.reauthentication import recently_authenticated
from accounts.tenancy import PageRequest, Tenant, organization_page
from billing.selectors import KeySpend, account_of
from codexflow.lib.clock import now
from keys import services
from keys.errors import KeyLimitReached, KeyNotChangeable, KeyNotRotatable
from keys.forms import KeyForm, RotateForm
from keys.models import ApiKey
from keys.selectors import counted_keys_of, key_of, keys_of, spend_by_lineage


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key, its current state and its spend, for a table row or the detail page."""

    key: ApiKey
    state: ApiKey.State
    spend: KeySpend | None

    @property
    def is_working(self) -> bool:
        return self.state in (ApiKey.State.ACTIVE, ApiKey.State.ROTATED)

    @property
    def month_nanos(self) -> int:
        return self.spend.month_nanos if self.spend else 0


def rows_of(organization: Organization, at: datetime) -> list[KeyRow]:
    spends = spend_by_lineage(organization, at.date())
    rows = [KeyRow(key, key.state(at), spends.get(key.pk)) for key in keys_of(organization)]
    return sorted(rows, key=lambda row: not row.is_working)


@organization_page(section="keys")
@require_safe
def key_list(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """List all keys, working ones first."""
    return render(
        request,
        "keys/list.html",
        {
            "rows": rows_of(tenant.organization, now()),
            "held": counted_keys_of(tenant.organization).count(),
            "max_keys": account_of(tenant.organization).plan.max_keys,
        },
    )


@organization_page(section="keys")
@require_safe
def detail(request: PageRequest, tenant: Tenant, key_id: UUID) -> HttpResponseBase:
    """Show one key's terms and spend, in the drawer or as a page."""
    key, moment = _key_or_404(tenant, key_id), now()
    context = {
        "row": KeyRow(key, key.state(moment), spend_by_lineage(tenant.organization, moment.date()).get(key.pk)),
        "maker": key.created_by,
        "predecessor": key.rotated_from.first(),
    }
    return render(request, _part(request, "keys/detail.html"), context)


@organization_page(Action.MANAGE_KEYS, section="keys")
@recently_authenticated
@require_http_methods(["GET", "POST"])
@never_cache
def create(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Create a key and show its secret, in this response only: never in a message, a log or the browser's history."""
    form = KeyForm(request.POST or None, account=account_of(tenant.organization))
    template = _part(request, "keys/create.html")
    if request.method == "POST" and form.is_valid():
        try:
            issued = services.issue_key(
                tenant.organization,
                name=form.cleaned_data["name"],
                created_by=request.user,
                address=_address(request),
                terms=form.terms(),
            )
        except KeyLimitReached:
            form.add_error(
                None,
                _("Your plan's number of keys is used up. Revoke one that is not used."),
            )
        else:
            return render(request, _part(request, "keys/created.html"), {"key": issued.row, "secret": issued.plain})
    return render(request, template, {"form": form}, status=422 if form.errors else 200)


@organization_page(Action.MANAGE_KEYS, section="keys")
@require_http_methods(["GET", "POST"])
def edit(request: PageRequest, tenant: Tenant, key_id: UUID) -> HttpResponseBase:
    """Change a key's name and terms; applies in every gateway process at once."""
    key = _key_or_404(tenant, key_id)
    form = KeyForm(request.POST or None, account=account_of(tenant.organization), key=key)
    if request.method == "POST" and form.is_valid():
        try:
            services.change_key(key, form.changes(), actor=request.user, address=_address(request))
        except KeyNotChangeable:
            form.add_error(None, _("The key was revoked and cannot be changed."))
        else:
            messages.success(request, _("The key is changed."))
            return redirect("keys", slug=tenant.organization.slug)
    return render(
        request, _part(request, "keys/edit.html"), {"form": form, "key": key}, status=422 if form.errors else 200
    )


@organization_page(Action.MANAGE_KEYS, section="keys")
@recently_authenticated
@require_http_methods(["GET", "POST"])
@never_cache
def rotate(request: PageRequest, tenant: Tenant, key_id: UUID) -> HttpResponseBase:
    """Rotate a key with a chosen overlap and show the new secret, in this response only."""
    key = _key_or_404(tenant, key_id)
    form = RotateForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            issued = services.rotate_key(
                key,
                overlap_s=form.cleaned_data["overlap_s"],
                created_by=request.user,
                actor=request.user,
                address=_address(request),
            )
        except KeyNotRotatable:
            form.add_error(
                None,
                _("Only a key that works can be rotated, and only once the key before it has stopped working."),
            )
        else:
            old = _key_or_404(tenant, key_id)
            context = {"key": issued.row, "secret": issued.plain, "old": old, "old_state": old.state(now())}
            return render(request, _part(request, "keys/created.html"), context)
    return render(
        request, _part(request, "keys/rotate.html"), {"form": form, "key": key}, status=422 if form.errors else 200
    )


@organization_page(Action.MANAGE_KEYS, section="keys")
@require_http_methods(["GET", "POST"])
def revoke(request: PageRequest, tenant: Tenant, key_id: UUID) -> HttpResponseBase:
    """Revoke a key after a confirmation."""
    key = _key_or_404(tenant, key_id)
    if request.method == "POST":
        services.revoke_key(key, actor=request.user, address=_address(request))
        messages.success(request, _("The key %(name)s is revoked.") % {"name": key.name})
        return redirect("keys", slug=tenant.organization.slug)
    return render(request, _part(request, "keys/revoke.html"), {"key": key})


def _part(request: PageRequest, template: str) -> str:
    """Name of the template: only the dialog's body for htmx, otherwise the whole page."""
    return f"{template}#body" if request.htmx else template


def _key_or_404(tenant: Tenant, key_id: UUID) -> ApiKey:
    key = key_of(tenant.organization, key_id)
    if key is None:
        raise Http404
    return key


def _address(request: PageRequest) -> str | None:
    return request.META.get("REMOTE_ADDR") or None
