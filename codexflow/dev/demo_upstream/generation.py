"""Generated text of the demo models: request in, text and token counts out. Pure.

One piece of text is one token is one streamed event, so a test can count tokens by counting events, unless the fault
`chunks` puts several together. The last user message may dictate the text, `[[say:these words]]`, and tool calls (see
`tools.py`).
"""

import hashlib
import json
import math
import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from codexflow.dev.demo_upstream.faults import Drill, directives, without_directives
from codexflow.dev.demo_upstream.models import Model
from codexflow.dev.demo_upstream.planned import planned_pieces
from codexflow.dev.demo_upstream.prompt_cache import NOT_CACHED, CacheUse
from codexflow.dev.demo_upstream.tools import ToolCall, calls_asked_for, example, result_in, spoken

LABEL = "[demo upstream]"
_PIECE = re.compile(r"\s*\w{1,6}|\s*[^\w\s]|\s+")
_AGENTS_NOTE = re.compile(r"<(system-reminder|environment_context)>.*?</\1>", re.DOTALL)
_DICTATED = re.compile(r"\[\[say:(.*?)\]\]", re.DOTALL)
_ECHO_CHARS = 160
_TOKEN_CHARS = 4
_WORDS = ("this", "is", "one", "of", "many", "words", "that", "nobody", "had", "to", "think", "about")
_DIMENSIONS = 1536
# Of a text with so many tokens, so many come in one event: nobody waits for a demo's pauses.
_MANY, _TOGETHER = 500, 10


class BadRequest(ValueError):
    """The provider would refuse this body; `param` names the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        self.param = param
        super().__init__(message)


class Missing(BadRequest):
    """LiteLLM itself would refuse this body: it lacks `param`."""

    def __init__(self, param: str) -> None:
        super().__init__(f"Missing required parameter: {param!r}.", param)


def refuse_parameters(body: Mapping[str, Any], model: Model) -> None:
    """Raise BadRequest for a parameter that the model's provider refuses. A temperature of 1 changes nothing."""
    for name in model.refuses:
        if body.get(name) is not None and (name, body[name]) != ("temperature", 1):
            raise BadRequest(f"Unsupported parameter: '{name}' is not supported with this model.", name)


class Burst(NamedTuple):
    """Text of one streamed event, and its tokens."""

    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Generation:
    """The generated text and its usage. `pieces` joined is the text; every choice gets the same."""

    pieces: Sequence[str]
    finish_reason: str
    prompt_tokens: int
    choices: int = 1
    tool_calls: Sequence[ToolCall] = field(default_factory=tuple)
    tokens_an_event: int = 1

    @property
    def bursts(self) -> list[Burst]:
        """The text, cut into what one streamed event carries."""
        size = self.tokens_an_event
        groups = [self.pieces[at : at + size] for at in range(0, len(self.pieces), size)]
        return [Burst("".join(group), len(group)) for group in groups]

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def completion_tokens(self) -> int:
        """Tokens of all choices; a tool call counts its arguments."""
        return self.choices * (len(self.pieces) + sum(len(split(call.arguments)) for call in self.tool_calls))


def split(text: str) -> list[str]:
    """Split `text` into token-like pieces whose concatenation is the text."""
    return _PIECE.findall(text)


def text_of(content: object) -> str:
    """The text of a message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def last_user_text(messages: object) -> str:
    if not isinstance(messages, list):
        return ""
    for message in reversed(spoken(messages)):
        if message.get("role") == "user":
            return text_of(message.get("content"))
    return ""


def prompt_tokens_of(body: Mapping[str, Any]) -> int:
    """A stable estimate: a quarter of the characters, four for each message, tools as they are."""
    messages = [message for message in body.get("messages") or () if isinstance(message, dict)]
    chars = sum(len(text_of(message.get("content"))) for message in messages)
    if body.get("tools"):
        chars += len(json.dumps(body["tools"]))
    return 4 * len(messages) + math.ceil(chars / _TOKEN_CHARS)


def counted_tokens(chat: Mapping[str, Any]) -> int:
    """Tokens that a count of a chat body says: as the call itself would report, which the fault `usage` may change."""
    asked = directives(last_user_text(chat.get("messages")))
    told = next((fault.number("prompt") for fault in asked if fault.kind == "usage"), None)
    return prompt_tokens_of(chat) if told is None else told


def drill_of(text: str, model: str) -> Drill:
    """The faults that `text` asks for, as far as they concern `model`. Raises BadFault."""
    return Drill.of(fault for fault in directives(text) if fault.concerns(model))


def compose(body: Mapping[str, Any], drill: Drill) -> Generation:
    """Build the response to a chat request. Raises BadRequest."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("'messages' must be a list that is not empty", "messages")
    asked = without_directives(last_user_text(messages))
    prompt_tokens = prompt_tokens_of(body)
    choices = _whole(body.get("n"), "n", 1)
    limit = _whole(body.get("max_completion_tokens"), "max_completion_tokens", 0) or _whole(
        body.get("max_tokens"), "max_tokens", 0
    )
    if drill.get("empty"):
        return Generation((), "stop", prompt_tokens, choices)
    if calls := calls_asked_for(body, _without_notes(asked)):
        return Generation((), "tool_calls", prompt_tokens, choices, calls)
    pieces = _cut_at_stop(_pieces(body, asked, drill), body.get("stop"))
    together = max(1, chunks.number("together")) if (chunks := drill.get("chunks")) else 1
    if len(pieces) > _MANY and chunks is None and not _DICTATED.search(asked):
        together = max(together, _TOGETHER)
    if limit and len(pieces) > limit:
        return Generation(pieces[:limit], "length", prompt_tokens, choices, tokens_an_event=together)
    return Generation(pieces, "stop", prompt_tokens, choices, tokens_an_event=together)


