"""Payment by bank transfer: the customer states the order's code, and an operator records what has arrived."""

from django.conf import settings
from django.utils.translation import gettext_lazy as _

from billing.models import Order


class Manual:
    """Bank transfer."""

    name = "manual"
    label = _("Bank transfer")
    is_online = False
    saves_cards = False

    def start(self, order: Order, *, order_url: str) -> str:
        """Return the order's page, which has the bank's details."""
        return order_url

    def instructions(self) -> str:
        """Return the operator's bank details. Without any, the page asks to contact the operator."""
        return str(settings.ENV.bank_transfer_text)


PROVIDER = Manual()
