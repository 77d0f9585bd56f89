"""Pages of an organization's API keys."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Q
from django.http import Http404, HttpResponseBase, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from accounts.models import Organization
from accounts.permissions import Action
from accounts.reauthentication import recently_authenticated
from accounts.tenancy import PageRequest, Tenant, organization_page
from billing.selectors import KeySpend, account_of, account_shown
from billing.services import limits_of
from codexflow.lib.addresses import api_url
from codexflow.lib.clock import now
from codexflow.lib.snippets import with_key
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
    def ends_at(self) -> datetime | None:
        """When it stops working by itself."""
        ends = [each for each in (self.key.expires_at, self.key.rotation_ends_at) if each is not None]
        return min(ends, default=None)

    @property
    def month_nanos(self) -> int:
        return self.spend.month_nanos if self.spend else 0


# Choices of the list's filter and order, by their value in the address. Working keys come first in every order.
STATES: dict[str, Promise] = {
    "": gettext_lazy("All keys"),
    "working": gettext_lazy("Working"),
    "expired": gettext_lazy("Expired"),
    "revoked": gettext_lazy("Revoked"),
}
ORDERS: dict[str, tuple[Promise, Callable[[KeyRow], Any]]] = {
    "": (gettext_lazy("Newest first"), lambda row: -row.key.created_at.timestamp()),
    "spent": (gettext_lazy("Most spent this month"), lambda row: -row.month_nanos),
    "used": (gettext_lazy("Last used"), lambda row: -row.spend.last_day.toordinal() if row.spend else 0),
    "expires": (gettext_lazy("Expires first"), lambda row: row.ends_at.timestamp() if row.ends_at else math.inf),
    "name": (gettext_lazy("Name"), lambda row: row.key.name.casefold()),
}
PAGE = 50
# Keys that the command palette lists.
FOUND = 6


def rows_of(
    organization: Organization, at: datetime, *, search: str = "", state: str = "", order: str = ""
) -> list[KeyRow]:
    """Keys of an organization as rows, by name, public id or maker, in one state, in an order of ORDERS."""
    keys = keys_of(organization).select_related("created_by")
    if search:
        made_by = Q(created_by__email__icontains=search) | Q(created_by__name__icontains=search)
        keys = keys.filter(_named(search) | made_by)
    spends = spend_by_lineage(organization, at.date())
    rows = [KeyRow(key, key.state(at), spends.get(key.pk)) for key in keys]
    if state:
        rows = [row for row in rows if (row.is_working if state == "working" else row.state == state)]
    return sorted(sorted(rows, key=ORDERS[order][1]), key=lambda row: not row.is_working)


def _named(search: str) -> Q:
    """Condition of keys with this in their name or as the beginning of their public id."""
    return Q(name__icontains=search) | Q(public_id__startswith=search.removeprefix("cfx_").partition("_")[0])


@organization_page(section="keys")
@require_safe
def named(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Keys for the command palette, the newest that match. JSON: name, prefix and page of each."""
    search = without_secret(request.GET.get("q", ""))
    keys = keys_of(tenant.organization).filter(_named(search))[:FOUND] if search else []
    pages = [
        {"name": key.name, "prefix": key.prefix, "url": reverse("key", args=[tenant.organization.slug, key.pk])}
        for key in keys
    ]
    return JsonResponse({"keys": pages})


@organization_page(section="keys")
@require_safe
def key_list(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """List keys, working ones first, a page of them at a time."""
    # Of a whole key that somebody has pasted only the public part is looked for, and shown again.
    search = without_secret(request.GET.get("q", ""))
    if search != request.GET.get("q", "").strip()[:200]:
        return redirect(f"{request.path}?{urlencode({**request.GET.dict(), 'q': search})}")
    state = _known(request.GET.get("state", ""), STATES)
    order = _known(request.GET.get("order", ""), ORDERS)
    rows = rows_of(tenant.organization, now(), search=search, state=state, order=order)
    page = Paginator(rows, PAGE).get_page(request.GET.get("page"))
    links: dict[str, str] = {
        name: value for name, value in (("q", search), ("state", state), ("order", order)) if value
    }
    context = {
        "rows": page.object_list,
        "page": page,
        "query": urlencode(links),
        "has_filters": bool(search or state),
    }
    if request.htmx and not request.htmx.history_restore_request:
        return render(request, "keys/list.html#results", context)
    context |= {
        "q": search,
        "state": state,
        "states": STATES.items(),
        "order": order,
        "orders": [(value, label) for value, (label, _by) in ORDERS.items()],
        "held": counted_keys_of(tenant.organization).count(),
        "max_keys": account_shown(tenant.organization).plan.max_keys,
    }
    return render(request, "keys/list.html", context)


def without_secret(term: str) -> str:
    """A search term as it may stand on a page: of a key only its public part."""
    term = term.strip()[:200]
    return "_".join(term.split("_")[:2]) if term.lower().startswith("cfx_") else term


def _known(value: str, choices: Collection[str]) -> str:
    return value if value in choices else ""


@organization_page(section="keys")
@require_safe
def detail(request: PageRequest, tenant: Tenant, key_id: UUID) -> HttpResponseBase:
    """Show one key's terms and spend, in the drawer or as a page."""
    key, moment = _key_or_404(tenant, key_id), now()
    context = {
        "row": KeyRow(key, key.state(moment), spend_by_lineage(tenant.organization, moment.date()).get(key.pk)),
        "maker": key.created_by,
        "predecessor": key.rotated_from.first(),
        "most": services.max_terms(limits_of(account_of(tenant.organization))),
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
                _("You've reached your plan's number of keys. Revoke one that you don't use."),
            )
        else:
            return render(request, _part(request, "keys/created.html"), _created(issued))
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
            messages.success(request, _("Key saved."))
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
                _("This key is not active, or its previous key still works."),
            )
        else:
            old = _key_or_404(tenant, key_id)
            context = {**_created(issued), "old": old, "old_state": old.state(now())}
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


def _created(issued: services.IssuedKey) -> dict[str, Any]:
    """Context of the dialog that shows a secret, once: the key, and commands that work as they are."""
    commands = with_key(api_url(settings.ENV), issued.plain)
    return {"key": issued.row, "secret": issued.plain, "commands": commands}


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
