"""Rules of a `.dockerignore`, as `docker build` applies them to its context.

Each line is a pattern; the last that matches decides. `*` and `?` stay within one path component, `**` spans any number
of them, `!` includes a path again, `#` begins a comment. A pattern that matches a folder matches all below it.
Source: the reference of the Dockerfile, section ".dockerignore file".
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern."""

    pattern: re.Pattern[str]
    is_exception: bool

    def matches(self, path: PurePosixPath) -> bool:
        """True when the pattern matches the path or one of its parent folders."""
        return any(self.pattern.fullmatch(str(each)) for each in (path, *path.parents))


def rules_of(text: str) -> list[Rule]:
    """Parse the file, skipping blank lines and comments."""
    lines = [line.strip() for line in text.splitlines() if not line.startswith("#")]
    return [_rule(line) for line in lines if line]


def is_ignored(path: PurePosixPath, rules: Sequence[Rule]) -> bool:
    """True when the last matching rule excludes the path."""
    return next((not rule.is_exception for rule in reversed(rules) if rule.matches(path)), False)


def context(root: Path, rules: Sequence[Rule]) -> Iterator[PurePosixPath]:
    """List the files that `docker build` would send, relative to `root`."""
    return _below(root, PurePosixPath(), rules)


def _below(root: Path, folder: PurePosixPath, rules: Sequence[Rule]) -> Iterator[PurePosixPath]:
    has_exceptions = any(rule.is_exception for rule in rules)
    for entry in sorted((root / folder).iterdir()):
        path = folder / entry.name
        ignored = is_ignored(path, rules)
        if entry.is_dir() and not entry.is_symlink():
            if not ignored or has_exceptions:
                yield from _below(root, path, rules)
        elif not ignored:
            yield path


def _rule(line: str) -> Rule:
    is_exception = line.startswith("!")
    parts = PurePosixPath(line.removeprefix("!").strip().lstrip("/")).parts
    return Rule(re.compile("".join(_expressions(parts))), is_exception)


def _expressions(parts: Sequence[str]) -> Iterable[str]:
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        if part == "**":
            yield ".*" if is_last else "(?:[^/]+/)*"
        else:
            yield _component(part) + ("" if is_last else "/")


def _component(part: str) -> str:
    wild = {"*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\[[^\]]*\]|\*+|\?)", part)
    return "".join(
        wild.get(piece[:1], piece if piece.startswith("[") else re.escape(piece)) for piece in pieces if piece
    )
