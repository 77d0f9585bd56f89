"""Guess the stage of a request from its text. Deterministic: the same prompt and words give the same stage.

A whole word that is a keyword is a hit, and so is a word that begins with a stem ("planlayalım"). The stage with most
hits wins; among equals the one that was hit first. Without a hit it is code.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from codexflow.catalogue.schema import MIN_STEM_CHARS, InferenceConfig

_TIE_ORDER = ("plan", "review", "code")
DEFAULT_STAGE = "code"
KEYWORD = "keyword"
DEFAULT = "default"

# Longer messages are pasted files with the question at their end.
MAX_CHARS = 16 * 1024

_HEAD = MIN_STEM_CHARS
_WORD = re.compile(r"\w+")
_ASCII = bytes(range(128))
# ASCII: letters become small, all but letters, digits and underscore a space. The bytes of other characters stay.
_FOLDED = bytes(c if c > 127 else ord(chr(c).lower()) if chr(c).isalnum() or chr(c) == "_" else 32 for c in range(256))
# So many different characters are replaced one by one; with more of them that would no longer be linear.
_FEW_SWAPS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What inference may look at."""

    last_user_text: str
    system_text: str = ""
    tool_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Index:
    """The words of a configuration, folded, in UTF-8, and arranged for one look-up a word."""

    keywords: Mapping[bytes, str]  # word -> stage
    stems: Mapping[bytes, tuple[tuple[bytes, str], ...]]  # head -> (stem, stage), longest stem first
    heads: frozenset[bytes]  # the first bytes of all of them: few words of a text get past this

    @classmethod
    def of(cls, config: InferenceConfig) -> "_Index":
        keywords: dict[bytes, str] = {}
        stems: dict[bytes, str] = {}
        for stage in _TIE_ORDER:  # what is listed twice belongs to the first
            keywords = {fold(word).encode(): stage for word in config.keywords.get(stage, ())} | keywords
            stems = {fold(stem).encode(): stage for stem in config.stems.get(stage, ())} | stems
        by_head: dict[bytes, tuple[tuple[bytes, str], ...]] = {}
        for stem in sorted(stems, key=len, reverse=True):
            by_head[stem[:_HEAD]] = (*by_head.get(stem[:_HEAD], ()), (stem, stems[stem]))
        heads = frozenset(word[:_HEAD] for word in (*keywords, *stems))
        return cls(keywords, by_head, heads)

    def stage_of(self, word: bytes) -> str | None:
        """The stage that a word speaks for: as a keyword, else by its longest stem."""
        if word in self.keywords:
            return self.keywords[word]
        for stem, stage in self.stems.get(word[:_HEAD], ()):
            if word.startswith(stem):
                return stage
        return None


# The index of the configuration last seen. One is in force at a time, and a dict inside it keeps it from being a
# key of a real cache. A thread that loses the race builds the same index again.
_latest: tuple[InferenceConfig | None, _Index] = (None, _Index({}, {}, frozenset()))


def infer(prompt: Prompt, config: InferenceConfig) -> tuple[str, str]:
    """The stage of a prompt, and the reason: `keyword`, or `default` when no word tells anything.

    Looks at the last 16 K characters of the last user message, in time linear in their number.
    """
    index = _index(config)
    text = prompt.last_user_text
    # A cut may have gone through the first word, so that one does not count.
    found = words(text) if len(text) <= MAX_CHARS else words(text[-MAX_CHARS:])[1:]
    heads = index.heads
    hits = [stage for word in found if word[:_HEAD] in heads and (stage := index.stage_of(word))]
    if not hits:
        return DEFAULT_STAGE, DEFAULT
    # Stages in the order of their first hit; max keeps the first of equals.
    return max(dict.fromkeys(hits), key=hits.count), KEYWORD


def fold(text: str) -> str:
    """`text` without differences of case, the same for Turkish and English: İ, I, ı and i all become i.

    So "İNCELE", "INCELE" and "incele" are one word, as are "FIX" and "fix". Turkish words that differ only in the dot
    become one, too; none that we look for do.
    """
    return one_i(text).casefold()


def words(text: str) -> list[bytes]:
    r"""The folded words of a text, in order and in UTF-8: what `\w+` finds, at a third of its cost.

    ASCII is folded and cut in one pass over the bytes. Of other characters a text has few different ones, so those
    that are capitals or no letters are replaced one after the other.
    """
    text = one_i(text)
    encoded = _utf8(text)
    foreign = encoded.translate(None, _ASCII).decode("utf-8", "surrogatepass")
    if foreign and not (foreign.isalnum() and foreign.casefold() == foreign):
        others = set(foreign)
        swaps = [(char, " ") for char in others if not char.isalnum()]
        swaps += [(char, char.casefold()) for char in others if char.isalnum() and char.casefold() != char]
        if len(swaps) > _FEW_SWAPS:
            return [_utf8(word.casefold()) for word in _WORD.findall(text)]
        for char, other in swaps:
            encoded = encoded.replace(_utf8(char), _utf8(other))
    return encoded.translate(_FOLDED).split()


def one_i(text: str) -> str:
    """`text` with İ and ı as i, before casefold makes two characters of the first and leaves the second alone.

    The dot may also stand apart: that is what JavaScript and Python make of İ when they lower it.
    """
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", text).replace("İ", "i").replace("ı", "i").replace("i\u0307", "i")


def _utf8(text: str) -> bytes:
    """JSON can smuggle in a lone surrogate; that must not fail a request."""
    return text.encode("utf-8", "surrogatepass")


def _index(config: InferenceConfig) -> _Index:
    global _latest
    known, index = _latest
    if known is not config:
        index = _Index.of(config)
        _latest = (config, index)
    return index
