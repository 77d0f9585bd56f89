"""Payment providers behind one interface. Only configured ones are imported."""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Protocol, cast

from django.conf import settings
from django.utils.functional import Promise

from billing.models import Order


class Provider(Protocol):
    """A way to pay an order. `settle_order` in `billing.payments.orders` settles it, by the payment's name."""

    # Name in CFX_PAYMENT_PROVIDERS and of the module.
    name: str
    # How customers know it: "Bank transfer".
    label: Promise

    def start(self, order: Order, *, order_url: str) -> str:
        """Return the address where the customer pays: at the provider, or the order's own page.

        It is called outside of a transaction and may ask the provider. `order_url` is the page to come back to.
        """

    def instructions(self) -> str:
        """Return what the page of an open order says about paying it; empty: nothing. Lines stay lines."""


def offered() -> Sequence[Provider]:
    """The configured providers, the proposed one first."""
    return [provider_of(name) for name in settings.ENV.payment_providers]


@cache
def provider_of(name: str) -> Provider:
    """Import a provider: `PROVIDER` of the module of its name."""
    return cast(Provider, import_module(f"billing.payments.{name}").PROVIDER)
