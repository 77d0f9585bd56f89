"""Renewal of bought plans: a week before the end the next month's order is made, and its people are told.

A saved card that pays renewals is charged for it on the days of `billing.dunning`.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction

from accounts import mail
from accounts.selectors import billing_managers
from billing.dunning import BEFORE_END, BEFORE_END_OF_TRIAL, Try, next_try
from billing.models import Account, CardCharge, Order, Plan, PlanPeriod, SavedCard
from billing.payments.charges import charge
from billing.payments.orders import OrderRefused, cancel_order, is_for_sale, open_order
from billing.payments.provider import card_provider, offered
from billing.plans import in_force
from billing.subscriptions import periods_of
from codexflow.lib.addresses import site_url
from codexflow.lib.clock import now

# How long before its end a bought plan is announced to end.
ANNOUNCED = timedelta(days=7)


def announce_ends(at: datetime) -> int:
    """Mail those who manage billing that a bought plan ends within a week, once. Returns how many plans.

    If the plan renews, the order of the next month is made first and the mail leads to it.
    """
    soon = Account.objects.filter(plan_ends_at__gt=at, plan_ends_at__lte=at + ANNOUNCED, is_end_announced=False)
    announced = 0
    for organization_id in list(soon.values_list("pk", flat=True)):
        with transaction.atomic():
            locked = soon.select_for_update(of=("self",)).select_related("organization", "plan__current", "next_plan")
            account = locked.filter(pk=organization_id).first()
            if account is None:
                continue  # announced by another worker, or bought again
            account.is_end_announced = True  # first: nobody is told twice
            account.save(update_fields=["is_end_announced"])
            if any(not each.has_begun for each in periods_of(account.organization, at)):
                continue  # the next month is paid
            order = _order_of_next(account)
        _mail(account, order)
        announced += 1
    return announced


def _order_of_next(account: Account) -> Order | None:
    """Make the order of the next month; None if the plan does not renew or is not sold any more."""
    plan, card = _next_plan(account), _paying_card(account)
    providers = offered()
    if not (account.renews and providers and is_for_sale(plan)):
        return None
    try:
        with transaction.atomic():
            return open_order(
                account.organization,
                provider=card.provider if card else providers[0].name,
                plan=plan,
                is_renewal=True,
                is_automatic=card is not None,
                actor_label="CodexFlow",
            )
    except OrderRefused:
        return None  # five are open: one of them will do


def _next_plan(account: Account) -> Plan:
    return account.next_plan or account.plan.newest


def _paying_card(account: Account) -> SavedCard | None:
    """Return the saved card, if it pays the account's renewals.

    What an operator has given is never renewed by it: the period in force was paid, or is a trial that goes on.
    """
    provider = card_provider()
    if provider is None or account.plan_ends_at is None or not account.organization.is_active:
        return None
    cards = SavedCard.objects.filter(organization_id=account.pk, provider=provider.name, pays_renewals=True)
    card = cards.exclude(method_id="").first()
    if card is None:
        return None
    last = _last_period(account)
    return card if last is not None and (last.order_id is not None or last.is_trial) else None


def _last_period(account: Account) -> PlanPeriod | None:
    """Return the period that lasts until the plan ends."""
    assert account.plan_ends_at is not None  # noqa: S101 - of those the caller has looked at
    last_moment = account.plan_ends_at - timedelta(microseconds=1)
    return in_force(periods_of(account.organization, last_moment), last_moment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The next charge of a saved card for a plan. A time in the past is as soon as possible."""

    plan: Plan
    amount_nanos: int
    at: datetime
    last4: str


