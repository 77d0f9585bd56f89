"""State of the local iyzico: checkout forms, payments and refunds. One lock guards all of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from threading import RLock
from typing import Any, Literal

from codexflow.lib import clock
from codexflow.lib.ids import random_id

Object = dict[str, Any]
Outcome = Literal["paid", "declined", "review"]
FORM_LASTS_S = 30 * 60
_NEEDED = ("price", "paidPrice", "currency", "basketId", "callbackUrl", "buyer", "billingAddress", "basketItems")
_BUYER = ("id", "name", "surname", "email", "identityNumber", "registrationAddress", "city", "country", "ip")


class Refusal(Exception):
    """A request that iyzico answers with `failure`."""

    def __init__(self, code: str, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(message)


@dataclass(slots=True)
class LocalIyzico:
    """The forms and payments of one account. `base_url` is where its hosted forms are."""

    base_url: str = "http://127.0.0.1"
    lock: RLock = field(default_factory=RLock)
    forms: dict[str, Object] = field(default_factory=dict)
    payments: dict[str, Object] = field(default_factory=dict)
    _ahead_s: int = 0

    def now(self) -> int:
        """Time of this iyzico: the machine's, and what `advance` has added."""
        return int(clock.now_s()) + self._ahead_s

    def advance(self, seconds: int) -> None:
        with self.lock:
            self._ahead_s += seconds

    # What the API does.

    def initialize(self, given: Mapping[str, Any]) -> Object:
        """Open a checkout form."""
        for name in _NEEDED:
            if not given.get(name):
                raise Refusal("5001", f"{name} must be sent")
        for name in _BUYER:
            if not given["buyer"].get(name):
                raise Refusal("5002", f"buyer {name} must be sent")
        if sum(Decimal(str(item["price"])) for item in given["basketItems"]) != Decimal(str(given["price"])):
            raise Refusal("5062", "The sum of the basket's items is not the price")
        token = str(random_id())
        with self.lock:
            self.forms[token] = {"given": dict(given), "opened": self.now(), "payment": None, "has_failed": False}
        return {
            "token": token,
            "tokenExpireTime": FORM_LASTS_S,
            "checkoutFormContent": "<script></script>",
            "paymentPageUrl": f"{self.base_url}/form?token={token}",
        }

    def detail(self, given: Mapping[str, Any]) -> Object:
        """Tell what became of a form."""
        with self.lock:
            form = self.forms.get(str(given.get("token")))
            if form is None:
                raise Refusal("5115", "The token was not found")
            if form["payment"] is None and not form["has_failed"]:
                raise Refusal("5122", "The payment was not completed")
            about = form["given"]
            found = {"token": given["token"], "callbackUrl": about["callbackUrl"], "basketId": about["basketId"]}
            if form["payment"] is None:
                return {**found, "paymentStatus": "FAILURE"}
            payment = self.payments[form["payment"]]
            return {**found, **_shown(payment), "paymentStatus": "SUCCESS"}

    def refund(self, given: Mapping[str, Any]) -> Object:
        """Give back a part of a payment. The same again is another refund, as at iyzico."""
        with self.lock:
            payment = self.payments.get(str(given.get("paymentId")))
            if payment is None:
                raise Refusal("5093", "The payment was not found")
            amount = Decimal(str(given["price"]))
            given_back = sum(Decimal(str(each["refundPrice"])) for each in payment["refunds"])
            left = Decimal(str(payment["paidPrice"])) - given_back
            if not 0 < amount <= left:
                raise Refusal("5092", "The amount is more than is left of the payment")
            payment["refunds"].append(
                {
                    "refundTxId": len(payment["refunds"]) + 1,
                    "refundConversationId": given.get("conversationId"),
                    "refundPrice": float(amount),
                    "refundStatus": 1,
                    "currencyCode": payment["currency"],
                }
            )
            return {"paymentId": payment["paymentId"], "price": float(amount), "currency": payment["currency"]}

    def report(self, query: Mapping[str, str]) -> Object:
        """Report payments by their name or the conversation of their form."""
        with self.lock:
            found = [
                each
                for each in self.payments.values()
                if query.get("paymentId") == each["paymentId"]
                or query.get("paymentConversationId") == each["conversationId"]
            ]
            return {"payments": [_reported(each) for each in found]}

    # What happens at the hosted form.

    def pay(self, token: str, outcome: Outcome = "paid") -> Object:
        """Let the customer pay an open form: it is paid, declined, or kept for a review of fraud."""
        with self.lock:
            form = self.forms[token]
            if form["payment"] is not None or self.now() > form["opened"] + FORM_LASTS_S:
                raise Refusal("5116", "The form is not open any more")
            if outcome == "declined":
                form["has_failed"] = True
                return form
            about = form["given"]
            payment = {
                "paymentId": str(10_000_000 + len(self.payments)),
                "conversationId": about.get("conversationId"),
                "basketId": about["basketId"],
                "price": float(about["price"]),
                "paidPrice": float(about["paidPrice"]),
                "currency": about["currency"],
                "installment": 1,
                "fraudStatus": 0 if outcome == "review" else 1,
                "refunds": [],
            }
            self.payments[payment["paymentId"]] = payment
            form["payment"] = payment["paymentId"]
            return form

    def decide(self, payment_id: str, *, is_cleared: bool) -> None:
        """Decide the review of a payment."""
        with self.lock:
            self.payments[payment_id]["fraudStatus"] = 1 if is_cleared else -1


def _shown(payment: Mapping[str, Any]) -> Object:
    names = ("paymentId", "basketId", "price", "paidPrice", "currency", "installment", "fraudStatus")
    return {name: payment[name] for name in names}


def _reported(payment: Mapping[str, Any]) -> Object:
    return {
        **_shown(payment),
        "paymentStatus": 1,
        "paymentConversationId": payment["conversationId"],
        "cancels": [],
        "itemTransactions": [{"itemId": payment["basketId"], "refunds": list(payment["refunds"])}],
    }
