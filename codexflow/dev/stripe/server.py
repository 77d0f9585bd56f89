"""WSGI application of the local Stripe: its API, the hosted checkout page, and controls below `/_local/`.

POST /_local/clock {"advance_s": 3600}
POST /_local/pay {"session": id, "outcome": "paid" | "declined" | "pending", "card": "4242"}
POST /_local/cards/<payment method> {"outcome": "paid" | "card_declined" | "authentication_required"}
POST /_local/responses {"lost": true}: requests are carried out, and nobody hears of it
POST /_local/finish {"session": id, "paid": true}
POST /_local/disputes {"payment_intent": id, "amount": 500, "inquiry": false}; /_local/disputes/<id> {"won": true}
POST /_local/refunds/<id>/fail
GET  /_local/deliveries; POST {"held": true}; DELETE loses what waits
POST /_local/deliver {"times": 2, "order": "reversed"}; /_local/forge {"event": id, "how": "wrong_secret"}
"""

import hmac
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from codexflow.dev.stripe import form, pages
from codexflow.dev.stripe.deliveries import Deliveries
from codexflow.dev.stripe.errors import ApiError
from codexflow.dev.stripe.shapes import Object
from codexflow.dev.stripe.state import LocalStripe

_LISTS = {
    "/v1/customers": "customer",
    "/v1/checkout/sessions": "checkout.session",
    "/v1/payment_methods": "payment_method",
    "/v1/setup_intents": "setup_intent",
    "/v1/payment_intents": "payment_intent",
    "/v1/charges": "charge",
    "/v1/refunds": "refund",
    "/v1/disputes": "dispute",
    "/v1/events": "event",
}
_ONE = re.compile(r"(/v1/[a-z_/]+?)/([a-z]+_[A-Za-z0-9_]+)(/[a-z_]+)?")
_HOSTED = re.compile(r"/c/pay/(cs_[A-Za-z0-9_]+)")


