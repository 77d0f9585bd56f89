"""Figures of finished days, cached by the versions of their rollups.

A correction writes a rollup anew and so makes unknown what was cached of its day: what is kept for a week is as exact
as what is read.
"""

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import TypeVar
from uuid import UUID

from codexflow.lib.cache import cached_each
from codexflow.lib.replica import reading

TTL_S = 7 * 86_400
T = TypeVar("T")
# A row that is written anew gets a new xmin, and little else of it has to be read. Hours are written with their days.
_VERSIONS_SQL = """
SELECT day, concat_ws('.', count(*), sum(requests), sum(xmin::text::bigint)) FROM usage_daily
WHERE organization_id = %(organization)s AND day >= %(first)s AND day <= %(last)s
GROUP BY 1
"""


class Versions:
    """Versions of an organization's daily rollups; those of a span are read once.

    They must be of the database that the figures are read from, and no newer: make one in each `may_be_old` function.
    """

    def __init__(self, organization_id: UUID) -> None:
        self.organization_id = organization_id
        self._known: dict[tuple[date, date], dict[date, str]] = {}

    def between(self, first: date, last: date) -> dict[date, str]:
        """Versions of the days (UTC) with usage."""
        if (first, last) not in self._known:
            values = {"organization": self.organization_id, "first": first, "last": last}
            with reading().cursor() as cursor:
                cursor.execute(_VERSIONS_SQL, values)
                self._known[first, last] = dict(cursor.fetchall())
        return self._known[first, last]


def of_finished_days(
    kind: str,
    versions: Versions,
    starts: Sequence[datetime],
    end: datetime,
    read: Callable[[Sequence[datetime], datetime], dict[datetime, T]],
) -> dict[datetime, T]:
    """Figures of the days that begin at `starts` (UTC moments), the last of which ends at `end`.

    `kind` names what is read. `read` gets the first moments of days and their end, and returns a figure for each; it
    is called at most once, for the span of the days that are not known.
    """
    if not starts:
        return {}
    edges = [*starts, end]
    moment = timedelta(microseconds=1)
    known_as = versions.between(starts[0].date(), (end - moment).date())
    key_of = {
        start: f"usage:day:{kind}:{versions.organization_id}:{int(start.timestamp())}-{int(until.timestamp())}"
        f":{known_as.get(start.date())}:{known_as.get((until - moment).date())}"
        for start, until in pairwise(edges)
    }
    index = {key: i for i, key in enumerate(key_of.values())}

    def compute(missing: Sequence[str]) -> dict[str, T]:
        first, last = index[missing[0]], index[missing[-1]] + 1
        found = read(edges[first:last], edges[last])
        return {key_of[start]: value for start, value in found.items()}

    known = cached_each(list(key_of.values()), compute, seconds=TTL_S)
    return {start: known[key] for start, key in key_of.items()}
