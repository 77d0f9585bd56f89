"""The reconciliation of past days, kept: what the metric tells, and nobody works out while it is asked for."""

from datetime import date, timedelta

from django.db import transaction
from django.db.models import Sum

from codexflow.env import Env
from codexflow.lib import clock
from logs.litellm.reconciliation import Totals, totals
from logs.litellm.sync import is_configured
from logs.models import DayReconciled

# LiteLLM's last word on a day comes with the wide window of the night after, and sometimes of the next.
DUE_HOUR = 6
DAYS_AGAIN = 3
FIELDS = tuple(Totals.__dataclass_fields__)


def reconcile_days(env: Env) -> list[date]:
    """Once a day, from 06:00 UTC on: compare the last three whole days and keep the results. Returns them.

    Does nothing where nobody reports: everything would be missing there.
    """
    now = clock.now()
    days = [now.date() - timedelta(days=each) for each in range(DAYS_AGAIN, 0, -1)]
    is_done = DayReconciled.objects.filter(day=days[-1], compared_at__date=now.date()).exists()
    if is_done or now.hour < DUE_HOUR or not (env.webhook_keys or is_configured(env)):
        return []
    for day in days:
        with transaction.atomic():
            found = totals([day])
            numbers = {name: getattr(found, name) for name in FIELDS}
            DayReconciled.objects.update_or_create(day=day, defaults={**numbers, "compared_at": now})
    return days


def kept_totals(*, days: int) -> Totals | None:
    """Sums of the last `days` kept days that end yesterday; None when none of them is kept."""
    since = clock.now().date() - timedelta(days=days)
    kept = DayReconciled.objects.filter(day__gte=since)
    if not kept:
        return None
    return Totals(**kept.aggregate(**{name: Sum(name) for name in FIELDS}))
