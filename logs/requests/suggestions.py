"""Suggestions for the search bar: fields, and values of a field with the number of requests that have them.

Values that rollups know are counted by them, over the whole range. All others are counted in the newest requests of the
range, so that no column makes the database read a large log.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Sum

from codexflow.lib.ids import uuid7_floor
from codexflow.lib.replica import may_be_old, reading
from codexflow.templatetags import show
from logs.models import UsageHourly
from logs.requests.conditions import CLIENTS, FIELDS, Names
from logs.requests.selectors import COUNTED
from logs.requests.terms import Term, text_of

SCANNED = 5_000
SHOWN = 8
# Values that are suggested without a count.
_FIXED = {
    "cost": (">0.001", ">0.01", ">0.1", ">1"),
    "latency": (">1s", ">5s", ">30s", "<500ms"),
    "stream": ("yes", "no"),
    "planned": ("yes", "no"),
}
_SCANNED = ("status", "code", "client", "endpoint", "surface", "tag", "source")
_NEWEST_SQL = """
SELECT value::text, count(*) FROM (
    SELECT {column} AS value FROM request_log
    WHERE organization_id = %s AND request_id >= %s AND request_id < %s ORDER BY request_id DESC LIMIT %s
) AS newest WHERE value IS NOT NULL GROUP BY 1
"""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A text to type, quoted where it has to be, and a note: a number of requests, or an example."""

    text: str
    note: str = ""


def suggestions_for(
    organization_id: UUID, field: str, typed: str, *, start: datetime, end: datetime, names: Names
) -> list[Suggestion]:
    """Return SHOWN suggestions at most, the most frequent first; without `field` fields, for an unknown one none."""
    part = typed.lower().strip('"')
    if not field:
        found = [Suggestion(f"{name}:", example) for name, (_, example) in FIELDS.items() if name.startswith(part)]
        return found if part else found[: 2 * SHOWN]
    if field in _FIXED:
        return [Suggestion(value) for value in _FIXED[field] if value.startswith(part)]
    if field not in FIELDS or field == "id":
        return []
    counts = _counts(organization_id, field, start, end, names)
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    matching = [(value, count) for value, count in ranked if part in value.lower()]
    return [Suggestion(_value_text(field, value), show.count(count)) for value, count in matching[:SHOWN]]


def _value_text(field: str, value: str) -> str:
    return text_of([Term(field, (value,))]).removeprefix(f"{field}:")


def _counts(organization_id: UUID, field: str, start: datetime, end: datetime, names: Names) -> Mapping[str, int]:
    column = FIELDS[field][0]
    if column in COUNTED:
        counts = _counted(organization_id, column, start, end)
        if field == "key":
            return _named(counts, names.keys)
        people = {name: ids for name, ids in names.members.items() if "@" in name}  # also known by their names
        return _named(counts, people) if field == "member" else counts
    assert field in _SCANNED, field  # noqa: S101 - it becomes a part of the SQL
    counts = _newest(organization_id, column, start, end)
    if field == "client":
        return _programs(counts)
    counts.pop("", None)
    return counts


@may_be_old
def _counted(organization_id: UUID, column: str, start: datetime, end: datetime) -> Counter[str]:
    rows = UsageHourly.objects.filter(organization_id=organization_id, hour__gte=start, hour__lte=end)
    sums = rows.values_list(column).annotate(calls=Sum("requests")).order_by()
    return Counter({str(value): int(calls) for value, calls in sums if calls})


@may_be_old
def _newest(organization_id: UUID, column: str, start: datetime, end: datetime) -> Counter[str]:
    with reading().cursor() as cursor:
        values = [organization_id, uuid7_floor(start), uuid7_floor(end), SCANNED]
        cursor.execute(_NEWEST_SQL.format(column=column), values)
        return Counter(dict(cursor.fetchall()))


def _named(counts: Mapping[str, int], ids: Mapping[str, tuple[str, ...]]) -> Counter[str]:
    """Counts by name; several keys with one name are added up, and what has no name any more is left out."""
    found: Counter[str] = Counter()
    for name, some in ids.items():
        found[name] = sum(counts.get(pk, 0) for pk in some)
    return +found


def _programs(counts: Mapping[str, int]) -> Counter[str]:
    """Counts by program: the User-Agent up to its version, under the name that people know."""
    found: Counter[str] = Counter()
    for agent, count in counts.items():
        product = agent.split("/")[0].split(" ")[0]
        known = next((name for name, part in CLIENTS.items() if part in agent.lower()), product)
        found[known] += count
    found.pop("", None)
    return found
