"""Guess the stage of a request from its text. Deterministic: the same prompt and words give the same stage.

The surest sign decides: what a coding agent announces (plan mode, a reviewer's role), a pasted diff, the tools of an
agent at work, what the message plainly asks for, and at last a count of configured words. There the stage with most
hits wins, among equals the one that was hit first. Without a hit it is code.
"""

from dataclasses import dataclass

from codexflow.catalogue.reasons import AGENT, DEFAULT, DIFF, INTENT, KEYWORD
from codexflow.catalogue.schema import InferenceConfig
from routing.inference import agents
from routing.inference.lexicon import Lexicon
from routing.inference.sentences import asked
from routing.inference.words import END, clauses
from routing.inference.words import fold as fold
from routing.inference.words import one_i as one_i
from routing.inference.words import words as words

DEFAULT_STAGE = "code"

# Longer messages are pasted files with the question at their end.
MAX_CHARS = 16 * 1024
# So much is searched for boilerplate before the cut, so that a question above a long block of code is found, too.
_MAX_RAW_CHARS = 4 * MAX_CHARS


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What inference may look at."""

    last_user_text: str
    system_text: str = ""
    tool_names: tuple[str, ...] = ()


# The lexicon of the configuration last seen. One is in force at a time, and a dict inside it keeps it from being a
# key of a real cache. A thread that loses the race builds the same lexicon again.
_latest: tuple[InferenceConfig | None, Lexicon] = (None, Lexicon.of(InferenceConfig(keywords={}, stems={})))


def infer(prompt: Prompt, config: InferenceConfig) -> tuple[str, str]:
    """The stage of a prompt, and the reason, one of `reasons.INFERRED`.

    Of the user's message it looks at the last 16 K characters that are neither boilerplate nor quoted code, in time
    linear in their number.
    """
    raw = _end_of(prompt.last_user_text, _MAX_RAW_CHARS)
    said, added = agents.without_boilerplate(raw)
    announced = agents.announced(system_text=prompt.system_text, added=added, said=said, tool_names=prompt.tool_names)
    if announced is not None:
        return announced, AGENT[announced]

    lexicon = _lexicon(config)
    has_diff = agents.has_diff(raw)
    text = _folded_end(agents.without_diff(said) if has_diff else said)
    places = lexicon.find(text)
    intent = asked(text, places, lexicon)
    if has_diff:
        # A patch is there to be looked at, unless something else is to be done with it.
        return (intent, INTENT) if intent in ("plan", "code") else ("review", DIFF)
    if agents.edits_files(prompt.tool_names):
        return (intent, INTENT) if intent in ("plan", "review") else ("code", AGENT["code"])
    counted = _most_hit([text[place] for place in places], lexicon)
    if intent is not None and intent != counted and _is_sentence(text, places):
        return intent, INTENT
    return (counted, KEYWORD) if counted else (DEFAULT_STAGE, DEFAULT)


def _is_sentence(text: list[bytes], places: list[int]) -> bool:
    """Whether a text is more than a list of the words that are looked for: those are only counted."""
    return any(
        place not in places and (len(word) > 1 or word == b"a") and word != END for place, word in enumerate(text)
    )


def _most_hit(found: list[bytes], lexicon: Lexicon) -> str | None:
    hits = [stage for word in found if (stage := lexicon.stage_of(word))]
    # Stages in the order of their first hit; max keeps the first of equals.
    return max(dict.fromkeys(hits), key=hits.count) if hits else None


def _end_of(text: str, chars: int) -> str:
    """The end of a text; when a block of code was cut in two, the rest of it is fenced again."""
    if len(text) <= chars:
        return text
    is_inside = text.count("```", 0, len(text) - chars) % 2
    return f"```{text[-chars:]}" if is_inside else text[-chars:]


def _folded_end(said: str) -> list[bytes]:
    if len(said) <= MAX_CHARS:
        return clauses(said)
    text = clauses(said[-MAX_CHARS:])
    text[1] = END  # the cut may have gone through the first word, so that one does not count
    return text


def _lexicon(config: InferenceConfig) -> Lexicon:
    global _latest
    known, lexicon = _latest
    if known is not config:
        lexicon = lexicon if known == config else Lexicon.of(config)
        _latest = (config, lexicon)
    return lexicon
