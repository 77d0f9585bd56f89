"""Services of plans and accounts. Money itself moves in `billing.ledger` only."""

from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from allauth.account.models import EmailAddress
from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from accounts import audit
from accounts.models import Organization, User
from accounts.signals import access_changed
from billing.alerts import DAY, MONTH
from billing.budgets.raises import LONGEST, Raises, window_end
from billing.ledger import post_credit
from billing.mailbox import mailbox_digest, mailbox_of
from billing.models import Account, AutoRecharge, BudgetRaise, FreeCredit, LedgerEntry, Plan, TagBudget
from billing.plans import UNLIMITED, Limits
from billing.recharge_rules import stop_recharge
from billing.selectors import expired_nanos, raises_of, tag_budgets_of
from codexflow.catalogue import directory
from codexflow.lib.clock import now
from codexflow.lib.ids import random_id
from codexflow.lib.money import parse_usd

DEFAULT_PLAN = "free"
OPENING = "opening"

# USD a month, included credit (USD), requests a day, RPM, TPM, streams, seats, keys, retention (days).
# A None is the value of `rate_limit` in models.yaml.
_PLANS: dict[str, dict[str, Any]] = {
    "free": {"name": "Free", "price": "0", "credit": "0.50", "daily_requests": 50, "rpm": 10, "tpm": 20_000,
             "concurrent_streams": 1, "seats": 1, "max_keys": 3, "log_retention_days": 7},
    "starter": {"name": "Starter", "price": "19", "credit": "15", "daily_requests": None, "rpm": 60, "tpm": 100_000,
                "concurrent_streams": None, "seats": 3, "max_keys": 10, "log_retention_days": 30},
    "pro": {"name": "Pro", "price": "49", "credit": "45", "daily_requests": 10_000, "rpm": 300, "tpm": 500_000,
            "concurrent_streams": 10, "seats": 10, "max_keys": 50, "log_retention_days": 90},
    "team": {"name": "Team", "price": "199", "credit": "190", "daily_requests": 50_000, "rpm": 1_000,
             "tpm": 2_000_000, "concurrent_streams": 30, "seats": 50, "max_keys": 200, "log_retention_days": 180},
    "internal": {"name": "Internal", "price": "0", "credit": "1000000", "daily_requests": 1_000_000,
                 "rpm": 1_000_000, "tpm": 1_000_000_000, "concurrent_streams": 1_000_000, "seats": 1_000_000,
                 "max_keys": 1_000_000, "log_retention_days": 365, "has_hard_budget": False, "is_public": False},
}  # fmt: skip


def seed_plans() -> list[Plan]:
    """Make the plans that are missing. Idempotent by slug; a plan that exists is the operator's and stays as it is."""
    made = []
    for position, (slug, facts) in enumerate(_PLANS.items()):
        values = dict(facts)
        values["price_month_nanos"] = parse_usd(values.pop("price"))
        values["included_credit_nanos"] = parse_usd(values.pop("credit"))
        plan, is_new = Plan.objects.get_or_create(slug=slug, defaults={**values, "position": position})
        if is_new:
            made.append(plan)
    return made


def open_account(organization: Organization, *, plan: str = DEFAULT_PLAN) -> Account:
    """Open the account of a new organization with its plan's included credit. One transaction, idempotent.

    Every organization gets its account when it is made (`accounts.signals.organization_created`). The credit
    of a free plan is granted once per person: per user, however many organizations they create, and per mailbox,
    however its address is written and whether or not an earlier account was deleted.
    """
    with transaction.atomic():
        chosen = plan_of(plan)
        account, is_new = Account.objects.get_or_create(organization=organization, defaults={"plan": chosen})
        is_free_credit = chosen.price_month_nanos == 0 and chosen.is_public
        if is_new and chosen.included_credit_nanos and (not is_free_credit or _claim_free_credit(organization)):
            post_credit(
                organization,
                chosen.included_credit_nanos,
                kind=LedgerEntry.Kind.GRANT,
                reference=OPENING,
                note=f"Included credit of the plan {chosen.name}",
            )
            account.refresh_from_db()
    return account


def plan_of(slug: str) -> Plan:
    """Return a plan; one that every installation has is made when `seed` has not run yet."""
    found = Plan.objects.filter(slug=slug).first()
    if found is None and slug in _PLANS:
        seed_plans()
    return found or Plan.objects.get(slug=slug)


