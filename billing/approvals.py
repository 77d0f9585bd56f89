"""Bookings that need a second operator: grants, adjustments and refunds above a configured amount."""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from accounts import audit
from accounts.models import Organization, User
from billing.models import BookingApproval, LedgerEntry, Order
from billing.payments.refunds import check_refund, request_refund
from billing.services import book_by_hand
from codexflow.lib.clock import now
from codexflow.lib.ids import random_id

KINDS = {
    LedgerEntry.Kind.PROMO: BookingApproval.Kind.GRANT,
    LedgerEntry.Kind.ADJUSTMENT: BookingApproval.Kind.ADJUSTMENT,
}


class ApprovalRefused(Exception):
    """A rule of approvals forbids it. The text is translated and meant for a page."""


def needs_approval(amount_nanos: int) -> bool:
    """Return whether a second operator must agree to this amount, up or down."""
    above_nanos = settings.ENV.four_eyes_above_nanos
    return above_nanos is not None and abs(amount_nanos) > above_nanos


def book_or_ask(
    organization: Organization,
    amount_nanos: int,
    *,
    kind: LedgerEntry.Kind,
    reason: str,
    reference: str = "",
    expires_at: datetime | None = None,
    actor: User,
    address: str | None = None,
) -> LedgerEntry | BookingApproval:
    """Book as `book_by_hand`, or ask for the approval of it."""
    facts: dict[str, Any] = {"reason": reason, "reference": reference, "expires_at": expires_at}
    if kind not in KINDS or not needs_approval(amount_nanos):
        return book_by_hand(organization, amount_nanos, kind=kind, actor=actor, address=address, **facts)
    return _ask(
        actor, address, organization=organization, kind=KINDS[kind], amount_nanos=amount_nanos, key=random_id(), **facts
    )


def refund_or_ask(
    order: Order,
    amount_nanos: int,
    *,
    key: UUID,
    reason: str,
    reference: str = "",
    actor: User,
    address: str | None = None,
) -> BookingApproval | None:
    """Refund as `request_refund`, or ask for the approval of it, which is returned. Raises RefundRefused."""
    if not needs_approval(amount_nanos):
        request_refund(order, amount_nanos, key=key, reason=reason, reference=reference, actor=actor, address=address)
        return None
    order = Order.objects.select_related("organization").get(pk=order.pk)
    check_refund(order, amount_nanos)
    return _ask(
        actor,
        address,
        organization=order.organization,
        order=order,
        kind=BookingApproval.Kind.REFUND,
        amount_nanos=amount_nanos,
        key=key,
        reason=reason,
        reference=reference,
    )


def approve(approval: BookingApproval, *, actor: User, address: str | None = None) -> BookingApproval:
    """Book what was asked for, in one transaction with the audit entry. Raises ApprovalRefused and RefundRefused.

    The audit entry of the booking names the one who approves, that of the approval who asked for it.
    """
    with transaction.atomic():
        approval = _pending(approval)
        if approval.asked_by_id == actor.pk or not actor.is_superuser:
            raise ApprovalRefused(_("Another super administrator must approve it."))
        if approval.order is not None:
            request_refund(
                approval.order,
                approval.amount_nanos,
                key=approval.key,
                reason=approval.reason,
                reference=approval.reference,
                actor=actor,
                address=address,
            )
        else:
            _book(approval, actor, address)
        _decide(approval, BookingApproval.State.APPROVED, actor)
        _audit("approval.approved", approval, actor, address)
    return approval


def _book(approval: BookingApproval, actor: User, address: str | None) -> None:
    if approval.expires_at is not None and approval.expires_at <= now():
        raise ApprovalRefused(_("Credit expires in the future."))
    try:
        with transaction.atomic():
            book_by_hand(
                approval.organization,
                approval.amount_nanos,
                kind=LedgerEntry.Kind(approval.kind),
                reason=approval.reason,
                reference=approval.reference or f"approval:{approval.pk}",
                expires_at=approval.expires_at,
                actor=actor,
                address=address,
            )
    except IntegrityError as exc:
        raise ApprovalRefused(_("This reference is booked already.")) from exc


def reject(approval: BookingApproval, *, actor: User, address: str | None = None) -> BookingApproval:
    """Reject what was asked for; whoever asked may withdraw it so. Raises ApprovalRefused."""
    with transaction.atomic():
        approval = _pending(approval)
        _decide(approval, BookingApproval.State.REJECTED, actor)
        _audit("approval.rejected", approval, actor, address)
    return approval


def _ask(actor: User, address: str | None, **facts: Any) -> BookingApproval:
    with transaction.atomic():
        asked = BookingApproval.objects.create(asked_by=actor, **facts)
        _audit("approval.asked", asked, actor, address)
    return asked


def _pending(approval: BookingApproval) -> BookingApproval:
    rows = BookingApproval.objects.select_for_update(of=("self",)).select_related("organization", "order", "asked_by")
    approval = rows.get(pk=approval.pk)
    if approval.state != BookingApproval.State.PENDING:
        raise ApprovalRefused(_("This was already decided."))
    return approval


def _decide(approval: BookingApproval, state: BookingApproval.State, actor: User) -> None:
    approval.state, approval.decided_by, approval.decided_at = state, actor, now()
    approval.save(update_fields=["state", "decided_by", "decided_at"])


def _audit(action: str, approval: BookingApproval, actor: User, address: str | None) -> None:
    audit.record(
        action,
        approval,
        organization=approval.organization,
        actor=actor,
        address=address,
        kind=str(approval.kind),
        amount_nanos=approval.amount_nanos,
        reason=approval.reason,
        asked_by=approval.asked_by_id,
        order=approval.order.code if approval.order else "",
    )
