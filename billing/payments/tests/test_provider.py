"""Contract of payment providers: every one that may be configured keeps it."""

import subprocess
import sys
from dataclasses import replace
from typing import Any, get_args

import pytest
from django.conf import settings

from billing.ledger_audit import audit_ledger
from billing.payments.booking import confirm
from billing.payments.healing import heal_all
from billing.payments.orders import open_order
from billing.payments.provider import offered, online_provider, provider_of
from billing.payments.tests.conftest import Card, details_given
from billing.selectors import account_of
from billing.tests.factories import an_organization
from codexflow.env import REPOSITORY, PaymentProvider
from codexflow.lib.money import NANOS_PER_USD
from tests.support.local_iyzico import Server

NAMES = get_args(PaymentProvider)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.django_db
def test_a_provider_says_where_and_how_to_pay(card: Card, iyzico: Server, name: str) -> None:
    provider, organization = provider_of(name), an_organization()
    details_given(organization)
    order = open_order(organization, provider=name, amount_nanos=10 * NANOS_PER_USD)
    assert provider.name == name
    assert str(provider.label)
    assert provider.start(order, order_url="/order/").startswith(("/order/", card.running.url, iyzico.iyzico.base_url))
    assert isinstance(provider.instructions(), str)
    order.refresh_from_db()
    assert order.state == "open"


ONLINE = [name for name in NAMES if provider_of(name).is_online]


@pytest.mark.parametrize("how", ["page", "healing", "both"])
@pytest.mark.parametrize("name", ONLINE)
@pytest.mark.django_db
def test_what_was_paid_online_is_credited_once(card: Card, iyzico: Server, name: str, how: str) -> None:
    organization = an_organization(plan="free")
    details_given(organization)
    before = account_of(organization).balance_nanos
    order = open_order(organization, provider=name, amount_nanos=10 * NANOS_PER_USD)
    provider = provider_of(name)
    checkout = provider.start(order, order_url="/order/").rpartition("=" if name == "iyzico" else "/")[2]
    order.refresh_from_db()
    confirm(order)
    assert (account_of(organization).balance_nanos, heal_all()) == (before, 0)
    (iyzico.iyzico if name == "iyzico" else card.state).pay(checkout)
    for _ in range(2):
        if how != "healing":
            confirm(order)
        if how != "page":
            heal_all()
    order.refresh_from_db()
    assert (order.state, account_of(organization).balance_nanos) == ("paid", before + 10 * NANOS_PER_USD)
    online = online_provider(name)
    assert online is not None
    payment = online.payment(order.payment_reference)
    assert payment is not None
    assert (payment.order_code, payment.amount, payment.refunded) == (order.code, 1_000, 0)
    online.refund(order.payment_reference, 400, key="k1")
    online.refund(order.payment_reference, 400, key="k1")
    again = online.payment(order.payment_reference)
    assert again is not None
    assert again.refunded == 400
    assert audit_ledger() == []


def test_every_module_of_a_provider_may_be_configured() -> None:
    modules = {path.stem for path in (REPOSITORY / "billing" / "payments").glob("*.py")}
    shared = {"__init__", "booking", "currencies", "events", "healing", "orders", "payment", "provider"}
    shared |= {"refunds", "reversals", "cards", "charges", "iyzico_signing"}
    assert modules - shared == set(NAMES)


def test_only_configured_providers_are_offered(settings: Any) -> None:
    assert [each.name for each in offered()] == ["manual"]
    settings.ENV = replace(settings.ENV, payment_providers=())
    assert offered() == []


def printed(code: str, *, providers: str) -> str:
    """Output of a process of its own, whose installation has these providers."""
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={
            "DJANGO_SETTINGS_MODULE": "codexflow.settings",
            "CFX_PAYMENT_PROVIDERS": providers,
            "CFX_HOME": str(settings.ENV.home),
            "CFX_ENV": "development",
        },
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


def test_a_provider_that_is_not_configured_is_not_imported() -> None:
    code = (
        "import django; django.setup()\n"
        "import sys, billing.urls, billing.payments.provider as p\n"
        "p.offered()\n"
        "print(sorted(m for m in sys.modules if m.startswith('billing.payments.')))"
    )
    loaded = printed(code, providers="none")
    assert "billing.payments.provider" in loaded
    assert not [name for name in NAMES if f"billing.payments.{name}'" in loaded]


def test_a_web_process_without_stripe_does_not_load_its_sdk() -> None:
    code = "import codexflow.asgi, codexflow.urls, sys; print([m for m in sys.modules if m.split('.')[0] == 'stripe'])"
    assert printed(code, providers="manual") == "[]"
