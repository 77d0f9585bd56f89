"""Periods of plans: begin, continue, upgrade and end them. The plan in force follows from them alone."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils.translation import gettext as _

from accounts import audit
from accounts.models import Organization, User
from accounts.signals import access_changed
from billing.ledger import post_credit
from billing.models import Account, LedgerEntry, Order, Plan, PlanPeriod
from billing.payments.reversals import taken_of
from billing.plans import (
    LEAST_CHARGE_NANOS,
    in_force,
    is_month_of,
    paid_until,
    period_end,
    upgrade_credit_nanos,
    upgrade_price_nanos,
)
from billing.services import DEFAULT_PLAN, plan_of


class RenewalRefused(Exception):
    """There is nothing to renew. The text is translated and meant for a page."""


class Change(StrEnum):
    """Effect of buying a plan."""

    BEGIN = "begin"  # a month from now on
    EXTEND = "extend"  # a month after what is paid
    UPGRADE = "upgrade"  # from now on, for the rest of the period that is paid
    LATER = "later"  # a cheaper plan: nothing now, and for the months after what is paid


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A plan as an organization can have it now. `amount_nanos` is due at once; a month costs the plan's price."""

    plan: Plan
    change: Change
    amount_nanos: int
    credit_nanos: int
    begins_at: datetime
    ends_at: datetime
    upgraded: PlanPeriod | None = None


def periods_of(organization: Organization, at: datetime) -> list[PlanPeriod]:
    """Periods in force and to come."""
    rows = PlanPeriod.objects.filter(organization=organization, ends_at__gt=at)
    return list(rows.select_related("plan__current", "order"))


def _owed(periods: Iterable[PlanPeriod]) -> list[PlanPeriod]:
    """Leave out the months that were paid back before they began: nothing waits for them."""
    return [each for each in periods if each.has_begun or each.order is None or not each.order.is_paid_back]


def offer_of(account: Account, plan: Plan, at: datetime) -> Offer:
    """Work out what a plan costs an organization now, and what it would be for."""
    periods = _owed(periods_of(account.organization, at))
    current = in_force(periods, at)
    if current is not None and current.is_trial:
        return _offer_in_trial(account, plan, periods, current, at)
    if current is not None and not plan.is_version_of(current.plan):
        old, new = current.plan.price_month_nanos, plan.price_month_nanos
        if new > old:
            credit = (current.plan.included_credit_nanos, plan.included_credit_nanos)
            return Offer(
                plan=plan,
                change=Change.UPGRADE,
                amount_nanos=max(LEAST_CHARGE_NANOS, upgrade_price_nanos(old, new, current, at)),
                credit_nanos=upgrade_credit_nanos(*credit, current, at),
                begins_at=at,
                ends_at=current.ends_at,
                upgraded=current,
            )
    begins_at, ends_at = _next_month(account, periods, at)
    later = Change.EXTEND if current is not None and plan.is_version_of(current.plan) else Change.LATER
    return Offer(
        plan=plan,
        change=Change.BEGIN if current is None else later,
        amount_nanos=plan.price_month_nanos,
        credit_nanos=plan.included_credit_nanos,
        begins_at=begins_at,
        ends_at=ends_at,
    )


def _offer_in_trial(account: Account, plan: Plan, periods: list[PlanPeriod], trial: PlanPeriod, at: datetime) -> Offer:
    """Offer of a plan during a trial: always a whole month at its full price, since nothing was paid.

    A dearer plan ends the trial and begins at once; any other begins when the trial ends.
    """
    is_now = _ends_trial(plan, periods, trial)
    begins_at, ends_at = (at, period_end(at, at)) if is_now else _next_month(account, periods, at)
    return Offer(
        plan=plan,
        change=Change.BEGIN if is_now else Change.EXTEND,
        amount_nanos=plan.price_month_nanos,
        credit_nanos=plan.included_credit_nanos,
        begins_at=begins_at,
        ends_at=ends_at,
    )


