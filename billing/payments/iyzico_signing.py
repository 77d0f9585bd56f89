"""Signatures and amounts of iyzico's API. Pure.

Requests carry IYZWSv2: an HMAC over a random key, the path and the body. Responses that move money are signed as well.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from billing.payments.currencies import decimals_of

# What is signed of a response, in order.
INITIALIZED = ("conversationId", "token")
CHECKOUT = ("paymentStatus", "paymentId", "currency", "basketId", "conversationId", "paidPrice", "price", "token")
REFUNDED = ("paymentId", "price", "currency", "conversationId")


def authorization(api_key: str, secret_key: str, *, random_key: str, path: str, body: str) -> str:
    """Return the header of a request. `path` is without its query; the body of a GET is empty."""
    signature = _hmac(secret_key, f"{random_key}{path}{body}")
    fields = f"apiKey:{api_key}&randomKey:{random_key}&signature:{signature}"
    return f"IYZWSv2 {base64.b64encode(fields.encode()).decode()}"


def signature_of(response: Mapping[str, Any], fields: Sequence[str], secret_key: str) -> str:
    """Return the signature that a response should have over its fields. Amounts are without trailing zeros."""
    return _hmac(secret_key, ":".join(_text(response.get(name)) for name in fields))


def is_genuine(response: Mapping[str, Any], fields: Sequence[str], secret_key: str) -> bool:
    """Return whether a response is signed by iyzico."""
    expected = signature_of(response, fields, secret_key)
    return hmac.compare_digest(expected.encode(), str(response.get("signature") or "").encode())


def price_of(units: int, currency: str) -> str:
    """Write minor units as an amount: 2500 -> 25.00."""
    return f"{Decimal(units).scaleb(-decimals_of(currency)):f}"


def units_of(price: Any, currency: str) -> int:
    """Read an amount as minor units. One that has none is -1, which no order costs."""
    units = Decimal(str(price or 0)).scaleb(decimals_of(currency))
    return int(units) if units == units.to_integral_value() else -1


def _text(value: Any) -> str:
    if isinstance(value, Decimal | float):
        whole = Decimal(str(value)).normalize()
        return f"{whole:f}"
    return "" if value is None else str(value)


def _hmac(secret_key: str, text: str) -> str:
    return hmac.digest(secret_key.encode(), text.encode(), hashlib.sha256).hex()
