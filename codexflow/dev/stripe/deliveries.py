"""Webhook deliveries of the local Stripe, and how they go wrong: twice, in another order, late, lost, or forged.

Nothing waits: an event is delivered at once, or when it is asked for. Each delivery is signed when it is sent, as at
Stripe, which gives later attempts a new time.
"""

import hashlib
import hmac
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from codexflow.dev.stripe.shapes import Object
from codexflow.lib import clock

# Sends a body with its signature and returns the status; 0: nobody responded.
Send = Callable[[bytes, str], int]
Order = Literal["as_happened", "reversed", "shuffled"]
Forgery = Literal["unsigned", "wrong_secret", "changed_body", "stale", "garbage"]
STALE_S = 3600


@dataclass(slots=True)
class Deliveries:
    """Events that wait to be delivered to one endpoint. Held ones wait until `deliver`."""

    secret: str = field(repr=False)
    send: Send
    is_held: bool = False
    waiting: list[Object] = field(default_factory=list)

    def add(self, event: Object) -> None:
        """Take an event in, and deliver it unless deliveries are held. What is refused goes on waiting."""
        self.waiting.append(event)
        if not self.is_held:
            self.deliver()

    def deliver(self, *, times: int = 1, order: Order = "as_happened", seed: int = 0) -> list[int]:
        """Deliver all that waits, each so many times. Returns the statuses; what was not accepted goes on waiting."""
        events, self.waiting = self.waiting, []
        if order == "reversed":
            events.reverse()
        elif order == "shuffled":
            random.Random(seed).shuffle(events)  # noqa: S311 - no secret
        statuses = []
        for event in events:
            body = _body(event)
            got = [self.send(body, self.signature(body)) for _ in range(times)]
            statuses += got
            if not any(200 <= status < 300 for status in got):
                self.waiting.append(event)
        return statuses

    def lose(self) -> int:
        """Forget all that waits. Returns how many events were lost."""
        lost, self.waiting = len(self.waiting), []
        return lost

    def forge(self, event: Object, how: Forgery) -> int:
        """Deliver an event as somebody would who does not know the secret, or who replays an old one."""
        body = _body(event)
        if how == "unsigned":
            return self.send(body, "")
        if how == "garbage":
            return self.send(b"\xff{" + body, self.signature(b""))
        if how == "stale":
            return self.send(body, self.signature(body, at_s=int(clock.now_s()) - STALE_S))
        if how == "changed_body":
            return self.send(body.replace(b'"amount_total": ', b'"amount_total": 9'), self.signature(body + b" "))
        return self.send(body, sign(body, "whsec_of_somebody_else", int(clock.now_s())))

    def signature(self, body: bytes, *, at_s: int | None = None) -> str:
        """Return the value of `Stripe-Signature`."""
        return sign(body, self.secret, int(clock.now_s()) if at_s is None else at_s)


def sign(body: bytes, secret: str, at_s: int) -> str:
    """Sign a body as Stripe does, scheme v1."""
    mac = hmac.new(secret.encode(), b"%d." % at_s + body, hashlib.sha256)
    return f"t={at_s},v1={mac.hexdigest()}"


def _body(event: Object) -> bytes:
    return json.dumps(event, indent=2).encode()
