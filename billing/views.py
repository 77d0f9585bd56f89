"""Pages of an organization's billing."""

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_safe

from accounts.permissions import Action
from accounts.tenancy import PageRequest, Tenant, organization_page
from billing import selectors
from billing.forms import BudgetsForm
from billing.models import LedgerEntry
from billing.services import limits_of, set_budgets
from codexflow.lib.clock import now

PAGE = 25


@organization_page(Action.SEE_BILLING, section="billing")
@require_safe
def billing(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Plan, balance, this month and the ledger. Days and months are UTC's, as the page states."""
    text = request.GET.get("before", "")
    before = int(text) if text.isdecimal() and len(text) < 19 else None
    entries = selectors.ledger_of(tenant.organization, before=before, limit=PAGE + 1)
    ledger = {"entries": entries[:PAGE], "older": entries[PAGE - 1].pk if len(entries) > PAGE else None}
    if request.htmx and not request.htmx.history_restore_request:
        return render(request, "billing/billing.html#ledger_rows", ledger)
    account = selectors.account_of(tenant.organization)
    today = now().date()
    balance = selectors.balance_of(account)
    return render(
        request,
        "billing/billing.html",
        {
            "account": account,
            "plan": account.plan,
            "limits": limits_of(account),
            "balance": balance,
            "used_percent": _percent(balance.spent_nanos, balance.credit_nanos),
            "month": selectors.spend_of(tenant.organization, today.replace(day=1), today),
            "month_start": today.replace(day=1),
            "today": selectors.spend_of(tenant.organization, today, today),
            "is_first_page": before is None,
            "settle": LedgerEntry.Kind.SETTLE,
            **ledger,
        },
    )


@organization_page(Action.MANAGE_BILLING, section="billing")
@require_http_methods(["GET", "POST"])
def budgets(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """The organization's own budgets, beside its credit."""
    form = BudgetsForm(request.POST or None, account=selectors.account_of(tenant.organization))
    if request.method == "POST" and form.is_valid():
        set_budgets(
            tenant.organization,
            day_nanos=form.nanos("day_usd"),
            month_nanos=form.nanos("month_usd"),
            actor=request.user,
            address=request.META.get("REMOTE_ADDR") or None,
        )
        messages.success(request, _("The budgets are set."))
        return redirect("billing", slug=tenant.organization.slug)
    template = "billing/budgets.html#body" if request.htmx else "billing/budgets.html"
    return render(request, template, {"form": form}, status=422 if form.errors else 200)


def _percent(part: int, whole: int) -> int:
    return min(100, part * 100 // whole) if whole > 0 else 0
