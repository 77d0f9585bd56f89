"""Budgets of an organization, its keys and tags that may be raised for a time, and raises by their names."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.utils.translation import gettext as _

from accounts.models import Organization, User
from billing.budgets.raises import WINDOWS
from billing.models import BudgetRaise, TagBudget
from billing.selectors import account_of, tag_budgets_of
from billing.services import raise_budget
from codexflow.lib.clock import now
from keys.models import ApiKey
from keys.selectors import keys_of

LISTED = 50
# The same raise by the same person within this time is a form that was sent twice: without scripts its button stays
# active.
REPEATED_WITHIN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Raisable:
    """A budget that is set. `value` names it in forms: kind, id and window."""

    value: str
    label: str
    window: str
    nanos: int
    key_id: UUID | None = None
    tag_budget: TagBudget | None = None


def raisable_budgets(organization: Organization) -> list[Raisable]:
    """All budgets that are set: of the organization, of working keys, of tags."""
    account = account_of(organization)
    has_budget = Q(budget_day_nanos__isnull=False) | Q(budget_month_nanos__isnull=False)
    # A rotated key has the budgets of its successor.
    keys = keys_of(organization).filter(has_budget, revoked_at=None, rotation_ends_at=None)
    owners: list[tuple[str, str, object, UUID | None, TagBudget | None]] = [
        ("o", "", account, None, None),
        *((f"k:{key.lineage_id}", _("Key %(name)s") % {"name": key.name}, key, key.lineage_id, None) for key in keys),
        *(
            (f"t:{budget.pk}", _("Tag %(tag)s") % {"tag": budget.tag}, budget, None, budget)
            for budget in tag_budgets_of(organization)
        ),
    ]
    return [
        Raisable(
            value=f"{value}:{window}",
            label=": ".join(filter(None, (label, budget_label(window)))),
            window=window,
            nanos=nanos,
            key_id=key_id,
            tag_budget=tag_budget,
        )
        for value, label, owner, key_id, tag_budget in owners
        for window in WINDOWS
        if (nanos := getattr(owner, f"budget_{window}_nanos")) is not None
    ]


def budget_label(window: str) -> str:
    return _("Daily budget") if window == BudgetRaise.Window.DAY else _("Monthly budget")


@dataclass(frozen=True, slots=True)
class NamedRaise:
    """A raise with the name of what it raises."""

    row: BudgetRaise
    label: str
    is_over: bool


def raises_shown(organization: Organization, at: datetime) -> list[NamedRaise]:
    """The organization's newest raises, those that are in force first."""
    rows = BudgetRaise.objects.filter(organization=organization).select_related("tag_budget", "created_by")
    found = list(rows.order_by("-ends_at", "-pk")[:LISTED])
    ids = {row.key_id for row in found if row.key_id is not None}
    names = dict(ApiKey.objects.filter(organization=organization, pk__in=ids).values_list("pk", "name"))
    shown = []
    for row in found:
        label = ""
        if row.tag_budget is not None:
            label = _("Tag %(tag)s") % {"tag": row.tag_budget.tag}
        elif row.key_id is not None:
            label = _("Key %(name)s") % {"name": names.get(row.key_id, "")}
        shown.append(NamedRaise(row, ": ".join(filter(None, (label, budget_label(row.window)))), row.ends_at <= at))
    return shown


@transaction.atomic
def raise_once(
    organization: Organization, terms: dict[str, Any], *, actor: User | None, address: str | None = None
) -> None:
    """Raise a budget by the terms of a form, which are arguments of `raise_budget`. One that is sent twice raises once.

    Raises RaiseRefused.
    """
    Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    moment = now()
    same = {name: value for name, value in terms.items() if name != "ends_at"}
    made_lately = BudgetRaise.objects.filter(
        organization=organization, created_by=actor, created_at__gt=moment - REPEATED_WITHIN, ends_at__gt=moment, **same
    )
    if not made_lately.exists():
        raise_budget(organization, **terms, actor=actor, address=address)