def _ends_trial(plan: Plan, periods: list[PlanPeriod], trial: PlanPeriod) -> bool:
    """Return whether buying a plan ends a trial: a dearer one does, unless a month after the trial is paid already."""
    return len(periods) == 1 and plan.price_month_nanos > trial.plan.price_month_nanos


def _next_month(account: Account, periods: list[PlanPeriod], at: datetime) -> tuple[datetime, datetime]:
    """Begin and end of the month after what is paid. Months keep the day on which the first of them began."""
    begins_at = paid_until(periods, at)
    anchors = [account.plan_since, *(each.begins_at for each in periods if not each.has_begun)]
    anchor = next((each for each in anchors if each is not None and is_month_of(each, begins_at)), begins_at)
    return begins_at, period_end(anchor, begins_at)


def _line_up(account: Account, at: datetime) -> None:
    """Let each month that is paid ahead begin when the one before ends, whatever was given or paid back meanwhile.

    Under a plan without an end they keep their times, and one whose time has passed begins now.
    """
    begins_at, anchor = account.plan_ends_at, account.plan_since
    for period in _paid_ahead(account):
        begins_at = begins_at or max(at, period.begins_at)
        anchor = anchor if anchor is not None and is_month_of(anchor, begins_at) else begins_at
        ends_at = period_end(anchor, begins_at)
        if (period.begins_at, period.ends_at) != (begins_at, ends_at):
            period.month_begins_at, period.begins_at, period.ends_at = begins_at, begins_at, ends_at
            period.save(update_fields=["month_begins_at", "begins_at", "ends_at"])
        begins_at = ends_at


def _paid_ahead(account: Account) -> list[PlanPeriod]:
    waiting = PlanPeriod.objects.filter(organization_id=account.pk, has_begun=False)
    return _owed(waiting.select_related("plan", "order__organization"))


def book_plan(account: Account, order: Order, plan: Plan, at: datetime) -> LedgerEntry | None:
    """Give what a paid order of a plan is for. Returns the entry of its credit if that is granted now.

    The account is locked by the caller. An upgrade whose period is over cannot be given any more: what was paid becomes
    credit. A plan that an operator gave without an end stays so, and gets the credit of a month.
    """
    _advance(account, at)
    periods = _owed(periods_of(account.organization, at))
    upgraded = order.upgraded
    if upgraded is not None:
        current = in_force(periods, at)
        if current is None or current.pk != upgraded.pk:
            order.credit_nanos = order.amount_nanos
            return _grant(order, order.amount_nanos, LedgerEntry.Kind.TOP_UP, None)
        period = _new_period(account, order, plan, at, current.ends_at, month_begins_at=current.month_begins_at)
        current.ends_at = at
        current.save(update_fields=["ends_at"])
        return _begin(account, period, is_continued=True)
    trial = in_force(periods, at)
    if trial is not None and trial.is_trial and order.renews_from is None and _ends_trial(plan, periods, trial):
        trial.ends_at = at
        trial.save(update_fields=["ends_at"])
        period = _new_period(account, order, plan, at, period_end(at, at))
        account.renews = True
        account.save(update_fields=["renews"])
        return _begin(account, period, is_continued=False)
    if not periods and account.plan_ends_at is None and plan.is_version_of(account.plan):
        return _grant(order, order.credit_nanos, LedgerEntry.Kind.SUBSCRIPTION, period_end(at, at))
    period = _new_period(account, order, plan, *_next_month(account, periods, at))
    if period.begins_at > at:
        account.is_end_announced = False
        account.save(update_fields=["is_end_announced"])
        return None
    account.renews = True
    account.save(update_fields=["renews"])
    return _begin(account, period, is_continued=False)


