"""The model that a response names, when it is another one than was asked. Pure.

Providers put another model in the place of one that they retire, at its own price. A date, a provider in front or
another order of the same words is no other model.
"""

import re
from collections.abc import Container

# Longer ones are none.
_MAX_CHARS = 200
_WORDS = re.compile(r"[a-z]+|\d+")
_DATE = re.compile(r"\b20\d\d-\d\d-\d\d\b")
_DATE_DIGITS = 4  # a number of so many digits, or more, is a date or a build
_IGNORED = frozenset({"latest", "preview", "exp", "experimental", "free", "beta", "online", "thinking", "v"})


def other_model(named: str, asked: str) -> str | None:
    """Return the model that a response names, unless it is the asked one; None for that, or none."""
    if not named or named == asked or len(named) > _MAX_CHARS or is_same_model(named, asked):
        return None
    return named


def is_same_model(named: str, asked: str) -> bool:
    """Return whether both names mean one model, however a provider writes it."""
    return _words(named) == _words(asked)


def known_name(named: str, known: Container[str]) -> str | None:
    """Return a model of the catalogue by the name that a provider gives it, or None."""
    plain = named.rpartition("/")[2]
    return next((name for name in (named, plain) if name in known), None)


def _words(name: str) -> tuple[str, ...]:
    """The words of a name in order of the alphabet, without provider, dates and versions of the same model."""
    words = _WORDS.findall(_DATE.sub("", name.rpartition("/")[2].lower()))
    return tuple(sorted(word for word in words if word not in _IGNORED and not _is_date(word)))


def _is_date(word: str) -> bool:
    return word.isdigit() and len(word) >= _DATE_DIGITS
