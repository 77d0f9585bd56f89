"""Reversals of paid orders: what refunds and disputes take back, and what a dispute that is won gives again.

An order knows what was refunded and disputed of its payment, as the provider reports it in sum. Only what has changed
is booked, so that it may be reported any number of times and in any order.
"""

from django.db import transaction

from accounts import audit
from accounts.models import User
from accounts.signals import access_changed
from billing.ledger import put_back, source_of, take_back
from billing.models import Account, LedgerEntry, Order
from billing.payments.payment import taken_nanos


def reverse(
    order: Order,
    *,
    refunded_nanos: int,
    disputed_nanos: int,
    reason: str = "",
    actor: User | None = None,
    actor_label: str = "",
    address: str | None = None,
) -> bool:
    """Bring the ledger in line with what was refunded and disputed. Returns False if it is.

    Call it in the transaction that has locked the paid order. What is spent already becomes debt.
    """
    if (order.refunded_nanos, order.disputed_nanos) == (refunded_nanos, disputed_nanos):
        return False
    # The refunds first: each change is booked as what has caused it.
    if order.refunded_nanos != refunded_nanos:
        before_nanos = taken_of(order)
        order.refunded_nanos = refunded_nanos
        moved_nanos = _book(order, before_nanos - taken_of(order), LedgerEntry.Kind.REFUND)
        audit.record(
            "order.refunded",
            order,
            organization=order.organization,
            actor=actor,
            actor_label=actor_label,
            address=address,
            code=order.code,
            refunded_nanos=refunded_nanos,
            credit_nanos=moved_nanos,
            reason=reason,
        )
    if order.disputed_nanos != disputed_nanos:
        before_nanos = taken_of(order)
        order.disputed_nanos = disputed_nanos
        moved_nanos = _book(order, before_nanos - taken_of(order), LedgerEntry.Kind.DISPUTE)
        audit.record(
            "order.disputed",
            order,
            organization=order.organization,
            actor=actor,
            actor_label=actor_label,
            address=address,
            code=order.code,
            disputed_nanos=disputed_nanos,
            credit_nanos=moved_nanos,
        )
    order.save(update_fields=["refunded_nanos", "disputed_nanos", "reversals"])
    transaction.on_commit(lambda: access_changed.send(Account))
    return True


def taken_of(order: Order) -> int:
    """Part of an order's credit that its refunds and disputes take back, in nano-USD."""
    return taken_nanos(
        order.credit_nanos,
        paid_nanos=order.amount_nanos,
        refunded_nanos=order.refunded_nanos,
        disputed_nanos=order.disputed_nanos,
    )


def _book(order: Order, amount_nanos: int, kind: LedgerEntry.Kind) -> int:
    """Move an amount from the order's source, if negative, or back to it."""
    if amount_nanos and order.ledger_entry is not None:
        order.reversals += 1
        book = take_back if amount_nanos < 0 else put_back
        book(
            source_of(order.ledger_entry),
            abs(amount_nanos),
            kind=kind,
            reference=f"order:{order.code}:{order.reversals}",
            note=f"Order {order.code}",
        )
    return amount_nanos
