"""Mails about models that end: one to each owner of keys that used the model in the last 30 days.

A row is written before the mail goes out, so that nobody gets two; it is taken back when the server refuses the mail.
"""

from collections import defaultdict
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F

from accounts import mail
from accounts.models import Organization, User
from accounts.webhooks.services import publish
from codexflow.catalogue import directory
from codexflow.catalogue.ends import NOTICE_DAYS
from codexflow.lib import clock
from codexflow.lib.addresses import site_url
from keys.models import ApiKey
from logs.models import ModelEndNotice, UsageDaily

USED_WITHIN_DAYS = 30
# A key's list in a mail; who has more keys than that knows where to look.
KEYS_SHOWN = 10


def send_notices() -> int:
    """Tell webhooks and send the mails that are due. Returns how many mails; none without a mail server."""
    today = clock.now().date()
    lineup = directory.todays_lineup()
    last_days = {
        model: entry.retires
        for model, entry in lineup.catalogue.entries.items()
        if entry.retires is not None and (entry.retires - today).days <= NOTICE_DAYS
    }
    sent = 0
    for model, key_ids in _keys_that_used(list(last_days), today - timedelta(days=USED_WITHIN_DAYS)).items():
        keys_of_owner = defaultdict(list)
        # Whoever has left an organization is told nothing of it.
        keys = ApiKey.objects.filter(pk__in=key_ids, revoked_at=None, organization__memberships__user=F("created_by"))
        for key in keys.select_related("created_by").order_by("name"):
            keys_of_owner[key.created_by].append(key.name)
        successor = lineup.catalogue.entries[model].successor
        last_day = last_days[model]
        for organization in Organization.objects.filter(keys__in=key_ids, is_active=True).distinct():
            told = {"model": model, "last_day": str(last_day), "successor": successor, "is_over": last_day < today}
            publish(organization, "model.ending", told, name=f"{model} {last_day} {last_day < today}")
        for owner, names in keys_of_owner.items():
            facts = {
                "is_over": last_days[model] < today,
                "successor": successor,
                "serves_already": lineup.serving(model) != model,
                "keys": names[:KEYS_SHOWN],
                "more_keys": len(names) - KEYS_SHOWN,
                "docs_url": f"{site_url(settings.ENV)}/docs/stages/",
            }
            sent += _send_once(owner, model, last_days[model], facts)
    return sent


def _keys_that_used(models: list[str], since: date) -> dict[str, set[UUID]]:
    found: dict[str, set[UUID]] = {}
    used = UsageDaily.objects.filter(day__gte=since, model__in=models).values_list("model", "key_id").distinct()
    for model, key_id in used:
        found.setdefault(model, set()).add(key_id)
    return found


def _send_once(owner: User, model: str, last_day: date, facts: dict[str, Any]) -> bool:
    is_able = settings.ENV.mail is not None or not settings.ENV.is_production
    if not owner.is_active or not owner.email or not is_able:
        return False
    try:
        with transaction.atomic():
            notice = ModelEndNotice.objects.create(user_id=owner.pk, model=model, last_day=last_day)
    except IntegrityError:
        return False
    if mail.send("model_end", owner.email, language=owner.language, model=model, last_day=last_day, **facts):
        return True
    notice.delete()
    return False
