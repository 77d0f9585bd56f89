"""Payment by card at iyzico's hosted checkout form. The only module that asks iyzico's API.

iyzico tells of a payment when the customer comes back, and by a notice some seconds later that may be missing: both
only say when to look. What is booked is read from the API, which also knows payments by the order's code. The official
package is not used: it has no timeout, and its check of signatures refuses nothing.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
from django.conf import settings
from django.db.models import F
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, override

from accounts.models import AuditEntry
from billing.models import Order
from billing.papers.details import details_of
from billing.payments.currencies import minor_units
from billing.payments.iyzico_signing import (
    CHECKOUT,
    INITIALIZED,
    REFUNDED,
    authorization,
    is_genuine,
    price_of,
    units_of,
)
from billing.payments.orders import OrderRefused, begin_checkout, keep_checkout
from billing.payments.payment import Payment
from billing.payments.provider import Checkout, NotGenuine, ProviderRefused, ProviderUnavailable, ReceivedEvent
from codexflow.lib.addresses import site_url
from codexflow.lib.clock import now
from codexflow.lib.ids import random_id

logger = logging.getLogger(__name__)

BASE_URL = "https://api.iyzipay.com"
# Browsers are led back here, whoever they are: see `billing.webhooks.checkout_return`.
RETURN_PATH = "/api/webhooks/iyzico/return"
TIMEOUT = httpx.Timeout(8.0, connect=3.0)
# A form can be paid for half an hour; by our clock some minutes more.
FORM_LASTS = timedelta(minutes=40)
# Names a payment where others name a checkout: iyzico finds it by the order's code whatever became of the form.
BY_PAYMENT = "payment:"
NOTICE, GIVEN_BACK = "checkout", "refund"
# For so long a payment can be given back; so many payments are read at a time, those first that were not for longest.
REFUNDABLE, READ_AT_ONCE = timedelta(days=366), 20
# Errors that say nothing about a payment: of the account, or of the service.
_ACCOUNT_ERRORS = frozenset({"1", "1000", "1001", "100001"})
_PAID, _FRAUD_CLEARED, _FRAUD_REJECTED = 1, 1, -1
_REFUND_DONE, _REFUND_FAILED = 1, -1
# What iyzico takes where a buyer has no Turkish identity number.
_NO_IDENTITY = "11111111111"


class Iyzico:
    """Card payments through one iyzico account, in the currencies of orders."""

    name = "iyzico"
    label = gettext_lazy("Card (iyzico)")
    is_online = True
    saves_cards = False

    @property
    def is_live(self) -> bool:
        return urlsplit(_base_url()).hostname == "api.iyzipay.com"

    def start(self, order: Order, *, order_url: str) -> str:
        """Return the address of the order's form, which is made unless one is open.

        Raises OrderRefused without billing details, which iyzico asks for.
        """
        known = self.checkout(order.checkout_id) if order.checkout_id else None
        if known is not None and not known.is_over:
            return order_url if known.payment else order.checkout_url or order_url
        buyer = _buyer(order)
        begun = begin_checkout(order, instead_of=order.checkout_id)
        if begun.checkout_id:  # by somebody else, meanwhile
            return begun.checkout_url or order_url
        made = _post("/payment/iyzipos/checkoutform/initialize/auth/ecom", _form(begun, buyer), signed=INITIALIZED)
        _require_success(made)
        if not keep_checkout(begun, str(made["token"]), url=str(made["paymentPageUrl"])):
            begun.refresh_from_db()  # cancelled meanwhile, or somebody else was faster
            return begun.checkout_url or order_url
        return str(made["paymentPageUrl"])

    def instructions(self) -> str:
        """Return nothing: the page has a button."""
        return ""

    def read_event(self, body: bytes, signature: str) -> ReceivedEvent:
        """Read a notice. It is not signed unless one asks iyzico for it, so only that of a form of ours is taken."""
        try:
            notice = json.loads(body)
            token = str(notice["token"])
        except (ValueError, KeyError, TypeError) as exc:
            raise NotGenuine from exc
        if not token or not Order.objects.filter(provider=self.name, checkout_id=token).exists():
            raise NotGenuine
        event_id = f"{token}:{str(notice.get('status'))[:20]}:{str(notice.get('iyziEventTime'))[:20]}"
        return ReceivedEvent(event_id=event_id, type=NOTICE, object_id=token, is_live=self.is_live)

    def is_followed(self, event_type: str) -> bool:
        return event_type in (NOTICE, GIVEN_BACK)

    def look_up(self, event_type: str, object_id: str) -> Checkout | Payment | None:
        return self.payment(object_id) if event_type == GIVEN_BACK else self.checkout(object_id)

    def checkout(self, checkout_id: str) -> Checkout | None:
        if checkout_id.startswith(BY_PAYMENT):
            payment = self.payment(checkout_id.removeprefix(BY_PAYMENT))
            if payment is None:
                return None
            return Checkout(checkout_id=checkout_id, order_code=payment.order_code, payment=payment)
        order = Order.objects.filter(provider=self.name, checkout_id=checkout_id).first()
        if order is None:
            return None
        at = now()
        asked = {"locale": "en", "conversationId": order.code, "token": checkout_id}
        found = _post("/payment/iyzipos/checkoutform/auth/ecom/detail", asked, signed=CHECKOUT)
        payment = _payment(found, at, is_live=self.is_live) if found.get("paymentStatus") == "SUCCESS" else None
        if payment is not None and found.get("fraudStatus") == _FRAUD_CLEARED:
            return Checkout(checkout_id=checkout_id, order_code=order.code, payment=payment)
        has_failed = found.get("paymentStatus") == "FAILURE" or found.get("fraudStatus") == _FRAUD_REJECTED
        is_late = order.checkout_at is None or order.checkout_at < at - FORM_LASTS
        if payment is None and is_late:
            # Before it is let go of: what the form does not tell, the report may.
            payment = next(self._payments(at, paymentConversationId=order.code), None)
            return Checkout(checkout_id=checkout_id, order_code=order.code, is_over=payment is None, payment=payment)
        return Checkout(checkout_id=checkout_id, order_code=order.code, is_over=has_failed)

    def payment(self, payment_reference: str) -> Payment | None:
        return next(self._payments(now(), paymentId=payment_reference), None)

    def refund(self, payment_reference: str, amount: int, *, key: str) -> str:
        """Give back a part of a payment. iyzico has no idempotency keys: one that is reported is not made again."""
        reported = _report(paymentId=payment_reference)
        for payment in reported:
            for made in _refunds(payment):
                if key in (made.get("refundConversationId"), made.get("cancelConversationId")):
                    return key
        currency = str(reported[0].get("currency") or "USD") if reported else "USD"
        asked = {
            "locale": "en",
            "conversationId": key,
            "paymentId": payment_reference,
            "price": price_of(amount, currency),
            "currency": currency,
            "ip": "127.0.0.1",
        }
        _require_success(_post("/v2/payment/refund", asked, signed=REFUNDED))
        return key

    def expire(self, checkout_id: str) -> Checkout | None:
        """Return the form as it is: iyzico ends it by itself, after half an hour."""
        return self.checkout(checkout_id)

    def paid_checkouts(self, since: datetime) -> Iterator[Checkout]:
        begun = Order.objects.filter(provider=self.name, state=Order.State.OPEN, checkout_at__gte=since)
        for code in begun.values_list("code", flat=True):
            for payment in self._payments(now(), paymentConversationId=code):
                yield Checkout(checkout_id=f"{BY_PAYMENT}{payment.reference}", order_code=code)

    def events(self, since: datetime) -> Iterator[ReceivedEvent]:
        """Iterate over payments of which more or less is given back than we know, by whom and whenever.

        iyzico tells nobody what is given back on its own pages: the payments of orders are read one after the other.
        """
        paid = Order.objects.filter(provider=self.name, state=Order.State.PAID, settled_at__gte=now() - REFUNDABLE)
        for order in paid.order_by(F("reported_at").asc(nulls_first=True))[:READ_AT_ONCE]:
            payment = self.payment(order.payment_reference)
            if payment is None or payment.refunded == minor_units(order.refunded_nanos, order.currency):
                Order.objects.filter(pk=order.pk).update(reported_at=payment.read_at if payment else now())
                continue
            yield ReceivedEvent(
                event_id=f"{GIVEN_BACK}:{payment.reference}:{payment.refunded}",
                type=GIVEN_BACK,
                object_id=payment.reference,
                is_live=self.is_live,
            )

    def _payments(self, at: datetime, **query: str) -> Iterator[Payment]:
        for found in _report(**query):
            if found.get("paymentStatus") == _PAID and found.get("fraudStatus", _FRAUD_CLEARED) == _FRAUD_CLEARED:
                yield _payment(found, at, is_live=self.is_live)


PROVIDER = Iyzico()


def _payment(found: Mapping[str, Any], at: datetime, *, is_live: bool) -> Payment:
    currency = str(found.get("currency") or "")
    given_back = sum(
        units_of(each.get("refundPrice"), currency) for each in _refunds(found) if _is_done(each.get("refundStatus"))
    )
    return Payment(
        reference=str(found["paymentId"]),
        order_code=str(found.get("basketId") or ""),
        amount=units_of(found.get("paidPrice"), currency),
        currency=currency,
        is_live=is_live,
        is_paid=True,
        read_at=at,
        refunded=given_back,
    )


def _refunds(payment: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return refunds and cancellations of a reported payment that have not failed."""
    items = payment.get("itemTransactions") or ()
    found = [*(payment.get("cancels") or ()), *(each for item in items for each in item.get("refunds") or ())]
    return [each for each in found if each.get("refundStatus") != _REFUND_FAILED]


