"""Meaning of search terms: conditions on the columns of requests, for SQL and for rows in memory. Pure.

Several values of a field mean any of them, several fields all of them. Of numbers each term holds by itself, so that
`cost:>0.01 cost:<1` is a range.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from codexflow.lib.money import NANOS_PER_USD
from logs.pipeline.events import PLANNED
from logs.requests.terms import BadSearch, Term

MAX_STATUS, MAX_MS, MAX_NANOS = 2**15 - 1, 2**31 - 1, 2**63 - 1
# Columns that a free word is looked for in.
WORD_COLUMNS = ("model", "requested_model", "error_code", "tag", "user_agent")
WORD = "word"
# Names that people know a program by -> what its User-Agent has.
CLIENTS = {"claude-code": "claude-cli", "codex": "codex_", "copilot": "copilot", "cursor": "cursor"}
_MS = {"": 1, "ms": 1, "s": 1_000, "m": 60_000}
_FLAGS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_ID = re.compile(r"…?[0-9a-fA-F-]{1,36}")
_USD = re.compile(r"\$?([0-9]{1,9}(?:\.[0-9]{1,9})?)")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m)?")
_KEY_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_MEMBER_ID = re.compile(r"[0-9]{1,18}")
_STATUS = re.compile(r"[1-5][0-9][0-9]")

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Condition:
    """Condition on one column: one of `values`, or within one of `ranges`, whose both ends are included.

    `is_part`: the column contains the value, in any case.
    """

    column: str
    values: tuple[str, ...] = ()
    ranges: tuple[Range, ...] = ()
    is_part: bool = False
    is_excluded: bool = False

    @property
    def is_failure(self) -> bool:
        """True when only failed requests meet it."""
        if self.is_excluded:
            return False
        return self.column == "error_code" or (self.column == "status" and all(low >= 400 for low, _ in self.ranges))

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row of the live tail meets it (`logs.tail.rows.row_of`)."""
        if self.column == WORD:
            is_met = any(self._holds(row[column]) for column in WORD_COLUMNS)
        elif self.column == "request_id":
            digits = row["id"].replace("-", "")
            is_met = any(value in digits for value in self.values)
        else:
            is_met = self._holds(row["cost"]["nanos"] if self.column == "cost_nanos" else row[self.column])
        return is_met != self.is_excluded

    def _holds(self, value: Any) -> bool:
        if self.ranges:
            return any(low <= value <= high for low, high in self.ranges)
        text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        if self.is_part:
            return any(part.lower() in text.lower() for part in self.values)
        return text in self.values


@dataclass(frozen=True, slots=True)
class Names:
    """Ids of keys and members by name, in small letters. Several keys may have one name."""

    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, keys: Iterable[tuple[str, str]], members: Iterable[tuple[str, str]]) -> "Names":
        """Names from pairs of an id and one of its names."""
        return cls(_by_name(keys), _by_name(members))


