"""Payment by card at Stripe's hosted checkout. The only module that imports Stripe's SDK, whose exceptions end here.

Everything that is booked is read from Stripe's API; bodies of webhooks only say when to look.
"""

import contextlib
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import stripe
from django.conf import settings
from django.utils import translation
from django.utils.translation import gettext_lazy as _

from billing.models import CardCharge, Order
from billing.payments.cards import customer_of
from billing.payments.currencies import minor_units
from billing.payments.orders import begin_checkout, keep_checkout
from billing.payments.payment import Card, Payment
from billing.payments.provider import (
    CardState,
    Charged,
    Checkout,
    Found,
    NotGenuine,
    ProviderRefused,
    ProviderUnavailable,
    ReceivedEvent,
    Setup,
)
from codexflow.lib.addresses import site_url
from codexflow.lib.clock import now

if TYPE_CHECKING:
    from stripe.params import PaymentIntentCreateParams
    from stripe.params.checkout import SessionCreateParams

logger = logging.getLogger(__name__)
# The SDK logs every request, and with its debug level what was sent.
logging.getLogger("stripe").setLevel(logging.WARNING)

# To connect and to respond, twice: a page that waits for it has fifteen seconds.
TIMEOUT_S = (3.05, 5.0)
# A checkout is open for so long; Stripe allows 30 minutes to a day, from its own clock.
CHECKOUT_LASTS = timedelta(hours=2)
# Name of the metadata that leads from a payment to its order.
ORDER = "codexflow_order"
# And to the try that has made it.
CHARGE = "codexflow_charge"
CLOCKS_DIFFER = timedelta(minutes=10)
PAGE = 100

_SESSIONS = (
    "checkout.session.completed",
    "checkout.session.async_payment_failed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.expired",
)
_REFUNDS = ("refund.created", "refund.updated", "refund.failed")
_DISPUTES = (
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.closed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
)
_REVERSALS = ("charge.refunded", *_REFUNDS, *_DISPUTES)
_CARDS = ("payment_method.automatically_updated", "payment_method.detached", "payment_method.updated")
EVENTS = (*_SESSIONS, *_REVERSALS, *_CARDS)
# Whether the bank has the money back, by the state of its dispute. Inquiries (`warning_…`) move none.
_IS_WITHDRAWN = {
    "needs_response": True,
    "under_review": True,
    "lost": True,
    "appeal_needs_response": True,
    "appeal_under_review": True,
    "won": False,
    "prevented": False,
    "warning_needs_response": False,
    "warning_under_review": False,
    "warning_closed": False,
}
# What is expanded of a PaymentIntent.
_OF_INTENT = ("latest_charge", "payment_method")
# A PaymentIntent that may still be paid, but not by the checkout that it was made for.
_FAILED = ("requires_payment_method", "canceled")


