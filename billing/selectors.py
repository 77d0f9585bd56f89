"""What PostgreSQL knows about money and counts."""

from collections.abc import Collection
from datetime import date, timedelta
from uuid import UUID

from django.db.models import Q, QuerySet, Sum
from django.db.models.functions import Coalesce

from billing.limits import ScopeTruth
from billing.models import Account, SpendDaily

_EPOCH = date(1970, 1, 1)


def organization_truths(ids: Collection[UUID], day: int) -> dict[UUID, ScopeTruth]:
    """Sums of organizations for the limiter, as of a day since 1970; of those that have any."""
    totals = dict(Account.objects.filter(organization_id__in=ids).values_list("organization_id", "spent_nanos"))
    return _truths("organization_id", ids, day, totals)


def key_truths(ids: Collection[UUID], day: int) -> dict[UUID, ScopeTruth]:
    """Sums of keys for the limiter, as of a day since 1970; of those that have any."""
    rows = SpendDaily.objects.filter(key_id__in=ids).values_list("key_id").annotate(total=Sum("cost_nanos"))
    return _truths("key_id", ids, day, {key: int(total) for key, total in rows})


def _truths(column: str, ids: Collection[UUID], day: int, totals: dict[UUID, int]) -> dict[UUID, ScopeTruth]:
    today = _EPOCH + timedelta(days=day)
    is_today = Q(day=today)
    rows: QuerySet[SpendDaily, tuple[UUID, int, int, int]] = (
        SpendDaily.objects.filter(**{f"{column}__in": ids}, day__gte=today.replace(day=1), day__lte=today)
        .values_list(column)
        .annotate(
            requests=Coalesce(Sum("requests", filter=is_today), 0),
            day_nanos=Coalesce(Sum("cost_nanos", filter=is_today), 0),
            month_nanos=Sum("cost_nanos"),
        )
    )
    truths = {each: ScopeTruth(total_nanos=total) for each, total in totals.items()}
    for each, requests, day_nanos, month_nanos in rows:
        truths[each] = ScopeTruth(
            requests_today=int(requests),
            day_nanos=int(day_nanos),
            month_nanos=int(month_nanos),
            total_nanos=totals.get(each, 0),
        )
    return truths
