"""A seller, and buyers with paid orders."""

from dataclasses import replace
from typing import Any

from django.conf import settings

from accounts.models import Organization
from billing.models import Order, Paper, Plan
from billing.papers.details import set_details
from billing.payments.orders import open_order, settle_order
from codexflow.env import Seller
from codexflow.lib.ids import random_id
from codexflow.lib.money import NANOS_PER_USD

SELLER = Seller(
    name="Örnek Yazılım A.Ş.",
    address="Büyükdere Caddesi 1\nKat 3",
    district="Şişli",
    city="İstanbul",
    country="TR",
    tax_id="4540536920",
    tax_office="Zincirlikuyu",
)
DETAILS = {
    "legal_name": "Işık Öğrenme Ltd. Şti.",
    "address": "Çağlayan Sokağı 12",
    "district": "Güngören",
    "city": "İstanbul",
    "postal_code": "34164",
    "country": "TR",
    "tax_id_kind": "tckn",
    "tax_id": "17291716060",
    "tax_office": "Güngören",
    "email": "muhasebe@example.org",
}


def with_seller(env: Any = None, *, rate_bp: int = 2000) -> Any:
    """Settings of an installation that issues invoices."""
    return replace(env or settings.ENV, seller=SELLER, tax_rate_bp=rate_bp)


def a_paid_order(organization: Organization, *, usd: int = 25, plan: str = "") -> Order:
    what: dict[str, Any] = {"plan": Plan.objects.get(slug=plan)} if plan else {"amount_nanos": usd * NANOS_PER_USD}
    order = open_order(organization, provider="manual", **what)
    return settle_order(order, payment_reference=f"transfer {random_id()}")


def an_invoice(organization: Organization, **what: Any) -> Paper:
    """An invoice to a buyer with details; the settings must have a seller."""
    set_details(organization, DETAILS)
    return Paper.objects.get(order=a_paid_order(organization, **what), kind="invoice")
