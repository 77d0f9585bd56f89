"""State of the local Stripe: its objects, and what may happen to them. One lock guards all of it.

What happens emits events, as Stripe's API does. `tests` and the hosted page call the verbs of `LocalStripe` that have
no endpoint at Stripe: a customer pays, a bank disputes.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, Literal

from codexflow.dev.stripe import shapes
from codexflow.dev.stripe.errors import ApiError, missing
from codexflow.dev.stripe.form import allow, require, whole
from codexflow.dev.stripe.shapes import Object
from codexflow.lib import clock
from codexflow.lib.ids import random_id

SHORTEST_S, LONGEST_S = 30 * 60, 24 * 3600
# Funds are withdrawn while a dispute is in one of these.
WITHDRAWN = ("needs_response", "under_review", "lost")
Outcome = Literal["paid", "declined", "pending"]

# Cards that customers may type, by their last digits: the brand, and what becomes of charges without the customer.
CARDS = {
    "4242": ("visa", "paid"),
    "4444": ("mastercard", "paid"),
    "0341": ("visa", "card_declined"),
    "3184": ("visa", "authentication_required"),
}

_SESSION = (
    *("mode", "line_items", "success_url", "cancel_url", "client_reference_id", "customer", "customer_email"),
    *("expires_at", "locale", "metadata", "payment_intent_data", "tax_id_collection", "adaptive_pricing"),
    *("setup_intent_data", "currency", "allowed_payment_method_types", "custom_text"),
)
_INTENT = (
    *("amount", "currency", "customer", "payment_method", "allowed_payment_method_types", "confirm", "off_session"),
    *("description", "metadata"),
)
_CUSTOMER = ("address", "description", "email", "metadata", "name", "phone")
_REFUND = ("amount", "charge", "payment_intent", "reason", "metadata")
_PAGE = ("limit", "starting_after", "ending_before", "created")
# What a list may be narrowed by, beside `_PAGE`.
FILTERS: dict[str, tuple[str, ...]] = {
    "customer": ("email",),
    "checkout.session": ("payment_intent", "status", "customer"),
    "payment_method": ("customer", "type"),
    "setup_intent": ("customer", "payment_method"),
    "payment_intent": ("customer",),
    "charge": ("payment_intent", "customer"),
    "refund": ("payment_intent", "charge"),
    "dispute": ("payment_intent", "charge"),
    "event": ("type", "types"),
}
_PREFIXES = {
    "customer": "cus",
    "checkout.session": "cs_test",
    "payment_method": "pm",
    "setup_intent": "seti",
    "payment_intent": "pi",
    "charge": "ch",
    "refund": "re",
    "dispute": "dp",
    "event": "evt",
    "item": "li",
    "price": "price",
    "product": "prod",
    "balance_transaction": "txn",
}


@dataclass(slots=True)
class _Answered:
    """A request with an idempotency key, and how it was answered."""

    request: str
    status: int
    body: Object


@dataclass(slots=True)
class LocalStripe:
    """The objects of one account. `base_url` is where its hosted pages are; `on_event` gets each event once."""

    base_url: str = "http://127.0.0.1"
    on_event: Callable[[Object], None] = lambda event: None
    lock: RLock = field(default_factory=RLock)
    # What becomes of later charges of a payment method, beside what its digits say.
    outcomes: dict[str, str] = field(default_factory=dict)
    _objects: dict[str, Object] = field(default_factory=dict)
    _lines: dict[str, list[Object]] = field(default_factory=dict)
    _intent_data: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _answered: dict[str, _Answered] = field(default_factory=dict)
    _ahead_s: int = 0
    _key: str | None = None

    def now(self) -> int:
        """Time of this Stripe: the machine's, and what `advance` has added."""
        return int(clock.now_s()) + self._ahead_s

    def advance(self, seconds: int) -> None:
        """Let time pass, which ends sessions."""
        with self.lock:
            self._ahead_s += seconds
            for session in self._of_kind("checkout.session"):
                if session["status"] == "open" and session["expires_at"] <= self.now():
                    self._expire(session)

    def once(self, key: str | None, request: str, act: Callable[[], Object]) -> tuple[int, Object]:
        """Carry out a request, once for each idempotency key: the same again gets the same answer.

        Raises ApiError for a key that came with another request. Errors of parameters are not kept, as at Stripe;
        that a card was declined is.
        """
        with self.lock:
            if key and (known := self._answered.get(key)):
                if known.request != request:
                    raise ApiError(
                        "Keys for idempotent requests can only be used with the same parameters they were first used"
                        " with.",
                        kind="idempotency_error",
                    )
                return known.status, known.body
            self._key = key
            status = 200
            try:
                body = json.loads(json.dumps(act()))
            except ApiError as error:
                if error.status != 402:
                    raise
                status, body = error.status, error.body
            finally:
                self._key = None
            if key:
                self._answered[key] = _Answered(request, status, body)
            return status, body

    def get(self, kind: str, object_id: str) -> Object:
        """Return an object. Raises ApiError when there is none."""
        with self.lock:
            found = self._objects.get(object_id)
            if found is None or found["object"] != kind:
                raise missing(kind, object_id)
            return found

    def page(self, kind: str, path: str, given: Mapping[str, Any]) -> Object:
        """Return one page of a list, the newest first."""
        allow(given, (*_PAGE, *FILTERS[kind]))
        limit = whole(given, "limit", 10)
        if not 1 <= limit <= 100:
            raise ApiError("Invalid limit: it may be from 1 to 100", param="limit")
        with self.lock:
            rows = [row for row in reversed(list(self._of_kind(kind))) if _matches(row, given)]
            for name, is_after in (("starting_after", True), ("ending_before", False)):
                if cursor := given.get(name):
                    at = rows.index(self.get(kind, cursor))
                    rows = rows[at + 1 :] if is_after else rows[:at]
            return shapes.page_of(path, rows[:limit], has_more=len(rows) > limit)

    def expanded(self, found: Object, names: Sequence[str]) -> Object:
        """Return an object with other objects in place of their ids, as `expand` asks: `a`, or `a.b` within it."""
        shown = dict(found)
        for name in names:
            first, _, rest = name.partition(".")
            if first == "line_items":
                path = f"/v1/checkout/sessions/{found['id']}/line_items"
                shown[first] = shapes.page_of(path, self._lines[found["id"]], has_more=False)
            elif first not in shown:
                raise ApiError(f"This property cannot be expanded ({name}).", param="expand")
            elif shown[first] is not None:
                child = self._objects[shown[first]] if isinstance(shown[first], str) else shown[first]
                shown[first] = self.expanded(child, [rest] if rest else [])
        return shown

    # What the API does.

    def create_customer(self, given: Mapping[str, Any]) -> Object:
        allow(given, _CUSTOMER)
        return self._keep(shapes.customer(self._new_id("customer"), created=self.now(), given=given))

    def create_session(self, given: Mapping[str, Any]) -> Object:
        """Open a Checkout Session: a payment with prices of its own (`price_data`), or one that saves a card."""
        allow(given, _SESSION)
        if require(given, "mode") not in ("payment", "setup"):
            raise ApiError("The local Stripe knows the modes `payment` and `setup` only.", param="mode")
        require(given, "success_url")
        is_setup = given["mode"] == "setup"
        if is_setup and not (given.get("currency") or given.get("allowed_payment_method_types")):
            raise ApiError("`currency` is required in `setup` mode.", param="currency")
        if is_setup and ("line_items" in given or "payment_intent_data" in given):
            raise ApiError("You can not pass `line_items` or `payment_intent_data` in `setup` mode.")
        expires_at = whole(given, "expires_at", self.now() + LONGEST_S)
        if not SHORTEST_S <= expires_at - self.now() <= LONGEST_S:
            raise ApiError("`expires_at` must be between 30 minutes and 24 hours from now.", param="expires_at")
        lines = []
        for line in () if is_setup else require(given, "line_items"):
            allow(line, ("price_data", "quantity"))
            price = require(line, "price_data")
            allow(price, ("currency", "unit_amount", "product_data"))
            if whole(price, "unit_amount") <= 0:
                raise ApiError("Invalid non-negative integer", param="line_items[0][price_data][unit_amount]")
            require(require(price, "product_data"), "name")
            require(price, "currency")
            ids = {"price_id": self._new_id("price"), "product_id": self._new_id("product")}
            lines.append(shapes.line_item(self._new_id("item"), created=self.now(), given=line, **ids))
        if customer := given.get("customer"):
            self.get("customer", customer)
        session_id = self._new_id("checkout.session")
        session = shapes.session(
            session_id,
            created=self.now(),
            expires_at=expires_at,
            url=f"{self.base_url}/c/pay/{session_id}",
            amount=None if is_setup else sum(line["amount_total"] for line in lines),
            given=given,
        )
        if is_setup:
            intent_id, data = self._new_id("setup_intent"), given.get("setup_intent_data", {})
            self._keep(shapes.setup_intent(intent_id, created=self.now(), customer=customer, given=data))
            session["setup_intent"] = intent_id
        self._lines[session_id], self._intent_data[session_id] = lines, given.get("payment_intent_data", {})
        return self._keep(session)

    def expire_session(self, session_id: str) -> Object:
        session = self.get("checkout.session", session_id)
        if session["status"] != "open":
            raise ApiError(
                f'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout Session has a status'
                f" of {session['status']}.",
            )
        self._expire(session)
        return session

    def create_refund(self, given: Mapping[str, Any]) -> Object:
        """Give back all of a payment, or a part. Raises ApiError for more than is left of it."""
        allow(given, _REFUND)
        charge = self._charge_of(given)
        left = charge["amount_captured"] - charge["amount_refunded"]
        amount = whole(given, "amount", left)
        if self._is_withdrawn(charge):
            raise ApiError("Charge has been charged back.", code="charge_disputed")
        if left == 0:
            raise ApiError(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
        if not 0 < amount <= left:
            raise ApiError(
                f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})",
                code="amount_too_large" if amount > 0 else "parameter_invalid_integer",
                param="amount",
            )
        refund = shapes.refund(self._new_id("refund"), created=self.now(), of=charge, amount=amount, given=given)
        self._keep(refund)
        self._refunded(charge, amount)
        self._emit("refund.created", refund)
        self._emit("charge.refunded", charge)
        return refund

    def create_intent(self, given: Mapping[str, Any]) -> Object:
        """Charge a saved card while its customer is away. Raises ApiError when the bank refuses."""
        allow(given, _INTENT)
        if given.get("confirm") != "true" or given.get("off_session") != "true":
            raise ApiError("The local Stripe makes PaymentIntents that are confirmed off session only.")
        amount, method = whole(given, "amount"), self.get("payment_method", require(given, "payment_method"))
        customer = self.get("customer", require(given, "customer"))
        if method["customer"] != customer["id"]:
            raise ApiError("The payment method does not belong to the customer.", param="payment_method")
        intent = shapes.payment_intent(
            self._new_id("payment_intent"),
            created=self.now(),
            amount=amount,
            currency=require(given, "currency"),
            given=given,
        )
        self._emit("payment_intent.created", self._keep(intent))
        reason = self.outcomes.get(method["id"]) or CARDS[method["card"]["last4"]][1]
        if reason != "paid":
            raise self._declined(intent, method, reason)
        intent["payment_method"] = method["id"]
        self._capture(intent)
        return intent

    def detach(self, method_id: str) -> Object:
        method = self.get("payment_method", method_id)
        if method["customer"] is None:
            raise ApiError("The payment method you provided is not attached to a customer so detachment is impossible.")
        method["customer"] = None
        self._emit("payment_method.detached", method)
        return method

    # What happens at the hosted page and at banks.

    def renew_card(self, method_id: str, last4: str) -> Object:
        """Let the bank replace a card: Stripe learns its new number by itself."""
        with self.lock:
            method = self.get("payment_method", method_id)
            method["card"] |= {"last4": last4, "exp_year": method["card"]["exp_year"] + 3}
            self._emit("payment_method.automatically_updated", method)
            return method

    def pay(
        self,
        session_id: str,
        outcome: Outcome = "paid",
        *,
        details: Mapping[str, Any] | None = None,
        card: str = "4242",
    ) -> Object:
        """Let the customer pay an open session by a card: it is paid, declined, or still pending (a bank debit).

        In a session that saves a card, it is saved, or declined.
        """
        with self.lock:
            session = self.get("checkout.session", session_id)
            if session["status"] != "open":
                raise ApiError("This Checkout Session is not open any more.")
            if session["mode"] == "setup":
                return session if outcome == "declined" else self._save_card(session, card)
            intent = self._intent_of(session)
            intent["payment_method"] = self._new_card(card)["id"]
            if outcome == "declined":
                charge = self._keep(
                    shapes.charge(self._new_id("charge"), created=self.now(), intent=intent, is_paid=False)
                )
                intent["latest_charge"] = charge["id"]
                self._emit("charge.failed", charge)
                self._emit("payment_intent.payment_failed", intent)
                return session
            session |= {"status": "complete", "url": None, "customer_details": _details(details or {})}
            if outcome == "pending":
                intent["status"] = "processing"
            else:
                if intent["setup_future_usage"] and intent["customer"]:
                    self._attach(intent["payment_method"], intent["customer"])
                self._capture(intent, session)
            self._emit("checkout.session.completed", session)
            return session

    def finish(self, session_id: str, *, is_paid: bool) -> Object:
        """Let a pending payment succeed or fail, days later."""
        with self.lock:
            session = self.get("checkout.session", session_id)
            intent = self.get("payment_intent", session["payment_intent"])
            if is_paid:
                self._capture(intent, session)
                self._emit("checkout.session.async_payment_succeeded", session)
            else:
                intent["status"] = "requires_payment_method"
                self._emit("payment_intent.payment_failed", intent)
                self._emit("checkout.session.async_payment_failed", session)
            return session

    def fail_refund(self, refund_id: str) -> Object:
        """Let a refund fail after it had succeeded: the money is back at the merchant."""
        with self.lock:
            refund = self.get("refund", refund_id)
            if refund["status"] != "failed":
                refund |= {"status": "failed", "failure_reason": "lost_or_stolen_card"}
                charge = self.get("charge", refund["charge"])
                self._refunded(charge, -refund["amount"])
                self._emit("refund.failed", refund)
                self._emit("charge.refund.updated", refund)
            return refund

    def open_dispute(
        self, payment: str, amount: int | None = None, *, reason: str = "fraudulent", is_inquiry: bool = False
    ) -> Object:
        """Let the customer's bank dispute a payment, which withdraws the funds at once unless it only inquires."""
        with self.lock:
            charge = self._charge_of({"payment_intent": payment})
            dispute = shapes.dispute(
                self._new_id("dispute"),
                created=self.now(),
                of=charge,
                amount=charge["amount"] if amount is None else amount,
                reason=reason,
                is_inquiry=is_inquiry,
            )
            charge["disputed"] = True
            self._keep(dispute)
            self._emit("charge.dispute.created", dispute)
            if not is_inquiry:
                self._move(dispute, -dispute["amount"])
                self._emit("charge.dispute.funds_withdrawn", dispute)
            return dispute

    def close_dispute(self, dispute_id: str, *, is_won: bool) -> Object:
        """Decide a dispute. An inquiry that is won is closed, and one that is lost has become a chargeback."""
        with self.lock:
            dispute = self.get("dispute", dispute_id)
            was_withdrawn = dispute["status"] in WITHDRAWN
            if was_withdrawn:
                dispute["status"] = "won" if is_won else "lost"
            else:
                dispute["status"] = "warning_closed" if is_won else "lost"
            if was_withdrawn and is_won:
                self._move(dispute, dispute["amount"])
                self._emit("charge.dispute.funds_reinstated", dispute)
            if not was_withdrawn and not is_won:
                self._move(dispute, -dispute["amount"])
                self._emit("charge.dispute.funds_withdrawn", dispute)
            self._emit("charge.dispute.closed", dispute)
            return dispute

    # What they share.

    def _new_id(self, kind: str) -> str:
        return f"{_PREFIXES[kind]}_{random_id().hex[:24]}"

    def _keep(self, made: Object) -> Object:
        self._objects[made["id"]] = made
        return made

    def _of_kind(self, kind: str) -> Iterator[Object]:
        return (each for each in list(self._objects.values()) if each["object"] == kind)

    def _emit(self, kind: str, about: Object) -> None:
        copied = json.loads(json.dumps(about))
        event = shapes.event(self._new_id("event"), kind, copied, created=self.now(), key=self._key)
        self.on_event(self._keep(event))

    def _expire(self, session: Object) -> None:
        session |= {"status": "expired", "url": None}
        self._emit("checkout.session.expired", session)

    def _intent_of(self, session: Object) -> Object:
        if session["payment_intent"]:
            return self.get("payment_intent", session["payment_intent"])
        intent = shapes.payment_intent(
            self._new_id("payment_intent"),
            created=self.now(),
            amount=session["amount_total"],
            currency=session["currency"],
            given={**self._intent_data[session["id"]], "customer": session["customer"]},
        )
        session["payment_intent"] = intent["id"]
        self._keep(intent)
        self._emit("payment_intent.created", intent)
        return intent

    def _new_card(self, last4: str) -> Object:
        brand, _outcome = CARDS[last4]
        card = {"brand": brand, "last4": last4, "exp_month": 12, "exp_year": clock.now().year + 3}
        return self._keep(shapes.payment_method(self._new_id("payment_method"), created=self.now(), card=card))

    def _attach(self, method_id: str, customer_id: str) -> None:
        method = self.get("payment_method", method_id)
        method["customer"] = customer_id
        self._emit("payment_method.attached", method)

    def _save_card(self, session: Object, last4: str) -> Object:
        intent, method = self.get("setup_intent", session["setup_intent"]), self._new_card(last4)
        if session["customer"]:
            self._attach(method["id"], session["customer"])
        intent |= {"status": "succeeded", "payment_method": method["id"]}
        session |= {"status": "complete", "url": None, "customer_details": _details({})}
        self._emit("setup_intent.succeeded", intent)
        self._emit("checkout.session.completed", session)
        return session

    def _declined(self, intent: Object, method: Object, reason: str) -> ApiError:
        """Let a charge without the customer fail. Returns the error, which has the PaymentIntent."""
        intent["payment_method"] = method["id"]
        charge = self._keep(shapes.charge(self._new_id("charge"), created=self.now(), intent=intent, is_paid=False))
        is_asked = reason == "authentication_required"
        told = {"code": reason, "decline_code": "authentication_required" if is_asked else "generic_decline"}
        message = "The bank asks the customer to authenticate." if is_asked else "Your card was declined."
        intent |= {"payment_method": None, "latest_charge": charge["id"]}
        intent["last_payment_error"] = {"type": "card_error", "message": message, **told}
        self._emit("charge.failed", charge)
        self._emit("payment_intent.payment_failed", intent)
        return ApiError(message, status=402, kind="card_error", **told, payment_intent=dict(intent))

    def _capture(self, intent: Object, session: Object | None = None) -> None:
        charge = self._keep(shapes.charge(self._new_id("charge"), created=self.now(), intent=intent, is_paid=True))
        intent |= {"status": "succeeded", "amount_received": intent["amount"], "latest_charge": charge["id"]}
        if session is not None:
            session["payment_status"] = "paid"
        self._emit("charge.succeeded", charge)
        self._emit("payment_intent.succeeded", intent)

    def _charge_of(self, given: Mapping[str, Any]) -> Object:
        if given.get("charge"):
            return self.get("charge", given["charge"])
        intent = self.get("payment_intent", require(given, "payment_intent"))
        if intent["status"] != "succeeded":
            raise ApiError(f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.")
        return self.get("charge", intent["latest_charge"])

    def _is_withdrawn(self, charge: Object) -> bool:
        disputes = (each for each in self._of_kind("dispute") if each["charge"] == charge["id"])
        return any(each["status"] in WITHDRAWN and each["amount"] == charge["amount"] for each in disputes)

    def _refunded(self, charge: Object, amount: int) -> None:
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount_captured"]

    def _move(self, dispute: Object, amount: int) -> None:
        movement = shapes.movement(self._new_id("balance_transaction"), created=self.now(), of=dispute, amount=amount)
        dispute["balance_transactions"].append(movement)


def _details(given: Mapping[str, Any]) -> Object:
    """Customer's entries on the hosted page."""
    name, tax_id = given.get("name") or None, given.get("tax_id")
    return {
        "address": None,
        "business_name": None,
        "email": given.get("email") or "customer@example.com",
        "individual_name": None,
        "name": name,
        "phone": None,
        "tax_exempt": "none",
        "tax_ids": [{"type": "eu_vat", "value": tax_id}] if tax_id else [],
    }


def _matches(row: Object, given: Mapping[str, Any]) -> bool:
    for name, wanted in given.items():
        if name == "created":
            bounds = wanted if isinstance(wanted, dict) else {"gte": wanted, "lte": wanted}
            if not all(_COMPARES[bound](row["created"], int(value)) for bound, value in bounds.items()):
                return False
        elif name == "types":
            if row["type"] not in wanted:
                return False
        elif name not in ("limit", "starting_after", "ending_before", "expand") and row.get(name) != wanted:
            return False
    return True


_COMPARES: dict[str, Callable[[int, int], bool]] = {
    "gt": int.__gt__,
    "gte": int.__ge__,
    "lt": int.__lt__,
    "lte": int.__le__,
}
