"""Pages of an organization's billing."""

from typing import Any

from allauth.core import ratelimit
from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.audit import acting
from accounts.permissions import Action
from accounts.services import ensure_site_settings
from accounts.tenancy import PageRequest, Tenant, organization_page
from billing import selectors
from billing.codes import CodeRefused, redeem
from billing.forms import BudgetsForm, CodeForm, CreditForm, OrderForm, PlanForm
from billing.models import LedgerEntry, Order, Plan
from billing.papers.views import on_order, on_sale
from billing.payments.booking import confirm, stop_checkout
from billing.payments.orders import OrderRefused, cancel_order, open_order
from billing.payments.provider import ProviderRefused, ProviderUnavailable, offered, online_provider, provider_of
from billing.services import limits_of, set_budgets
from billing.subscriptions import Change, RenewalRefused, offer_of, periods_of, set_renewal
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
            "coming": [each for each in periods_of(tenant.organization, now()) if not each.has_begun],
            "next_plan": account.next_plan or account.plan.newest,
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
    """Choose a plan: each is offered with what is due now. A cheaper one waits for the end of what is paid.

    `?plan=` chooses one beforehand.
    """
    _require_sales()
    form = PlanForm(request.POST or None, chosen=request.GET.get("plan", ""))
    account = selectors.account_of(tenant.organization)
    if request.method == "POST" and form.is_valid():
        plan = form.cleaned_data["plan"]
        if offer_of(account, plan, now()).change is Change.LATER:
            return _set_renewal(request, tenant, renews=True, next_plan=plan)
        placed = _place(request, tenant, form, plan=plan)
        if placed:
            return placed
    context = {
        "form": form,
        "offers": [offer_of(account, plan, now()) for plan in selectors.plans_for_sale()],
        "chosen": form["plan"].value(),
        "account": account,
        **on_sale(tenant.organization),
    }
    template = "billing/plan.html#body" if request.htmx else "billing/plan.html"
    return render(request, template, context, status=422 if form.errors else 200)


@organization_page(Action.MANAGE_BILLING, section="billing")
@require_POST
def renewal(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Go on with the plan after what is paid, or not."""
    return _set_renewal(request, tenant, renews=request.POST.get("renews") == "1")


def _set_renewal(
    request: PageRequest, tenant: Tenant, *, renews: bool, next_plan: Plan | None = None
) -> HttpResponseBase:
    try:
        account = set_renewal(tenant.organization, renews=renews, next_plan=next_plan, **acting(request))
    except RenewalRefused as refused:
        messages.error(request, str(refused))
    else:
        day = date_format(account.plan_ends_at, "j F Y") if account.plan_ends_at else ""
        if not renews:
            text = _("The plan ends on %(day)s.")
        elif account.next_plan is None:
            text = _("The plan goes on after %(day)s.")
        else:
            text = _("The plan %(plan)s follows on %(day)s. Nothing is to pay now.")
        messages.success(request, text % {"day": day, "plan": (account.next_plan or account.plan).name})
    return redirect("billing", slug=tenant.organization.slug)


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
    """One order: what it is, and how to pay it while it is open.

    A customer who comes back from a checkout (`?checkout=done`) sees the payment at once, if the provider knows of it.
    """
    shown = _order_or_404(tenant, code)
    is_back = request.GET.get("checkout") == "done"
    if is_back and shown.is_open:
        confirm(shown)
        shown.refresh_from_db()
    # None: its provider is not configured any more.
    provider = next((each for each in offered() if each.name == shown.provider), None)
    context = {
        "order": shown,
        "provider": provider,
        "is_back": is_back,
        "is_demo_checkout": settings.ENV.is_demo_checkout,
        "instructions": provider.instructions() if provider and shown.is_open else "",
        "support_email": ensure_site_settings().support_email,
        **on_order(shown),
    }
    return render(request, "billing/order.html", context)


@organization_page(Action.MANAGE_BILLING, section="billing")
@require_POST
def order_cancel(request: PageRequest, tenant: Tenant, code: str) -> HttpResponseBase:
    """Cancel an open order, and its checkout at the provider before."""
    cancelled = _order_or_404(tenant, code)
    try:
        if cancelled.is_open:
            stop_checkout(cancelled)
        cancel_order(cancelled, **acting(request))
    except OrderRefused as refused:
        messages.error(request, str(refused))
    else:
        messages.success(request, _("The order is cancelled."))
    return redirect("order", slug=tenant.organization.slug, code=code)


@organization_page(Action.MANAGE_BILLING, section="billing")
@require_POST
def order_pay(request: PageRequest, tenant: Tenant, code: str) -> HttpResponseBase:
    """Lead to the checkout of an open order: the one that is open, or a new one."""
    found = _order_or_404(tenant, code)
    if online_provider(found.provider) is None:
        raise Http404
    return _start(request, tenant, found)


def _require_sales() -> None:
    if not offered():
        raise Http404


def _place(request: PageRequest, tenant: Tenant, form: OrderForm, **what: Any) -> HttpResponseBase | None:
    """Place an order and lead to where it is paid; None, with the reason in the form, if it is refused."""
    provider = provider_of(form.cleaned_data["provider"])
    try:
        code = form.cleaned_data["code"]
        placed = open_order(tenant.organization, provider=provider.name, code=code, **what, **acting(request))
    except CodeRefused as refused:
        form.add_error("code", str(refused))
        return None
    except OrderRefused as refused:
        form.add_error(None, str(refused))
        return None
    return _start(request, tenant, placed)


def _start(request: PageRequest, tenant: Tenant, order: Order) -> HttpResponseBase:
    """Lead to where an order is paid; to its page, with the reason, where that cannot be now."""
    order_url = reverse("order", args=[tenant.organization.slug, order.code])
    try:
        return redirect(provider_of(order.provider).start(order, order_url=order_url))
    except OrderRefused as refused:
        messages.error(request, str(refused))
    except (ProviderUnavailable, ProviderRefused):
        messages.error(request, _("The payment page cannot be opened right now. Try again in a moment."))
    return redirect(order_url)


def _order_or_404(tenant: Tenant, code: str) -> Order:
    found = selectors.order_of(tenant.organization, code)
    if found is None:
        raise Http404
    return found


def _percent(part: int, whole: int) -> int:
    return min(100, part * 100 // whole) if whole > 0 else 0
