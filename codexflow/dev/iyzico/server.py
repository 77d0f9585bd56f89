"""WSGI application of the local iyzico: its API, the hosted form, and controls below `/_local/`.

POST /_local/pay {"token": token, "outcome": "paid" | "declined" | "review"}
POST /_local/clock {"advance_s": 1800}
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from codexflow.dev.iyzico.state import LocalIyzico, Object, Refusal

# What is signed of a response, in order.
_SIGNED: dict[str, Sequence[str]] = {
    "/payment/iyzipos/checkoutform/initialize/auth/ecom": ("conversationId", "token"),
    "/payment/iyzipos/checkoutform/auth/ecom/detail": (
        *("paymentStatus", "paymentId", "currency", "basketId", "conversationId", "paidPrice", "price", "token"),
    ),
    "/v2/payment/refund": ("paymentId", "price", "currency", "conversationId"),
}
_FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Demo checkout</title><link rel="icon" href="data:,"></head><body><main>
<p><strong>Demo checkout: no money moves</strong></p>{body}</main></body></html>
"""


@dataclass(slots=True)
class Server:
    """The WSGI application."""

    iyzico: LocalIyzico
    api_key: str
    secret_key: str = field(repr=False)
    # Every request gets 500, without any effect; or with its effect, the response being lost on its way.
    is_failing: bool = False
    loses_responses: bool = False
    # Responses are signed by somebody else.
    is_forged: bool = False

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
        kind = "application/json"
        if self.is_failing:
            status, content = 500, "{}"
        elif path == "/form":
            status, content, kind = 200, self._form(environ, dict(parse_qsl(body))), "text/html; charset=utf-8"
        elif path.startswith("/_local/"):
            status, content = 200, json.dumps(self._control(path.removeprefix("/_local/"), json.loads(body or "{}")))
        else:
            status, content = 200, json.dumps(self._api(method, path, environ, body))
            if self.loses_responses:
                status, content = 500, "{}"
        raw = content.encode()
        start_response(
            f"{status} {HTTPStatus(status).phrase}", [("Content-Type", kind), ("Content-Length", str(len(raw)))]
        )
        return [raw]

    def _api(self, method: str, path: str, environ: dict[str, Any], body: str) -> Object:
        if not self._is_authentic(path, environ, body):
            return {"status": "failure", "errorCode": "1000", "errorMessage": "Invalid signature"}
        given = json.loads(body) if body else {}
        conversation = {"conversationId": given["conversationId"]} if given.get("conversationId") else {}
        try:
            found = self._act(method, path, environ, given)
        except Refusal as refusal:
            told = {"errorCode": refusal.code, "errorMessage": refusal.message}
            return {"status": "failure", **told, **conversation}
        found = {"status": "success", **conversation, **found}
        if fields := _SIGNED.get(path):
            found["signature"] = self._sign(":".join(_text(found.get(name)) for name in fields))
        return found

    def _act(self, method: str, path: str, environ: dict[str, Any], given: Object) -> Object:
        match method, path:
            case "POST", "/payment/iyzipos/checkoutform/initialize/auth/ecom":
                return self.iyzico.initialize(given)
            case "POST", "/payment/iyzipos/checkoutform/auth/ecom/detail":
                return self.iyzico.detail(given)
            case "POST", "/v2/payment/refund":
                return self.iyzico.refund(given)
            case "GET", "/v2/reporting/payment/details":
                return self.iyzico.report(dict(parse_qsl(environ.get("QUERY_STRING", ""))))
        raise Refusal("11", "Invalid request")

    def _is_authentic(self, path: str, environ: dict[str, Any], body: str) -> bool:
        scheme, _space, encoded = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        key = environ.get("HTTP_X_IYZI_RND", "")
        expected = f"apiKey:{self.api_key}&randomKey:{key}&signature:{_hmac(self.secret_key, key + path + body)}"
        given = base64.b64decode(encoded or b"")
        return scheme == "IYZWSv2" and bool(key) and hmac.compare_digest(given, expected.encode())

    def _sign(self, text: str) -> str:
        return _hmac("somebody else's" if self.is_forged else self.secret_key, text)

    def _form(self, environ: dict[str, Any], typed: dict[str, str]) -> str:
        """Show the hosted form; once the customer has chosen, one that leads back by a cross-site POST."""
        token = dict(parse_qsl(environ.get("QUERY_STRING", ""))).get("token", "")
        form = self.iyzico.forms.get(token)
        if form is None:
            return _FRAME.format(body="<h1>Checkout</h1><p>There is no such form.</p>")
        about = form["given"]
        if typed.get("choice") in ("paid", "declined"):
            outcome = "paid" if typed["choice"] == "paid" else "declined"
            self.iyzico.pay(token, "paid" if outcome == "paid" else "declined")
            back = escape(about["callbackUrl"])
            return _FRAME.format(
                body=f'<form method="post" action="{back}"><input type="hidden" name="token" value="{escape(token)}">'
                "<button>Back to the shop</button></form>"
            )
        total = f"{escape(str(about['price']))} {escape(about['currency'])}"
        return _FRAME.format(
            body=f'<h1>Pay {total}</h1><form method="post"><button name="choice" value="paid">Pay</button> '
            '<button name="choice" value="declined">Pay with a card that is declined</button></form>'
        )

    def _control(self, path: str, given: Object) -> Object:
        if path == "pay":
            return {"payment": self.iyzico.pay(given["token"], given.get("outcome", "paid"))["payment"]}
        if path == "clock":
            self.iyzico.advance(int(given["advance_s"]))
        return {"now": self.iyzico.now()}


def _text(value: Any) -> str:
    """Write a value as it is signed: 25.0 is 25, 25.5 stays."""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return "" if value is None else str(value)


def _hmac(secret_key: str, text: str) -> str:
    return hmac.new(secret_key.encode(), text.encode(), hashlib.sha256).hexdigest()
