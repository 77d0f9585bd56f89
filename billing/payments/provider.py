"""Payment providers behind one interface. Only configured ones are imported."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import import_module
from typing import Protocol, cast

from django.conf import settings
from django.utils.functional import Promise

from billing.models import CardCharge, Order
from billing.payments.payment import Card, Payment


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A hosted page that saves a card, as it is at the provider. `card` is there once it is saved."""

    setup_id: str
    # Where the card is typed, while the page is open.
    url: str = ""
    is_over: bool = False
    card: Card | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardState:
    """A saved card as it is at the provider. Without `card` it cannot be charged any more."""

    method_id: str
    card: Card | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Charged:
    """Outcome of a charge to a saved card: paid, declined for the reason `code`, or still under way."""

    payment: Payment | None = None
    code: str = ""

    @property
    def is_under_way(self) -> bool:
        return self.payment is None and not self.code


# What an event may be about.
Found = Checkout | Payment | Setup | CardState


class Provider(Protocol):
    """A way to pay an order. `settle_order` in `billing.payments.orders` settles it, by the payment's name."""

    # Name in CFX_PAYMENT_PROVIDERS and of the module.
    name: str
    # Whether orders are paid at a hosted checkout: then it is an OnlineProvider.
    is_online: bool
    # Whether it can save cards and charge them while nobody is there: then it is a CardProvider.
    saves_cards: bool

    @property
    def label(self) -> Promise:
        """Name that customers know it by: "Bank transfer"."""

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

    @property
    def is_live(self) -> bool:
        """True when the configured key moves real money."""

    def read_event(self, body: bytes, signature: str) -> ReceivedEvent:
        """Verify a webhook's body. Raises NotGenuine."""

    def is_followed(self, event_type: str) -> bool:
        """Return whether events of this type matter here."""

    def look_up(self, event_type: str, object_id: str) -> Found | None:
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


class CardProvider(OnlineProvider, Protocol):
    """An online provider that saves cards. `billing.payments.cards` asks it."""

    def create_customer(self, organization_id: str) -> str:
        """Return the provider's name of an organization, made once."""

    def begin_setup(self, customer_id: str, *, page_url: str, consent: str) -> Setup:
        """Open a page that saves a card, which shows what the customer consents to. It leads back to `page_url`."""

    def setup(self, setup_id: str) -> Setup | None:
        """Read such a page; None if the provider does not know it."""

    def detach(self, method_id: str) -> None:
        """Forget a card. Doing so again is no error."""

    def charge(self, charge: CardCharge, order: Order) -> Charged:
        """Charge a saved card for an order, once for each key. ProviderUnavailable: nobody knows what became of it."""

    def find_charge(self, charge: CardCharge) -> Charged | None:
        """Ask about a charge; None: there is none with its key."""

    def paid_charges(self, since: datetime) -> Iterator[Payment]:
        """Iterate over the payments of saved cards that were made since."""


def offered() -> Sequence[Provider]:
    """The configured providers, the proposed one first."""
    return [provider_of(name) for name in settings.ENV.payment_providers]


def online() -> Sequence[OnlineProvider]:
    """The configured providers with a hosted checkout."""
    return [cast(OnlineProvider, each) for each in offered() if each.is_online]


def card_provider() -> CardProvider | None:
    """Return the configured provider that saves cards; None: there is none."""
    return next((cast(CardProvider, each) for each in offered() if each.saves_cards), None)


def online_provider(name: str) -> OnlineProvider | None:
    """Return a configured provider with a hosted checkout; None for any other name."""
    return next((each for each in online() if each.name == name), None)


@cache
def provider_of(name: str) -> Provider:
    """Import a provider: `PROVIDER` of the module of its name."""
    return cast(Provider, import_module(f"billing.payments.{name}").PROVIDER)