def _claim_free_credit(organization: Organization) -> bool:
    """Remember that the organization's creator is granted free credit. Returns False if they were before.

    Locks the creator's row; two users with one mailbox meet at its hash.
    """
    if organization.created_by_id is None:
        return True
    user = User.objects.select_for_update(no_key=True).get(pk=organization.created_by_id)
    is_first = not _opened(user).exclude(organization=organization).exists()
    # Every mailbox is remembered, not only up to the first that is known.
    are_new = [_is_new_mailbox(mailbox) for mailbox in sorted(mailboxes_of(user))]
    return is_first and all(are_new)


def remember_mailbox(user: User, address: str) -> None:
    """Remember that whoever reads this address had free credit, if the user had: a verified address joins them."""
    if _opened(user).exists():
        _is_new_mailbox(address)


def _opened(user: User) -> QuerySet[LedgerEntry]:
    return LedgerEntry.objects.filter(organization__created_by=user, reference=OPENING)


def mailboxes_of(user: User) -> set[str]:
    """Return the mailboxes of a user's address and of those that are verified."""
    verified = EmailAddress.objects.filter(user=user, verified=True).values_list("email", flat=True)
    return {mailbox_of(address) for address in (user.email, *verified)}


def _is_new_mailbox(address: str) -> bool:
    """Store a mailbox's hash. Returns whether it was not there, under the current salt or the one before."""
    current, *earlier = (mailbox_digest(address, salt) for salt in settings.ENV.salts)
    _, is_new = FreeCredit.objects.get_or_create(digest=current)
    return is_new and not FreeCredit.objects.filter(digest__in=earlier).exists()


def set_budgets(
    organization: Organization,
    *,
    day_nanos: int | None,
    month_nanos: int | None,
    actor: User | None = None,
    actor_label: str = "",
    address: str | None = None,
) -> Account:
    """Give the organization budgets of the UTC day and month, or none, in one transaction with the audit entry.

    They apply from the next call on: every gateway process is notified.
    """
    with transaction.atomic():
        account = Account.objects.select_for_update().get(organization=organization)
        account.budget_day_nanos, account.budget_month_nanos = day_nanos, month_nanos
        account.save(update_fields=["budget_day_nanos", "budget_month_nanos"])
        audit.record(
            "account.budgets_set",
            account,
            organization=organization,
            actor=actor,
            actor_label=actor_label,
            address=address,
            day_nanos=day_nanos,
            month_nanos=month_nanos,
        )
        transaction.on_commit(partial(access_changed.send, Account, organization_id=organization.pk))
    return account


MAX_TAG_BUDGETS = 1_000


class TooManyTagBudgets(Exception):
    """The organization has as many tags with a budget as it may have."""


def set_tag_budget(
    organization: Organization,
    tag: str,
    *,
    day_nanos: int | None,
    month_nanos: int | None,
    is_hard: bool = True,
    actor: User | None = None,
    actor_label: str = "",
    address: str | None = None,
) -> TagBudget:
    """Give a tag budgets of the UTC day and month, or none, in one transaction with the audit entry.

    They apply from the next call on, as `set_budgets`. Raises TooManyTagBudgets.
    """
    with transaction.atomic():
        # Lock the account, so that simultaneous ones cannot pass the maximum.
        Account.objects.select_for_update().get(organization=organization)
        budget = TagBudget.objects.filter(organization=organization, tag=tag).first()
        budget = budget or TagBudget(organization=organization, tag=tag)
        others = tag_budgets_of(organization).exclude(pk=budget.pk)
        if (day_nanos, month_nanos) != (None, None) and others.count() >= MAX_TAG_BUDGETS:
            raise TooManyTagBudgets
        budget.budget_day_nanos, budget.budget_month_nanos, budget.is_hard = day_nanos, month_nanos, is_hard
        budget.save()
        audit.record(
            "account.tag_budget_set",
            budget,
            organization=organization,
            actor=actor,
            actor_label=actor_label,
            address=address,
            tag=tag,
            day_nanos=day_nanos,
            month_nanos=month_nanos,
            is_hard=is_hard,
        )
        transaction.on_commit(partial(access_changed.send, Account, organization_id=organization.pk))
    return budget


# What operators may book by hand.
BY_HAND = (LedgerEntry.Kind.TOP_UP, LedgerEntry.Kind.PROMO, LedgerEntry.Kind.ADJUSTMENT)


