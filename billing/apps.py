from typing import Any

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _
from typing_extensions import override

from codexflow.lib.isolation import OWN, SHARED


class BillingConfig(AppConfig):
    name = "billing"
    verbose_name = _("Billing")
    default_auto_field = "django.db.models.BigAutoField"
    tenant_tables = {
        "billing_account": OWN,
        "billing_ledgerentry": OWN,
        "billing_plan": SHARED,
        "billing_spend_daily": OWN,
    }
    audit_actions = {
        "account.budgets_set": _("Budgets set"),
        "account.changed": _("Account changed by an operator"),
    }

    @override
    def ready(self) -> None:
        from accounts.signals import organization_created

        organization_created.connect(_open_account, dispatch_uid="billing.accounts")


def _open_account(sender: Any, *, organization: Any, plan: str, **kwargs: Any) -> None:
    from billing.services import DEFAULT_PLAN, open_account

    open_account(organization, plan=plan or DEFAULT_PLAN)
