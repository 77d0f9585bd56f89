"""Explicit requests in the sentences of a message: "please review it", "testleri yaz". Pure.

English asks at the beginning of a clause ("please fix the build", "could you review it"), Turkish at its end
("testleri yaz", "planı inceler misin"). A verb that makes something asks for the stage of what is made: to write a plan
is to plan.
Elsewhere a verb only describes ("the code that I review"), and "don't write" does not ask for writing.
The vocabulary is configured; the grammar is here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from routing.inference.lexicon import WANTS, Lexicon, Sense
from routing.inference.words import END, word_set

# Requests stand at the beginning or the end of a message: so many configured words are tried there.
_MOST_FIRST, _MOST_LAST = 6, 10
# So many words on either side of a verb are read, which keeps the whole linear.
_AROUND = 20
_MOST_NOUN_WORDS = 4


# Words allowed between the beginning of a clause and the verb that asks.
_OPENERS = word_set(
    "please pls plz kindly can could would will you we i let lets us s m d ll ve me help want need needs to like love"
    " now then next first also just finally ok okay yes so hey hi hello thanks go ahead and but should must have try"
    " your our task job is goal quickly carefully thoroughly only again once more mind today maybe perhaps simply tell"
    " how do for"
    " lütfen şimdi önce hadi haydi"
)
# After these a clause may begin without a comma.
_JOINERS = word_set("and then but so ve ama sonra")
_LEADS = _OPENERS | _JOINERS | {END}
# Right before a verb these describe habits, not requests: "we review every PR".
_SUBJECTS = word_set("i we they")
_INVERTED = word_set("should shall can could may must let do")
_FUTURE = word_set("will ll")
# Right after a verb they show that it is a noun: "the plan is ready", "review comments".
_NOT_OBJECTS = word_set(
    "is are was were be been isn wasn looks look looked seems says said shows has had needs should must will would can"
    " could may might mode comment comments feedback done finished complete went fails failed does did doesn crashes"
    " of or vs above below"
)
# A verb joined by "and" asks only before one of these: "review the plan and process" names two things.
_DETERMINERS = word_set(
    "a an the this that these those my your our their its his her it them all any each every some both one step steps"
    " whatever what everything anything whether if"
)
_BEFORE_HEAD = word_set("me us up out down together the a an my your our their its this that some another one")
_AFTER_HEAD = word_set("first now please again here today tomorrow instead only too beforehand below above asap pls")
_ENDS_OF_OBJECT = word_set(
    "for of to that which who in on at with from about based according using so as how when before after and or then"
    " but without into describing covering comparing showing because if where like via per over around we i you it is"
) | {END}

# To write one of these is to respond, whatever else is requested.
_RESPONSES = word_set("list summary overview notes explanation answer liste özet açıklama listesini özetini")
_QUESTION_OPENERS = word_set("is are does do did was were will am has have isn aren doesn don any")
_QUESTION_PARTICLES = word_set("mi mu mü midir mudur müdür miyim")
_QUESTION_WORDS = word_set("ne nerede nesi hangi hangisi")
_POLITE = word_set("misin misiniz musun musunuz müsün müsünüz miyiz muyuz müyüz musunuz mi mu mü")
# After a final verb form a clause may go on with these.
_TAILS = word_set("lütfen bana bize ve ama sonra şimdi hemen artık olur de da ki hadi bakalım") | {END}
_TURKISH_LEADS = word_set("lütfen şimdi önce hadi haydi") | {END}
# "Kodla ilgili" is about code.
_NOT_TURKISH_OBJECTS = word_set("ilgili ilgisi beraber")
# They may stand between a Turkish verb and its object.
_ADVERBS = word_set("bana bize lütfen hemen önce şimdi bir tane detaylı birlikte da de")


@dataclass(frozen=True, slots=True)
class _Request:
    """One request; a deliverable is named by its noun: a plan, a review."""

    stage: str
    is_deliverable: bool


def requested_stage(text: list[bytes], places: Sequence[int], lexicon: Lexicon) -> str | None:
    """Return the stage that a message explicitly requests, or None.

    `places` are where the lexicon found words in `text`, which begins and ends with END.
    Several requests for one stage agree. Of requests for different stages the last one decides when it names a
    deliverable ("move X out of Y. Write a plan"); otherwise, if one asks for code, code has to be written whatever else
    is requested. Plan and review together decide nothing, nor does a list of bare verbs beside a request.
    """
    english: list[_Request] = []
    turkish: list[_Request] = []
    listed: set[str] = set()
    if len(places) > _MOST_FIRST + _MOST_LAST:
        places = [*places[:_MOST_FIRST], *places[-_MOST_LAST:]]
    for place in places:
        sense = _sense(text, place, lexicon)
        if sense is None:
            continue
        if sense.form == "english" and _is_bare(sense, text[place + 1]):
            listed.add(sense.stage or "")
        elif sense.form in ("english", "question"):
            made = _made_in_english(text, place + 1 + len(sense.rest)) if sense.makes else ()
            english.append(_request(sense, lexicon, made=made))
        else:
            made = _made_in_turkish(text, place) if sense.makes else ()
            turkish.append(_request(sense, lexicon, made=made))
    # A word that looks English beside a Turkish request is a loan: "plan sayfasini düzelt".
    requests = [request for request in turkish or english if request.stage]
    stages = {request.stage for request in requests}
    if not requests or (not turkish and not listed - {""} <= stages):
        return None
    if len(stages) == 1 or requests[-1].is_deliverable:
        return requests[-1].stage
    return "code" if "code" in stages else None


def _sense(text: list[bytes], place: int, lexicon: Lexicon) -> Sense | None:
    """Return the sense in which the word at a place makes a request, or None."""
    leads = text[place - 1] in _LEADS
    for sense in lexicon.senses.get(text[place], ()):
        if sense.form == "english" and not leads:
            continue
        count = len(sense.rest)
        if count and tuple(text[place + 1 : place + 1 + count]) != sense.rest:
            continue
        if _asks(sense, text, place, following=text[place + 1 + count]):
            return sense
    return None


def _asks(sense: Sense, text: list[bytes], place: int, *, following: bytes) -> bool:
    match sense.form:
        case "english":
            return (
                (following not in _NOT_OBJECTS or bool(sense.rest))
                and _opens(sense, text, place, following=following)
                # A Turkish sentence may begin with a word that is a verb in English: "plan sayfası boş".
                and b"".join(text[place + 1 : place + 5]).isascii()
            )
        case "free":
            return True
        case "stem":
            leads = text[place - 1] in _TURKISH_LEADS and following not in _NOT_TURKISH_OBJECTS
            return leads or following in _TAILS
        case "final":
            return following in _TAILS
        case "polite":
            return following in _POLITE
        case "wanted":
            return following in WANTS
        case "question":
            return _is_question(text, place)


def _opens(sense: Sense, text: list[bytes], place: int, *, following: bytes) -> bool:
    """Return whether an English verb begins a clause, openers aside."""
    if sense.stage is not None and _is_statement(nearest=text[place - 1], further=text[place - 2]):
        return False
    for word in text[place - 1 : max(0, place - _AROUND) : -1]:
        if word == END:
            return True
        if word in _JOINERS and (sense.rest or following in _DETERMINERS):
            return True
        if word not in _OPENERS:
            return False
    return place <= _AROUND


def _is_statement(*, nearest: bytes, further: bytes) -> bool:
    """Return whether the verb states what happens anyway: "we review every PR", "I will write the tests"."""
    if nearest in _FUTURE:
        return further in _SUBJECTS
    return nearest in _SUBJECTS and further not in _INVERTED


def _is_question(text: list[bytes], place: int) -> bool:
    """Return whether the clause of a word is a question: "is this safe", "bir sorun var mı", "ne yanlış"."""
    if not _QUESTION_PARTICLES.isdisjoint(text[place + 1 : place + 8]):
        return True
    first = text[place]
    for word in text[place - 1 : max(0, place - _AROUND) : -1]:
        if word == END:
            break
        if word in _QUESTION_WORDS:
            return True
        first = word
    return first in _QUESTION_OPENERS


def _is_bare(sense: Sense, following: bytes) -> bool:
    """Return whether a single verb has no object: an item of a list or a heading rather than a request."""
    return not sense.rest and (following == END or following in _JOINERS)


def _request(sense: Sense, lexicon: Lexicon, *, made: tuple[bytes, ...]) -> _Request:
    if not sense.makes:
        return _Request(sense.stage or "", is_deliverable=False)
    stage = lexicon.noun_stage(made)
    is_response = bool(made) and made[-1] in _RESPONSES
    return _Request(stage or ("" if is_response else sense.stage) or "", is_deliverable=stage is not None)


def _made_in_english(text: list[bytes], place: int) -> tuple[bytes, ...]:
    """Return the object that begins at a place, up to its head: "me a short plan for …" -> short, plan."""
    made: list[bytes] = []
    for word in text[place : place + _AROUND]:
        if word == END or (made and word in _ENDS_OF_OBJECT):
            break
        if made or word not in _BEFORE_HEAD:
            made.append(word)
    while made and made[-1] in _AFTER_HEAD:
        made.pop()
    return tuple(made)


def _made_in_turkish(text: list[bytes], place: int) -> tuple[bytes, ...]:
    """Return the words before a place, the last of which is the head of the object of the verb there."""
    made: list[bytes] = []
    for word in text[place - 1 : max(0, place - _AROUND) : -1]:
        if word == END or len(made) == _MOST_NOUN_WORDS:
            break
        if made or word not in _ADVERBS:
            made.append(word)
    return tuple(made[::-1])
