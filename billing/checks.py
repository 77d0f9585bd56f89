"""System checks of the settings that invoices depend on."""

from typing import Any

from django.conf import settings
from django.core import checks

from billing.papers.invoice import seller_tax_id


@checks.register()
def check_seller(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """billing.W001: orders can be paid and no invoices are issued. billing.E001: the seller's tax number is wrong."""
    env = settings.ENV
    if env.seller is None:
        if env.is_production and env.payment_providers:
            return [
                checks.Warning(
                    "CFX_SELLER_NAME is not set: customers can order and get no invoices.",
                    hint="Set the CFX_SELLER_ variables (docs/settings.md), or CFX_PAYMENT_PROVIDERS=none.",
                    id="billing.W001",
                )
            ]
        return []
    try:
        seller_tax_id(env.seller.tax_id, env.seller.country)
    except ValueError as exc:
        return [
            checks.Error(
                f"CFX_SELLER_TAX_ID is no tax number of {env.seller.country}: {exc}.",
                hint="In TR a VKN or TCKN, in the EU a VAT number.",
                id="billing.E001",
            )
        ]
    return []
