"""Refunds that operators ask for: checked against what is left of the payment, then carried out by the worker.

Of a card payment the provider gives the money back; of a bank transfer the operator does, and it is only recorded.
"""

import logging
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Sum
from django.utils.translation import gettext as _

from accounts import audit
from accounts.models import User
from billing.models import Order, Refund
from billing.payments.booking import PaymentRefused, apply
from billing.payments.currencies import minor_units
from billing.payments.provider import OnlineProvider, ProviderRefused, ProviderUnavailable, online_provider
from billing.payments.reversals import reverse
from codexflow.lib.db import only_one
from codexflow.lib.money import InvalidAmount, format_usd

logger = logging.getLogger(__name__)

RETRY_AFTER = timedelta(seconds=30)
# Providers forget idempotency keys after a day; a refund that is carried out later might be a second one.
KEY_LASTS = timedelta(hours=20)
ADVISORY_LOCK = 0x70617972  # "payr"; any number that nothing else locks


class RefundRefused(Exception):
    """A rule of refunds forbids it. The text is translated and meant for a page."""


def refundable_nanos(order: Order) -> int:
    """Return what may still be given back: the payment without refunds, those asked for, and disputes."""
    if order.state != Order.State.PAID:
        return 0
    asked = Refund.objects.filter(order=order, state=Refund.State.REQUESTED).aggregate(sum=Sum("amount_nanos"))["sum"]
    return max(0, order.amount_nanos - order.refunded_nanos - order.disputed_nanos - (asked or 0))


def request_refund(
    order: Order,
    amount_nanos: int,
    *,
    key: UUID,
    reason: str,
    reference: str = "",
    actor: User | None = None,
    address: str | None = None,
) -> Refund:
    """Ask for a refund, in one transaction with its audit entry. The same key again changes nothing.

    A bank transfer that the operator has sent back is booked at once. Raises RefundRefused.
    """
    with transaction.atomic():
        order = Order.objects.select_for_update(of=("self",)).select_related("organization").get(pk=order.pk)
        if (known := Refund.objects.filter(key=key).first()) is not None:
            return known
        check_refund(order, amount_nanos)
        is_online = online_provider(order.provider) is not None
        if not is_online and order.provider != "manual":
            raise RefundRefused(_("The payment provider of this order is not configured."))
        refund = Refund.objects.create(
            order=order,
            key=key,
            amount_nanos=amount_nanos,
            state=Refund.State.REQUESTED if is_online else Refund.State.DONE,
            reason=reason,
            reference=reference,
            created_by=actor,
        )
        audit.record(
            "order.refund_requested",
            order,
            organization=order.organization,
            actor=actor,
            address=address,
            code=order.code,
            amount_nanos=amount_nanos,
            reason=reason,
        )
        if not is_online:
            reverse(
                order,
                refunded_nanos=order.refunded_nanos + amount_nanos,
                disputed_nanos=order.disputed_nanos,
                reason=reason,
                actor=actor,
                address=address,
            )
    return refund


def check_refund(order: Order, amount_nanos: int) -> None:
    """Raise RefundRefused for an amount that cannot be given back."""
    left_nanos = refundable_nanos(order)
    try:
        minor_units(amount_nanos, order.currency)
    except InvalidAmount as exc:
        raise RefundRefused(_("Enter an amount in whole cents.")) from exc
    if not 0 < amount_nanos <= left_nanos:
        text = _("At most $%(left)s of this payment can be given back.")
        raise RefundRefused(text % {"left": format_usd(left_nanos, decimals=2)})


def carry_out_due(at: datetime) -> int:
    """Carry out the refunds that were asked for. Returns how many are done or failed."""
    done = 0
    with only_one(ADVISORY_LOCK) as is_mine:
        due = Refund.objects.filter(state=Refund.State.REQUESTED, due_at__lte=at).select_related("order")
        for refund in due.order_by("due_at") if is_mine else ():
            Refund.objects.filter(pk=refund.pk).update(due_at=at + RETRY_AFTER)
            try:
                done += _carry_out(refund, at)
            except ProviderUnavailable:
                break  # all of them wait
    return done


def _carry_out(refund: Refund, at: datetime) -> bool:
    order, provider = refund.order, online_provider(refund.order.provider)
    if provider is None:
        return False
    try:
        if at - refund.created_at > KEY_LASTS:
            raise ProviderRefused("too_late")  # noqa: TRY301 - as if the provider had said so
        reference = _give_back(provider, refund, order)
        refund.state, refund.reference = Refund.State.DONE, reference
    except ProviderRefused as exc:
        logger.warning("payments.refund_refused", extra={"order": order.code, "reason": exc.code})
        refund.state, refund.error = Refund.State.FAILED, exc.code[:40]
    refund.save(update_fields=["state", "reference", "error"])
    return True


def _give_back(provider: OnlineProvider, refund: Refund, order: Order) -> str:
    amount = minor_units(refund.amount_nanos, order.currency)
    reference = provider.refund(order.payment_reference, amount, key=str(refund.key))
    try:
        # Before the refund is done: until then its amount counts as asked for.
        apply(provider.payment(order.payment_reference), provider)
    except PaymentRefused as exc:
        logger.warning("payments.refund_not_booked", extra={"order": order.code, "reason": exc.code})
    return reference
