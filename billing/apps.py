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
        "billing_autorecharge": OWN,
        "billing_billingdetails": OWN,
        "billing_bookingapproval": OWN,
        "billing_budgetalert": OWN,
        "billing_budgetraise": OWN,
        "billing_cardcharge": OWN,
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
        "billing_savedcard": OWN,
        "billing_spend_daily": OWN,
        "billing_tag_spend_daily": OWN,
        "billing_tagbudget": OWN,
        "billing_trialmailbox": SHARED,
    }
    audit_actions = {
        "account.budget_raised": _("Budget raised for a time"),
        "account.budget_raise_ended": _("Raise of a budget ended"),
        "account.budgets_set": _("Budgets set"),
        "account.changed": _("Account changed by an operator"),
        "account.plan_began": _("Plan began"),
        "account.plan_ended": _("Plan ended"),
        "account.renewal_set": _("Renewal set"),
        "account.tag_budget_set": _("Budget of a tag set"),
        "account.trial_began": _("Trial began"),
        "card.removed": _("Card removed"),
        "card.renewals_set": _("Payment of renewals set"),
        "card.saved": _("Card saved"),
        "card.updated": _("Card updated"),
        "approval.approved": _("Booking approved"),
        "approval.asked": _("Booking waits for approval"),
        "approval.rejected": _("Booking rejected"),
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
        "recharge.set": _("Automatic top-up set"),
        "recharge.stopped": _("Automatic top-up stopped"),
        "payment_event.retried": _("Payment event handled again"),
    }
    audit_areas = {
        "card": _("Cards"),
        "approval": _("Approvals"),
        "credit": _("Credit"),
        "order": _("Orders"),
        "paper": _("Invoices"),
        "payment_event": _("Payment events"),
        "recharge": _("Automatic top-ups"),
    }

    @override
    def ready(self) -> None:
        from allauth.account.signals import email_confirmed

        from accounts.signals import access_ended, organization_created
        from billing import checks  # noqa: F401 - registers itself

        access_ended.connect(_remove_card, dispatch_uid="billing.cards")
        organization_created.connect(_open_account, dispatch_uid="billing.accounts")
        email_confirmed.connect(_remember_mailbox, dispatch_uid="billing.mailboxes")


def _open_account(sender: Any, *, organization: Any, plan: str, **kwargs: Any) -> None:
    from billing.services import DEFAULT_PLAN, open_account

    open_account(organization, plan=plan or DEFAULT_PLAN)


def _remove_card(sender: Any, *, organization: Any, user: Any, actor: Any, address: Any, **kwargs: Any) -> None:
    from billing.payments.cards import remove_card

    if user is None:  # the organization was deleted
        remove_card(organization, actor=actor, address=address)


def _remember_mailbox(sender: Any, *, email_address: Any, **kwargs: Any) -> None:
    from billing import services, trials

    services.remember_mailbox(email_address.user, email_address.email)
    trials.remember_mailbox(email_address.user, email_address.email)
