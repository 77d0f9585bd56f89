"""Rules of automatic top-ups: set by people, stopped by whatever they would not expect. Only these write them."""

from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext as _

from accounts import audit
from accounts.models import Organization
from billing.models import AutoRecharge
from billing.recharge import Rule
from codexflow.lib.clock import now


class RuleRefused(Exception):
    """A rule of automatic top-ups cannot be set so. The text is translated and meant for a page."""


def set_rule(organization: Organization, rule: Rule | None, **who: Any) -> AutoRecharge | None:
    """Turn automatic top-ups on by a rule, or off. One transaction with its audit entry. Raises RuleRefused."""
    if rule is not None and not 0 < rule.threshold_nanos <= rule.amount_nanos <= rule.month_limit_nanos:
        raise RuleRefused(_("The amount is at least the threshold, and at most the month's limit."))
    with transaction.atomic():
        row = AutoRecharge.objects.select_for_update().filter(organization=organization).first()
        if row is None:
            if rule is None:
                return None
            row = AutoRecharge(organization=organization)
        row.is_on, row.stopped, row.is_told, row.set_at = rule is not None, "", True, now()
        if rule is not None:
            row.threshold_nanos, row.amount_nanos = rule.threshold_nanos, rule.amount_nanos
            row.month_limit_nanos = rule.month_limit_nanos
        row.save()
        audit.record(
            "recharge.set",
            row,
            organization=organization,
            is_on=row.is_on,
            threshold_nanos=row.threshold_nanos,
            amount_nanos=row.amount_nanos,
            month_limit_nanos=row.month_limit_nanos,
            **who,
        )
    return row


def stop_recharge(organization_id: UUID, reason: AutoRecharge.Stopped, *, is_told: bool = False) -> bool:
    """Turn automatic top-ups off, in the transaction of what has caused it. They stay off until people set them again.

    Returns False if they are off.
    """
    with transaction.atomic():
        row = AutoRecharge.objects.select_for_update().filter(pk=organization_id, is_on=True).first()
        if row is None:
            return False
        row.is_on, row.stopped, row.is_told = False, reason, is_told
        row.save(update_fields=["is_on", "stopped", "is_told"])
        audit.record(
            "recharge.stopped",
            row,
            organization=row.organization,
            actor_label="CodexFlow",
            stopped=reason.value,
        )
    return True
