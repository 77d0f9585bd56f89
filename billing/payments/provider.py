"""Payment providers behind one interface. Only configured ones are imported."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import import_module
from typing import Protocol, cast

from django.conf import settings
from django.utils.functional import Promise

from billing.models import Order
from billing.payments.payment import Payment


class ProviderUnavailable(Exception):
    """The provider does not respond or refuses to now; the same may be asked again."""


class ProviderRefused(Exception):
    """The provider refuses for good. `code` is its own word for the reason; nothing secret."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


class NotGenuine(Exception):
    """A webhook's body is not signed by the provider, or too long ago."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedEvent:
    """An event of a webhook, whose signature is right. What it says is not believed."""

    event_id: str
    type: str
    object_id: str
    is_live: bool
    # Of another account that this one acts for.
    is_foreign: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A hosted checkout as it is at the provider. `payment` is there once it is paid."""

    checkout_id: str
    order_code: str
    # Where it is paid, while it is open.
    url: str = ""
    # Expired, or its payment has failed for good: nobody can pay it any more.
    is_over: bool = False
    payment: Payment | None = None


class Provider(Protocol):
    """A way to pay an order. `settle_order` in `billing.payments.orders` settles it, by the payment's name."""

    # Name in CFX_PAYMENT_PROVIDERS and of the module.
    name: str
    # How customers know it: "Bank transfer".
    label: Promise
    # Whether orders are paid at a hosted checkout: then it is an OnlineProvider.
    is_online: bool

    def start(self, order: Order, *, order_url: str) -> str:
        """Return the address where the customer pays: at the provider, or the order's own page.

        It is called outside of a transaction and may ask the provider. `order_url` is the page to come back to.
        Raises ProviderUnavailable and ProviderRefused.
        """

    def instructions(self) -> str:
        """Return what the page of an open order says about paying it; empty: nothing. Lines stay lines."""


class OnlineProvider(Provider, Protocol):
    """A provider with a hosted checkout, which tells of payments by itself. `billing.payments.booking` asks it.

    All of it may raise ProviderUnavailable and ProviderRefused.
    """

    # Whether the configured key moves real money.
    is_live: bool

    def read_event(self, body: bytes, signature: str) -> ReceivedEvent:
        """Verify a webhook's body. Raises NotGenuine."""

    def is_followed(self, event_type: str) -> bool:
        """Return whether events of this type matter here."""

    def look_up(self, event_type: str, object_id: str) -> Checkout | Payment | None:
        """Read what an event is about, as it is now. None: nothing of ours, or no longer there."""

    def checkout(self, checkout_id: str) -> Checkout | None:
        """Read a checkout; None if the provider does not know it."""

    def refund(self, payment_reference: str, amount: int, *, key: str) -> str:
        """Give back a part of a payment, in minor units, once for each key. Returns the refund's name."""

    def payment(self, payment_reference: str) -> Payment | None:
        """Read a payment; None if the provider does not know it."""

    def expire(self, checkout_id: str) -> Checkout | None:
        """End an open checkout, so that nobody pays it any more, and return what it is then."""

    def paid_checkouts(self, since: datetime) -> Iterator[Checkout]:
        """Iterate over the paid checkouts of orders that were made since, without their payments."""

    def events(self, since: datetime) -> Iterator[ReceivedEvent]:
        """Iterate over the events that matter and have happened since."""


def offered() -> Sequence[Provider]:
    """The configured providers, the proposed one first."""
    return [provider_of(name) for name in settings.ENV.payment_providers]


def online() -> Sequence[OnlineProvider]:
    """The configured providers with a hosted checkout."""
    return [cast(OnlineProvider, each) for each in offered() if each.is_online]


def online_provider(name: str) -> OnlineProvider | None:
    """Return a configured provider with a hosted checkout; None for any other name."""
    return next((each for each in online() if each.name == name), None)


@cache
def provider_of(name: str) -> Provider:
    """Import a provider: `PROVIDER` of the module of its name."""
    return cast(Provider, import_module(f"billing.payments.{name}").PROVIDER)