class Stripe:
    """Card payments through one Stripe account."""

    name = "stripe"
    label = _("Card")
    is_online = True
    saves_cards = True

    @property
    def is_live(self) -> bool:
        return "_live_" in str(settings.ENV.stripe_secret_key)[:8]

    def start(self, order: Order, *, order_url: str) -> str:
        """Return the address of the order's checkout, which is made unless one is open.

        One that is paid, or whose payment is under way, leads back to the order's page.
        """
        known = self.checkout(order.checkout_id) if order.checkout_id else None
        if known and not known.is_over:
            return known.url or order_url
        begun = begin_checkout(order, instead_of=order.checkout_id)
        if begun.checkout_id:  # by somebody else, meanwhile
            return self.start(begun, order_url=order_url)
        assert begun.checkout_at is not None  # noqa: S101 - has begun
        customer_id = customer_of(begun.organization, self) if begun.saves_card else ""
        with _renamed():
            session = _client().v1.checkout.sessions.create(
                _session_params(begun, f"{site_url(settings.ENV)}{order_url}", customer_id),
                {"idempotency_key": f"checkout:{begun.checkout_key}"},
            )
        if not keep_checkout(begun, session.id):  # cancelled meanwhile
            self.expire(session.id)
            return order_url
        return session.url or order_url

    def instructions(self) -> str:
        """Return nothing: the page has a button."""
        return ""

    def read_event(self, body: bytes, signature: str) -> ReceivedEvent:
        """Verify the signature over the bytes as they came, for each secret in use."""
        for secret in settings.ENV.stripe_webhook_secrets:
            with contextlib.suppress(stripe.SignatureVerificationError, ValueError, TypeError, AttributeError):
                stripe.WebhookSignature.verify_header(body, signature, secret, stripe.Webhook.DEFAULT_TOLERANCE)
                return _event(stripe.Webhook.construct_event_without_verification(body))
        raise NotGenuine

    def is_followed(self, event_type: str) -> bool:
        return event_type in EVENTS

    def look_up(self, event_type: str, object_id: str) -> Found | None:
        if event_type in _SESSIONS:
            return self._session(object_id)
        if event_type in _CARDS:
            with _renamed():
                method = _found(lambda: _client().v1.payment_methods.retrieve(object_id))
            return CardState(method_id=object_id, card=_card(method))
        found: stripe.Refund | stripe.Dispute | stripe.Charge | None
        with _renamed():
            v1 = _client().v1
            if event_type in _REFUNDS:
                found = _found(lambda: v1.refunds.retrieve(object_id))
            elif event_type in _DISPUTES:
                found = _found(lambda: v1.disputes.retrieve(object_id))
            else:
                found = _found(lambda: v1.charges.retrieve(object_id))
        return self.payment(str(found.payment_intent)) if found and found.payment_intent else None

    def payment(self, payment_reference: str) -> Payment | None:
        at = now()
        with _renamed():
            intent = _found(lambda: _client().v1.payment_intents.retrieve(payment_reference, {"expand": [*_OF_INTENT]}))
            return _payment(intent, at) if intent else None

    def refund(self, payment_reference: str, amount: int, *, key: str) -> str:
        with _renamed():
            made = _client().v1.refunds.create(
                {"payment_intent": payment_reference, "amount": amount, "reason": "requested_by_customer"},
                {"idempotency_key": f"refund:{key}"},
            )
            return made.id

    def checkout(self, checkout_id: str) -> Checkout | None:
        found = self._session(checkout_id)
        return found if isinstance(found, Checkout) else None

    def setup(self, setup_id: str) -> Setup | None:
        found = self._session(setup_id)
        return found if isinstance(found, Setup) else None

    def _session(self, session_id: str) -> Checkout | Setup | None:
        at = now()
        with _renamed():
            expand = [f"payment_intent.{name}" for name in _OF_INTENT] + ["setup_intent.payment_method"]
            session = _found(lambda: _client().v1.checkout.sessions.retrieve(session_id, {"expand": expand}))
            if session is None:
                return None
            return _setup(session) if session.mode == "setup" else _checkout(session, at)

    def create_customer(self, organization_id: str) -> str:
        with _renamed():
            made = _client().v1.customers.create(
                {"metadata": {"codexflow_organization": organization_id}},
                {"idempotency_key": f"customer:{organization_id}"},
            )
            return made.id

    def begin_setup(self, customer_id: str, *, page_url: str, consent: str) -> Setup:
        page_url = f"{site_url(settings.ENV)}{page_url}"
        params: SessionCreateParams = {
            "mode": "setup",
            "customer": customer_id,
            "allowed_payment_method_types": ["card"],
            "success_url": f"{page_url}?card=done",
            "cancel_url": page_url,
            "expires_at": int((now() + CHECKOUT_LASTS).timestamp()),
            "custom_text": {"submit": {"message": consent}},
        }
        with _renamed():
            return _setup(_client().v1.checkout.sessions.create(params))

    def detach(self, method_id: str) -> None:
        with _renamed(), contextlib.suppress(stripe.InvalidRequestError):  # detached before, or gone
            _client().v1.payment_methods.detach(method_id)

    def charge(self, charge: CardCharge, order: Order) -> Charged:
        at = now()
        # The same each time, as the idempotency key demands.
        params: PaymentIntentCreateParams = {
            "amount": minor_units(order.amount_nanos, order.currency),
            "currency": order.currency.lower(),
            "customer": charge.customer_id,
            "payment_method": charge.method_id,
            "allowed_payment_method_types": ["card"],
            "confirm": True,
            "off_session": True,
            "description": f"Order {order.code}",
            "metadata": {ORDER: order.code, CHARGE: str(charge.key)},
            "expand": [*_OF_INTENT],
        }
        with _renamed():
            try:
                intent = _client().v1.payment_intents.create(params, {"idempotency_key": f"charge:{charge.key}"})
            except stripe.CardError as declined:
                return Charged(code=_decline(declined.code, declined.error.decline_code if declined.error else None))
            return _charged(intent, at)

    def find_charge(self, charge: CardCharge) -> Charged | None:
        at = now()
        with _renamed():
            created: Any = {"gte": int((charge.started_at - CLOCKS_DIFFER).timestamp())}
            params: Any = {"customer": charge.customer_id, "created": created, "limit": PAGE}
            params["expand"] = [f"data.{name}" for name in _OF_INTENT]
            for intent in _client().v1.payment_intents.list(params).auto_paging_iter():
                if _named(intent.metadata, CHARGE) == str(charge.key):
                    return _charged(intent, at)
        return None

    def paid_charges(self, since: datetime) -> Iterator[Payment]:
        at = now()
        with _renamed():
            params: Any = {"created": {"gte": int(since.timestamp())}, "limit": PAGE}
            params["expand"] = [f"data.{name}" for name in _OF_INTENT]
            for intent in _client().v1.payment_intents.list(params).auto_paging_iter():
                if intent.status == "succeeded" and _named(intent.metadata, CHARGE):
                    yield _payment(intent, at)

    def expire(self, checkout_id: str) -> Checkout | None:
        with _renamed():
            # Refused where it is not open any more.
            with contextlib.suppress(stripe.InvalidRequestError):
                _client().v1.checkout.sessions.expire(checkout_id)
            return self.checkout(checkout_id)

    def paid_checkouts(self, since: datetime) -> Iterator[Checkout]:
        at = now()
        with _renamed():
            created: Any = {"gte": int(since.timestamp())}
            pages = _client().v1.checkout.sessions.list({"status": "complete", "created": created, "limit": PAGE})
            for session in pages.auto_paging_iter():
                if session.payment_status == "paid" and (found := _checkout(session, at)).order_code:
                    yield found

    def events(self, since: datetime) -> Iterator[ReceivedEvent]:
        with _renamed():
            created: Any = {"gte": int(since.timestamp())}
            pages = _client().v1.events.list({"types": [*_REVERSALS, *_CARDS], "created": created, "limit": PAGE})
            for event in pages.auto_paging_iter():
                yield _event(event)


