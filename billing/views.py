"""Pages of an organization's billing."""

import logging
from datetime import datetime, timedelta
from typing import Any

from allauth.core import ratelimit
from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.audit import acting
from accounts.permissions import Action
from accounts.services import ensure_site_settings
from accounts.tenancy import PageRequest, Tenant, organization_page
from billing import selectors
from billing.auto_recharge import ordered_this_month
from billing.codes import CodeRefused, redeem
from billing.forms import BudgetsForm, CodeForm, CreditForm, OrderForm, PlanForm, RechargeForm
from billing.models import AutoRecharge, CardCharge, LedgerEntry, Order, Plan, SavedCard
from billing.papers.views import on_order, on_sale
from billing.payments.booking import confirm, stop_checkout
from billing.payments.cards import (
    begin_setup,
    confirm_setup,
    consent_text,
    forget_replaced,
    remove_card,
    set_renewals_by_card,
)
from billing.payments.orders import OrderRefused, cancel_order, open_order
from billing.payments.provider import (
    ProviderRefused,
    ProviderUnavailable,
    card_provider,
    offered,
    online_provider,
    provider_of,
)
from billing.recharge_rules import set_rule
from billing.renewals import forecast_of
from billing.services import limits_of, set_budgets
from billing.subscriptions import Change, RenewalRefused, offer_of, periods_of, set_renewal
from billing.trials import TrialRefused, may_try, start_trial
from codexflow.lib.clock import now
from codexflow.templatetags.show import usd

logger = logging.getLogger(__name__)

PAGE = 25
# How far back usage is listed by day; older months are in the statements.
USAGE_SHOWN = timedelta(days=30)
# How long before its end a card is shown as about to expire.
EXPIRES_SOON = timedelta(days=30)


