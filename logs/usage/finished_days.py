"""Figures of finished days, cached by the versions of their rollups.

A correction writes a rollup anew and so makes unknown what was cached of its day: what is kept for a week is as exact
as what is read.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
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


def of_finished_days(
    kind: str,
    organization_id: UUID,
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
    values = {"organization": organization_id, "first": starts[0].date(), "last": (end - moment).date()}
    with reading().cursor() as cursor:
        cursor.execute(_VERSIONS_SQL, values)
        versions = dict(cursor.fetchall())
    key_of = {
        start: f"usage:day:{kind}:{organization_id}:{int(start.timestamp())}-{int(until.timestamp())}"
        f":{versions.get(start.date())}:{versions.get((until - moment).date())}"
        for start, until in pairwise(edges)
    }
    index = {key: i for i, key in enumerate(key_of.values())}

    def compute(missing: Sequence[str]) -> dict[str, T]:
        first, last = index[missing[0]], index[missing[-1]] + 1
        found = read(edges[first:last], edges[last])
        return {key_of[start]: value for start, value in found.items()}

    known = cached_each(list(key_of.values()), compute, seconds=TTL_S)
    return {start: known[key] for start, key in key_of.items()}