PROVIDER = Stripe()


def _client() -> stripe.StripeClient:
    return _client_of(settings.ENV.stripe_secret_key, settings.ENV.stripe_api_base)


@cache
def _client_of(secret_key: str, api_base: str) -> stripe.StripeClient:
    """One client a process: its HTTP sessions are kept by thread. The SDK retries once by itself, with the same key."""
    return stripe.StripeClient(
        secret_key,
        base_addresses={"api": api_base} if api_base else None,
        http_client=stripe.RequestsClient(timeout=TIMEOUT_S),
        max_network_retries=1,
    )


@contextlib.contextmanager
def _renamed() -> Iterator[None]:
    """Rename the SDK's errors. Their texts may quote parameters or parts of a key, so only codes are kept."""
    try:
        yield
    except stripe.StripeError as exc:
        code = exc.code or type(exc).__name__
        logger.warning("payments.provider_error", extra={"code": code, "request_id": exc.request_id})
        if isinstance(exc, (stripe.InvalidRequestError, stripe.CardError)):
            raise ProviderRefused(code) from exc
        raise ProviderUnavailable(code) from exc


def _found(read: Any) -> Any:
    """Return what is read, or None where Stripe has no such object."""
    try:
        return read()
    except stripe.InvalidRequestError as exc:
        if exc.code == "resource_missing":
            return None
        raise


def _session_params(order: Order, order_url: str, customer_id: str) -> "SessionCreateParams":
    assert order.checkout_at is not None  # noqa: S101 - has begun
    # The same for everybody who goes on with this checkout, as the idempotency key demands.
    with translation.override((order.created_by and order.created_by.language) or "en"):
        name = _sold(order)
    metadata = {ORDER: order.code}
    params: SessionCreateParams = {
        "mode": "payment",
        "line_items": [
            {
                "price_data": {
                    "currency": order.currency.lower(),
                    "unit_amount": minor_units(order.amount_nanos, order.currency),
                    "product_data": {"name": name},
                },
                "quantity": 1,
            }
        ],
        "success_url": f"{order_url}?checkout=done",
        "cancel_url": order_url,
        "client_reference_id": order.code,
        "metadata": metadata,
        "payment_intent_data": {"metadata": metadata, "description": f"{name} ({order.code})"},
        "expires_at": int((order.checkout_at + CHECKOUT_LASTS).timestamp()),
        # What was ordered is paid, in the order's currency.
        "adaptive_pricing": {"enabled": False},
    }
    if customer_id:
        params["customer"] = customer_id
        params["allowed_payment_method_types"] = ["card"]
        params["payment_intent_data"]["setup_future_usage"] = "off_session"
    if settings.ENV.stripe_tax_ids != "off":
        is_required = settings.ENV.stripe_tax_ids == "required"
        params["tax_id_collection"] = {"enabled": True, "required": "if_supported" if is_required else "never"}
    return params


