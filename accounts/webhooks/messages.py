"""Outgoing webhooks in the scheme of Standard Webhooks: events, signatures, retries. Pure."""

import base64
import hmac
from collections.abc import Sequence
from datetime import timedelta

SECRET_PREFIX = "whsec_"  # noqa: S105 - of every secret
SECRET_BYTES = 32
# After a rotation both secrets sign, so that a receiver may change over.
OVERLAP = timedelta(hours=24)

TEST = "test"
EVENTS = ("budget.reached", "credit.low", "invoice.ready", "key.created", "key.leaked", "model.ending")

# Waits after each failed try: nine tries within a day.
RETRY_AFTER = tuple(timedelta(seconds=each) for each in (5, 60, 300, 1_800, 3_600, 4 * 3_600, 8 * 3_600, 10 * 3_600))
# An endpoint that has failed for so long, without one success in between, is switched off.
DISABLED_AFTER = timedelta(days=3)
GONE = 410


def signature_headers(message_id: str, timestamp_s: int, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """Headers that tell a receiver who has sent the body, and when."""
    signatures = [f"v1,{_signature(message_id, timestamp_s, body, secret)}" for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(signatures),
    }


def _signature(message_id: str, timestamp_s: int, body: bytes, secret: str) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return base64.b64encode(hmac.digest(key, b"%b.%d.%b" % (message_id.encode(), timestamp_s, body), "sha256")).decode()


def secret_of(random: bytes) -> str:
    """Secret of an endpoint, as its owner gets it."""
    return SECRET_PREFIX + base64.b64encode(random).decode()


def wait_after(tries: int) -> timedelta | None:
    """Return how long to wait after so many failed tries; None: no other one follows."""
    return RETRY_AFTER[tries - 1] if tries <= len(RETRY_AFTER) else None


def is_success(status: int) -> bool:
    return 200 <= status < 300