def _new_period(
    account: Account,
    order: Order,
    plan: Plan,
    begins_at: datetime,
    ends_at: datetime,
    *,
    month_begins_at: datetime | None = None,
) -> PlanPeriod:
    return PlanPeriod.objects.create(
        organization=account.organization,
        plan=plan,
        month_begins_at=month_begins_at or begins_at,
        begins_at=begins_at,
        ends_at=ends_at,
        credit_nanos=order.credit_nanos,
        order=order,
    )


def _grant(order: Order, amount_nanos: int, kind: LedgerEntry.Kind, expires_at: datetime | None) -> LedgerEntry | None:
    if not amount_nanos:
        return None
    return post_credit(
        order.organization,
        amount_nanos,
        kind=kind,
        reference=f"order:{order.code}",
        note=f"Order {order.code}",
        expires_at=expires_at,
    )


def _begin(account: Account, period: PlanPeriod, *, is_continued: bool) -> LedgerEntry | None:
    """Put a period in force and grant its credit, which expires at its end."""
    account.plan, account.plan_ends_at = period.plan, period.ends_at
    account.next_plan, account.is_end_announced = None, False
    if not is_continued or account.plan_since is None:
        account.plan_since = period.begins_at
    account.save(update_fields=["plan", "plan_since", "plan_ends_at", "next_plan", "is_end_announced"])
    return _grant_month(period)


def _grant_month(period: PlanPeriod) -> LedgerEntry | None:
    """Grant the credit of a period that begins."""
    period.has_begun = True
    period.save(update_fields=["has_begun"])
    if period.order is None:
        return None
    credit_nanos = period.credit_nanos - taken_of(period.order)  # refunded in part before it began
    entry = _grant(period.order, credit_nanos, LedgerEntry.Kind.SUBSCRIPTION, period.ends_at)
    if entry is not None:
        period.order.ledger_entry = entry
        period.order.save(update_fields=["ledger_entry"])
    return entry


def advance_plans(at: datetime) -> int:
    """Begin periods whose time has come, and return accounts that have none left to the free plan. Idempotent.

    Returns how many accounts changed.
    """
    ended = Account.objects.filter(plan_ends_at__lte=at).values_list("pk", flat=True)
    waiting = PlanPeriod.objects.filter(has_begun=False, begins_at__lte=at).exclude(
        order__amount_nanos__lte=F("order__refunded_nanos") + F("order__disputed_nanos")
    )
    changed = 0
    for organization_id in {*ended, *waiting.values_list("organization_id", flat=True)}:
        with transaction.atomic():
            locked = Account.objects.select_for_update(of=("self",)).select_related("organization", "plan")
            changed += _advance(locked.get(pk=organization_id), at)
    return changed


def _advance(account: Account, at: datetime) -> bool:
    """Begin a locked account's periods whose time has come, or end its plan. Returns False if nothing changes."""
    _line_up(account, at)
    before = account.plan
    due = [each for each in _paid_ahead(account) if each.begins_at <= at]
    for period in due:
        _begin_paid(account, period)
    has_ended = account.plan_ends_at is not None and account.plan_ends_at <= at
    if has_ended:
        account.plan, account.plan_since, account.plan_ends_at = plan_of(DEFAULT_PLAN), None, None
        account.next_plan = None
        account.save(update_fields=["plan", "plan_since", "plan_ends_at", "next_plan"])
    if not due and not has_ended:
        return False  # another worker was faster, or it was bought again
    audit.record(
        "account.plan_ended" if has_ended else "account.plan_began",
        account,
        organization=account.organization,
        actor=None,
        actor_label="CodexFlow",
        plan=(before if has_ended else account.plan).slug,
        **({"ends_at": account.plan_ends_at.isoformat()} if account.plan_ends_at else {}),
    )
    transaction.on_commit(partial(access_changed.send, Account, organization_id=account.pk))
    return True


