"""Pages of saved views: save the filters of the log, rename, share, delete."""

from typing import Any
from uuid import UUID

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse, HttpResponseBase, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST
from typing_extensions import override

from accounts.tenancy import PageRequest, Tenant, organization_page
from logs.models import SavedView
from logs.requests.forms import LogFilterForm, filter_form
from logs.saved_views.selectors import may_change, view_of

MAX_VIEWS = 50  # of one member in one organization
MAX_QUERY = 4_000


class ViewForm(forms.ModelForm[SavedView]):
    """Name of a view, and with whom it is shared."""

    class Meta:
        model = SavedView
        fields = ("name", "is_shared")

    @override
    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        view, name = self.instance, cleaned.get("name", "")
        own = SavedView.objects.filter(organization=view.organization, created_by=view.created_by).exclude(pk=view.pk)
        if own.filter(name=name).exists():
            self.add_error("name", _("You already have a view with this name."))
        elif view._state.adding and own.count() >= MAX_VIEWS:
            self.add_error("name", _("You have 50 views. Delete one first."))
        return cleaned


@organization_page(section="log")
@require_http_methods(["GET", "POST"])
def view_new(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Save the filters of the log under a name."""
    given = QueryDict(request.POST.get("query", "")) if request.method == "POST" else request.GET
    query = _query(filter_form(tenant, given))
    view = SavedView(organization=tenant.organization, created_by=request.user, query=query)
    form = ViewForm(request.POST if request.method == "POST" else None, instance=view)
    if request.method == "POST" and form.is_valid():
        form.save()
        return _to_log(request, tenant, query)
    return _page(request, tenant, form, is_new=True)


@organization_page(section="log")
@require_http_methods(["GET", "POST"])
def view_edit(request: PageRequest, tenant: Tenant, view_id: UUID) -> HttpResponseBase:
    """Rename a view, or change with whom it is shared."""
    view = _view_or_404(request, tenant, view_id)
    form = ViewForm(request.POST if request.method == "POST" else None, instance=view)
    if request.method == "POST" and form.is_valid():
        form.save()
        return _to_log(request, tenant, view.query)
    return _page(request, tenant, form, is_new=False)


@organization_page(section="log")
@require_POST
def view_delete(request: PageRequest, tenant: Tenant, view_id: UUID) -> HttpResponseBase:
    """Delete a view; the log stays at its filters."""
    view = _view_or_404(request, tenant, view_id)
    view.delete()
    return redirect(f"{reverse('log', args=[tenant.organization.slug])}?{view.query}")


def _view_or_404(request: PageRequest, tenant: Tenant, view_id: UUID) -> SavedView:
    view = view_of(tenant.organization, request.user, view_id)
    if view is None:
        raise Http404
    if not may_change(tenant, request.user, view):
        raise PermissionDenied
    return view


def _query(form: LogFilterForm) -> str:
    """Filters as a query. A search with a mistake is saved with it, unless it is too long for any search."""
    query = urlencode(form.sent)
    return query if len(query) <= MAX_QUERY else urlencode(form.chosen)


def _page(request: PageRequest, tenant: Tenant, form: ViewForm, *, is_new: bool) -> HttpResponseBase:
    context = {
        "form": form,
        "view": form.instance,
        "is_new": is_new,
        "named": filter_form(tenant, QueryDict(form.instance.query)).named,
    }
    template = "logs/view.html#body" if request.htmx else "logs/view.html"
    return render(request, template, context, status=422 if form.is_bound else 200)


def _to_log(request: PageRequest, tenant: Tenant, query: str) -> HttpResponseBase:
    where = f"{reverse('log', args=[tenant.organization.slug])}?{query}"
    return HttpResponse(status=204, headers={"HX-Redirect": where}) if request.htmx else redirect(where)