def _is_done(status: Any) -> bool:
    return bool(status == _REFUND_DONE)


def _report(**query: str) -> Sequence[Mapping[str, Any]]:
    """Payments by their name or by the order's code; none where iyzico knows of none."""
    found = _ask("GET", f"/v2/reporting/payment/details?{urlencode(query)}")
    return found.get("payments") or ()


def _buyer(order: Order) -> dict[str, str]:
    """Return the buyer as iyzico asks for them. Raises OrderRefused without billing details."""
    details = details_of(order.organization)
    if details is None:
        raise OrderRefused(_("Enter your billing details first: the payment provider needs them."))
    first, _space, last = details.legal_name.strip().partition(" ")
    email = details.email or (order.created_by.email if order.created_by else "")
    placed = AuditEntry.objects.filter(action="order.opened", object_kind="order", object_id=str(order.pk)).first()
    return {
        "id": str(order.organization_id),
        "name": first,
        "surname": last or first,
        "email": email,
        "identityNumber": details.tax_id if details.tax_id_kind == "tckn" else _NO_IDENTITY,
        "registrationAddress": details.address,
        "city": details.city,
        "country": details.country,
        "ip": (placed.address if placed else None) or "127.0.0.1",
    }


def _form(order: Order, buyer: Mapping[str, str]) -> dict[str, Any]:
    price = price_of(minor_units(order.amount_nanos, order.currency), order.currency)
    language = (order.created_by and order.created_by.language) or "en"
    with override(language):
        item = f"{_('Plan')} {order.plan.name}" if order.plan else _("Credit")
    address = {
        "contactName": f"{buyer['name']} {buyer['surname']}",
        "city": buyer["city"],
        "country": buyer["country"],
        "address": buyer["registrationAddress"],
    }
    return {
        "locale": "tr" if language == "tr" else "en",
        # Whatever becomes of the form, payments are found by it.
        "conversationId": order.code,
        "basketId": order.code,
        "price": price,
        "paidPrice": price,
        "currency": order.currency,
        "paymentGroup": "PRODUCT",
        "callbackUrl": f"{site_url(settings.ENV)}{RETURN_PATH}",
        "enabledInstallments": [1],
        "buyer": dict(buyer),
        "billingAddress": address,
        "basketItems": [
            {"id": order.code, "name": str(item), "category1": "Software", "itemType": "VIRTUAL", "price": price}
        ],
    }


