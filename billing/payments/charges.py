"""Charges of saved cards, for orders that pay themselves. Each is stored before the provider is asked.

A charge whose outcome is unknown is asked about before anything else is charged: an organization has one at a time.
"""

import logging
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction

from billing.models import CardCharge, Order, SavedCard
from billing.payments.booking import PaymentRefused, apply
from billing.payments.provider import (
    CardProvider,
    Charged,
    ProviderRefused,
    ProviderUnavailable,
    card_provider,
)
from codexflow.lib.clock import now
from codexflow.lib.ids import random_id

logger = logging.getLogger(__name__)

# A request that has had no response for so long is asked about, and again after as long.
ASK_AFTER = timedelta(minutes=2)
# A request is not on its way any more after so long: what the provider does not know then, it never got.
NEVER_ARRIVED = timedelta(minutes=15)
NEVER_MADE = "never_made"
# Checkouts are open for two hours.
CHECKOUT_GONE = timedelta(hours=3)
# Providers forget idempotency keys after a day; a later request might be a second charge.
KEY_LASTS = timedelta(hours=20)


def charge(order: Order, at: datetime) -> CardCharge | None:
    """Charge the saved card of an order's organization. None: not now, as something of it is under way.

    The caller has decided that the order is due. Outside of a transaction.
    """
    provider = card_provider()
    started = _start(order, provider, at) if provider is not None else None
    if started is not None and provider is not None:
        _send(started, provider)
    return started


def _start(order: Order, provider: CardProvider, at: datetime) -> CardCharge | None:
    """Store a charge. No other may be under way, no checkout may be open that could pay the order as well."""
    try:
        with transaction.atomic():
            order = Order.objects.select_for_update(of=("self",)).get(pk=order.pk)
            card = SavedCard.objects.select_for_update().filter(organization_id=order.organization_id).first()
            if card is None or not card.is_saved or card.provider != provider.name:
                return None
            if not order.is_open or _is_at_checkout(order, at):
                return None
            if order.provider != provider.name:
                order.provider = provider.name
                order.save(update_fields=["provider"])
            return CardCharge.objects.create(
                organization_id=order.organization_id,
                order=order,
                number=order.charges.count() + 1,
                key=random_id(),
                customer_id=card.customer_id,
                method_id=card.method_id,
                started_at=at,
                due_at=at + ASK_AFTER,
            )
    except IntegrityError:
        return None  # another one of the organization is under way


def _is_at_checkout(order: Order, at: datetime) -> bool:
    """Return whether somebody may be paying the order at a hosted checkout.

    One that has expired is let go of by its event or by healing; one that the provider may have made without our
    knowledge expires unheard.
    """
    if order.checkout_key is None or order.checkout_at is None:
        return False
    return bool(order.checkout_id) or order.checkout_at > at - CHECKOUT_GONE


def _send(charge: CardCharge, provider: CardProvider) -> None:
    """Ask the provider to carry out a charge. The same key again is the same charge."""
    try:
        _finish(charge, provider.charge(charge, charge.order), provider)
    except ProviderUnavailable as exc:
        logger.warning("payments.charge_unknown", extra={"order": charge.order.code, "reason": str(exc)})
    except ProviderRefused as exc:
        _end(charge, CardCharge.State.DECLINED, exc.code)


def ask_about_started(at: datetime) -> int:
    """Ask the provider what became of charges without a response. Returns how many have ended."""
    provider, ended = card_provider(), 0
    if provider is None:
        return 0
    due = CardCharge.objects.filter(state=CardCharge.State.STARTED, due_at__lte=at).select_related("order")
    for started in due.order_by("due_at"):
        CardCharge.objects.filter(pk=started.pk).update(due_at=at + ASK_AFTER)
        try:
            _ask(started, provider, at)
        except (ProviderUnavailable, ProviderRefused) as exc:
            logger.warning("payments.charge_unknown", extra={"order": started.order.code, "reason": str(exc)})
            break  # the rest waits for the next time
        ended += started.state != CardCharge.State.STARTED
    return ended


def _ask(charge: CardCharge, provider: CardProvider, at: datetime) -> None:
    found = provider.find_charge(charge)
    if found is not None:
        _finish(charge, found, provider)
    elif _is_wanted(charge) and at - charge.started_at < KEY_LASTS:
        _send(charge, provider)
    elif at - charge.started_at > NEVER_ARRIVED:
        _end(charge, CardCharge.State.FAILED, NEVER_MADE)


def _is_wanted(charge: CardCharge) -> bool:
    """Return whether the card is still saved that it was to be charged to."""
    saved = SavedCard.objects.filter(organization_id=charge.organization_id, method_id=charge.method_id)
    return charge.order.is_open and saved.exists()


def _finish(charge: CardCharge, found: Charged, provider: CardProvider) -> None:
    if found.payment is not None:
        try:
            apply(found.payment, provider)
        except PaymentRefused as exc:
            # Cancelled or paid otherwise in spite of the charge: an operator gives the money back.
            logger.error(  # noqa: TRY400 - the reason says it all
                "payments.charge_not_booked", extra={"order": charge.order.code, "reason": exc.code}
            )
            _end(charge, CardCharge.State.FAILED, exc.code)
        else:
            _end(charge, CardCharge.State.PAID, "")
    elif not found.is_under_way:
        _end(charge, CardCharge.State.DECLINED, found.code)


def _end(charge: CardCharge, state: CardCharge.State, code: str) -> None:
    charge.state, charge.code, charge.ended_at = state, code[:40], now()
    running = CardCharge.objects.filter(pk=charge.pk, state=CardCharge.State.STARTED)
    running.update(state=state, code=charge.code, ended_at=charge.ended_at)
