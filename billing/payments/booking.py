"""Books what online providers report: payments settle orders, and checkouts that have expired let go of them.

Webhook, healing and the page that customers come back to all end in `apply`, which believes only what was just read
from the provider.
"""

import logging
from datetime import datetime, timedelta

from django.db import transaction
from django.utils.translation import gettext as _

from billing.models import Order
from billing.payments.currencies import minor_units
from billing.payments.orders import OrderRefused, forget_checkout, is_booked, settle_order
from billing.payments.payment import Payment, mismatch
from billing.payments.provider import (
    Checkout,
    OnlineProvider,
    ProviderRefused,
    ProviderUnavailable,
    online,
    online_provider,
)
from codexflow.lib.clock import now
from codexflow.lib.db import only_one

logger = logging.getLogger(__name__)

# How far back healing looks: providers repeat their events for as long.
HEALED = timedelta(days=3)
# Age at which a checkout that is still open is looked at: providers end them by then.
CHECKOUT_OVER = timedelta(hours=2)
ADVISORY_LOCK = 0x7061796D  # "paym"; any number that nothing else locks


class PaymentRefused(Exception):
    """A payment cannot be booked, for a reason that an operator must look at. `code` is the reason."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


def apply(found: Checkout | Payment | None, provider: OnlineProvider) -> str:
    """Book what was found at the provider. Returns a word for what came of it. Raises PaymentRefused."""
    if found is None:
        return "gone"
    if isinstance(found, Payment):
        return book(found, provider)
    if found.is_over:
        forget_checkout(found.checkout_id)
        return "expired"
    return book(found.payment, provider) if found.payment else "unpaid"


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
        if order.state == Order.State.CANCELLED:
            raise PaymentRefused("order_cancelled")
        if order.state == Order.State.PAID and order.payment_reference != payment.reference:
            raise PaymentRefused("order_paid_already")
        if is_booked(order, payment.reference):
            raise PaymentRefused("payment_booked_already")
        settle_order(order, payment_reference=payment.reference, actor_label=provider.name.title())
    return "settled"


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
    provider = online_provider(order.provider)
    if provider is None or not order.checkout_id:
        return
    try:
        found = provider.expire(order.checkout_id)
        if found is None or found.is_over:
            return
        apply(found, provider)
    except (ProviderUnavailable, ProviderRefused, PaymentRefused) as exc:
        logger.warning("payments.not_stopped", extra={"order": order.code, "reason": str(exc)})
        raise OrderRefused(_("The payment provider cannot be asked right now. Try again in a moment.")) from exc
    raise OrderRefused(_("This order is being paid."))


def heal(provider: OnlineProvider, at: datetime) -> int:
    """Settle orders whose payment nobody has told of, and let go of expired checkouts. Returns how many changed."""
    changed = 0
    for paid in provider.paid_checkouts(at - HEALED):
        if Order.objects.filter(code=paid.order_code, provider=provider.name, state=Order.State.OPEN).exists():
            changed += _healed(provider, paid.checkout_id)
    over = Order.objects.filter(provider=provider.name, state=Order.State.OPEN, checkout_at__lt=at - CHECKOUT_OVER)
    for checkout_id in over.exclude(checkout_id="").values_list("checkout_id", flat=True):
        changed += _healed(provider, checkout_id)
    return changed


def _healed(provider: OnlineProvider, checkout_id: str) -> bool:
    try:
        found = provider.checkout(checkout_id)
        if found is None:
            forget_checkout(checkout_id)
        return apply(found, provider) in ("settled", "expired", "gone")
    except (ProviderRefused, PaymentRefused) as exc:
        logger.warning("payments.not_healed", extra={"checkout": checkout_id, "reason": str(exc)})
        return False


def heal_all() -> int:
    """Heal every online provider; one that does not respond is left for the next time."""
    changed = 0
    with only_one(ADVISORY_LOCK) as is_mine:
        for provider in online() if is_mine else ():
            try:
                changed += heal(provider, now())
            except (ProviderUnavailable, ProviderRefused) as exc:
                logger.warning("payments.not_healed", extra={"provider": provider.name, "reason": str(exc)})
    return changed
