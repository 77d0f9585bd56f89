"""Sections of models.yaml: typed reading of one mapping, with every problem noted. Pure."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from difflib import get_close_matches
from typing import TypeVar

from codexflow.catalogue.yaml_nodes import Plain
from codexflow.lib.money import InvalidAmount, parse_usd

T = TypeVar("T")

NAME = re.compile(r"[!-~]{1,100}")  # printable ASCII without spaces: what fits a header and a log line
MAX_TOKENS = 10_000_000
MAX_COUNT = 1_000_000_000
MAX_SECONDS = 86_400
MAX_USD = 1_000_000
_WORD = re.compile(r"\w{1,60}")
_PHRASE = re.compile(r"\w{1,60}(?: \w{1,60}){0,3}-?")


class Section:
    """One mapping of the file. Reading methods record a problem and return a default instead of raising."""

    def __init__(self, content: Mapping[str, Plain], path: str, problems: list[str]) -> None:
        self.content = content
        self.path = path
        self.problems = problems
        self.known: dict[str, None] = {}  # an ordered set: the keys that this version reads

    def __contains__(self, key: str) -> bool:
        self.known[key] = None
        return key in self.content

    def names(self) -> Iterator[str]:
        """Keys of a mapping whose keys are names that the operator chooses."""
        return iter(self.content)

    def note(self, key: str, problem: str) -> None:
        path = ".".join(part for part in (self.path, key) if part)
        self.problems.append(f"{path}: {problem}")

    def close(self) -> None:
        """Record a problem for every key that was not read."""
        for key in self.content:
            if key not in self.known:
                self.note(key, f"is not known here{hint(key, tuple(self.known))}")

    def section(self, key: str, *, optional: bool = False) -> "Section":
        value = self.take(key, optional=optional)
        path = ".".join(part for part in (self.path, key) if part)
        if isinstance(value, dict):
            return Section(value, path, self.problems)
        if value is not None:
            self.note(key, f"must be a mapping, not {shown(value)}")
        # One problem is enough: the empty section must not report every missing key.
        return Section({}, path, [])

    def sections(self, key: str) -> "list[Section]":
        """Read a list of mappings; none if it is missing."""
        value = self.take(key, optional=True)
        if value is None:
            return []
        if not isinstance(value, list):
            self.note(key, f"must be a list, not {shown(value)}")
            return []
        path = ".".join(part for part in (self.path, key) if part)
        found = []
        for index, item in enumerate(value):
            if isinstance(item, dict):
                found.append(Section(item, f"{path}[{index}]", self.problems))
            else:
                self.note(f"{key}[{index}]", f"must be a mapping, not {shown(item)}")
        return found

    def text(self, key: str) -> str:
        value = self.take(key)
        if isinstance(value, str) and value.strip():
            return value
        if value is not None:
            self.note(key, f"must be text, not {shown(value)}")
        return ""

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.take(key, optional=True)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self.note(key, f"must be true or false, not {shown(value)}")
        return default

    def choice(self, key: str, options: tuple[T, ...], *, default: T) -> T:
        value = self.take(key, optional=True)
        for option in options:
            if value == option:
                return option
        if value is not None:
            self.note(key, f"must be {' or '.join(map(str, options))}, not {shown(value)}")
        return default

    def whole(self, key: str, *, high: int, default: int | None = None) -> int:
        """Read a whole number from 1 to `high`."""
        value = self.take(key, optional=default is not None)
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= high:
            return value
        if value is not None:
            self.note(key, f"must be a whole number from 1 to {high:,}, not {shown(value)}")
        return default or 1

    def seconds(self, key: str, *, default: int | None = None) -> float:
        value = self.take(key, optional=default is not None)
        number = number_of(value)
        if number is not None and 0 < number <= MAX_SECONDS:
            return float(number)
        if value is not None:
            self.note(key, f"must be a number of seconds above 0 and up to {MAX_SECONDS:,}, not {shown(value)}")
        return float(default or 1)

    def temperature(self, key: str) -> float | None:
        value = self.take(key, optional=True)
        number = number_of(value)
        if number is not None and 0 <= number <= 2:
            return float(number)
        if value is not None:
            self.note(key, f"must be a number from 0 to 2, not {shown(value)}")
        return None

    def date(self, key: str) -> date | None:
        """Read a day as YYYY-MM-DD."""
        value = self.take(key, optional=True)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                return date.fromisoformat(value)
        if value is not None:
            self.note(key, f"must be a day as YYYY-MM-DD, not {shown(value)}")
        return None

    def decimal(self, key: str, *, default: Decimal, low: Decimal, below: Decimal) -> Decimal:
        value = self.take(key, optional=True)
        number = number_of(value)
        if number is not None and low <= number < below:
            return number
        if value is not None:
            self.note(key, f"must be a number from {low} to below {below}, not {shown(value)}")
        return default

    def usd(self, key: str, *, default_nanos: int | None = None) -> int:
        """Read an amount of USD as nanos."""
        value = self.take(key, optional=default_nanos is not None)
        number = number_of(value)
        if number is not None and 0 <= number <= MAX_USD:
            try:
                return parse_usd(number)
            except InvalidAmount:
                self.note(key, "has more than nine decimals")
        elif value is not None:
            self.note(key, f"must be an amount of USD from 0 to {MAX_USD:,}, not {shown(value)}")
        return default_nanos or 0

    def words(self, key: str, *, min_chars: int = 1) -> tuple[str, ...]:
        if key not in self:
            return ()
        words = self.texts(key, may_be_empty=False)
        for index, word in words:
            if not _WORD.fullmatch(word) or len(word) < min_chars:
                self.note(
                    f"{key}[{index}]",
                    f"must be one word of {min_chars} to 60 letters or digits, not {shown(word)}",
                )
        return tuple(word for _index, word in words)

    def phrases(self, key: str) -> tuple[str, ...]:
        """Read words or short phrases; a trailing dash makes the last word a stem."""
        if key not in self:
            return ()
        phrases = self.texts(key, may_be_empty=False)
        for index, phrase in phrases:
            if not _PHRASE.fullmatch(phrase):
                self.note(
                    f"{key}[{index}]",
                    f"must be one to four words of letters or digits, a stem with a dash at its end,"
                    f" not {shown(phrase)}",
                )
        return tuple(phrase for _index, phrase in phrases)

    def texts(self, key: str, *, may_be_empty: bool) -> list[tuple[int, str]]:
        """Read a list of strings, as (index, string). Other types and duplicates are recorded and left out."""
        value = self.take(key, optional=may_be_empty)
        if value is None:
            return []
        if not isinstance(value, list):
            self.note(key, f"must be a list, not {shown(value)}")
            return []
        if not value and not may_be_empty:
            self.note(key, "must not be empty")
        found: dict[str, int] = {}
        for index, item in enumerate(value):
            if not isinstance(item, str) or not item.strip():
                self.note(f"{key}[{index}]", f"must be text, not {shown(item)}")
            elif item in found:
                self.note(f"{key}[{index}]", f"{shown(item)} appears twice")
            else:
                found[item] = index
        return [(index, item) for item, index in found.items()]

    def take(self, key: str, *, optional: bool = False) -> Plain:
        """Read a value; None if it is missing, which is recorded unless `optional`."""
        self.known[key] = None
        value = self.content.get(key)
        if value is None and not optional:
            self.note(key, "is missing")
        return value


def number_of(value: Plain) -> Decimal | None:
    """Return a finite number, or None. Booleans are not numbers here."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    number = Decimal(value)
    return number if number.is_finite() else None


def shown(value: Plain) -> str:
    """Quote a value for a problem: shortened, and without the contents of a list or mapping."""
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return f"{value}"[:60]
    return "nothing" if value is None else repr(value)[:60]


def hint(name: str, options: tuple[str, ...]) -> str:
    close = get_close_matches(name, options, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
