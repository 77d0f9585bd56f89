"""Pages of an organization's billing."""

from typing import Any

from allauth.core import ratelimit
from django.contrib import messages
from django.http import Http404, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.audit import acting
from accounts.permissions import Action
from accounts.services import ensure_site_settings
from accounts.tenancy import PageRequest, Tenant, organization_page
from billing import selectors
from billing.codes import CodeRefused, redeem
from billing.forms import BudgetsForm, CodeForm, CreditForm, OrderForm, PlanForm
from billing.models import LedgerEntry, Order
from billing.papers.views import on_order, on_sale
from billing.payments.orders import OrderRefused, cancel_order, open_order
from billing.payments.provider import offered, provider_of
from billing.services import limits_of, set_budgets
from codexflow.lib.clock import now
from codexflow.templatetags.show import usd

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
            "is_selling": bool(offered()),
            "orders": selectors.open_orders(tenant.organization),
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


@organization_page(Action.MANAGE_BILLING, section="billing")
@require_http_methods(["GET", "POST"])
def credit_order(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Order credit."""
    _require_sales()
    form = CreditForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        placed = _place(request, tenant, form, amount_nanos=form.nanos)
        if placed:
            return placed
    template = "billing/credit.html#body" if request.htmx else "billing/credit.html"
    context = {"form": form, **on_sale(tenant.organization)}
    return render(request, template, context, status=422 if form.errors else 200)


@organization_page(Action.MANAGE_BILLING, section="billing")
@require_http_methods(["GET", "POST"])
def plan_order(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Order a month of a plan; the present one then lasts a month longer. `?plan=` chooses one beforehand."""
    _require_sales()
    form = PlanForm(request.POST or None, chosen=request.GET.get("plan", ""))
    if request.method == "POST" and form.is_valid():
        placed = _place(request, tenant, form, plan=form.cleaned_data["plan"])
        if placed:
            return placed
    context = {
        "form": form,
        "plans": selectors.plans_for_sale(),
        "chosen": form["plan"].value(),
        "account": selectors.account_of(tenant.organization),
        **on_sale(tenant.organization),
    }
    template = "billing/plan.html#body" if request.htmx else "billing/plan.html"
    return render(request, template, context, status=422 if form.errors else 200)


@organization_page(Action.MANAGE_BILLING, section="billing")
@require_http_methods(["GET", "POST"])
def redeem_code(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Redeem a code for credit. Wrong ones can be tried a few times an hour."""
    form = CodeForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        if not ratelimit.consume(request, action="redeem_code", user=request.user):
            form.add_error("code", _("Too many codes were tried. Try again in an hour."))
        else:
            try:
                address = request.META.get("REMOTE_ADDR") or None
                entry = redeem(form.cleaned_data["code"], tenant.organization, request.user, address=address)
            except CodeRefused as exc:
                form.add_error("code", str(exc))
            else:
                messages.success(request, _("%(amount)s of credit are added.") % {"amount": usd(entry.amount_nanos)})
                return redirect("billing", slug=tenant.organization.slug)
    template = "billing/redeem.html#body" if request.htmx else "billing/redeem.html"
    return render(request, template, {"form": form}, status=422 if form.errors else 200)


@organization_page(Action.SEE_BILLING, section="billing")
@require_safe
def order(request: PageRequest, tenant: Tenant, code: str) -> HttpResponseBase:
    """One order: what it is, and how to pay it while it is open."""
    shown = _order_or_404(tenant, code)
    # None: its provider is not configured any more.
    provider = next((each for each in offered() if each.name == shown.provider), None)
    context = {
        "order": shown,
        "provider": provider,
        "instructions": provider.instructions() if provider and shown.is_open else "",
        "support_email": ensure_site_settings().support_email,
        **on_order(shown),
    }
    return render(request, "billing/order.html", context)


@organization_page(Action.MANAGE_BILLING, section="billing")
@require_POST
def order_cancel(request: PageRequest, tenant: Tenant, code: str) -> HttpResponseBase:
    """Cancel an open order."""
    try:
        cancel_order(_order_or_404(tenant, code), **acting(request))
    except OrderRefused as refused:
        messages.error(request, str(refused))
    else:
        messages.success(request, _("The order is cancelled."))
    return redirect("order", slug=tenant.organization.slug, code=code)


def _require_sales() -> None:
    if not offered():
        raise Http404


def _place(request: PageRequest, tenant: Tenant, form: OrderForm, **what: Any) -> HttpResponseBase | None:
    """Place an order and lead to where it is paid; None, with the reason in the form, if it is refused."""
    provider = provider_of(form.cleaned_data["provider"])
    try:
        placed = open_order(tenant.organization, provider=provider.name, **what, **acting(request))
    except OrderRefused as refused:
        form.add_error(None, str(refused))
        return None
    return redirect(provider.start(placed, order_url=reverse("order", args=[tenant.organization.slug, placed.code])))


def _order_or_404(tenant: Tenant, code: str) -> Order:
    found = selectors.order_of(tenant.organization, code)
    if found is None:
        raise Http404
    return found


def _percent(part: int, whole: int) -> int:
    return min(100, part * 100 // whole) if whole > 0 else 0