def _begin_paid(account: Account, period: PlanPeriod) -> None:
    """Begin a month that was paid ahead. A plan without an end stays, unless the month's is dearer, with its credit."""
    if account.plan_ends_at is None and account.plan.price_month_nanos >= period.plan.price_month_nanos:
        _grant_month(period)
        return
    trials = PlanPeriod.objects.filter(organization_id=account.pk, is_trial=True)
    if trials.filter(ends_at=period.begins_at).exists():  # bought: the months after it are ordered like any
        account.renews = True
        account.save(update_fields=["renews"])
    since = account.plan_since if period.begins_at == account.plan_ends_at else None
    _begin(account, period, is_continued=since is not None and is_month_of(since, period.begins_at))


def begin_trial(account: Account, plan: Plan, at: datetime, *, goes_on: bool) -> PlanPeriod:
    """Give a locked account a plan for the days of its trial, with the trial's credit, which expires with it."""
    period = PlanPeriod.objects.create(
        organization=account.organization,
        plan=plan,
        month_begins_at=at,
        begins_at=at,
        ends_at=at + timedelta(days=plan.trial_days),
        credit_nanos=plan.trial_credit_nanos,
        has_begun=True,
        is_trial=True,
    )
    account.plan, account.plan_since, account.plan_ends_at = plan, at, period.ends_at
    # Its end is announced by reminders of its own.
    account.renews, account.next_plan, account.is_end_announced = goes_on, None, True
    account.save(update_fields=["plan", "plan_since", "plan_ends_at", "renews", "next_plan", "is_end_announced"])
    if plan.trial_credit_nanos:
        post_credit(
            account.organization,
            plan.trial_credit_nanos,
            kind=LedgerEntry.Kind.PROMO,
            reference=f"trial:{period.pk}",
            note=f"Trial of {plan.name}",
            expires_at=period.ends_at,
        )
    return period


def set_renewal(
    organization: Organization,
    *,
    renews: bool,
    next_plan: Plan | None = None,
    actor: User | None = None,
    actor_label: str = "",
    address: str | None = None,
) -> Account:
    """Set whether the plan is to go on after what is paid, and with which. One transaction with its audit entry.

    Raises RenewalRefused without a plan that has been bought.
    """
    with transaction.atomic():
        account = Account.objects.select_for_update(of=("self",)).select_related("plan").get(organization=organization)
        if account.plan_ends_at is None:
            raise RenewalRefused(_("This plan has no end."))
        is_other = next_plan is not None and not next_plan.is_version_of(account.plan)
        account.renews, account.next_plan = renews, next_plan if renews and is_other else None
        account.save(update_fields=["renews", "next_plan"])
        audit.record(
            "account.renewal_set",
            account,
            organization=organization,
            actor=actor,
            actor_label=actor_label,
            address=address,
            renews=renews,
            plan=(account.next_plan or account.plan).slug,
        )
    return account


def stop_renewal(organization: Organization, ends_at: datetime) -> None:
    """Let the plan end then, in the transaction that cancels the order of the month after it."""
    account = Account.objects.select_for_update(of=("self",)).get(organization=organization)
    if account.plan_ends_at == ends_at:
        account.renews = False
        account.save(update_fields=["renews"])


def give_plan(account: Account, plan: Plan, ends_at: datetime | None, at: datetime) -> None:
    """Give an organization a plan for an operator, with an end or without. What is paid for later follows it."""
    facts: dict[str, Any] = {"organization_id": account.pk}
    PlanPeriod.objects.filter(**facts, begins_at__lte=at, ends_at__gt=at).update(ends_at=at)
    if ends_at is not None:
        PlanPeriod.objects.create(**facts, plan=plan, month_begins_at=at, begins_at=at, ends_at=ends_at, has_begun=True)
    account.plan, account.plan_ends_at = plan, ends_at
    account.plan_since, account.is_end_announced, account.next_plan = at if ends_at else None, False, None
    account.save(update_fields=["plan", "plan_ends_at", "plan_since", "is_end_announced", "next_plan"])
    _line_up(account, at)