@dataclass(frozen=True, slots=True)
class Reply:
    """A response, as the server writes it."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)


@dataclass(slots=True)
class Server:
    """The WSGI application. Events of `stripe` go to `deliveries` after the request that caused them."""

    stripe: LocalStripe
    deliveries: Deliveries
    secret_key: str = field(repr=False)
    # Every request gets 500, without any effect.
    is_failing: bool = False
    # Every request is carried out, and gets 500: the response is lost on its way.
    loses_responses: bool = False
    _happened: list[Object] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stripe.on_event = self._happened.append

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            reply = self._reply(environ)
        except ApiError as error:
            reply = _json(error.body, error.status)
        start_response(
            f"{reply.status} {HTTPStatus(reply.status).phrase}",
            # The SDK obeys it: retries are made by whoever asked.
            [*reply.headers, ("Stripe-Should-Retry", "false"), ("Content-Length", str(len(reply.body)))],
        )
        return [reply.body]

    def settle(self) -> None:
        """Hand over what has happened. Not under the lock: who is told may ask this Stripe."""
        with self.stripe.lock:
            happened = list(self._happened)
            self._happened.clear()
        for event in happened:
            self.deliveries.add(event)

    def _reply(self, environ: dict[str, Any]) -> Reply:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
        if self.is_failing:
            raise ApiError("Something went wrong.", status=500, kind="api_error")
        try:
            if path.startswith("/_local/"):
                return _json(self._control(method, path.removeprefix("/_local/"), json.loads(body or "{}")))
            if page := _HOSTED.fullmatch(path):
                return self._hosted(method, page[1], dict(parse_qsl(body)))
            self._authenticate(environ.get("HTTP_AUTHORIZATION", ""))
            given = form.parse(body if method == "POST" else environ.get("QUERY_STRING", ""))
            key = environ.get("HTTP_IDEMPOTENCY_KEY") if method == "POST" else None
            status, found = self.stripe.once(key, f"{method} {path} {body}", lambda: self._api(method, path, given))
            if self.loses_responses:
                raise ApiError("Something went wrong.", status=500, kind="api_error")
            return _json(found, status)
        finally:
            self.settle()

    def _authenticate(self, header: str) -> None:
        if not hmac.compare_digest(header.encode(), f"Bearer {self.secret_key}".encode()):
            raise ApiError("Invalid API Key provided: ***", status=401)

    def _api(self, method: str, path: str, given: dict[str, Any]) -> Object:
        expand = given.get("expand") or []
        if kind := _LISTS.get(path):
            if method == "GET":
                page = self.stripe.page(kind, path, given)
                names = [name.removeprefix("data.") for name in expand]
                return {**page, "data": [self.stripe.expanded(row, names) for row in page["data"]]}
            made = {
                "customer": self.stripe.create_customer,
                "checkout.session": self.stripe.create_session,
                "payment_intent": self.stripe.create_intent,
                "refund": self.stripe.create_refund,
            }.get(kind)
            if made is not None:
                return self.stripe.expanded(made(given), expand)
        elif (one := _ONE.fullmatch(path)) and (kind := _LISTS.get(one[1])):
            if method == "GET" and not one[3]:
                return self.stripe.expanded(self.stripe.get(kind, one[2]), expand)
            if method == "GET" and kind == "checkout.session" and one[3] == "/line_items":
                shown: Object = self.stripe.expanded(self.stripe.get(kind, one[2]), ["line_items"])["line_items"]
                return shown
            if method == "POST" and kind == "checkout.session" and one[3] == "/expire":
                return self.stripe.expanded(self.stripe.expire_session(one[2]), expand)
            if method == "POST" and kind == "payment_method" and one[3] == "/detach":
                return self.stripe.detach(one[2])
        raise ApiError(f"Unrecognized request URL ({method}: {path}).", status=404)

    def _hosted(self, method: str, session_id: str, typed: dict[str, str]) -> Reply:
        """Show the checkout page, or do what the customer has chosen there."""
        session = self.stripe.get("checkout.session", session_id)
        if method == "GET" or session["status"] != "open":
            return _html(pages.checkout(self.stripe.expanded(session, ["line_items"])))
        choice = typed.get("choice", "")
        if choice == "confirm":
            return _html(pages.confirmation(session))
        if choice == "decline":
            self.stripe.pay(session_id, "declined")
            return _html(pages.checkout(self.stripe.expanded(session, ["line_items"]), is_declined=True))
        target = session["cancel_url"]
        if choice == "pay":
            target = session["success_url"].replace("{CHECKOUT_SESSION_ID}", session_id)
            self.stripe.pay(session_id, details=typed, card=typed.get("card", "4242"))
        return Reply(303, b"", (("Location", target),))

    def _control(self, method: str, path: str, given: dict[str, Any]) -> Object:
        stripe, deliveries = self.stripe, self.deliveries
        match path.split("/"):
            case ["clock"]:
                stripe.advance(int(given["advance_s"]))
            case ["pay"]:
                return stripe.pay(given["session"], given.get("outcome", "paid"), card=given.get("card", "4242"))
            case ["responses"]:
                self.loses_responses = bool(given["lost"])
            case ["cards", method_id]:
                stripe.outcomes[method_id] = given["outcome"]
            case ["finish"]:
                return stripe.finish(given["session"], is_paid=bool(given["paid"]))
            case ["disputes"]:
                is_inquiry = bool(given.get("inquiry"))
                return stripe.open_dispute(given["payment_intent"], given.get("amount"), is_inquiry=is_inquiry)
            case ["disputes", dispute_id]:
                return stripe.close_dispute(dispute_id, is_won=bool(given["won"]))
            case ["refunds", refund_id, "fail"]:
                return stripe.fail_refund(refund_id)
            case ["deliveries"] if method == "DELETE":
                return {"lost": deliveries.lose()}
            case ["deliveries"]:
                deliveries.is_held = bool(given.get("held", deliveries.is_held))
                return {"held": deliveries.is_held, "waiting": deliveries.waiting}
            case ["deliver"]:
                order = given.get("order", "as_happened")
                return {"statuses": deliveries.deliver(times=int(given.get("times", 1)), order=order)}
            case ["forge"]:
                return {"status": deliveries.forge(stripe.get("event", given["event"]), given["how"])}
            case _:
                raise ApiError(f"No such control: {path}", status=404)
        return {"now": stripe.now()}


def _json(body: Object, status: int = 200) -> Reply:
    return Reply(status, json.dumps(body).encode())


def _html(text: str) -> Reply:
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
    return Reply(
        200, text.encode(), (("Content-Type", "text/html; charset=utf-8"), ("Content-Security-Policy", policy))
    )