def _sold(order: Order) -> str:
    """Name of an order's item at the checkout, in the language that is active."""
    if order.plan is None:
        return str(_("Credit"))
    text = _("Plan %(name)s for the rest of a month") if order.upgraded_id else _("Plan %(name)s for a month")
    return str(text % {"name": order.plan.name})


def _event(event: stripe.Event) -> ReceivedEvent:
    about = event.data.object
    return ReceivedEvent(
        event_id=str(event.id),
        type=str(event.type),
        object_id=str(about["id"]) if "id" in about else "",
        is_live=event.livemode,
        is_foreign=bool(getattr(event, "account", None)),
    )


def _checkout(session: stripe.checkout.Session, at: datetime) -> Checkout:
    intent = session.payment_intent if isinstance(session.payment_intent, stripe.PaymentIntent) else None
    is_paid = session.payment_status == "paid"
    # A bank debit fails days after the customer was done.
    has_failed = session.status == "complete" and not is_paid and intent is not None and intent.status in _FAILED
    return Checkout(
        checkout_id=session.id,
        order_code=_order_code(session.metadata),
        url=(session.url or "") if session.status == "open" else "",
        is_over=session.status == "expired" or has_failed,
        payment=_payment(intent, at) if is_paid and intent is not None else None,
    )


def _payment(intent: stripe.PaymentIntent, at: datetime) -> Payment:
    """Return a payment, whose charge is expanded, with what was refunded and disputed of it."""
    charge = intent.latest_charge if isinstance(intent.latest_charge, stripe.Charge) else None
    return Payment(
        reference=intent.id,
        order_code=_order_code(intent.metadata),
        amount=intent.amount_received,
        currency=intent.currency,
        is_live=intent.livemode,
        is_paid=intent.status == "succeeded",
        read_at=at,
        refunded=charge.amount_refunded if charge else 0,
        disputed=_disputed(intent) if charge and charge.disputed else 0,
        card=_card(intent.payment_method) if intent.setup_future_usage == "off_session" else None,
    )


def _setup(session: stripe.checkout.Session) -> Setup:
    intent = session.setup_intent if isinstance(session.setup_intent, stripe.SetupIntent) else None
    return Setup(
        setup_id=session.id,
        url=(session.url or "") if session.status == "open" else "",
        is_over=session.status == "expired",
        card=_card(intent.payment_method) if intent and session.status == "complete" else None,
    )


def _card(method: Any) -> Card | None:
    """Return the card of an expanded payment method; None for one that is detached, or no card."""
    if not isinstance(method, stripe.PaymentMethod) or method.card is None or not method.customer:
        return None
    return Card(
        customer_id=str(method.customer),
        method_id=method.id,
        brand=method.card.brand,
        last4=method.card.last4,
        exp_month=method.card.exp_month,
        exp_year=method.card.exp_year,
    )


def _disputed(intent: stripe.PaymentIntent) -> int:
    total = 0
    for dispute in _client().v1.disputes.list({"payment_intent": intent.id, "limit": PAGE}).auto_paging_iter():
        if dispute.status not in _IS_WITHDRAWN:
            raise ProviderRefused("unknown_dispute_state")
        if _IS_WITHDRAWN[dispute.status]:
            # In another currency, its amount cannot be compared: then it counts as all.
            total += dispute.amount if dispute.currency == intent.currency else intent.amount_received
    return total


def _charged(intent: stripe.PaymentIntent, at: datetime) -> Charged:
    if intent.status == "succeeded":
        return Charged(payment=_payment(intent, at))
    if intent.status == "processing":
        return Charged()
    error = intent.last_payment_error
    return Charged(code=_decline(error.code, error.decline_code) if error else "declined")


def _decline(code: str | None, decline_code: str | None) -> str:
    """Return the more precise word for a decline: `insufficient_funds` rather than `card_declined`."""
    return (decline_code if code == "card_declined" else code) or code or "declined"


def _order_code(metadata: Any) -> str:
    return _named(metadata, ORDER)


def _named(metadata: Any, name: str) -> str:
    return str(metadata[name]) if metadata and name in metadata else ""
