"""Pages of temporary raises of budgets."""

from django.contrib import messages
from django.http import Http404, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.audit import acting
from accounts.permissions import Action
from accounts.tenancy import PageRequest, Tenant, organization_page
from billing.models import BudgetRaise
from billing.services import RaiseRefused, end_raise
from codexflow.lib.clock import now
from keys.money.forms import RaiseForm
from keys.money.raises import raisable_budgets, raise_once, raises_shown


@organization_page(Action.SEE_BILLING, section="billing")
@require_safe
def raises(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Raises of budgets, those in force first."""
    return render(request, "billing/raises.html", {"raises": raises_shown(tenant.organization, now())})


@organization_page(Action.MANAGE_BILLING, section="billing")
@require_http_methods(["GET", "POST"])
def raise_new(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Raise a budget for a time."""
    budgets = raisable_budgets(tenant.organization)
    form = RaiseForm(request.POST or None, budgets=budgets, chosen=request.GET.get("budget", ""))
    if request.method == "POST" and form.is_valid():
        try:
            raise_once(tenant.organization, form.terms(), **acting(request))
        except RaiseRefused as refused:
            form.add_error(None, str(refused))
        else:
            messages.success(request, _("Budget raised."))
            return redirect("budget-raises", slug=tenant.organization.slug)
    template = "billing/raise.html#body" if request.htmx else "billing/raise.html"
    context = {"form": form, "has_budgets": bool(budgets)}
    return render(request, template, context, status=422 if form.errors else 200)


@organization_page(Action.MANAGE_BILLING, section="billing")
@require_POST
def raise_end(request: PageRequest, tenant: Tenant, raise_id: int) -> HttpResponseBase:
    """End a raise before its time."""
    found = BudgetRaise.objects.filter(organization=tenant.organization, pk=raise_id).first()
    if found is None:
        raise Http404
    end_raise(found, **acting(request))
    messages.success(request, _("Raise ended."))
    return redirect("budget-raises", slug=tenant.organization.slug)