def _pieces(body: Mapping[str, Any], asked: str, drill: Drill) -> list[str]:
    if chunks := drill.get("chunks"):
        return [LABEL, *(f" {_WORDS[i % len(_WORDS)]}" for i in range(1, chunks.number("n")))][: chunks.number("n")]
    if big := drill.get("big_body"):
        size = big.number("bytes")
        return [LABEL + " ", *("x" * min(65_536, size - done) for done in range(0, size, 65_536))]
    if (planned := planned_pieces(body["messages"], asked)) is not None:
        return planned
    if dictated := _DICTATED.search(asked):
        return split(dictated[1])
    form = body.get("response_format")
    if isinstance(form, dict) and form.get("type") == "json_object":
        return split(json.dumps({"demo_upstream": asked[-_ECHO_CHARS:]}))
    if isinstance(form, dict) and form.get("type") == "json_schema":
        schema = (form.get("json_schema") or {}).get("schema") or {}
        return split(json.dumps(example(schema)))
    result = result_in(body["messages"])
    whose, said = ("Your message", asked) if result is None else ("The tool's result", text_of(result))
    echo = " ".join(_without_notes(said)[-_ECHO_CHARS:].split())
    return split(f"{LABEL} No model was asked: this is a canned answer. {whose} ended with: {echo or '(nothing)'}")


def _without_notes(text: str) -> str:
    """`text` as the user typed it: coding agents add notes of their own to the user's message."""
    return _AGENTS_NOTE.sub("", text).strip()


def _cut_at_stop(pieces: list[str], stop: object) -> list[str]:
    stops = (
        [stop] if isinstance(stop, str) else [s for s in stop if isinstance(s, str)] if isinstance(stop, list) else []
    )
    text = "".join(pieces) if stops else ""
    places = [text.index(s) for s in stops if s and s in text]
    return split(text[: min(places)]) if places else pieces


def _whole(value: object, name: str, usual: int) -> int:
    if value is None:
        return usual
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadRequest(f"Invalid value for '{name}': {value!r}", name)
    return value


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts that the response reports."""

    prompt_tokens: int
    completion_tokens: int
    cache: CacheUse = NOT_CACHED

    def as_json(self, *, cost: float | None) -> dict[str, Any]:
        """LiteLLM's usage object; `cost` as `include_cost_in_streaming_usage` adds it."""
        shown: dict[str, Any] = {
            "completion_tokens": self.completion_tokens,
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "completion_tokens_details": {
                "accepted_prediction_tokens": 0,
                "audio_tokens": 0,
                "reasoning_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
            "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": self.cache.read_tokens},
            **self.of_cache(),
        }
        if cost is not None:
            shown["cost"] = cost
        return shown

    def of_cache(self) -> dict[str, int]:
        """Anthropic's counts of the cache, which LiteLLM passes on everywhere; none where the cache had no part."""
        if self.cache == NOT_CACHED:
            return {}
        read, written = self.cache.read_tokens, self.cache.written_tokens
        return {"cache_creation_input_tokens": written, "cache_read_input_tokens": read}


def usage_of(generated: Generation, drill: Drill, cache: CacheUse = NOT_CACHED) -> Usage:
    if wrong := drill.get("usage"):
        return Usage(wrong.number("prompt"), wrong.number("completion"))
    return Usage(generated.prompt_tokens, generated.completion_tokens, cache)


def embedding_inputs(body: Mapping[str, Any]) -> list[str]:
    """The texts to embed; token lists become text. Raises BadRequest."""
    value = body.get("input")
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(isinstance(item, int) for item in value):
            return [" ".join(map(str, value))]
        return [item if isinstance(item, str) else " ".join(map(str, item)) for item in value]
    raise BadRequest("'input' must be text, a list of texts or a list of tokens", "input")


def documents_of(body: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The query to rank by, and the documents as text. Raises BadRequest."""
    query, documents = body.get("query"), body.get("documents")
    if not isinstance(query, str) or not query:
        raise BadRequest("'query' must be text", "query")
    if not isinstance(documents, list) or not documents:
        raise BadRequest("'documents' must be a list of texts", "documents")
    return query, [item if isinstance(item, str) else str(item) for item in documents]


def moderated_texts(body: Mapping[str, Any]) -> list[str]:
    """The texts to judge; images and texts in parts are one input. Raises BadRequest."""
    value = body.get("input")
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(isinstance(item, str) for item in value):
            return value
        return [" ".join(str(item.get("text", "")) for item in value if isinstance(item, dict))]
    raise BadRequest("'input' must be text, or a list of texts or parts", "input")


def vector(text: str, model: Model, dimensions: int | None) -> "array[float]":
    """A unit vector of 32-bit floats that depends on the text and the model alone."""
    size = dimensions or _DIMENSIONS
    raw = array("h", hashlib.shake_256(f"{model.name}\0{text}".encode()).digest(2 * size))
    length = math.sqrt(sum(number * number for number in raw)) or 1.0
    return array("f", (number / length for number in raw))
