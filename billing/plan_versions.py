"""Versions of plans: editing a plan leaves what was bought as it was."""

from datetime import datetime

from django.db import transaction
from django.forms.models import model_to_dict

from billing.models import Account, Order, Plan, PlanPeriod

# What a version does not keep apart: how the plan is named and shown.
SHOWN = {"id", "slug", "name", "position", "is_public", "version", "current"}


def keep_terms(plan: Plan, at: datetime) -> Plan | None:
    """Store the terms of a plan as a copy for those who have paid for it or ordered it, before it is changed.

    `plan` has the new terms and is not saved yet; it gets the next version's number. Returns the copy, or None when the
    terms stay as they are or nobody has bought them. Accounts without a paid period follow the plan.
    """
    with transaction.atomic():
        kept = Plan.objects.select_for_update().get(pk=plan.pk)
        if _terms(kept) == _terms(plan):
            return None
        plan.version = kept.version + 1
        periods = PlanPeriod.objects.filter(plan_id=plan.pk, ends_at__gt=at)
        orders = Order.objects.filter(plan_id=plan.pk, state=Order.State.OPEN)
        accounts = Account.objects.select_for_update().filter(plan_id=plan.pk, plan_ends_at__isnull=False)
        if not (periods.exists() or orders.exists() or accounts.exists()):
            return None
        kept.pk, kept.slug, kept.is_public, kept.current = None, f"{kept.slug[:24]}-v{kept.version}", False, plan
        kept.save(force_insert=True)
        periods.update(plan=kept)
        orders.update(plan=kept)
        for account in accounts:
            account.plan = kept
            account.save(update_fields=["plan"])
    return kept


def _terms(plan: Plan) -> dict[str, object]:
    return model_to_dict(plan, fields=[each.name for each in Plan._meta.fields if each.name not in SHOWN])
