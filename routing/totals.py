"""Usage of scopes from PostgreSQL, where Redis does not know it: after a restart, and of a new day."""

from collections.abc import Callable, Collection
from functools import partial
from uuid import UUID

from django.db import DatabaseError

from billing.errors import LimiterUnavailable
from billing.limiter.limits import ScopeTotals
from billing.selectors import organization_totals, tag_totals
from codexflow.lib.batched import Batched
from keys.selectors import lineage_totals

# Ids of scopes, and the day since 1970, to the sums of those that have any.
Read = Callable[[Collection[UUID], int], dict[UUID, ScopeTotals]]
Wanted = tuple[UUID, int]

_READS: dict[str, Read] = {"o": organization_totals, "k": lineage_totals, "t": tag_totals}


class Totals:
    """Reads of all kinds of scopes, several by one statement. One instance per process."""

    def __init__(self) -> None:
        self._of_kind = {kind: Batched(partial(_read, read)) for kind, read in _READS.items()}

    async def load(self, kind: str, owner: UUID, day: int) -> ScopeTotals:
        """Return the sums of a scope. Raises LimiterUnavailable while PostgreSQL is unavailable."""
        try:
            return await self._of_kind[kind].get((owner, day)) or ScopeTotals()
        except DatabaseError as exc:
            raise LimiterUnavailable(reason=repr(exc), retry_after_s=1) from exc


def _read(read: Read, wanted: Collection[Wanted]) -> dict[Wanted, ScopeTotals]:
    days: dict[int, list[UUID]] = {}
    for owner, day in wanted:
        days.setdefault(day, []).append(owner)
    return {(owner, day): sums for day, owners in days.items() for owner, sums in read(owners, day).items()}