def _by_name(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for pk, name in pairs:
        found[name.lower()] = tuple(dict.fromkeys((*found.get(name.lower(), ()), pk)))
    return found


# Field -> the column, and values to try. The order is that of the messages.
FIELDS: dict[str, tuple[str, str]] = {
    "status": ("status", "status:errors, status:429, status:5xx"),
    "model": ("model", "model:claude-sonnet-5.5,gpt-6-luna"),
    "stage": ("stage", "stage:plan,review"),
    "key": ("key_id", "key:laptop"),
    "member": ("user_id", "member:ada@example.org"),
    "code": ("error_code", "code:upstream_timeout"),
    "client": ("user_agent", "client:claude-code"),
    "endpoint": ("endpoint", "endpoint:/v1/messages"),
    "surface": ("surface", "surface:chat"),
    "tag": ("tag", "tag:team=a"),
    "cost": ("cost_nanos", "cost:>0.01, cost:0.01..1"),
    "latency": ("latency_ms", "latency:>5s, latency:<800ms"),
    "stream": ("is_stream", "stream:yes, stream:no"),
    "planned": ("planner", "planned:yes, planned:no"),
    "source": ("source", "source:webhook"),
    "id": ("request_id", "id:0198f2c1"),
}
# Each term of these holds by itself.
_NUMBERS = ("cost", "latency")


def conditions_of(terms: Iterable[Term], names: Callable[[], Names]) -> tuple[Condition, ...]:
    """Conditions that the terms mean; `names` is called where they have any. Raises BadSearch: an unknown field, value
    or name.
    """
    values: dict[tuple[str, bool], list[str]] = {}
    found: list[Condition] = []
    for term in terms:
        name = term.field or ("id" if _is_id(term.values[0]) else WORD)
        if name == WORD:
            found.append(Condition(WORD, term.values, is_part=True, is_excluded=term.is_excluded))
        elif name not in FIELDS:
            raise BadSearch("unknown_field", field=name)
        elif name in _NUMBERS:
            found.append(_condition(name, list(term.values), names, is_excluded=term.is_excluded))
        else:
            values.setdefault((name, term.is_excluded), []).extend(term.values)
    for (name, is_excluded), given in values.items():
        found.append(_condition(name, given, names, is_excluded=is_excluded))
    return tuple(found)


def _is_id(word: str) -> bool:
    """Return whether a free word is a part of an id: most English words of the same letters have no digit."""
    return _ID.fullmatch(word) is not None and (len(word) >= 8 or any(letter.isdigit() for letter in word))


def _condition(name: str, given: list[str], names: Callable[[], Names], *, is_excluded: bool) -> Condition:
    column = FIELDS[name][0]
    if name in ("status", *_NUMBERS):
        ranges = tuple(dict.fromkeys(_range(name, value) for value in given))
        return Condition(column, ranges=ranges, is_excluded=is_excluded)
    if name == "planned":
        flags = {_flag(name, value) for value in given}
        if len(flags) > 1:
            raise BadSearch("bad_value", field=name, value=",".join(given))
        return Condition(column, (PLANNED,), is_excluded=is_excluded == flags.pop())
    found: list[str] = []
    for value in given:
        found += _values(name, value, names)
    unique = tuple(dict.fromkeys(found))
    return Condition(column, unique, is_part=name in ("client", "id"), is_excluded=is_excluded)


def _values(name: str, value: str, names: Callable[[], Names]) -> tuple[str, ...]:
    if (name == "key" and _KEY_ID.fullmatch(value)) or (name == "member" and _MEMBER_ID.fullmatch(value)):
        return (value.lower(),)
    if name in ("key", "member"):
        ids = (names().keys if name == "key" else names().members).get(value.lower())
        if ids is None:
            raise BadSearch("unknown_name", field=name, value=value)
        return ids
    if name == "stream":
        return ("true" if _flag(name, value) else "false",)
    if name == "id":
        if not _ID.fullmatch(value) or not (digits := value.lstrip("…").replace("-", "").lower()):
            raise BadSearch("bad_value", field=name, value=value)
        return (digits,)
    if not value:
        raise BadSearch("no_value", field=name)
    return (CLIENTS.get(value.lower(), value) if name == "client" else value,)


def _flag(name: str, value: str) -> bool:
    if value.lower() not in _FLAGS:
        raise BadSearch("bad_value", field=name, value=value)
    return _FLAGS[value.lower()]


def _range(name: str, value: str) -> Range:
    word = value.lower()
    if name == "status":
        if word in ("ok", "errors"):
            return (-MAX_STATUS, 399) if word == "ok" else (400, MAX_STATUS)
        if re.fullmatch(r"[1-5]xx", word):
            return int(word[0]) * 100, int(word[0]) * 100 + 99
    low, dots, high = word.partition("..")
    if dots:
        return _whole(name, low, value, up=True), _whole(name, high, value, up=False)
    sign = word[:2] if word[:2] in (">=", "<=") else word[0] if word[:1] in ("<", ">") else ""
    single = word.removeprefix(sign)
    most = {"status": MAX_STATUS, "cost": MAX_NANOS, "latency": MAX_MS}[name]
    least = -MAX_STATUS if name == "status" else 0
    if sign == ">":
        return _whole(name, single, value, up=False) + 1, most
    if sign == ">=":
        return _whole(name, single, value, up=True), most
    if sign == "<":
        return least, _whole(name, single, value, up=True) - 1
    if sign == "<=":
        return least, _whole(name, single, value, up=False)
    return _whole(name, single, value, up=True), _whole(name, single, value, up=False)


def _whole(name: str, text: str, value: str, *, up: bool) -> int:
    """Number in the column's unit, the next whole one above or below where it is none."""
    pattern = {"status": _STATUS, "cost": _USD, "latency": _DURATION}[name]
    found = pattern.fullmatch(text.strip())
    if found is None:
        raise BadSearch("bad_value", field=name, value=value)
    if name == "status":
        return int(found[0])
    unit = NANOS_PER_USD if name == "cost" else _MS[found[2] or ""]
    number = (Decimal(found[1]) * unit).to_integral_value(ROUND_CEILING if up else ROUND_FLOOR)
    return min(int(number), MAX_NANOS if name == "cost" else MAX_MS)
