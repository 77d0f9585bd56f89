"""Refused calls of an organization."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Max, Min, Sum

from logs.models import RefusalCount
from logs.refusals.advice import Advice, advice_on


@dataclass(frozen=True, slots=True)
class Refusals:
    """Calls of one key that were refused for one reason."""

    key_id: UUID
    code: str
    count: int
    first: datetime  # the minute of the first one
    last: datetime
    message: str  # as a caller was sent it in that minute

    @property
    def advice(self) -> Advice | None:
        return advice_on(self.code)


@dataclass(frozen=True, slots=True)
class NamedRefusals:
    """Refused calls with the name of their key; empty for a deleted one."""

    refused: Refusals
    key_name: str


def with_key_names(found: list[Refusals], names: Mapping[UUID, str]) -> list[NamedRefusals]:
    """Join refused calls with the names of their keys."""
    return [NamedRefusals(each, names.get(each.key_id, "")) for each in found]


def refused_calls(organization_id: UUID, since: datetime, until: datetime) -> int:
    """Return how many calls were refused in a time."""
    found = RefusalCount.objects.filter(organization_id=organization_id, minute__gte=since, minute__lt=until)
    return int(found.aggregate(calls=Sum("count"))["calls"] or 0)


def refusals_of(
    organization_id: UUID, since: datetime, until: datetime, *, key_id: UUID | None = None, code: str = ""
) -> list[Refusals]:
    """Return the refused calls of a time by key and code, the most frequent first, at most 100."""
    found = RefusalCount.objects.filter(organization_id=organization_id, minute__gte=since, minute__lt=until)
    if key_id is not None:
        found = found.filter(key_id=key_id)
    if code:
        found = found.filter(code=code)
    sums = found.values("key_id", "code").annotate(calls=Sum("count"), first=Min("minute"), last=Max("minute"))
    rows = list(sums.order_by("-calls", "code", "key_id")[:100])
    newest = RefusalCount.objects.filter(organization_id=organization_id, minute__in={row["last"] for row in rows})
    messages = {(each.key_id, each.code, each.minute): each.message for each in newest}
    return [
        Refusals(key, code, row["calls"], row["first"], row["last"], messages.get((key, code, row["last"]), ""))
        for row in rows
        for key, code in [(row["key_id"], row["code"])]
    ]
