"""Reversals of paid orders: what refunds and disputes take back, and what a dispute that is won gives again.

An order knows what was refunded and disputed of its payment, as the provider reports it in sum. Only what has changed
is booked, so that it may be reported any number of times and in any order.
"""

from datetime import datetime
from functools import partial

from django.db import transaction
from django.db.models import QuerySet, Sum

from accounts import audit
from accounts.models import User
from accounts.signals import access_changed
from billing.ledger import put_back, source_of, take_back
from billing.models import Account, AutoRecharge, LedgerEntry, Order
from billing.papers.issue import credit_refund
from billing.payments.payment import change_of_taken, taken_nanos
from billing.recharge_rules import stop_recharge


def reverse(
    order: Order,
    *,
    refunded_nanos: int,
    disputed_nanos: int,
    read_at: datetime | None = None,
    reason: str = "",
    actor: User | None = None,
    actor_label: str = "",
    address: str | None = None,
) -> bool:
    """Bring the ledger in line with what was refunded and disputed. Returns False if it is.

    Call it in the transaction that has locked the paid order. What is spent already becomes debt. A reading that began
    before the one that was booked last (`read_at`) is passed over: it may be older.
    """
    if read_at is not None:
        if order.reported_at is not None and read_at < order.reported_at:
            return False
        order.reported_at = read_at
        order.save(update_fields=["reported_at"])
    if (order.refunded_nanos, order.disputed_nanos) == (refunded_nanos, disputed_nanos):
        return False
    given_back_nanos = refunded_nanos - order.refunded_nanos
    # Credit that is taken back is not to be bought again by itself.
    if disputed_nanos > order.disputed_nanos:
        stop_recharge(order.organization_id, AutoRecharge.Stopped.DISPUTED)
    if given_back_nanos > 0:
        stop_recharge(order.organization_id, AutoRecharge.Stopped.REFUNDED)
    # The refunds first: each change is booked as what has caused it.
    if order.refunded_nanos != refunded_nanos:
        moved_nanos = change_nanos(order, refunded_nanos=refunded_nanos, disputed_nanos=order.disputed_nanos)
        order.refunded_nanos = refunded_nanos
        _book(order, moved_nanos, LedgerEntry.Kind.REFUND)
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
        moved_nanos = change_nanos(order, refunded_nanos=refunded_nanos, disputed_nanos=disputed_nanos)
        order.disputed_nanos = disputed_nanos
        _book(order, moved_nanos, LedgerEntry.Kind.DISPUTE)
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
    if given_back_nanos > 0:
        credit_refund(order, given_back_nanos, reason=reason, actor=actor, actor_label=actor_label, address=address)
    transaction.on_commit(partial(access_changed.send, Account, organization_id=order.organization_id))
    return True


def taken_of(order: Order) -> int:
    """Part of an order's credit that its refunds and disputes take back, in nano-USD."""
    return taken_nanos(
        order.credit_nanos,
        paid_nanos=order.amount_nanos,
        refunded_nanos=order.refunded_nanos,
        disputed_nanos=order.disputed_nanos,
    )


def change_nanos(order: Order, *, refunded_nanos: int, disputed_nanos: int) -> int:
    """Return by how much the balance changes when so much of a paid order's payment is refunded and disputed."""
    if order.ledger_entry is None:
        return 0
    known = {"credit_nanos": order.credit_nanos, "paid_nanos": order.amount_nanos}
    entries = LedgerEntry.objects.filter(organization_id=order.organization_id)
    expiry = f"expiry:{source_of(order.ledger_entry)}:"
    # Of a month that was refunded in part before it began, so much was not granted at all.
    withheld_nanos = order.credit_nanos - order.ledger_entry.amount_nanos
    return -change_of_taken(
        taken_of(order),
        taken_nanos(**known, refunded_nanos=refunded_nanos, disputed_nanos=disputed_nanos),
        booked_nanos=withheld_nanos - _sum(entries.filter(reference__startswith=f"order:{order.code}:")),
        expired_nanos=-_sum(entries.filter(kind=LedgerEntry.Kind.EXPIRY, reference__startswith=expiry)),
    )


def _sum(entries: QuerySet[LedgerEntry]) -> int:
    return int(entries.aggregate(sum=Sum("amount_nanos", default=0))["sum"])


def _book(order: Order, amount_nanos: int, kind: LedgerEntry.Kind) -> None:
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
