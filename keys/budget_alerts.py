"""Mails about budgets and credit that are nearly used up: each threshold once in its window.

A row is written before the mails go out, so that nobody gets two; it is taken back when the server refuses all of them.
"""

from collections.abc import Iterable
from datetime import date
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q

from accounts import mail
from accounts.models import Organization, User
from accounts.selectors import billing_managers, is_member
from accounts.webhooks.services import publish
from billing.alerts import CREDIT, DAY, MONTH, Watched, watched_budgets
from billing.models import Account, BudgetAlert, SpendDaily, TagBudget, TagSpendDaily
from billing.selectors import raises_of, watched_of, watched_tags
from codexflow.lib.addresses import site_url
from codexflow.lib.clock import now
from keys.models import ApiKey
from keys.selectors import lineage_totals


def send_alerts() -> int:
    """Report what is due by webhooks, and by mail where there is a server. Returns how many thresholds were mailed."""
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
    return sent + _alert_keys(today) + _alert_tags(today)


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
        raises = raises_of(key.organization_id, now())
        for watched in watched_budgets(
            day_nanos=raises.of(key.budget_day_nanos, DAY, key_id=key.lineage_id),
            month_nanos=raises.of(key.budget_month_nanos, MONTH, key_id=key.lineage_id),
            used_today=totals.day_nanos,
            used_this_month=totals.month_nanos,
            today=today,
        ):
            people = set(billing_managers(key.organization))
            if is_member(key.created_by, key.organization):
                people.add(key.created_by)
            sent += _report(key.organization, watched, key, people)
    return sent


def _publish(
    organization: Organization, watched: Watched, percent: int, key: ApiKey | None, tag: TagBudget | None
) -> None:
    """Tell webhooks of a threshold, once in its window."""
    facts: dict[str, Any] = {"percent": percent, "limit_nanos": watched.limit_nanos, "used_nanos": watched.used_nanos}
    if key is not None:
        facts["key_id"] = str(key.pk)
    if tag is not None:
        facts["tag"] = tag.tag
    event = "credit.low"
    if watched.kind != CREDIT:
        event, facts["window"] = "budget.reached", watched.kind
    owner = key.lineage_id if key else tag.pk if tag else ""
    publish(organization, event, facts, name=f"{owner} {watched.window} {percent}")


def _alert_tags(today: date) -> int:
    """Report budgets of tags that were used today to those who manage billing."""
    used = TagSpendDaily.objects.filter(day=today, organization=OuterRef("organization"), tag=OuterRef("tag"))
    budgets = TagBudget.objects.filter(Exists(used)).select_related("organization")
    sent = 0
    for tag in watched_tags(budgets, today):
        organization = tag.budget.organization
        for watched in tag.windows:
            sent += _report(organization, watched, None, billing_managers(organization), tag=tag.budget)
    return sent


def _report(
    organization: Organization,
    watched: Watched,
    key: ApiKey | None,
    people: Iterable[User],
    *,
    tag: TagBudget | None = None,
) -> bool:
    percent = watched.reached
    if percent is None:
        return False
    _publish(organization, watched, percent, key, tag)
    if settings.ENV.mail is None and settings.ENV.is_production:
        return False
    of = {
        "organization": organization,
        "key_id": key.lineage_id if key else None,
        "tag_budget": tag,
        "window": watched.window,
    }
    if BudgetAlert.objects.filter(**of, percent__gte=percent).exists():
        return False
    try:
        with transaction.atomic():
            alert = BudgetAlert.objects.create(**of, percent=percent)
    except IntegrityError:
        return False  # another worker reports it
    page = "keys" if key else "billing/tags" if tag else "billing"
    facts: dict[str, Any] = {
        "organization": organization.name,
        "key": key.name if key else "",
        "tag": tag.tag if tag else "",
        "is_soft": tag is not None and not tag.is_hard,
        "kind": watched.kind,
        "percent": percent,
        "limit_nanos": watched.limit_nanos,
        "used_nanos": watched.used_nanos,
        "url": f"{site_url(settings.ENV)}/o/{organization.slug}/{page}/",
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