def book_by_hand(
    organization: Organization,
    amount_nanos: int,
    *,
    kind: LedgerEntry.Kind,
    reason: str,
    reference: str = "",
    expires_at: datetime | None = None,
    actor: User | None = None,
    actor_label: str = "",
    address: str | None = None,
) -> LedgerEntry:
    """Book a payment, a promotion or an adjustment for an operator, in one transaction with the audit entry.

    Gateways know of it at once. `reference` is that of a payment, so that none is booked twice: raises IntegrityError
    if the organization has an entry with it. Only an adjustment may be negative.
    """
    with transaction.atomic():
        if amount_nanos < 0:  # before the ledger locks the account
            stop_recharge(organization.pk, AutoRecharge.Stopped.ADJUSTED)
        entry = post_credit(
            organization,
            amount_nanos,
            kind=kind,
            reference=reference or f"operator:{random_id()}",
            note=reason,
            expires_at=expires_at,
        )
        audit.record(
            "credit.booked",
            entry,
            organization=organization,
            actor=actor,
            actor_label=actor_label,
            address=address,
            kind=kind.value,
            amount_nanos=amount_nanos,
            reference=entry.reference,
            reason=reason,
        )
        transaction.on_commit(partial(access_changed.send, Account, organization_id=organization.pk))
    return entry


class RaiseRefused(Exception):
    """A budget cannot be raised like this; the text says why."""


def raise_budget(
    organization: Organization,
    *,
    window: str,
    amount_nanos: int,
    reason: str,
    ends_at: datetime | None = None,
    key_id: UUID | None = None,
    tag_budget: TagBudget | None = None,
    actor: User | None = None,
    actor_label: str = "",
    address: str | None = None,
) -> BudgetRaise:
    """Raise a budget until `ends_at`, by default the end of its day or month, in one transaction with the audit entry.

    Of the organization, or of a key by its lineage, which the caller has checked, or of a tag. Every gateway process is
    notified now, and goes back by itself at the end. Raises RaiseRefused.
    """
    moment = now()
    ends_at = ends_at or window_end(window, moment)
    if not moment < ends_at <= moment + LONGEST:
        raise RaiseRefused(_("A raise must end within 31 days, and not in the past."))
    owner = tag_budget or (None if key_id else Account.objects.get(organization=organization))
    if owner is not None and getattr(owner, f"budget_{window}_nanos") is None:
        raise RaiseRefused(_("There is no such budget to raise."))
    with transaction.atomic():
        made = BudgetRaise.objects.create(
            organization=organization,
            key_id=key_id,
            tag_budget=tag_budget,
            window=window,
            amount_nanos=amount_nanos,
            reason=reason,
            created_by=actor,
            ends_at=ends_at,
        )
        audit.record(
            "account.budget_raised",
            made,
            organization=organization,
            actor=actor,
            actor_label=actor_label,
            address=address,
            window=window,
            amount_nanos=amount_nanos,
            ends_at=ends_at.isoformat(),
            reason=reason,
            key=str(key_id or ""),
            tag=tag_budget.tag if tag_budget else "",
        )
        transaction.on_commit(partial(access_changed.send, Account, organization_id=organization.pk))
    return made


def end_raise(
    raised: BudgetRaise, *, actor: User | None = None, actor_label: str = "", address: str | None = None
) -> BudgetRaise:
    """End a raise now, in one transaction with the audit entry. One that has ended stays as it is."""
    with transaction.atomic():
        raised = BudgetRaise.objects.select_for_update().select_related("organization").get(pk=raised.pk)
        if raised.ends_at <= now():
            return raised
        raised.ends_at = now()
        raised.save(update_fields=["ends_at"])
        audit.record(
            "account.budget_raise_ended",
            raised,
            organization=raised.organization,
            actor=actor,
            actor_label=actor_label,
            address=address,
        )
        transaction.on_commit(partial(access_changed.send, Account, organization_id=raised.organization_id))
    return raised


def limits_of(account: Account, raises: Raises | None = None, *, expired: int | None = None) -> Limits:
    """Limits of an organization: its plan's values, or the catalogue's where the plan has none.

    Its budgets are those with their raises, and its credit is what has not expired (`expired` nanos have); both are
    read unless they are given.
    """
    plan, defaults = account.plan, directory.in_force()
    raises = raises_of(account.pk, now()) if raises is None else raises
    if expired is None and plan.has_hard_budget:
        expired = expired_nanos(account.pk, now())
    return Limits(
        daily_requests=_or(plan.daily_requests, defaults.daily_requests),
        rpm=plan.rpm,
        tpm=plan.tpm,
        concurrent_streams=_or(plan.concurrent_streams, defaults.concurrent_streams),
        # A negative limit would mean none.
        total_budget_nanos=max(0, account.credit_nanos - (expired or 0)) if plan.has_hard_budget else UNLIMITED,
        day_budget_nanos=_or(raises.of(account.budget_day_nanos, DAY), UNLIMITED),
        month_budget_nanos=_or(raises.of(account.budget_month_nanos, MONTH), UNLIMITED),
    )


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
