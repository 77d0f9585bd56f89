"""Trials of plans: once for each organization and person, without payment, until their end."""

from datetime import datetime
from functools import partial

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _

from accounts import audit, mail
from accounts.models import Organization, User
from accounts.selectors import billing_managers
from accounts.signals import access_changed
from billing.dunning import reminders_due
from billing.mailbox import mailbox_digest
from billing.models import Account, Plan, PlanPeriod, TrialMailbox
from billing.renewals import forecast_of
from billing.selectors import account_of, saved_card_of
from billing.services import mailboxes_of
from billing.subscriptions import begin_trial, periods_of
from codexflow.lib.addresses import site_url
from codexflow.lib.clock import now


class TrialRefused(Exception):
    """A rule of trials forbids it. The text is translated and meant for a page."""


def may_try(account: Account, plan: Plan) -> bool:
    """Return whether an organization may still try a plan: it has had none but the free one."""
    is_offered = plan.trial_days > 0 and plan.is_public and plan.price_month_nanos > 0
    is_free = account.plan_ends_at is None and account.plan.price_month_nanos == 0 and account.plan.is_public
    return is_offered and is_free and not PlanPeriod.objects.filter(organization_id=account.pk).exists()


def start_trial(
    organization: Organization, plan: Plan, *, goes_on: bool, actor: User, address: str | None = None
) -> PlanPeriod:
    """Start a trial, in one transaction with its audit entry. Gateways know of it at once. Raises TrialRefused.

    `goes_on`: the saved card pays the month after it. Persons are known by the hashes of their mailboxes, which outlive
    their accounts.
    """
    at = now()
    with transaction.atomic():
        locked = Account.objects.select_for_update(of=("self",)).select_related("organization", "plan")
        account = locked.get(organization=organization)
        if not may_try(account, plan):
            raise TrialRefused(_("This plan cannot be tried."))
        has_card = saved_card_of(organization) is not None
        if plan.trial_needs_card and not has_card:
            raise TrialRefused(_("Save a card first."))
        if not _claim(actor):
            raise TrialRefused(_("You've already used your trial."))
        period = begin_trial(account, plan, at, goes_on=goes_on and has_card)
        audit.record(
            "account.trial_began",
            account,
            organization=organization,
            actor=actor,
            address=address,
            plan=plan.slug,
            ends_at=period.ends_at.isoformat(),
            goes_on=account.renews,
        )
        transaction.on_commit(partial(access_changed.send, Account, organization_id=organization.pk))
    return period


def _claim(user: User) -> bool:
    """Remember that a person has a trial. Returns False if they had one; two at once meet at the hashes."""
    # Every mailbox is remembered, not only up to the first that is known.
    are_new = [_is_new(mailbox) for mailbox in sorted(mailboxes_of(user))]
    return all(are_new)


def _is_new(address: str) -> bool:
    """Store a mailbox's hash. Returns whether it was not there, under the current salt or the one before."""
    current, *earlier = (mailbox_digest(address, salt) for salt in settings.ENV.salts)
    _row, is_new = TrialMailbox.objects.get_or_create(digest=current)
    return is_new and not TrialMailbox.objects.filter(digest__in=earlier).exists()


def remember_mailbox(user: User, address: str) -> None:
    """Remember that whoever reads this address had a trial, if the user had: a verified address joins them."""
    digests = [mailbox_digest(each, salt) for each in mailboxes_of(user) for salt in settings.ENV.salts]
    if TrialMailbox.objects.filter(digest__in=digests).exists():
        _is_new(address)


def remind_of_ends(at: datetime) -> int:
    """Mail those who manage billing that a trial ends in days, each reminder once. Returns how many."""
    reminded = 0
    trials = PlanPeriod.objects.filter(is_trial=True, ends_at__gt=at).select_related("organization", "plan")
    for trial in trials:
        due = reminders_due(trial.begins_at, trial.ends_at, at)
        # First: nobody is reminded twice.
        if not PlanPeriod.objects.filter(pk=trial.pk, reminders__lt=due).update(reminders=due):
            continue
        if all(each.has_begun for each in periods_of(trial.organization, at)):  # else the month after it is paid
            _remind(trial, at)
            reminded += 1
    return reminded


def _remind(trial: PlanPeriod, at: datetime) -> None:
    if settings.ENV.mail is None and settings.ENV.is_production:
        return
    forecast = forecast_of(account_of(trial.organization), at)
    for person in billing_managers(trial.organization):
        mail.send(
            "trial_ends",
            person.email,
            language=person.language,
            organization=trial.organization.name,
            plan=trial.plan.name,
            ends_at=trial.ends_at,
            amount_nanos=forecast.amount_nanos if forecast else 0,
            last4=forecast.last4 if forecast else "",
            url=f"{site_url(settings.ENV)}/o/{trial.organization.slug}/billing/",
        )
