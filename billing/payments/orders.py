"""Orders of credit and plans: place, check out, cancel, settle. Only these write orders."""

from datetime import timedelta
from functools import partial
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from accounts import audit
from accounts.models import Organization, User
from accounts.signals import access_changed
from billing.codes import find_discount, release_discount, take_off
from billing.ledger import post_credit
from billing.models import Account, CardCharge, LedgerEntry, Order, Plan
from billing.papers.issue import issue_invoice
from billing.plans import CENT_NANOS
from billing.subscriptions import Change, book_plan, offer_of, stop_renewal
from codexflow.lib.clock import now
from codexflow.lib.ids import random_code, random_id
from codexflow.lib.money import NANOS_PER_USD

MAX_OPEN_ORDERS = 5
MIN_TOP_UP_USD, MAX_TOP_UP_USD = 5, 10_000
# Of a million orders, a new one meets the code of another once in 280,000 times; then it fails.
CODE_LENGTH = 8
# A checkout of which nobody knows whether the provider has made it is asked for again by the same key for so long.
CHECKOUT_KEY_LASTS = timedelta(hours=1)


class OrderRefused(Exception):
    """A rule of orders forbids the action. The text is translated and meant for a page."""


def open_order(
    organization: Organization,
    *,
    provider: str,
    amount_nanos: int = 0,
    plan: Plan | None = None,
    is_renewal: bool = False,
    is_automatic: bool = False,
    is_recharge: bool = False,
    code: str = "",
    saves_card: bool = False,
    actor: User | None = None,
    actor_label: str = "",
    address: str | None = None,
) -> Order:
    """Place an order: of a plan, or without one of credit of `amount_nanos`. One transaction with its audit entry.

    A plan is ordered as `billing.subscriptions.offer_of` offers it; a renewal is always a whole month, after what is
    paid. `code` is one for a discount, used by `actor`. An automatic order is paid by the saved card, however many are
    open. Nothing is booked before it is paid. Raises OrderRefused, and CodeRefused for the code.
    """
    if plan is None and not is_top_up(amount_nanos):
        raise OrderRefused(_("Choose an amount from $5 to $10,000 in whole cents."))
    if plan is not None and not is_for_sale(plan):
        raise OrderRefused(_("This plan is not for sale."))
    with transaction.atomic():
        discount = find_discount(code, organization, actor) if code and actor is not None else None
        # Of two at once, one counts the other's.
        account = Account.objects.select_for_update(of=("self",)).select_related("plan").get(organization=organization)
        facts = _top_up(amount_nanos) if plan is None else _month_or_upgrade(account, plan, is_renewal=is_renewal)
        open_orders = Order.objects.filter(organization=organization, state=Order.State.OPEN)
        if not is_automatic and open_orders.count() >= MAX_OPEN_ORDERS:
            raise OrderRefused(_("You already have five open orders. Pay or cancel one of them first."))
        order = Order.objects.create(
            organization=organization,
            provider=provider,
            code=random_code(CODE_LENGTH),
            created_by=actor,
            saves_card=saves_card,
            is_recharge=is_recharge,
            renews_from=account.plan_ends_at if is_renewal else None,
            **facts,
        )
        if discount is not None:
            take_off(discount, order)
        audit.record(
            "order.opened",
            order,
            organization=organization,
            actor=actor,
            actor_label=actor_label,
            address=address,
            code=order.code,
            kind=order.kind,
            plan=plan.slug if plan else None,
            amount_nanos=order.amount_nanos,
            **({"saves_card": True} if saves_card else {}),
        )
    return order


def _top_up(amount_nanos: int) -> dict[str, Any]:
    return {"kind": Order.Kind.TOP_UP, "amount_nanos": amount_nanos, "credit_nanos": amount_nanos}


def _month_or_upgrade(account: Account, plan: Plan, *, is_renewal: bool) -> dict[str, Any]:
    offer = offer_of(account, plan, now())
    if offer.change is Change.UPGRADE and not is_renewal:
        amount_nanos, credit_nanos, upgraded = offer.amount_nanos, offer.credit_nanos, offer.upgraded
    else:
        amount_nanos, credit_nanos, upgraded = plan.price_month_nanos, plan.included_credit_nanos, None
    return {
        "kind": Order.Kind.PLAN,
        "plan": plan,
        "amount_nanos": amount_nanos,
        "credit_nanos": credit_nanos,
        "upgraded": upgraded,
    }


def is_top_up(amount_nanos: int) -> bool:
    """Return whether credit of this amount is sold."""
    is_within = MIN_TOP_UP_USD * NANOS_PER_USD <= amount_nanos <= MAX_TOP_UP_USD * NANOS_PER_USD
    return is_within and amount_nanos % CENT_NANOS == 0


def is_for_sale(plan: Plan) -> bool:
    """Return whether customers may order this plan."""
    return plan.is_public and plan.price_month_nanos > 0


def begin_checkout(order: Order, *, instead_of: str) -> Order:
    """Give an open order the idempotency key of a new checkout, unless it has another one than `instead_of` by now.

    Two who begin at once get the same key, and so the same checkout. Raises OrderRefused.
    """
    with transaction.atomic():
        order = Order.objects.select_for_update(of=("self",)).select_related("plan", "created_by").get(pk=order.pk)
        refuse_unless_open(order)
        refuse_if_charged(order)
        at = now()
        is_unknown = not instead_of and order.checkout_at is not None and order.checkout_at > at - CHECKOUT_KEY_LASTS
        if order.checkout_id == instead_of and not (is_unknown and order.checkout_key):
            order.checkout_id, order.checkout_key, order.checkout_at = "", random_id(), at
            order.checkout_url = ""
            order.save(update_fields=["checkout_id", "checkout_key", "checkout_at", "checkout_url"])
    return order


