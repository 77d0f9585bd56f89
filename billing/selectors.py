"""What PostgreSQL knows about money and counts."""

from datetime import date, timedelta
from uuid import UUID

from django.db.models import Sum

from billing.limits import ScopeTruth
from billing.models import Account, SpendDaily

_EPOCH = date(1970, 1, 1)


def organization_truth(organization_id: UUID, day: int) -> ScopeTruth:
    """Sums of an organization for the limiter, as of a day since 1970."""
    account = Account.objects.filter(organization_id=organization_id).values_list("spent_nanos", flat=True).first()
    return _truth({"organization_id": organization_id}, day, total_nanos=account or 0)


def key_truth(organization_id: UUID, key_id: UUID, day: int) -> ScopeTruth:
    """Sums of a key for the limiter, as of a day since 1970."""
    total = SpendDaily.objects.filter(organization_id=organization_id, key_id=key_id).aggregate(n=Sum("cost_nanos"))[
        "n"
    ]
    return _truth({"organization_id": organization_id, "key_id": key_id}, day, total_nanos=int(total or 0))


def _truth(scope: dict[str, UUID], day: int, *, total_nanos: int) -> ScopeTruth:
    today = _EPOCH + timedelta(days=day)
    requests = day_nanos = month_nanos = 0
    rows = SpendDaily.objects.filter(**scope, day__gte=today.replace(day=1), day__lte=today)
    for row in rows.values("day").annotate(n=Sum("requests"), cost=Sum("cost_nanos")):
        month_nanos += int(row["cost"])
        if row["day"] == today:
            requests, day_nanos = int(row["n"]), int(row["cost"])
    return ScopeTruth(requests_today=requests, day_nanos=day_nanos, month_nanos=month_nanos, total_nanos=total_nanos)
