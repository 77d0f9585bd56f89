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

from billing.models import Order
from billing.payments.currencies import minor_units
from billing.payments.orders import begin_checkout, keep_checkout
from billing.payments.payment import Payment
from billing.payments.provider import Checkout, NotGenuine, ProviderRefused, ProviderUnavailable, ReceivedEvent
from codexflow.lib.addresses import site_url
from codexflow.lib.clock import now

if TYPE_CHECKING:
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
EVENTS = (*_SESSIONS, *_REVERSALS)
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
# A PaymentIntent that may still be paid, but not by the checkout that it was made for.
_FAILED = ("requires_payment_method", "canceled")


class Stripe:
    """Card payments through one Stripe account."""

    name = "stripe"
    label = _("Card")
    is_online = True

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
        with _renamed():
            session = _client().v1.checkout.sessions.create(
                _session_params(begun, f"{site_url(settings.ENV)}{order_url}"),
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

    def look_up(self, event_type: str, object_id: str) -> Checkout | Payment | None:
        if event_type in _SESSIONS:
            return self.checkout(object_id)
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
            intent = _found(
                lambda: _client().v1.payment_intents.retrieve(payment_reference, {"expand": ["latest_charge"]})
            )
            return _payment(intent, at) if intent else None

    def refund(self, payment_reference: str, amount: int, *, key: str) -> str:
        with _renamed():
            made = _client().v1.refunds.create(
                {"payment_intent": payment_reference, "amount": amount, "reason": "requested_by_customer"},
                {"idempotency_key": f"refund:{key}"},
            )
            return made.id

    def checkout(self, checkout_id: str) -> Checkout | None:
        at = now()
        with _renamed():
            session = _found(
                lambda: _client().v1.checkout.sessions.retrieve(
                    checkout_id, {"expand": ["payment_intent.latest_charge"]}
                )
            )
            return _checkout(session, at) if session else None

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
            pages = _client().v1.events.list({"types": list(_REVERSALS), "created": created, "limit": PAGE})
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


def _session_params(order: Order, order_url: str) -> "SessionCreateParams":
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


def _order_code(metadata: Any) -> str:
    return str(metadata[ORDER]) if metadata and ORDER in metadata else ""
