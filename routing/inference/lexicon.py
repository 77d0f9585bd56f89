"""Lexicon of a configuration: its words, folded and indexed so that a text is searched quickly. Pure.

English verbs match as they are. A Turkish entry is a stem with a dash (incele-): its forms are spelled out here once,
so that a look-up is exact and "yazın gelirim" never asks for writing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress, count
from operator import itemgetter
from typing import Literal

from codexflow.catalogue.schema import MIN_STEM_CHARS, InferenceConfig
from routing.inference.words import bare, fold, word_set

Words = tuple[bytes, ...]
# english: asks where a clause begins ("fix the build").
# stem: a bare Turkish stem, asks where a clause ends or begins ("testleri yaz", "incele şunu").
# final: a Turkish form that asks only where a clause ends ("testleri yazın"; "yazın gelirim" does not).
# free: a Turkish form that asks anywhere ("inceleyelim").
# polite: asks before mi ("yazar mısın"). wanted: asks before istiyorum and the like ("yazmanı istiyorum").
# question: makes a yes-or-no question a request ("is this safe?", "sorun var mı?").
Form = Literal["english", "stem", "final", "free", "polite", "wanted", "question"]

_HEAD = MIN_STEM_CHARS
TIE_ORDER = ("plan", "review", "code")  # what is listed for two stages belongs to the first
_MAX_CACHED = 20_000
_SHORT_BYTES = 24  # longer ones are keys and hashes, not words
_VOWELS = "aeiouöü"
# After a noun they request it ("bir plan istiyorum"), after a verb its action ("yazmanı istiyorum").
WANTS = word_set("istiyorum istiyoruz isterim isteriz rica lazım gerek gerekiyor")


@dataclass(frozen=True, slots=True)
class Sense:
    """A request that a word can make, when the words after it are `rest`."""

    rest: Words
    form: Form
    stage: str | None  # of the verb itself; None for a verb that only makes something
    makes: bool  # its object may decide: to write a plan is to plan


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Words to find in a text. They are folded and in UTF-8."""

    keywords: Mapping[bytes, str]
    stems: Mapping[bytes, tuple[tuple[bytes, str | None], ...]]  # head -> (stem, stage or exception), longest first
    senses: Mapping[bytes, tuple[Sense, ...]]  # first word -> senses, longest first
    nouns: Mapping[bytes, tuple[tuple[Words, str], ...]]  # last word -> (words before it, stage), longest first
    # word -> whether it matches: all keywords and senses, and a cache of short words, since testing a word for stems
    # takes longer than everything else.
    matches: dict[bytes, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, config: InferenceConfig) -> "Lexicon":
        keywords: dict[bytes, str] = {}
        stems: dict[bytes, str | None] = {}  # None: an exception
        for stage in TIE_ORDER:
            keywords = dict.fromkeys(_spellings(config.keywords.get(stage, ())), stage) | keywords
            stems = {**dict.fromkeys(_spellings(config.stems.get(stage, ())), stage), **stems}
        stems |= dict.fromkeys(_spellings(config.not_stems), None)
        by_head: dict[bytes, tuple[tuple[bytes, str | None], ...]] = {}
        for stem in sorted(stems, key=len, reverse=True):
            by_head[stem[:_HEAD]] = (*by_head.get(stem[:_HEAD], ()), (stem, stems[stem]))
        listed = cls(keywords, by_head, {}, {})
        senses = listed._senses(config)
        matches = dict.fromkeys((*keywords, *senses), True)
        return cls(keywords, by_head, senses, listed._nouns(config), matches)

    def find(self, words: Sequence[bytes]) -> list[int]:
        """Return the places of matching words: keywords, words that begin with a stem, and words with a sense.

        `words` are at least two, as `clauses` gives them.
        """
        try:
            # One call for all of them takes two thirds of the time of map().
            return [*compress(count(), itemgetter(*words)(self.matches))]
        except KeyError:
            return [*compress(count(), map(self._matches, words))]

    def stage_of(self, word: bytes) -> str | None:
        """Return the stage of a word: as a keyword, else by its longest stem."""
        if word in self.keywords:
            return self.keywords[word]
        for stem, stage in self.stems.get(word[:_HEAD], ()):
            if word.startswith(stem):
                return stage
        return None

    def _matches(self, word: bytes) -> bool:
        known = self.matches.get(word)
        if known is None:
            known = self.stage_of(word) is not None
            if len(word) <= _SHORT_BYTES:
                if len(self.matches) >= _MAX_CACHED:
                    self._reset_cache()
                self.matches[word] = known
        return known

    def _reset_cache(self) -> None:
        self.matches.clear()
        self.matches.update(dict.fromkeys((*self.keywords, *self.senses), True))

    def noun_stage(self, words: Words) -> str | None:
        """Return the stage of the thing that the last of `words` names."""
        for before, stage in self.nouns.get(words[-1], ()) if words else ():
            if words[-1 - len(before) : -1] == before:
                return stage
        return None

    def _senses(self, config: InferenceConfig) -> Mapping[bytes, tuple[Sense, ...]]:
        makers = {word for entry in config.intent.makers for word, _form in _verb_forms(entry)}
        found: dict[tuple[Words, Form], Sense] = {}
        for stage in TIE_ORDER:
            for entry in config.intent.verbs.get(stage, ()):
                listed = self._listed(entry, stage)
                for words, form in _verb_forms(entry):
                    sense = Sense(words[1:], form, listed, words in makers)
                    found.setdefault((words, form), sense)
        for entry in config.intent.makers:
            for words, form in _verb_forms(entry):
                found.setdefault((words, form), Sense(words[1:], form, None, True))
        if makers:
            found |= {((word,), "final"): Sense((), "final", None, True) for word in WANTS}
        for stage in TIE_ORDER:
            for entry in config.intent.questions.get(stage, ()):
                for words in _noun_forms(entry):
                    found.setdefault((words, "question"), Sense(words[1:], "question", stage, False))
        senses: dict[bytes, tuple[Sense, ...]] = {}
        for words, form in sorted(found, key=lambda key: -len(key[0])):
            senses[words[0]] = (*senses.get(words[0], ()), found[words, form])
        return senses

    def _nouns(self, config: InferenceConfig) -> Mapping[bytes, tuple[tuple[Words, str], ...]]:
        found: dict[Words, str] = {}
        for stage in TIE_ORDER:
            for entry in config.intent.nouns.get(stage, ()):
                for words in _noun_forms(entry):
                    found.setdefault(words, self._listed(entry, stage))
        nouns: dict[bytes, tuple[tuple[Words, str], ...]] = {}
        for words in sorted(found, key=len, reverse=True):
            nouns[words[-1]] = (*nouns.get(words[-1], ()), (words[:-1], found[words]))
        return nouns

    def _listed(self, entry: str, stage: str) -> str:
        """Return the stage under which a word is listed as a keyword or stem, else `stage`: lists take precedence."""
        word = fold(entry).removesuffix("-").encode()
        return (None if b" " in word else self.stage_of(word)) or stage


