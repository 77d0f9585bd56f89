"""A payment as its provider reports it, and whether it is that of an order. Pure."""

from dataclasses import dataclass


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


def mismatch(payment: Payment, *, amount: int, currency: str, is_live: bool) -> str:
    """Return how a payment differs from what was ordered; empty: it does not."""
    if not payment.is_paid:
        return "unpaid"
    if payment.is_live != is_live:
        return "livemode"
    if payment.currency.upper() != currency.upper():
        return "currency"
    return "" if payment.amount == amount else "amount"
