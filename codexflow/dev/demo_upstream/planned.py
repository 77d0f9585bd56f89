"""Canned plans, and parts of a planned answer, as the gateway's planner asks for them. Pure.

The last user message may ask for a bad plan: `[[plan:invalid]]`, `invalid-once`, `cycle`, `many`, `empty`, `huge`,
`chain` (each part depends on the one before), `scaffold` (the parts repeat the gateway's markers).
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

_OPEN = "\N{MATHEMATICAL LEFT WHITE SQUARE BRACKET}cfx "
_ASK = re.compile(r"^\s*(\d{1,2})[.)]\s+(\S.*)$", re.MULTILINE)
_LIMITS = re.compile(r"2 to (\d+) parts.*?together about (\d+)", re.DOTALL)
_SECTION = re.compile(rf"{_OPEN}section (\d+)")
_PART = re.compile(rf"{_OPEN}part (\d+) of (\d+)")
_TASK = re.compile(r"Write part (\d+) now: ([^\n.]+)\..*?Write about (\d+) tokens", re.DOTALL)
_KIND = re.compile(r"\[\[plan:([a-z-]+)\]\]")
_MANY = 60
_WORDS = (
    "each",
    "of",
    "these",
    "words",
    "is",
    "one",
    "token",
    "and",
    "stands",
    "for",
    "a",
    "long",
    "answer",
    "in",
    "parts",
)
_PER_SENTENCE = 15


def planned_pieces(messages: list[Any], asked: str) -> list[str] | None:
    """Return the pieces of the answer to the planner's prompts; None for all others."""
    first = messages[0] if messages and isinstance(messages[0], Mapping) else {}
    rules = first.get("content") if first.get("role") == "system" else ""
    rules = rules if isinstance(rules, str) else ""
    if rules.startswith(f"{_OPEN}plan"):
        return _plan(rules, messages)
    if rules.startswith(f"{_OPEN}summary"):
        return ["A", " summary", " of", " what", " is", " written", "."]
    if asked.startswith(f"{_OPEN}continue"):
        return [" and", " there", " it", " ends", "."]
    return _part(asked) if _PART.search(asked) else None


def _plan(rules: str, messages: list[Any]) -> list[str]:
    request = str(messages[1].get("content", "")) if len(messages) > 1 and isinstance(messages[1], Mapping) else ""
    kind = found[1] if (found := _KIND.search(request)) else ""
    if kind == "invalid" or (kind == "invalid-once" and len(messages) == 2):
        return ["I", " would", " rather", " not", "."]
    limits = _LIMITS.search(rules)
    most, wanted = (int(limits[1]), int(limits[2])) if limits else (3, 3_000)
    asks = [text.strip()[:200] for _, text in _ASK.findall(request)] or ["All that is asked"]
    sections = max([int(each) for each in _SECTION.findall(request)], default=1)
    count = _MANY if kind == "many" else min(most, max(2, len(asks)))
    chunks = []
    for n in range(1, count + 1):
        depends = [n - 1] if kind == "chain" and n > 1 else [n] if kind == "cycle" else []
        chunk = {
            "title": f"Part {chr(64 + n) if n <= 26 else n}",
            "instruction": f"Cover the {n}. share of the answer.",
            "asks": [each for each in range(1, len(asks) + 1) if (each - 1) % count == n - 1],
            "inputs": [each for each in range(1, sections + 1) if (each - 1) * count // sections == n - 1],
            "depends_on": depends,
            "tokens": 10**9 if kind == "huge" else max(1, wanted // count),
            "quality": "deep" if n == 1 else "fast",
        }
        chunks.append(chunk)
    plan = {"language": "en", "asks": asks, "chunks": [] if kind == "empty" else chunks}
    text = json.dumps(plan)
    return [text[at : at + 4] for at in range(0, len(text), 4)]


def _part(asked: str) -> list[str]:
    """A heading and sentences, nearly as many tokens as were asked for; the same ones for the same part."""
    task = _TASK.search(asked)
    number, title, tokens = (int(task[1]), task[2], int(task[3])) if task else (1, "Part", 100)
    share = 80 + hashlib.blake2b(title.encode(), digest_size=1).digest()[0] % 20
    pieces = ["##", f" {title}", "\n\n"]
    if "[[plan:scaffold]]" in asked:
        pieces.append(f"{_OPEN}part {number}\N{MATHEMATICAL RIGHT WHITE SQUARE BRACKET}\n")
    while len(pieces) < tokens * share // 100:
        at = len(pieces) % _PER_SENTENCE
        pieces.append(f" {_WORDS[at]}{'.' if at == _PER_SENTENCE - 1 else ''}")
    return [*pieces, "."]
