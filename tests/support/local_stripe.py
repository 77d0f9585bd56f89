"""The local Stripe on a loopback port, in a thread of the test's process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread

import stripe

from codexflow.dev.stripe.__main__ import serve
from codexflow.dev.stripe.deliveries import Deliveries
from codexflow.dev.stripe.server import Server
from codexflow.dev.stripe.state import LocalStripe

SECRET_KEY, WEBHOOK_SECRET = "sk_test_local_0123456789", "whsec_local_0123456789"


@dataclass(slots=True)
class Running:
    """A running local Stripe. Deliveries are held, and go to `received` until a test sets `deliveries.send`."""

    server: Server
    url: str
    received: list[tuple[bytes, str]] = field(default_factory=list)

    @property
    def state(self) -> LocalStripe:
        return self.server.stripe

    @property
    def deliveries(self) -> Deliveries:
        return self.server.deliveries

    def client(self) -> stripe.StripeClient:
        """A client of Stripe's SDK that talks to it."""
        return stripe.StripeClient(SECRET_KEY, base_addresses={"api": self.url}, max_network_retries=0)

    def keep(self, body: bytes, signature: str) -> int:
        self.received.append((body, signature))
        return 200

    def happened(self) -> list[str]:
        """Types of the events that wait to be delivered."""
        self.server.settle()
        return [event["type"] for event in self.deliveries.waiting]

    @contextmanager
    def fails(self) -> Iterator[None]:
        """Let every request get 500 for the block. Stripe then asks not to try again at once."""
        self.server.is_failing = True
        try:
            yield
        finally:
            self.server.is_failing = False

    @contextmanager
    def loses(self) -> Iterator[None]:
        """Let every request be carried out, and its response be lost, for the block."""
        self.server.loses_responses = True
        try:
            yield
        finally:
            self.server.loses_responses = False


@contextmanager
def local_stripe() -> Iterator[Running]:
    """Run one for the block."""
    server = Server(LocalStripe(), Deliveries(WEBHOOK_SECRET, lambda body, signature: 0, is_held=True), SECRET_KEY)
    listening = serve(server)
    running = Running(server, server.stripe.base_url)
    server.deliveries.send = running.keep
    thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()
