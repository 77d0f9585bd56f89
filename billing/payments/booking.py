"""Books what online providers report: payments settle orders, refunds and disputes take credit back.

Webhook, healing and the page that customers come back to all end in `apply`, which believes only what was just read
from the provider.
"""

import logging

from django.db import transaction
from django.utils.translation import gettext as _

from billing.models import Order
from billing.payments.cards import follow_card, keep_card, keep_setup
from billing.payments.currencies import minor_units, nanos_of
from billing.payments.orders import OrderRefused, forget_checkout, is_booked, refuse_if_charged, settle_order
from billing.payments.payment import Payment, mismatch
from billing.payments.provider import (
    CardState,
    Found,
    OnlineProvider,
    ProviderRefused,
    ProviderUnavailable,
    Setup,
    online_provider,
)
from billing.payments.reversals import reverse

logger = logging.getLogger(__name__)


class PaymentRefused(Exception):
    """A payment cannot be booked, for a reason that an operator must look at. `code` is the reason."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


def apply(found: Found | None, provider: OnlineProvider) -> str:
    """Book what was found at the provider. Returns a word for what came of it. Raises PaymentRefused."""
    if found is None:
        return "gone"
    if isinstance(found, Payment):
        return book(found, provider)
    if isinstance(found, Setup):
        return keep_setup(found)
    if isinstance(found, CardState):
        return follow_card(found, provider.name)
    if found.is_over:
        forget_checkout(found.checkout_id)
        return "expired"
    if found.payment is None:
        return "unpaid"
    outcome = book(found.payment, provider)
    if outcome == "reversed":
        # Of an order that is still open, the payment was given back before it was booked: it can be paid again.
        forget_checkout(found.checkout_id)
    return outcome


def book(payment: Payment, provider: OnlineProvider) -> str:
    """Settle the order of a payment, once, in one transaction. Raises PaymentRefused for one that does not match it."""
    if not payment.order_code:
        return "foreign"
    if not payment.is_paid:
        return "unpaid"
    with transaction.atomic():
        order = Order.objects.select_for_update().filter(code=payment.order_code).first()
        if order is None:
            raise PaymentRefused("unknown_order")
        if order.provider != provider.name:
            raise PaymentRefused("other_provider")
        amount = minor_units(order.amount_nanos, order.currency)
        if reason := mismatch(payment, amount=amount, currency=order.currency, is_live=provider.is_live):
            raise PaymentRefused(reason)
        if order.payment_reference != payment.reference:
            if payment.is_gone:
                return "reversed"  # before anything was booked for it
            order = _settle(order, payment, provider)
            if payment.card is not None and order.saves_card:
                keep_card(order.organization, payment.card, provider.name)
        is_changed = reverse(
            order,
            refunded_nanos=nanos_of(payment.refunded, order.currency),
            disputed_nanos=nanos_of(payment.disputed, order.currency),
            read_at=payment.read_at,
            actor_label=provider.name.title(),
        )
    return "reversed" if is_changed else "settled"


def _settle(order: Order, payment: Payment, provider: OnlineProvider) -> Order:
    """Settle an open order. Raises PaymentRefused for one that is not open, or a payment that is booked elsewhere."""
    if order.state == Order.State.CANCELLED:
        raise PaymentRefused("order_cancelled")
    if order.state == Order.State.PAID:
        raise PaymentRefused("order_paid_already")
    if is_booked(order, payment.reference):
        raise PaymentRefused("payment_booked_already")
    return settle_order(order, payment_reference=payment.reference, actor_label=provider.name.title())


def confirm(order: Order) -> None:
    """Ask the provider whether an open order is paid, and book it. What cannot be asked or booked now is only logged.

    The page that customers come back to calls it: nothing that the browser says is believed.
    """
    provider = online_provider(order.provider)
    if provider is None or not order.is_open or not order.checkout_id:
        return
    try:
        apply(provider.checkout(order.checkout_id), provider)
    except (ProviderUnavailable, ProviderRefused, PaymentRefused) as exc:
        logger.warning("payments.not_confirmed", extra={"order": order.code, "reason": str(exc)})


def stop_checkout(order: Order) -> None:
    """End the checkout of an order that is about to be cancelled. Raises OrderRefused if it is being paid."""
    refuse_if_charged(order)
    provider = online_provider(order.provider)
    if provider is None or not order.checkout_id:
        return
    try:
        found = provider.expire(order.checkout_id)
        if found is None or found.is_over:
            return
        if apply(found, provider) == "reversed":
            return
    except (ProviderUnavailable, ProviderRefused, PaymentRefused) as exc:
        logger.warning("payments.not_stopped", extra={"order": order.code, "reason": str(exc)})
        raise OrderRefused(_("The payment provider can't be reached right now. Try again in a moment.")) from exc
    raise OrderRefused(_("This order is being paid."))