def _spellings(entries: Iterable[str]) -> list[bytes]:
    """Fold words, each also without Turkish letters."""
    return [spelling.encode() for word in map(fold, entries) for spelling in dict.fromkeys((word, bare(word)))]


def _verb_forms(entry: str) -> Iterator[tuple[Words, Form]]:
    """Yield the forms in which a verb makes a request. Of several words only the last is inflected."""
    *first, last = fold(entry).split()
    forms: Iterable[tuple[str, Form]] = _turkish_verb(last[:-1]) if last.endswith("-") else [(last, "english")]
    for word, form in forms:
        for spelled in _both((*first, word)):
            yield spelled, form


def _noun_forms(entry: str) -> Iterator[Words]:
    *first, last = fold(entry).split()
    for word in _turkish_noun(last[:-1]) if last.endswith("-") else [last]:
        yield from _both((*first, word))


def _both(words: tuple[str, ...]) -> Iterator[Words]:
    for spelling in dict.fromkeys((words, tuple(map(bare, words)))):
        yield tuple(word.encode() for word in spelling)


def _turkish_verb(stem: str) -> Iterator[tuple[str, Form]]:
    """Yield a verb's forms without regard to vowel harmony: unused forms do no harm in an exact look-up."""
    vowel = stem[-1] in _VOWELS
    y = "y" if vowel else ""
    # et-, git-: eder, gidelim
    soft = stem[:-1] + "d" if stem.endswith(("et", "git")) else stem
    yield stem, "stem"
    for i in "iuü":
        yield f"{soft}{y}{i}p", "free"
        yield f"{soft}{y}{i}n", "final"
        yield f"{soft}{y}{i}n{i}z", "final"
        yield f"{stem}s{i}n", "final"
        yield f"{stem}{i}ver" if not vowel else f"{stem}y{i}ver", "final"
    for a in "ae":
        yield from ((f"{soft}{y}{a}l{i}m", "free") for i in "i")
        yield f"{stem}s{a}n{a}", "free"
        yield from ((f"{stem}m{a}li{person}", "free") for person in ("", "yiz", "sin", "siniz"))
        yield f"{soft}{y}{a}bilir", "polite"
        yield from ((f"{stem}m{a}{of}", "wanted") for of in ("k", "ni", "nizi", "m", "miz", "si", "sini"))
    for r in ("r",) if vowel else ("ar", "er", "ir", "ur", "ür"):
        yield soft + r, "polite"


def _turkish_noun(stem: str) -> Iterator[str]:
    """Yield a noun as object or as head of a compound: planı, planını, taslağını, haritası."""
    vowel = stem[-1] in _VOWELS
    soft = stem[:-1] + "ğ" if stem.endswith("k") else stem
    yield from (stem, stem + "lar", stem + "ler", stem + "lari", stem + "leri", stem + "larini", stem + "lerini")
    for i in "iuü":
        own, n, m = (f"{stem}s{i}", f"{stem}s{i}n{i}", f"{stem}m{i}") if vowel else (soft + i, f"{soft}{i}n{i}", "")
        yield from (own, n)
        if vowel:
            yield from (m, f"{stem}y{i}", f"{stem}n{i}")
        else:
            yield from (f"{soft}{i}m{i}", f"{soft}{i}m", f"{soft}{i}n")
