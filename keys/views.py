"""The page of an organization's API keys."""

from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from accounts.models import Organization
from accounts.permissions import Action
from accounts.tenancy import PageRequest, Tenant, organization_page
from billing.selectors import KeySpend, account_of, spend_by_key
from billing.services import limits_of
from codexflow.lib.clock import now
from keys import services
from keys.errors import KeyLimitReached
from keys.forms import KeyForm, NameForm
from keys.models import ApiKey
from keys.selectors import key_of, keys_of


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as the table shows it."""

    key: ApiKey
    state: ApiKey.State
    spend: KeySpend | None

    @property
    def is_working(self) -> bool:
        return self.state in (ApiKey.State.ACTIVE, ApiKey.State.ROTATED)

    @property
    def last_day(self) -> date | None:
        return self.spend.last_day if self.spend else None

    @property
    def month_nanos(self) -> int:
        return self.spend.month_nanos if self.spend else 0


def rows_of(organization: Organization, at: datetime) -> list[KeyRow]:
    spends = spend_by_key(organization, at.date())
    rows = [KeyRow(key, key.state(at), spends.get(key.pk)) for key in keys_of(organization)]
    return sorted(rows, key=lambda row: not row.is_working)


@organization_page()
@require_safe
def key_list(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """All keys, working ones first."""
    account = account_of(tenant.organization)
    rows = rows_of(tenant.organization, now())
    return render(
        request,
        "keys/list.html",
        {
            "rows": rows,
            "working": sum(row.key.revoked_at is None for row in rows),
            "max_keys": account.plan.max_keys,
            "form": KeyForm(plan_limits=limits_of(account)),
        },
    )


@organization_page(Action.MANAGE_KEYS)
@require_http_methods(["GET", "POST"])
@never_cache
def create(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """The form, and after it the secret: in this answer only, never in a message, a log or a history."""
    form = KeyForm(request.POST or None, plan_limits=limits_of(account_of(tenant.organization)))
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
            response = render(request, _part(request, "keys/created.html"), {"key": issued.row, "secret": issued.plain})
            response["Cache-Control"] = "no-store"
            return response
    return render(request, template, {"form": form}, status=422 if form.errors else 200)


@organization_page(Action.MANAGE_KEYS)
@require_http_methods(["GET", "POST"])
def rename(request: PageRequest, tenant: Tenant, key_id: UUID) -> HttpResponseBase:
    """Another name for a key."""
    key = _key_or_404(tenant, key_id)
    form = NameForm(request.POST or None, instance=key)
    if request.method == "POST" and form.is_valid():
        services.rename_key(key, name=form.cleaned_data["name"], actor=request.user, address=_address(request))
        messages.success(request, _("The key is renamed."))
        return redirect("keys", slug=tenant.organization.slug)
    return render(
        request, _part(request, "keys/rename.html"), {"form": form, "key": key}, status=422 if form.errors else 200
    )


@organization_page(Action.MANAGE_KEYS)
@require_http_methods(["GET", "POST"])
def revoke(request: PageRequest, tenant: Tenant, key_id: UUID) -> HttpResponseBase:
    """Ask what would happen, then make it happen."""
    key = _key_or_404(tenant, key_id)
    if request.method == "POST":
        services.revoke_key(key, actor=request.user, address=_address(request))
        messages.success(request, _("The key %(name)s is revoked.") % {"name": key.name})
        return redirect("keys", slug=tenant.organization.slug)
    spend = spend_by_key(tenant.organization, now().date()).get(key.pk)
    return render(
        request, _part(request, "keys/revoke.html"), {"key": key, "last_day": spend.last_day if spend else None}
    )


def _part(request: PageRequest, template: str) -> str:
    """Only what goes into the dialog when a script asks, else the whole page."""
    return f"{template}#body" if request.htmx else template


def _key_or_404(tenant: Tenant, key_id: UUID) -> ApiKey:
    key = key_of(tenant.organization, key_id)
    if key is None:
        raise Http404
    return key


def _address(request: PageRequest) -> str | None:
    return request.META.get("REMOTE_ADDR") or None
