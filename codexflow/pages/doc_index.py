"""Search index over sections of documents. Pure.

Every word of a query has to begin a word of a section, of its heading or of its page's title: Turkish words grow at
their ends, so beginnings find their forms. Case and accents are folded, ı and İ to i.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

MAX_QUERY_CHARACTERS = 100
MAX_WORDS = 8
MAX_RESULTS = 20
_EXCERPT_CHARACTERS = 180
_LEAD_CHARACTERS = 60
_IN_TITLE, _IN_HEADING, _IN_TEXT = 12, 8, 1
_COUNTED_IN_TEXT = 4
# Of one page, so that a long one does not fill the list.
_MAX_OF_PAGE = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """Section that can be found. `page` is its page's title; the folded texts have the length of the originals."""

    url: str
    page: str
    heading: str
    text: str
    folded_page: str
    folded_heading: str
    folded_text: str


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of an excerpt, marked where it is a word of the query."""

    text: str
    is_marked: bool


@dataclass(frozen=True, slots=True)
class Result:
    """Section that was found, with an excerpt around the first word."""

    url: str
    page: str
    heading: tuple[Piece, ...]
    excerpt: tuple[Piece, ...]


def entry(url: str, page: str, heading: str, text: str) -> Entry:
    """Prepare a section for search."""
    return Entry(url, page, heading, text, fold(page), fold(heading), fold(text))


def fold(text: str) -> str:
    """Lower case without accents, character for character: positions in the result are those in the text."""
    return "".join(map(_folded, text))


@lru_cache(maxsize=4096)
def _folded(character: str) -> str:
    if character == "ı":
        return "i"
    plain = [each for each in unicodedata.normalize("NFKD", character.casefold()) if not unicodedata.combining(each)]
    return plain[0] if plain else character


def words_of(query: str) -> list[str]:
    """Folded words of a query, without repetition; those beyond `MAX_WORDS` are left out."""
    cut = fold(query[:MAX_QUERY_CHARACTERS])
    words = (word.strip(".,;:!?\"'`()[]{}") for word in cut.split())
    return list(dict.fromkeys(word for word in words if word))[:MAX_WORDS]


def search(entries: Iterable[Entry], query: str) -> list[Result]:
    """Find the sections that have all words of a query, best first; equal ones in the order of the entries."""
    words = words_of(query)
    if not words:
        return []
    patterns = [_pattern([word]) for word in words]
    scored = [(score, each) for each in entries if (score := _score(each, patterns))]
    scored.sort(key=lambda pair: -pair[0])
    counts: dict[str, int] = {}
    kept = []
    for _score_of, each in scored:
        counts[each.page] = counts.get(each.page, 0) + 1
        if counts[each.page] <= _MAX_OF_PAGE:
            kept.append(each)
    marks = _pattern(words)
    return [_result(each, marks) for each in kept[:MAX_RESULTS]]


def _pattern(words: Sequence[str]) -> re.Pattern[str]:
    # Codes such as daily_quota_exceeded are found by each of their parts. The longest word marks first.
    either = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return re.compile(rf"(?<![^\W_])(?:{either})")


def _score(each: Entry, patterns: Sequence[re.Pattern[str]]) -> int:
    """Weight of a section; 0 where a word is missing."""
    total = 0
    for pattern in patterns:
        in_text = sum(
            1 for _match, _count in zip(pattern.finditer(each.folded_text), range(_COUNTED_IN_TEXT), strict=False)
        )
        weight = _IN_TEXT * in_text
        weight += _IN_HEADING if pattern.search(each.folded_heading) else 0
        # The beginning of a page stands for the page.
        weight += _IN_TITLE if each.page == each.heading and pattern.search(each.folded_page) else 0
        weight += _IN_TEXT if pattern.search(each.folded_page) else 0
        if not weight:
            return 0
        total += weight
    return total


def _result(each: Entry, marks: re.Pattern[str]) -> Result:
    first = marks.search(each.folded_text)
    begin = _word_start(each.text, max(0, first.start() - _LEAD_CHARACTERS)) if first else 0
    end = _word_end(each.text, begin + _EXCERPT_CHARACTERS)
    excerpt = _marked(each.text, each.folded_text, begin, end, marks)
    lead = (Piece("… ", is_marked=False),) if begin else ()
    rest = (Piece(" …", is_marked=False),) if end < len(each.text) else ()
    heading = _marked(each.heading, each.folded_heading, 0, len(each.heading), marks)
    return Result(each.url, each.page, heading, lead + excerpt + rest)


def _word_start(text: str, at: int) -> int:
    return 0 if at == 0 else text.rfind(" ", 0, at) + 1


def _word_end(text: str, at: int) -> int:
    if at >= len(text):
        return len(text)
    found = text.find(" ", at)
    # A text without spaces is cut anywhere.
    return found if 0 <= found < at + _LEAD_CHARACTERS else at


def _marked(text: str, folded: str, begin: int, end: int, marks: re.Pattern[str]) -> tuple[Piece, ...]:
    pieces = []
    at = begin
    for found in marks.finditer(folded, begin, end):
        pieces.append(Piece(text[at : found.start()], is_marked=False))
        pieces.append(Piece(text[found.start() : found.end()], is_marked=True))
        at = found.end()
    pieces.append(Piece(text[at:end], is_marked=False))
    return tuple(piece for piece in pieces if piece.text)
