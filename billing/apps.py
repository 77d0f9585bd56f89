from typing import Any

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _
from typing_extensions import override

from codexflow.lib.isolation import CLOSED, OWN, SHARED


class BillingConfig(AppConfig):
    name = "billing"
    verbose_name = _("Billing")
    default_auto_field = "django.db.models.BigAutoField"
    tenant_tables = {
        "billing_account": OWN,
        "billing_billingdetails": OWN,
        "billing_budgetalert": OWN,
        "billing_creditcode": SHARED,
        "billing_creditsource": OWN,
        "billing_freecredit": CLOSED,
        "billing_ledgeraudit": CLOSED,
        "billing_ledgerentry": OWN,
        "billing_order": OWN,
        "billing_paymentevent": CLOSED,
        "billing_model_spend_daily": OWN,
        "billing_paper": OWN,
        "billing_paperfile": OWN,
        "billing_papermail": OWN,
        # Shared: an order may be settled from a page of its organization.
        "billing_paperseries": SHARED,
        "billing_plan": SHARED,
        "billing_planperiod": OWN,
        "billing_redeemedmailbox": SHARED,
        "billing_redemption": OWN,
        "billing_refund": CLOSED,
        "billing_spend_daily": OWN,
    }
    audit_actions = {
        "account.budgets_set": _("Budgets set"),
        "account.changed": _("Account changed by an operator"),
        "account.plan_began": _("Plan began"),
        "account.plan_ended": _("Plan ended"),
        "account.renewal_set": _("Renewal set"),
        "credit.booked": _("Credit booked by an operator"),
        "credit.redeemed": _("Code redeemed"),
        "order.cancelled": _("Order cancelled"),
        "order.disputed": _("Payment disputed, or a dispute decided"),
        "order.opened": _("Order placed"),
        "order.paid": _("Order paid"),
        "order.refund_requested": _("Refund requested by an operator"),
        "order.refunded": _("Payment refunded"),
        "paper.credited": _("Credit note issued"),
        "paper.details_set": _("Billing details set"),
        "paper.issued": _("Invoice issued"),
        "payment_event.retried": _("Payment event handled again"),
    }
    audit_areas = {
        "credit": _("Credit"),
        "order": _("Orders"),
        "paper": _("Invoices"),
        "payment_event": _("Payment events"),
    }

    @override
    def ready(self) -> None:
        from allauth.account.signals import email_confirmed

        from accounts.signals import organization_created
        from billing import checks  # noqa: F401 - registers itself

        organization_created.connect(_open_account, dispatch_uid="billing.accounts")
        email_confirmed.connect(_remember_mailbox, dispatch_uid="billing.mailboxes")


def _open_account(sender: Any, *, organization: Any, plan: str, **kwargs: Any) -> None:
    from billing.services import DEFAULT_PLAN, open_account

    open_account(organization, plan=plan or DEFAULT_PLAN)


def _remember_mailbox(sender: Any, *, email_address: Any, **kwargs: Any) -> None:
    from billing.services import remember_mailbox

    remember_mailbox(email_address.user, email_address.email)