def forecast_of(account: Account, at: datetime) -> Forecast | None:
    """Work out when the saved card is charged for the plan's next month, and how much. None: it is not."""
    card, plan = _paying_card(account), _next_plan(account)
    if card is None or card.saved_at is None or not account.renews or not is_for_sale(plan):
        return None
    assert account.plan_ends_at is not None  # noqa: S101 - a card pays no other
    if account.plan_ends_at <= at or any(not each.has_begun for each in periods_of(account.organization, at)):
        return None
    order = _open_renewal(account)
    last = _last_period(account)
    before_end = BEFORE_END_OF_TRIAL if last is not None and last.is_trial else BEFORE_END
    due_at = next_try(account.plan_ends_at, _tries(account), card_saved_at=card.saved_at, before_end=before_end)
    if due_at is None:
        return None
    is_same = order is not None and order.plan is not None and order.plan.is_version_of(plan)
    amount_nanos = order.amount_nanos if order is not None and is_same else plan.price_month_nanos
    return Forecast(plan=plan, amount_nanos=amount_nanos, at=due_at, last4=card.last4)


def past_due_of(account: Account, at: datetime) -> Order | None:
    """Return the open order of the plan's next month, if the saved card was declined for it."""
    order = _open_renewal(account) if account.plan_ends_at is not None and account.plan_ends_at > at else None
    if order is None or not account.renews:
        return None
    last = order.charges.order_by("-number").first()
    return order if last is not None and last.state == CardCharge.State.DECLINED else None


def _open_renewal(account: Account) -> Order | None:
    orders = Order.objects.filter(organization_id=account.pk, state=Order.State.OPEN, renews_from=account.plan_ends_at)
    return orders.select_related("plan").order_by("-pk").first()


def _tries(account: Account) -> list[Try]:
    """Charges for the next month that have failed, also for an order in whose place there is another."""
    charges = CardCharge.objects.filter(organization_id=account.pk, order__renews_from=account.plan_ends_at)
    failed = charges.filter(state__in=(CardCharge.State.DECLINED, CardCharge.State.FAILED)).order_by("started_at")
    return [Try(at=each.started_at, code=each.code) for each in failed]


def charge_renewals(at: datetime) -> int:
    """Charge saved cards for the next months of plans that are due. Returns how many were charged."""
    soon = Account.objects.filter(plan_ends_at__gt=at, plan_ends_at__lte=at + BEFORE_END[0], renews=True)
    saved = soon.filter(organization__saved_card__pays_renewals=True).exclude(organization__saved_card__method_id="")
    charged = 0
    for organization_id in list(saved.values_list("pk", flat=True)):
        order = _order_to_charge(organization_id, at)
        if order is not None:
            charged += charge(order, at) is not None
    return charged


def _order_to_charge(organization_id: UUID, at: datetime) -> Order | None:
    """Return the order of the next month, if a charge of it is due now: the one that is open, or a new one.

    An order of another plan than the one that is to follow is cancelled first, after the account's lock is given back:
    whoever pays or cancels an order locks it before the account.
    """
    with transaction.atomic():
        locked = Account.objects.select_for_update(of=("self",))
        account = locked.select_related("organization", "plan__current", "next_plan").get(pk=organization_id)
        forecast = forecast_of(account, at)
        if forecast is None or forecast.at > at:
            return None
        order = _open_renewal(account)
        if order is not None and not (order.plan is not None and order.plan.is_version_of(forecast.plan)):
            stale = order
        else:
            return order or _order_of_next(account)
    if stale.checkout_key is not None:
        return None  # somebody is at its checkout
    try:
        cancel_order(stale, actor_label="CodexFlow")
    except OrderRefused:
        return None  # it is being paid
    return _order_to_charge(organization_id, at)


def _mail(account: Account, order: Order | None) -> None:
    if settings.ENV.mail is None and settings.ENV.is_production:
        return
    pages = f"{site_url(settings.ENV)}/o/{account.organization.slug}/billing/"
    forecast = forecast_of(account, now()) if order is not None else None
    facts = {
        "organization": account.organization.name,
        "plan": account.plan.name,
        "ends_at": account.plan_ends_at,
        "url": pages if order is None else f"{pages}orders/{order.code}/",
        "last4": forecast.last4 if forecast else "",
        "charged_at": forecast.at if forecast else None,
    }
    for person in billing_managers(account.organization):
        if order is None:
            mail.send("plan_ends", person.email, language=person.language, **facts)
        else:
            sold = {"next_plan": order.plan.name if order.plan else "", "amount_nanos": order.amount_nanos}
            mail.send("plan_renews", person.email, language=person.language, code=order.code, **facts, **sold)
