"""Mails about budgets and credit that are nearly used up: each threshold once in its window.

A row is written before the mails go out, so that nobody gets two; it is taken back when the server refuses all of them.
"""

from collections.abc import Iterable
from datetime import date
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q

from accounts import mail
from accounts.models import Organization, User
from accounts.selectors import billing_managers
from billing.alerts import Watched, watched_budgets
from billing.models import Account, BudgetAlert, SpendDaily
from billing.selectors import watched_of
from codexflow.lib.addresses import site_url
from codexflow.lib.clock import now
from keys.models import ApiKey
from keys.selectors import lineage_totals


def send_alerts() -> int:
    """Send the mails that are due. Returns how many thresholds were reported. Does nothing without a mail server."""
    if settings.ENV.mail is None and settings.ENV.is_production:
        return 0
    today = now().date()
    used_today = SpendDaily.objects.filter(day=today)
    accounts = Account.objects.select_related("organization", "plan").filter(
        organization__in=used_today.values("organization")
    )
    sent = 0
    for account in accounts.iterator(chunk_size=500):
        organization = account.organization
        for watched in watched_of(account, today):
            sent += _report(organization, watched, None, billing_managers(organization))
    return sent + _alert_keys(today)


def _alert_keys(today: date) -> int:
    """Report budgets of keys that were used today: to the key's owner and to those who manage billing."""
    used = SpendDaily.objects.filter(day=today).values("key_id")
    has_budget = Q(budget_day_nanos__isnull=False) | Q(budget_month_nanos__isnull=False)
    keys = ApiKey.objects.filter(has_budget, pk__in=used, revoked_at=None).select_related("organization", "created_by")
    day, sent = (today - date(1970, 1, 1)).days, 0
    for key in keys.iterator(chunk_size=500):
        totals = lineage_totals([key.lineage_id], day).get(key.lineage_id)
        if totals is None:
            continue
        for watched in watched_budgets(
            day_nanos=key.budget_day_nanos,
            month_nanos=key.budget_month_nanos,
            used_today=totals.day_nanos,
            used_this_month=totals.month_nanos,
            today=today,
        ):
            sent += _report(key.organization, watched, key, {key.created_by, *billing_managers(key.organization)})
    return sent


def _report(organization: Organization, watched: Watched, key: ApiKey | None, people: Iterable[User]) -> bool:
    percent = watched.reached
    if percent is None:
        return False
    of = {"organization": organization, "key_id": key.lineage_id if key else None, "window": watched.window}
    if BudgetAlert.objects.filter(**of, percent__gte=percent).exists():
        return False
    try:
        with transaction.atomic():
            alert = BudgetAlert.objects.create(**of, percent=percent)
    except IntegrityError:
        return False  # another worker reports it
    facts: dict[str, Any] = {
        "organization": organization.name,
        "key": key.name if key else "",
        "kind": watched.kind,
        "percent": percent,
        "limit_nanos": watched.limit_nanos,
        "used_nanos": watched.used_nanos,
        "url": f"{site_url(settings.ENV)}/o/{organization.slug}/{'keys' if key else 'billing'}/",
    }
    accepted = [
        mail.send("budget_alert", person.email, language=person.language, **facts)
        for person in people
        if person.is_active and person.email
    ]
    if accepted and not any(accepted):
        alert.delete()
        return False
    return True
