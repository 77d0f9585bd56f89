"""Search terms of the log's bar: `field:value` and free words, as text and as values. Pure.

    status:500 model:a,b -client:"my tool" cost:>0.01 0198f2c1

Values of a field are separated by commas, a minus excludes them, and quotation marks hold spaces, commas, and words
that would be read as something else.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

MAX_TEXT = 500
MAX_TERMS = 20

_FIELD = re.compile(r"(-?)([A-Za-z_]+):")
_BARE = re.compile(r'[^\s,"]+')
# A free word ends at a space only: a comma in it means nothing.
_WORD = re.compile(r'[^\s"]+')
_PLAIN_VALUE = re.compile(r'[^\s,"\\]+')
_PLAIN_WORD = re.compile(r'(?![A-Za-z_]+:)[^\s"\\-][^\s"\\]*')


class BadSearch(ValueError):
    """The text is no search. `kind` says why: unclosed, no_value, too_many, unknown_field, bad_value, unknown_name."""

    def __init__(self, kind: str, *, field: str = "", value: str = "") -> None:
        super().__init__(f"{kind}: {field}:{value}")
        self.kind = kind
        self.field = field
        self.value = value


@dataclass(frozen=True, slots=True)
class Term:
    """One term. Without a field it is a free word; several values mean any of them."""

    field: str
    values: tuple[str, ...]
    is_excluded: bool = False


def parse(text: str) -> tuple[Term, ...]:
    """Parse a search. Raises BadSearch; field names and values are not checked."""
    terms: list[Term] = []
    at = _after_space(text, 0)
    while at < len(text):
        term, at = _term(text, at)
        terms.append(term)
        at = _after_space(text, at)
    if len(terms) > MAX_TERMS:
        raise BadSearch("too_many")
    return tuple(terms)


def text_of(terms: Iterable[Term]) -> str:
    """Text that `parse` reads as these terms."""
    return " ".join(_text(term) for term in terms)


def _text(term: Term) -> str:
    minus = "-" if term.is_excluded else ""
    if not term.field:
        (word,) = term.values
        return minus + (word if _PLAIN_WORD.fullmatch(word) else _quoted(word))
    values = (value if _PLAIN_VALUE.fullmatch(value) else _quoted(value) for value in term.values)
    return f"{minus}{term.field}:{','.join(values)}"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _after_space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _term(text: str, at: int) -> tuple[Term, int]:
    named = _FIELD.match(text, at)
    if named is None:
        is_excluded = text[at] == "-" and at + 1 < len(text) and not text[at + 1].isspace()
        value, at = _value(text, at + is_excluded, _WORD)
        return Term("", (value,), is_excluded), at
    field, values, at = named[2].lower(), [], named.end()
    while True:
        if at < len(text) and not text[at].isspace() and text[at] != ",":
            value, at = _value(text, at, _BARE)
            values.append(value)
        if at >= len(text) or text[at] != ",":
            break
        at += 1
    if not values:
        raise BadSearch("no_value", field=field)
    return Term(field, tuple(dict.fromkeys(values)), bool(named[1])), at


def _value(text: str, at: int, bare: re.Pattern[str]) -> tuple[str, int]:
    """Read one value, which begins at `at` and is not empty unless it is quoted."""
    if text[at] != '"':
        found = bare.match(text, at)
        assert found is not None  # noqa: S101 - neither a space nor a quotation mark is there
        return found[0], found.end()
    letters, at = [], at + 1
    while at < len(text) and text[at] != '"':
        at += text[at] == "\\" and at + 1 < len(text)
        letters.append(text[at])
        at += 1
    if at >= len(text):
        raise BadSearch("unclosed")
    return "".join(letters), at + 1
