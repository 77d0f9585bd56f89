"""Infer the stage of a request from its text. Pure: the same prompt and configuration give the same stage.

The strongest signal decides: a mode or role announced by a coding agent (plan mode, reviewer), a pasted diff, the tools
of an agent, an explicit request in the message, and last a count of configured keywords. There the stage with most hits
wins, among equals the one that was hit first. Without a hit it is code.
"""

from dataclasses import dataclass

from codexflow.catalogue.reasons import AGENT, DEFAULT, DIFF, INTENT, KEYWORD
from codexflow.catalogue.schema import InferenceConfig
from routing.inference import agents
from routing.inference.lexicon import Lexicon
from routing.inference.sentences import requested_stage
from routing.inference.words import END, clauses

DEFAULT_STAGE = "code"

# Longer messages are pasted files with the question at their end.
MAX_CHARS = 16 * 1024
# Searched for boilerplate before the cut, so that a question above a long block of code is found, too.
_MAX_RAW_CHARS = 4 * MAX_CHARS


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Texts that inference reads."""

    last_user_text: str
    system_text: str = ""
    tool_names: tuple[str, ...] = ()


def infer(prompt: Prompt, config: InferenceConfig) -> tuple[str, str]:
    """Return the stage of a prompt, and the reason, one of `reasons.INFERRED`.

    Of the user's message it reads the last 16 K characters that are neither boilerplate nor quoted code, in linear
    time.
    """
    raw = _end_of(prompt.last_user_text, _MAX_RAW_CHARS)
    user_text, boilerplate = agents.split_boilerplate(raw)
    announced = agents.announced_stage(
        system_text=prompt.system_text, boilerplate=boilerplate, user_text=user_text, tool_names=prompt.tool_names
    )
    if announced is not None:
        return announced, AGENT[announced]

    lexicon = _lexicons.get(config)
    has_diff = agents.has_diff(raw)
    text = _folded_end(agents.without_diff(user_text) if has_diff else user_text)
    places = lexicon.find(text)
    requested = requested_stage(text, places, lexicon)
    if has_diff:
        # A patch is to be reviewed, unless something else is requested.
        return (requested, INTENT) if requested in ("plan", "code") else ("review", DIFF)
    if agents.edits_files(prompt.tool_names):
        return (requested, INTENT) if requested in ("plan", "review") else ("code", AGENT["code"])
    counted = _most_hit([text[place] for place in places], lexicon)
    if requested is not None and requested != counted and _is_sentence(text, places):
        return requested, INTENT
    return (counted, KEYWORD) if counted else (DEFAULT_STAGE, DEFAULT)


def _is_sentence(text: list[bytes], places: list[int]) -> bool:
    """Return whether a text is more than a list of configured words, which are only counted."""
    return any(
        place not in places and (len(word) > 1 or word == b"a") and word != END for place, word in enumerate(text)
    )


def _most_hit(found: list[bytes], lexicon: Lexicon) -> str | None:
    hits = [stage for word in found if (stage := lexicon.stage_of(word))]
    # Stages in the order of their first hit; max keeps the first of equals.
    return max(dict.fromkeys(hits), key=hits.count) if hits else None


def _end_of(text: str, chars: int) -> str:
    """Cut a text to its end; when that splits a block of code, the rest of the block is fenced again."""
    if len(text) <= chars:
        return text
    is_inside = text.count("```", 0, len(text) - chars) % 2
    return f"```{text[-chars:]}" if is_inside else text[-chars:]


def _folded_end(text: str) -> list[bytes]:
    if len(text) <= MAX_CHARS:
        return clauses(text)
    folded = clauses(text[-MAX_CHARS:])
    folded[1] = END  # the cut may have gone through the first word, so that one does not count
    return folded


class _LexiconCache:
    """Lexicon of the configuration used last, since one is in force at a time.

    Not an lru_cache: a configuration holds a dict, so it cannot be a key. Entry and key are one tuple, so a thread that
    loses a race only builds the same lexicon again.
    """

    def __init__(self) -> None:
        self._entry: tuple[InferenceConfig, Lexicon] | None = None

    def get(self, config: InferenceConfig) -> Lexicon:
        entry = self._entry
        if entry is None or entry[0] is not config:
            lexicon = entry[1] if entry is not None and entry[0] == config else Lexicon.of(config)
            self._entry = entry = (config, lexicon)
        return entry[1]


_lexicons = _LexiconCache()