def _base_url() -> str:
    return str(settings.ENV.iyzico_base_url) or BASE_URL


@cache
def _client() -> httpx.Client:
    """One client a process."""
    return httpx.Client(timeout=TIMEOUT)


def _post(path: str, asked: Mapping[str, Any], *, signed: Sequence[str]) -> Mapping[str, Any]:
    """Ask iyzico. A response that says success is believed only with its signature."""
    found = _ask("POST", path, json.dumps(asked, ensure_ascii=False))
    if found.get("status") == "success" and not is_genuine(found, signed, settings.ENV.iyzico_secret_key):
        logger.error("payments.provider_error", extra={"code": "signature", "path": path})
        raise ProviderRefused("signature")
    return found


def _ask(method: str, path: str, body: str = "") -> Mapping[str, Any]:
    random_key = random_id().hex
    header = authorization(
        settings.ENV.iyzico_api_key,
        settings.ENV.iyzico_secret_key,
        random_key=random_key,
        path=path.partition("?")[0],
        body=body,
    )
    headers = {"Authorization": header, "x-iyzi-rnd": random_key, "Content-Type": "application/json"}
    try:
        response = _client().request(method, f"{_base_url()}{path}", content=body.encode() or None, headers=headers)
        found = json.loads(response.content, parse_float=Decimal)
    except (httpx.HTTPError, ValueError) as exc:
        raise ProviderUnavailable(type(exc).__name__) from exc
    if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR or not isinstance(found, dict):
        raise ProviderUnavailable(str(response.status_code))
    code = str(found.get("errorCode") or "")
    if found.get("status") != "success" and (code in _ACCOUNT_ERRORS or response.status_code in (401, 403, 429)):
        logger.warning("payments.provider_error", extra={"code": code or response.status_code})
        raise ProviderUnavailable(code or str(response.status_code))
    return found


def _require_success(found: Mapping[str, Any]) -> None:
    if found.get("status") != "success":
        raise ProviderRefused(str(found.get("errorCode") or "failure")[:40])