def keep_checkout(order: Order, checkout_id: str, *, url: str = "") -> bool:
    """Store the checkout that was made with the order's key. False: the order is not open any more, or has another."""
    begun = Order.objects.filter(pk=order.pk, state=Order.State.OPEN, checkout_key=order.checkout_key)
    return bool(begun.filter(checkout_id__in=("", checkout_id)).update(checkout_id=checkout_id, checkout_url=url))


def forget_checkout(checkout_id: str) -> None:
    """Let an order be paid by a new checkout, because this one has expired."""
    Order.objects.filter(checkout_id=checkout_id, state=Order.State.OPEN).update(checkout_id="", checkout_key=None)


def cancel_order(
    order: Order, *, actor: User | None = None, actor_label: str = "", address: str | None = None
) -> Order:
    """Cancel an open order. Raises OrderRefused for one that is paid; cancelling twice changes nothing.

    Who cancels the order of their plan's next month cancels the plan: otherwise the saved card would pay another one.
    """
    with transaction.atomic():
        order = Order.objects.select_for_update().get(pk=order.pk)
        if order.state == Order.State.PAID:
            raise OrderRefused(_("This order is paid."))
        refuse_if_charged(order)
        if order.is_open:
            if actor is not None and order.renews_from is not None:
                stop_renewal(order.organization, order.renews_from)
            order.state = Order.State.CANCELLED
            order.save(update_fields=["state"])
            release_discount(order, actor)
            audit.record(
                "order.cancelled",
                order,
                organization=order.organization,
                actor=actor,
                actor_label=actor_label,
                address=address,
                code=order.code,
            )
    return order


def settle_order(
    order: Order,
    *,
    payment_reference: str,
    reason: str = "",
    actor: User | None = None,
    actor_label: str = "",
    address: str | None = None,
) -> Order:
    """Book what an order was paid for, in one transaction with the audit entry. Gateways know of it at once.

    Credit is of the paid kind and stays; a plan begins now or after what is paid, with its included credit.
    Keyed by the payment: with the same one again nothing is booked and the paid order is returned, so that a provider
    may report it any number of times. The invoice is issued with it. Raises OrderRefused for an order that another
    payment has settled or that is cancelled, and for a payment that is booked already.
    """
    with transaction.atomic():
        rows = Order.objects.select_for_update(of=("self",)).select_related("organization", "plan", "upgraded")
        order = rows.get(pk=order.pk)
        if order.state == Order.State.PAID and order.payment_reference == payment_reference:
            return order
        refuse_unless_open(order)
        if actor is not None:  # an operator, who does not know of the charge
            refuse_if_charged(order)
        locked = Account.objects.select_for_update(of=("self",)).select_related("organization", "plan")
        account = locked.get(pk=order.organization_id)
        if is_booked(order, payment_reference):
            raise OrderRefused(_("This payment is booked already."))
        plan_before, balance_before_nanos, at = account.plan, account.balance_nanos, now()
        if order.plan is not None:
            order.ledger_entry = book_plan(account, order, order.plan, at)
        else:
            order.ledger_entry = post_credit(
                order.organization,
                order.credit_nanos,
                kind=LedgerEntry.Kind.TOP_UP,
                reference=f"order:{order.code}",
                note=f"Order {order.code}",
            )
        credited_nanos = 0 if order.ledger_entry is None else order.ledger_entry.amount_nanos
        order.state, order.settled_at, order.payment_reference = Order.State.PAID, at, payment_reference
        order.save(update_fields=["state", "settled_at", "payment_reference", "credit_nanos", "ledger_entry"])
        audit.record(
            "order.paid",
            order,
            organization=order.organization,
            actor=actor,
            actor_label=actor_label,
            address=address,
            code=order.code,
            amount_nanos=order.amount_nanos,
            credit_nanos=order.credit_nanos,
            balance_before_nanos=balance_before_nanos,
            balance_after_nanos=balance_before_nanos + credited_nanos,
            plan_before=plan_before.slug,
            plan_after=account.plan.slug,
            payment_reference=payment_reference,
            reason=reason,
        )
        # Last: invoices are numbered one after the other, so the next one waits for this transaction.
        issue_invoice(order, actor=actor, actor_label=actor_label, address=address)
        transaction.on_commit(partial(access_changed.send, Account, organization_id=order.organization_id))
    return order


def refuse_unless_open(order: Order) -> None:
    """Raise OrderRefused for an order that is paid or cancelled."""
    if order.state == Order.State.PAID:
        text = _("This order was already paid by payment %(payment)s.")
        raise OrderRefused(text % {"payment": order.payment_reference})
    if not order.is_open:
        raise OrderRefused(_("This order is cancelled. Book the payment in the ledger instead."))


def refuse_if_charged(order: Order) -> None:
    """Raise OrderRefused while the saved card is charged for a locked order: nothing else may pay or cancel it."""
    if order.charges.filter(state=CardCharge.State.STARTED).exists():
        raise OrderRefused(_("This order is being paid."))


def is_booked(order: Order, payment_reference: str) -> bool:
    """Return whether this payment has settled another order, or was booked in the ledger by hand."""
    others = Order.objects.filter(provider=order.provider, payment_reference=payment_reference).exclude(pk=order.pk)
    by_hand = LedgerEntry.objects.filter(organization_id=order.organization_id, reference=payment_reference)
    return others.exists() or by_hand.exists()
