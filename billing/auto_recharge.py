"""Automatic top-ups: the saved card buys credit when paid credit is below the threshold of its organization's rule.

Nothing of it runs with a call: a job looks at the organizations that have turned it on. Of several workers at once each
finds the order that another has made, so that one is paid: the account's row is locked while an order is decided upon.
"""

import contextlib
import logging
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet, Sum

from accounts import mail
from accounts.selectors import billing_managers
from billing.dunning import AUTHENTICATION_REQUIRED
from billing.models import Account, AutoRecharge, CardCharge, Order
from billing.payments.charges import NEVER_MADE, charge
from billing.payments.orders import OrderRefused, cancel_order, open_order
from billing.payments.provider import card_provider
from billing.recharge import Rule, month_of
from billing.recharge_rules import stop_recharge
from billing.selectors import paid_credit_nanos, saved_card_of
from codexflow.lib.addresses import site_url

logger = logging.getLogger(__name__)


def recharge_due(at: datetime) -> int:
    """Charge the saved cards whose rule says so. Returns how many were charged."""
    if card_provider() is None:
        return 0
    charged = 0
    rules = AutoRecharge.objects.filter(is_on=True, organization__is_active=True)
    for organization_id in list(rules.values_list("pk", flat=True)):
        order = _order_to_charge(organization_id, at)
        if order is not None and charge(order, at) is not None:
            charged += 1
            _stop_if_declined(organization_id)
    return charged


def _order_to_charge(organization_id: UUID, at: datetime) -> Order | None:
    """Return the order that is to be charged now: one that was made and never charged, or a new one.

    The rule is locked before the account, as by refunds, and neither while an order is cancelled: it is locked first.
    """
    if _stop_if_declined(organization_id):
        return None
    with transaction.atomic():
        row = AutoRecharge.objects.select_for_update().get(pk=organization_id)
        account = Account.objects.select_for_update(of=("self",)).select_related("organization").get(pk=organization_id)
        organization, card = account.organization, saved_card_of(account.organization)
        provider = card_provider()
        if not row.is_on or _is_charging(organization_id):
            return None
        waiting = _orders(organization_id).filter(state=Order.State.OPEN).exclude(charges__state=DECLINED).first()
        is_due, rule = False, rule_of(row)
        if card is None or provider is None or card.provider != provider.name:
            stop_recharge(organization_id, AutoRecharge.Stopped.NO_CARD)
        else:
            ordered_nanos = ordered_this_month(organization_id, at) - (waiting.amount_nanos if waiting else 0)
            is_due = rule.is_due(paid_nanos=paid_credit_nanos(organization, at), ordered_nanos=ordered_nanos)
        if waiting is not None and is_due and waiting.amount_nanos == rule.amount_nanos:
            return waiting
        if waiting is None and is_due and provider is not None:
            return open_order(
                organization,
                provider=provider.name,
                amount_nanos=rule.amount_nanos,
                is_automatic=True,
                is_recharge=True,
                actor_label="CodexFlow",
            )
    if waiting is not None:
        # Made when the rule was another one, or before credit came in otherwise. If it is still due, the next time.
        with contextlib.suppress(OrderRefused):
            cancel_order(waiting, actor_label="CodexFlow")
    return None


DECLINED = CardCharge.State.DECLINED


def _stop_if_declined(organization_id: UUID) -> bool:
    """Stop the rule if the last charge by it failed, before anything else is charged. Returns whether it is stopped."""
    with transaction.atomic():
        row = AutoRecharge.objects.select_for_update().filter(pk=organization_id, is_on=True).first()
        if row is None:
            return True
        charges = CardCharge.objects.filter(organization_id=organization_id, order__is_recharge=True)
        last = charges.filter(ended_at__gt=row.set_at).select_related("order").order_by("-pk").first()
        if last is None or last.state == CardCharge.State.PAID or last.code == NEVER_MADE:
            return False
        if last.state == CardCharge.State.FAILED:
            return stop_recharge(organization_id, AutoRecharge.Stopped.FAILED)
        if last.code == AUTHENTICATION_REQUIRED:  # its people pay the order by hand
            return stop_recharge(organization_id, AutoRecharge.Stopped.AUTHENTICATION)
        stop_recharge(organization_id, AutoRecharge.Stopped.DECLINED)
    try:
        cancel_order(last.order, actor_label="CodexFlow")
    except OrderRefused as refused:  # paid by hand meanwhile
        logger.info("payments.recharge_order_kept", extra={"order": last.order.code, "reason": str(refused)})
    return True


def rule_of(row: AutoRecharge) -> Rule:
    return Rule(
        threshold_nanos=row.threshold_nanos,
        amount_nanos=row.amount_nanos,
        month_limit_nanos=row.month_limit_nanos,
    )


def _orders(organization_id: UUID) -> QuerySet[Order]:
    return Order.objects.filter(organization_id=organization_id, is_recharge=True)


def ordered_this_month(organization_id: UUID, at: datetime) -> int:
    """Sum of this month's automatic orders that are paid or may be. What was given back since counts as well."""
    first, end = month_of(at)
    counted = _orders(organization_id).filter(created_at__gte=first, created_at__lt=end)
    return int(counted.exclude(state=Order.State.CANCELLED).aggregate(sum=Sum("amount_nanos", default=0))["sum"])


def _is_charging(organization_id: UUID) -> bool:
    return CardCharge.objects.filter(organization_id=organization_id, state=CardCharge.State.STARTED).exists()


def tell_of_stops() -> int:
    """Mail those who manage billing that automatic top-ups are off, once. Returns how many organizations."""
    told = 0
    for organization_id in list(AutoRecharge.objects.filter(is_told=False).values_list("pk", flat=True)):
        # First: nobody is told twice.
        if not AutoRecharge.objects.filter(pk=organization_id, is_told=False).update(is_told=True):
            continue
        row = AutoRecharge.objects.select_related("organization").get(pk=organization_id)
        if settings.ENV.mail is not None or not settings.ENV.is_production:
            _send_stopped(row)
            told += 1
    return told


def _send_stopped(row: AutoRecharge) -> None:
    pages = f"{site_url(settings.ENV)}/o/{row.organization.slug}/billing/"
    unpaid = _orders(row.pk).filter(state=Order.State.OPEN, charges__state=DECLINED).order_by("-pk").first()
    for person in billing_managers(row.organization):
        mail.send(
            "recharge_stopped",
            person.email,
            language=person.language,
            organization=row.organization.name,
            stopped=row.stopped,
            url=f"{pages}orders/{unpaid.code}/" if unpaid is not None else pages,
        )
