"""Daily reconciliation: results of past days are stored, so that a scrape of the metrics computes nothing."""

from datetime import date, timedelta

from django.db import transaction
from django.db.models import Sum

from codexflow.env import Env
from codexflow.lib import clock
from logs.litellm.reconciliation import Totals, totals
from logs.litellm.sync import is_configured
from logs.models import DayReconciled

# LiteLLM's last reports of a day come with the wide sync of the night after, and sometimes of the next.
DUE_HOUR = 6
RECONCILED_DAYS = 3
FIELDS = tuple(Totals.__dataclass_fields__)


def reconcile_days(env: Env) -> list[date]:
    """Compare the last three whole days and store the results, once a day from 06:00 UTC on. Returns the days.

    Does nothing where LiteLLM does not report: everything would be missing there.
    """
    now = clock.now()
    days = [now.date() - timedelta(days=each) for each in range(RECONCILED_DAYS, 0, -1)]
    is_done = DayReconciled.objects.filter(day=days[-1], compared_at__date=now.date()).exists()
    if is_done or now.hour < DUE_HOUR or not (env.webhook_keys or is_configured(env)):
        return []
    for day in days:
        with transaction.atomic():
            sums = totals([day])
            numbers = {name: getattr(sums, name) for name in FIELDS}
            DayReconciled.objects.update_or_create(day=day, defaults={**numbers, "compared_at": now})
    return days


def stored_totals(*, days: int) -> Totals | None:
    """Sums of the last `days` days up to yesterday, as far as they are stored; None when none is."""
    since = clock.now().date() - timedelta(days=days)
    stored = DayReconciled.objects.filter(day__gte=since)
    if not stored:
        return None
    return Totals(**stored.aggregate(**{name: Sum(name) for name in FIELDS}))