@organization_page(Action.SEE_BILLING, section="billing")
@require_safe
def billing(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Plan, balance, this month and the ledger. Days and months are UTC's, as the page states."""
    text = request.GET.get("before", "")
    before = int(text) if text.isdecimal() and len(text) < 19 else None
    shows_usage = request.GET.get("entries") == "all"
    entries = selectors.ledger_of(tenant.organization, before=before, limit=PAGE + 1, with_usage=shows_usage)
    ledger = {
        "entries": entries[:PAGE],
        "older": entries[PAGE - 1].pk if len(entries) > PAGE else None,
        "shows_usage": shows_usage,
    }
    if request.htmx and not request.htmx.history_restore_request:
        return render(request, "billing/billing.html#ledger_rows", ledger)
    if request.GET.get("card") == "done":
        confirm_setup(tenant.organization)
    account = selectors.account_shown(tenant.organization)
    at = now()
    today = at.date()
    card = selectors.saved_card_of(tenant.organization)
    periods = periods_of(tenant.organization, at)
    is_trial = any(each.is_trial and each.begins_at <= at for each in periods)
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
            "days": selectors.spend_by_day(tenant.organization, today - USAGE_SHOWN, today),
            "is_first_page": before is None,
            "settle": LedgerEntry.Kind.SETTLE,
            "is_selling": bool(offered()),
            "orders": selectors.open_orders(tenant.organization),
            "coming": [each for each in periods if not each.has_begun],
            "is_trial": is_trial,
            # A trial goes on by a saved card only.
            "may_change_renewal": all(each.has_begun for each in periods) and (card is not None or not is_trial),
            "next_plan": account.next_plan or account.plan.newest,
            "card": card,
            "forecast": forecast_of(account, at),
            "card_expiry": _expiry(card, at) if card else "",
            "saves_cards": card_provider() is not None,
            "recharge": _recharge_of(tenant),
            "recharged_nanos": ordered_this_month(tenant.organization.pk, at),
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
        messages.success(request, _("Budgets saved."))
        return redirect("billing", slug=tenant.organization.slug)
    template = "billing/budgets.html#body" if request.htmx else "billing/budgets.html"
    return render(request, template, {"form": form}, status=422 if form.errors else 200)


@organization_page(Action.MANAGE_BILLING, section="billing")
@require_http_methods(["GET", "POST"])
def credit_order(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Order credit."""
    _require_sales()
    form = CreditForm(request.POST or None, saves_card=_may_save_card(tenant))
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
    form = PlanForm(request.POST or None, chosen=request.GET.get("plan", ""), saves_card=_may_save_card(tenant))
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
        "saves_cards": card_provider() is not None,
        "trials": [plan for plan in selectors.plans_for_sale() if may_try(account, plan)],
        **on_sale(tenant.organization),
    }
    template = "billing/plan.html#body" if request.htmx else "billing/plan.html"
    return render(request, template, context, status=422 if form.errors else 200)


@organization_page(Action.MANAGE_BILLING, section="billing")
@require_http_methods(["GET", "POST"])
def trial(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Try a plan (`?plan=`): for how long, and what comes after."""
    slug = request.POST.get("plan") or request.GET.get("plan", "")
    plan = selectors.plans_for_sale().filter(slug=slug, trial_days__gt=0).first()
    if plan is None or not offered():
        raise Http404
    refusal = ""
    if request.method == "POST":
        try:
            goes_on = request.POST.get("goes_on") == "on"
            started = start_trial(tenant.organization, plan, goes_on=goes_on, actor=request.user, address=_ip(request))
        except TrialRefused as refused:
            refusal = str(refused)
        else:
            day = _day(started.ends_at)
            messages.success(request, _("Your trial of %(plan)s runs until %(day)s.") % {"plan": plan.name, "day": day})
            return redirect("billing", slug=tenant.organization.slug)
    context = {
        "plan": plan,
        "ends_at": now() + timedelta(days=plan.trial_days),
        "card": selectors.saved_card_of(tenant.organization),
        "saves_cards": card_provider() is not None,
        "refusal": refusal,
    }
    template = "billing/trial.html#body" if request.htmx else "billing/trial.html"
    return render(request, template, context, status=422 if refusal else 200)


def _day(moment: datetime) -> str:
    """The day of a moment in the user's time zone, as the page of billing shows it."""
    return date_format(timezone.localtime(moment), "j F Y")


def _ip(request: PageRequest) -> str | None:
    return request.META.get("REMOTE_ADDR") or None


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
        day = _day(account.plan_ends_at) if account.plan_ends_at else ""
        if not renews:
            text = _("The plan ends on %(day)s.")
        elif account.next_plan is None:
            text = _("The plan renews after %(day)s.")
        else:
            text = _("You switch to %(plan)s on %(day)s. Nothing to pay now.")
        messages.success(request, text % {"day": day, "plan": (account.next_plan or account.plan).name})
    return redirect("billing", slug=tenant.organization.slug)


@organization_page(Action.MANAGE_BILLING, section="billing")
@require_http_methods(["GET", "POST"])
def redeem_code(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Redeem a code for credit. Wrong ones can be tried a few times an hour."""
    form = CodeForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        if not ratelimit.consume(request, action="redeem_code", user=request.user):
            form.add_error("code", _("Too many attempts. Try again in an hour."))
        else:
            try:
                address = request.META.get("REMOTE_ADDR") or None
                entry = redeem(form.cleaned_data["code"], tenant.organization, request.user, address=address)
            except CodeRefused as exc:
                form.add_error("code", str(exc))
            else:
                messages.success(request, _("%(amount)s of credit added.") % {"amount": usd(entry.amount_nanos)})
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
    account, at = selectors.account_of(tenant.organization), now()
    is_next_month = shown.is_open and shown.renews_from is not None and shown.renews_from == account.plan_ends_at
    context = {
        "order": shown,
        "provider": provider,
        "is_charged": shown.charges.filter(state=CardCharge.State.STARTED).exists(),
        "forecast": forecast_of(account, at) if is_next_month else None,
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
        messages.success(request, _("Order cancelled."))
    return redirect("order", slug=tenant.organization.slug, code=code)


@organization_page(Action.MANAGE_BILLING, section="billing")
@require_POST
def order_pay(request: PageRequest, tenant: Tenant, code: str) -> HttpResponseBase:
    """Lead to the checkout of an open order: the one that is open, or a new one."""
    found = _order_or_404(tenant, code)
    if online_provider(found.provider) is None:
        raise Http404
    return _start(request, tenant, found)


@organization_page(Action.MANAGE_BILLING, section="billing")
@require_http_methods(["GET", "POST"])
def card(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Save a card, or another one in its place: what it is used for, and the way to the provider's page."""
    if card_provider() is None:
        raise Http404
    if request.method == "POST":
        page_url = reverse("billing", args=[tenant.organization.slug])
        try:
            return redirect(begin_setup(tenant.organization, page_url=page_url))
        except (ProviderUnavailable, ProviderRefused):
            messages.error(request, _("The payment page cannot be opened right now. Try again in a moment."))
        return redirect(page_url)
    template = "billing/card.html#body" if request.htmx else "billing/card.html"
    known = selectors.saved_card_of(tenant.organization)
    return render(request, template, {"card": known, "consent": consent_text()})


@organization_page(Action.MANAGE_BILLING, section="billing")
@require_POST
def card_remove(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Remove the saved card."""
    provider = card_provider()
    if provider is None:
        raise Http404
    if remove_card(tenant.organization, **acting(request)):
        try:
            forget_replaced(provider)
        except (ProviderUnavailable, ProviderRefused):
            logger.warning("payments.card_not_detached")  # healing asks again
        messages.success(request, _("Card removed. It won't be charged again."))
    return redirect("billing", slug=tenant.organization.slug)


@organization_page(Action.MANAGE_BILLING, section="billing")
@require_POST
def card_renewals(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Let the card pay the plan's next months, or pay them by hand."""
    if card_provider() is None:
        raise Http404
    pays = request.POST.get("pays") == "1"
    if set_renewals_by_card(tenant.organization, pays_renewals=pays, **acting(request)):
        text = _("The card pays the next months of the plan.") if pays else _("You pay the next months yourself.")
        messages.success(request, text)
    return redirect("billing", slug=tenant.organization.slug)


@organization_page(Action.MANAGE_BILLING, section="billing")
@require_http_methods(["GET", "POST"])
def recharge(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Turn automatic top-ups on, or change their rule."""
    if card_provider() is None:
        raise Http404
    card, row = selectors.saved_card_of(tenant.organization), _recharge_of(tenant)
    form = RechargeForm(request.POST or None, row=row)
    if request.method == "POST" and card is None:
        form.add_error(None, _("Save a card first."))
    elif request.method == "POST" and form.is_valid():
        set_rule(tenant.organization, form.rule, **acting(request))
        messages.success(request, _("Automatic top-ups are on."))
        return redirect("billing", slug=tenant.organization.slug)
    context = {
        "form": form,
        "card": card,
        "row": row,
        "paid_nanos": selectors.paid_credit_nanos(tenant.organization, now()),
    }
    template = "billing/recharge.html#body" if request.htmx else "billing/recharge.html"
    return render(request, template, context, status=422 if form.errors else 200)


@organization_page(Action.MANAGE_BILLING, section="billing")
@require_POST
def recharge_off(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Turn automatic top-ups off."""
    if card_provider() is None:
        raise Http404
    if set_rule(tenant.organization, None, **acting(request)) is not None:
        messages.success(request, _("Automatic top-ups are off."))
    return redirect("billing", slug=tenant.organization.slug)


def _recharge_of(tenant: Tenant) -> AutoRecharge | None:
    return AutoRecharge.objects.filter(organization=tenant.organization).first()


def _may_save_card(tenant: Tenant) -> bool:
    return card_provider() is not None and selectors.saved_card_of(tenant.organization) is None


def _expiry(card: SavedCard, at: datetime) -> str:
    """Return whether a card is expired, or about to be."""
    if card.is_expired(at):
        return "expired"
    return "soon" if card.is_expired(at + EXPIRES_SOON) else ""


def _require_sales() -> None:
    if not offered():
        raise Http404


def _place(request: PageRequest, tenant: Tenant, form: OrderForm, **what: Any) -> HttpResponseBase | None:
    """Place an order and lead to where it is paid; None, with the reason in the form, if it is refused."""
    provider = provider_of(form.cleaned_data["provider"])
    try:
        code = form.cleaned_data["code"]
        placed = open_order(
            tenant.organization,
            provider=provider.name,
            code=code,
            saves_card=provider.saves_cards and bool(form.cleaned_data.get("saves_card")),
            **what,
            **acting(request),
        )
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
