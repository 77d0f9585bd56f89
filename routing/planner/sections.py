"""Sections of a long input: cut between blocks of Markdown, never inside code, a table or a list. Pure."""

import re
from itertools import pairwise

from markdown_it import MarkdownIt

MIN_SECTION_CHARS = 2_000
MOST_SECTIONS = 24
_markdown = MarkdownIt("commonmark").enable("table")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[ \t]+|(?<=\n)")


def sections_of(text: str) -> list[str]:
    """Cut a text into at most MOST_SECTIONS sections of some size. Joined they are the text."""
    wanted = max(MIN_SECTION_CHARS, -(-len(text) // (MOST_SECTIONS // 2)))
    found: list[str] = []
    for block, is_plain in _blocks(text):
        pieces = _sentences(block) if is_plain and len(block) > 2 * wanted else [block]
        for piece in pieces:
            if found and len(found[-1]) + len(piece) <= wanted:
                found[-1] += piece
            else:
                found.append(piece)
    while len(found) > MOST_SECTIONS:
        at = min(range(len(found) - 1), key=lambda n: len(found[n]) + len(found[n + 1]))
        found[at : at + 2] = [found[at] + found[at + 1]]
    return found or [text]


def _blocks(text: str) -> list[tuple[str, bool]]:
    """Top-level blocks with the blank lines behind them, and whether each is a plain paragraph."""
    lines = text.splitlines(keepends=True)
    tokens = [token for token in _markdown.parse(text.replace("\r\n", "\n")) if token.level == 0 and token.map]
    if "\r" in text.replace("\r\n", "\n") or len(lines) != len(text.split("\n")) - text.endswith("\n"):
        return [(text, True)]  # line ends of another kind: numbers of lines would not agree
    starts = [0, *(token.map[0] for token in tokens[1:] if token.map and token.nesting >= 0), len(lines)]
    opened = [token for token in tokens if token.nesting >= 0]
    kinds = [token.type == "paragraph_open" for token in opened] or [True]
    spans = list(pairwise(sorted({*starts})))
    joined = ["".join(lines[start:end]) for start, end in spans]
    if len(joined) != len(kinds):
        kinds = [True] * len(joined) if len(kinds) == 1 else [False] * len(joined)
    return [(block, is_plain) for block, is_plain in zip(joined, kinds, strict=True) if block]


def _sentences(text: str) -> list[str]:
    """Cut behind sentences and lines."""
    cuts = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    return [text[start:end] for start, end in pairwise(sorted({*cuts})) if end > start]
