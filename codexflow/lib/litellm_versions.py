"""Releases of LiteLLM that are known to be bad, read from the list beside this module."""

from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

Level = Literal["error", "warning"]
LIST = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True, slots=True)
class BadRelease:
    """One entry of the list."""

    versions: SpecifierSet
    level: Level
    since: date
    reason: str
    use: str


@cache
def known_bad() -> tuple[BadRelease, ...]:
    """Read the list, once per process."""
    entries = yaml.safe_load(LIST.read_text())
    return tuple(BadRelease(**{**each, "versions": SpecifierSet(each["versions"])}) for each in entries)


def bad_release(version: str) -> BadRelease | None:
    """Return the entry of a version, errors before warnings; None for a good or unreadable one."""
    try:
        parsed = Version(version)
    except InvalidVersion:
        return None
    found = [each for each in known_bad() if each.versions.contains(parsed, prereleases=True)]
    return min(found, key=lambda each: each.level != "error", default=None)
