"""A payment as its provider reports it, whether it is that of an order, and what of its credit is taken back. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime

from codexflow.lib.money import round_div


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A card that the provider has saved for a customer, with what it shows of it."""

    customer_id: str
    # The provider's name of the card, by which it is charged.
    method_id: str
    brand: str
    last4: str
    exp_month: int
    exp_year: int

    @property
    def expires_at(self) -> datetime:
        """First moment at which it is no longer valid: cards are until the end of a month."""
        return datetime(self.exp_year + self.exp_month // 12, self.exp_month % 12 + 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A payment by card, read from the provider. Amounts are in minor units of the currency."""

    # The provider's name of the payment, by which it is booked once.
    reference: str
    # Of the order that the checkout was made for; empty: the payment is not of this installation.
    order_code: str
    amount: int
    currency: str
    is_live: bool
    is_paid: bool
    # When reading it began: of two readings, the one that began later knows at least as much.
    read_at: datetime
    # Given back so far, and withdrawn by disputes that are open or lost.
    refunded: int = 0
    disputed: int = 0
    # Saved with it, because the customer wanted that.
    card: Card | None = None

    @property
    def is_gone(self) -> bool:
        """True when nothing of it is left."""
        return self.refunded + self.disputed >= self.amount


def mismatch(payment: Payment, *, amount: int, currency: str, is_live: bool) -> str:
    """Return how a payment differs from what was ordered; empty: it does not."""
    if not payment.is_paid:
        return "unpaid"
    if payment.is_live != is_live:
        return "livemode"
    if payment.currency.upper() != currency.upper():
        return "currency"
    return "" if payment.amount == amount else "amount"


def taken_nanos(credit_nanos: int, *, paid_nanos: int, refunded_nanos: int, disputed_nanos: int) -> int:
    """Return the part of an order's credit that its refunds and disputes take back: never more than all of it.

    What is refunded on top of a dispute takes nothing twice.
    """
    return round_div(credit_nanos * min(paid_nanos, refunded_nanos + disputed_nanos), paid_nanos)


def change_of_taken(before_nanos: int, after_nanos: int, *, booked_nanos: int, expired_nanos: int) -> int:
    """Return what more is to be taken when what refunds and disputes take changes; negative: given again.

    `booked_nanos` was taken so far. Credit that has expired is gone already and is not taken a second time.
    """
    if after_nanos > before_nanos:
        return max(0, after_nanos - expired_nanos - booked_nanos)
    return min(0, after_nanos - booked_nanos)
