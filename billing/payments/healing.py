"""Healing: asks online providers for payments, refunds and disputes that no event has told of."""

import logging
from datetime import datetime, timedelta

from billing.models import CardCharge, Order, SavedCard
from billing.payments.booking import PaymentRefused, apply
from billing.payments.cards import forget_replaced, keep_setup
from billing.payments.events import receive
from billing.payments.orders import forget_checkout
from billing.payments.provider import (
    OnlineProvider,
    ProviderRefused,
    ProviderUnavailable,
    Setup,
    card_provider,
    online,
)
from codexflow.lib.clock import now
from codexflow.lib.db import only_one

logger = logging.getLogger(__name__)

# How far back it looks: providers repeat their events for as long.
HEALED = timedelta(days=3)
# Age at which a checkout that is still open is looked at: providers end them by then.
CHECKOUT_OVER = timedelta(hours=2)
ADVISORY_LOCK = 0x7061796D  # "paym"; any number that nothing else locks


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


def heal(provider: OnlineProvider, at: datetime) -> int:
    """Settle orders whose payment nobody has told of, and let go of expired checkouts. Returns how many changed.

    Events of refunds and disputes that did not arrive are stored as if they had.
    """
    for event in provider.events(at - HEALED):
        receive(provider, event)
    changed = heal_cards(provider)
    begun = Order.objects.filter(provider=provider.name, state=Order.State.OPEN).exclude(checkout_key=None)
    # Also of those whose checkout was let go of: it may have been paid in spite of that.
    lately = Order.objects.filter(provider=provider.name, state=Order.State.OPEN, checkout_at__gte=at - HEALED)
    codes = set(lately.values_list("code", flat=True))
    for paid in provider.paid_checkouts(at - HEALED) if codes else ():
        if paid.order_code in codes:
            changed += _healed(provider, paid.checkout_id)
    changed += _heal_charges(provider, at)
    over = begun.filter(checkout_at__lt=at - CHECKOUT_OVER).exclude(checkout_id="")
    for checkout_id in over.values_list("checkout_id", flat=True):
        changed += _healed(provider, checkout_id)
    return changed


def _heal_charges(provider: OnlineProvider, at: datetime) -> int:
    """Settle the orders that a saved card has paid although their charge was taken for never made."""
    saving, changed = card_provider(), 0
    if saving is None or saving.name != provider.name:
        return 0
    lost = CardCharge.objects.filter(state=CardCharge.State.FAILED, started_at__gte=at - HEALED)
    unpaid = lost.filter(order__provider=provider.name, order__state=Order.State.OPEN)
    codes = set(unpaid.values_list("order__code", flat=True))
    for payment in saving.paid_charges(at - HEALED) if codes else ():
        if payment.order_code in codes:
            try:
                changed += apply(payment, provider) == "settled"
            except PaymentRefused as exc:
                logger.warning("payments.not_healed", extra={"payment": payment.reference, "reason": exc.code})
    return changed


def heal_cards(provider: OnlineProvider) -> int:
    """Save the cards that nobody has told of, and let the provider forget those that were replaced or removed."""
    saving = card_provider()
    if saving is None or saving.name != provider.name:
        return 0
    changed = forget_replaced(saving)
    open_setups = SavedCard.objects.filter(provider=provider.name).exclude(setup_id="")
    for setup_id in open_setups.values_list("setup_id", flat=True):
        found = saving.setup(setup_id)
        changed += keep_setup(found or Setup(setup_id=setup_id, is_over=True)) in ("saved", "expired")
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
