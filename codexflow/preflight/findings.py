"""Findings of preflight, and how they are written. Pure."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["error", "warning", "ok"]
_MARKS = {"error": "✗", "warning": "!", "ok": "✓"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Result of one check. An error keeps programs from starting; `may_pass` says that it may be over in a moment."""

    part: str  # environment, database, redis, litellm, schema, configuration, files, mail
    level: Level
    problem: str
    remedy: str = ""
    may_pass: bool = False


def error(part: str, problem: str, remedy: str, *, may_pass: bool = False) -> Finding:
    return Finding(part=part, level="error", problem=problem, remedy=remedy, may_pass=may_pass)


def warning(part: str, problem: str, remedy: str) -> Finding:
    return Finding(part=part, level="warning", problem=problem, remedy=remedy)


def ok(part: str, said: str) -> Finding:
    return Finding(part=part, level="ok", problem=said)


def errors_in(findings: Sequence[Finding]) -> list[Finding]:
    return [each for each in findings if each.level == "error"]


def text_of(findings: Sequence[Finding], *, verb: str = "CodexFlow does not start") -> str:
    """Write findings for a terminal: the errors first, each with what to do."""
    order = {"error": 0, "warning": 1, "ok": 2}
    lines = []
    for each in sorted(findings, key=lambda found: order[found.level]):
        lines.append(f"  {_MARKS[each.level]} {each.part}: {each.problem}")
        lines += [f"      {line}" for line in each.remedy.splitlines()]
    number = len(errors_in(findings))
    head = f"{verb}: {number} {'problem' if number == 1 else 'problems'}" if number else "No problem was found"
    return "\n".join([head, *lines])


def json_of(findings: Sequence[Finding]) -> str:
    """Write findings for programs."""
    found = [{name: value for name, value in asdict(each).items() if name != "may_pass"} for each in findings]
    return json.dumps({"ok": not errors_in(findings), "findings": found}, ensure_ascii=False, indent=2)
