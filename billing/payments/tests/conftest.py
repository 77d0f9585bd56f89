"""Card payments by the local Stripe, through Stripe's own SDK."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.test import Client

from accounts.models import Organization
from billing.models import Order
from billing.papers.details import FIELDS, set_details
from billing.payments.events import handle_due
from billing.payments.healing import heal_all
from billing.payments.provider import provider_of
from codexflow.lib.clock import now
from tests.support.local_iyzico import API_KEY, Server, local_iyzico
from tests.support.local_iyzico import SECRET_KEY as IYZICO_SECRET
from tests.support.local_stripe import SECRET_KEY, WEBHOOK_SECRET, Running, local_stripe

ENDPOINT = "/api/webhooks/stripe"


class Card:
    """The local Stripe, whose deliveries go to our webhook, and the worker's tasks."""

    def __init__(self, running: Running) -> None:
        self.running, self.state, self.deliveries = running, running.state, running.deliveries
        self.statuses: list[int] = []
        self.deliveries.send = self.post

    def post(self, body: bytes, signature: str) -> int:
        response = Client(enforce_csrf_checks=True).post(
            ENDPOINT, body, content_type="application/json", headers={"Stripe-Signature": signature}
        )
        assert not response.cookies
        self.statuses.append(response.status_code)
        return response.status_code

    def start(self, order: Order) -> str:
        """Open the checkout of an order; returns its id."""
        order.refresh_from_db()
        url = provider_of("stripe").start(order, order_url="/o/x/billing/orders/1/")
        assert url.startswith(f"{self.running.url}/c/pay/cs_test_")
        return url.rpartition("/")[2]

    def pay(self, order: Order) -> str:
        """Let the customer pay an order; nobody is told yet. Returns the payment."""
        return str(self.state.pay(self.start(order))["payment_intent"])

    def deliver(self, **how: Any) -> int:
        """Deliver what waits, and let the worker handle it. Returns how many events it handled."""
        self.running.server.settle()
        self.deliveries.deliver(**how)
        return handle_due(now())

    def lose(self) -> int:
        self.running.server.settle()
        return self.deliveries.lose()

    def heal(self) -> int:
        return heal_all()


@pytest.fixture
def iyzico(settings: Any) -> Iterator[Server]:
    with local_iyzico() as server:
        settings.ENV = replace(
            settings.ENV,
            payment_providers=(*settings.ENV.payment_providers, "iyzico"),
            iyzico_api_key=API_KEY,
            iyzico_secret_key=IYZICO_SECRET,
            iyzico_base_url=server.iyzico.base_url,
        )
        yield server


def details_given(organization: Organization) -> None:
    """Give billing details of a buyer in Türkiye."""
    facts = {"legal_name": "Ada Lovelace", "address": "Nidakule", "city": "Istanbul", "country": "TR"}
    facts |= {"tax_id_kind": "tckn", "tax_id": "10000000146", "email": "ada@example.org"}
    set_details(organization, {name: facts.get(name, "") for name in FIELDS})


@pytest.fixture
def card(settings: Any) -> Iterator[Card]:
    with local_stripe() as running:
        settings.ENV = replace(
            settings.ENV,
            payment_providers=("stripe", "manual"),
            stripe_secret_key=SECRET_KEY,
            stripe_webhook_secrets=(WEBHOOK_SECRET,),
            stripe_api_base=running.url,
        )
        yield Card(running)
