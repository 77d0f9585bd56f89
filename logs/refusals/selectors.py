"""Refused calls of an organization."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Max, Min, Sum

from accounts.models import Organization
from keys.selectors import key_names_of
from logs.models import RefusalCount

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Refusals:
    """Calls of one key that were refused for one reason."""

    key_id: UUID
    code: str
    count: int
    first: datetime  # the minute of the first one
    last: datetime


def shown_refusals(organization: Organization, until: datetime) -> list[tuple[Refusals, str]]:
    """Return the most frequent refusals of the last 24 hours for a page, each with the name of its key."""
    found = refusals_of(organization.pk, until - timedelta(days=1), until)[:SHOWN]
    names = key_names_of(organization, {each.key_id for each in found})
    return [(each, names.get(each.key_id, "")) for each in found]


def refusals_of(
    organization_id: UUID, since: datetime, until: datetime, *, key_id: UUID | None = None
) -> list[Refusals]:
    """Return the refused calls of a time by key and code, the most frequent first, at most 100."""
    found = RefusalCount.objects.filter(organization_id=organization_id, minute__gte=since, minute__lt=until)
    if key_id is not None:
        found = found.filter(key_id=key_id)
    sums = found.values("key_id", "code").annotate(calls=Sum("count"), first=Min("minute"), last=Max("minute"))
    return [
        Refusals(row["key_id"], row["code"], row["calls"], row["first"], row["last"])
        for row in sums.order_by("-calls", "code", "key_id")[:100]
    ]
