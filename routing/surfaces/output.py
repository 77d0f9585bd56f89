"""Size of what a model wrote: characters of text, reasoning and tool arguments, on each surface. Pure.

A call is charged by it only when the provider does not tell its usage. What is around the words (JSON, pings, comments,
log probabilities, events that repeat what came before) is no output. Images and audio are no text: an image counts a
fixed amount, audio by its bytes. docs/limits.md has the table.
"""

import contextlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum, IntEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct
from typing_extensions import override

from billing.limiter.holds import TOKENS_PER_IMAGE
from routing.surfaces import sse
from routing.surfaces.tools import unit_of_block, unit_of_call

CHARS_PER_TOKEN = 4
# Half of what is held for an image, as in the estimate of the input.
IMAGE_CHARS = CHARS_PER_TOKEN * TOKENS_PER_IMAGE // 2
# Speech in a stream is uncompressed: a token is about 2 KB of its base64.
AUDIO_BYTES_PER_CHAR = 512
# Of an event that has not ended. A longer one is counted roughly, piece by piece.
MAX_HELD_BYTES = 1024 * 1024

# Fields of what a model wrote


class _Role(Enum):
    NOTHING = 0
    TEXT = 1  # or parts with text
    REASONING = 2  # the same; some providers write it twice, under two names
    ARGUMENTS = 3  # of a tool: text, or an object
    ACTION = 4  # likewise; as text it is no more than a name
    AUDIO = 5
    IMAGE = 6
    IMAGES = 7


# fmt: off
_ROLES: dict[str, _Role] = {
    name: role
    for role, names in {
        _Role.NOTHING: ("annotations", "data", "id", "index", "name", "role", "signature", "status", "type"),
        _Role.TEXT: (
            "content", "custom", "function", "function_call", "refusal", "summary", "text", "tool_calls", "transcript",
        ),
        _Role.ARGUMENTS: ("arguments", "code", "input", "partial_json", "queries"),
        _Role.ACTION: ("action", "operation"),
        _Role.AUDIO: ("audio",),
        _Role.IMAGE: ("b64_json", "image_url"),
        _Role.IMAGES: ("images",),
    }.items()
    for name in names
}
# fmt: on
# Providers invent names for reasoning. What is encrypted is no text.
_REASONING = re.compile(r"reasoning|thinking|thought")
_NO_TEXT = re.compile(r"signature|encrypted|opaque|redacted|tokens|effort|format|budget|_id$")
# Tools' results stand among what the model wrote.
_RESULTS = ("_result", "_output")
# They are output even without a text or arguments.
_CALLS = ("_call", "_request", "tool_use", "redacted_thinking", "compaction")
_EVIDENCE = frozenset({"audio", "encrypted_content", "function_call", "images", "tool_calls"})

# Some providers put an image into the text. No model writes one letter by letter.
_DATA_URL = re.compile(r"data:[\w./+;=-]{1,200};base64,[A-Za-z0-9+/=_-]{256,}")
_LONG_TEXT_CHARS = 256
_HIGH_HALF = re.compile("[\ud800-\udbff]")


@lru_cache(maxsize=256)
def _role_of(name: str) -> _Role:
    if name in _ROLES:
        return _ROLES[name]
    return _Role.REASONING if _REASONING.search(name) and not _NO_TEXT.search(name) else _Role.NOTHING


def chars_in(value: Any) -> int:
    """Count the characters of a decoded text, message, part, item or block, or a list of them."""
    if isinstance(value, str):
        return _length(value)
    if isinstance(value, list):
        return sum(map(chars_in, value))
    if not isinstance(value, dict):
        return 0
    kind = value.get("type")
    if kind is not None and str(kind).endswith(_RESULTS):
        return 0
    chars, reasoning = _media_chars(kind, value) if kind is not None else 0, 0
    for name, found in value.items():
        if not found:
            continue
        role = _role_of(name)
        if role is _Role.TEXT:
            chars += chars_in(found)
        elif role is _Role.REASONING:
            reasoning = max(reasoning, chars_in(found))
        elif role is not _Role.NOTHING:
            chars += _other_chars(role, found)
    return chars + reasoning


def _other_chars(role: _Role, found: Any) -> int:
    if role is _Role.AUDIO:
        return chars_in(found) + _audio_chars(found.get("data")) if isinstance(found, dict) else _audio_chars(found)
    if role is _Role.IMAGE:
        return IMAGE_CHARS
    if role is _Role.IMAGES:
        return IMAGE_CHARS * len(found) if isinstance(found, list) else IMAGE_CHARS
    if isinstance(found, str):
        return _length(found) if role is _Role.ARGUMENTS else 0
    return len(json.dumps(found, ensure_ascii=False, separators=(",", ":")))


def _media_chars(kind: Any, value: dict[str, Any]) -> int:
    """Count images and audio whose field is one only beside this type."""
    if kind == "image_generation_call":
        return IMAGE_CHARS if value.get("result") else 0
    if kind == "image":
        return IMAGE_CHARS if value.get("source") else 0
    return _audio_chars(value.get("data")) if kind == "output_audio" else 0


def _audio_chars(base64: Any) -> int:
    return len(base64) // AUDIO_BYTES_PER_CHAR if isinstance(base64, str) else 0


def _length(text: str) -> int:
    if len(text) < _LONG_TEXT_CHARS or ";base64," not in text:
        return len(text)
    rest, images = _DATA_URL.subn("", text)
    return len(rest) + IMAGE_CHARS * images


def _is_output(value: Any) -> bool:
    """Return whether a value without characters is output nevertheless: a call without arguments."""
    if isinstance(value, list):
        return any(map(_is_output, value))
    if not isinstance(value, dict):
        return False
    if str(value.get("type")).endswith(_CALLS):
        return True
    return any(found and (name in _EVIDENCE or _role_of(name) is _Role.REASONING) for name, found in value.items())


# Outputs


def _payloads_of(events: bytes) -> bytes:
    """Return what events carry, one a line."""
    return b"\n".join([line[5:] for line in events.splitlines() if line.startswith(b"data:")])


def _payloads_of_alike(events: bytes) -> bytes:
    """Return the same in a third of the time, if all events begin alike; else what no decoder takes."""
    at = events.find(b"data:", 0, _MAX_HEAD_BYTES)
    head = events[: at + 5] if at >= 0 else events
    return b"\n".join(events[len(head) :].split(b"\n\n" + head))


class Output(ABC):
    """Output of one call so far. Nothing is counted before it is asked for."""

    # The model or its provider refused, or failed.
    is_refused = False
    # Calls of hosted tools in a stream, by unit, as far as they were delivered.
    units: Mapping[str, int] = MappingProxyType({})
    # Why a stream ended, as its provider wrote it, if nothing has been said since.
    stop_reason: str | None = None
    _PLAIN_STOPS: frozenset[str] = frozenset()
    _chars = 0
    _is_any = False
    # A whole response that has not been counted yet.
    _whole: Any = None
    _rest = b""
    # Inside an event that is too long to hold, and whether that is text.
    _is_mid_event = False
    _is_long_text = False

    @property
    def chars(self) -> int:
        if self._whole is not None:
            written, self._whole = self._whole, None
            try:
                self._add(written, chars_in(written))
            except RecursionError:
                self._is_any = True
        return self._chars

    @property
    def tokens(self) -> int:
        """Estimate: four characters a token, rounded up; at least one when there was any output."""
        return max(-(-self.chars // CHARS_PER_TOKEN), int(self._is_any))

    @property
    def says_something(self) -> bool:
        """True once there is output, or another reason to stop than that the model had finished."""
        return bool(self.tokens) or (self.stop_reason is not None and self.stop_reason not in self._PLAIN_STOPS)

    def add_whole(self, written: Any) -> None:
        """Take the texts, messages, items or blocks of a whole response."""
        self._whole = written

    def add(self, piece: bytes) -> None:
        """Count a piece of the stream, wherever it was cut: an event that has not ended waits for its end."""
        if self._is_mid_event:
            piece = self._after_long_event(piece)
            if self._is_mid_event:
                return
        stream = self._rest + piece if self._rest else piece
        end = sse.end_of_events(stream)
        if end:
            self._add_events(stream[:end])
        self._rest = stream[end:]
        if len(self._rest) > MAX_HELD_BYTES:
            self._begin_long_event()

    def _add(self, written: Any, chars: int) -> None:
        if chars:
            self._chars += chars
        elif not self._is_any:
            self._is_any = _is_output(written)

    def _add_events(self, events: bytes) -> None:
        with contextlib.suppress(*_UNREADABLE):
            self._add_chars(self._chars_of_deltas(_payloads_of_alike(events)))
            return
        for event in self._decoded(events):
            try:
                self._count(event)
            except RecursionError:
                self._is_any = True

    def _decoded(self, events: bytes) -> Iterable[Any]:
        try:
            return self._decode(_payloads_of(events))
        except _UNREADABLE:
            return self._decoded_oddly(events)

    def _decoded_oddly(self, events: bytes) -> Iterator[Any]:
        """Decode events of which one is odd: each by itself, and as leniently as Python's own reader does."""
        for raw in sse.events_of(events):
            payload = _lenient(sse.data_of(raw))
            if isinstance(payload, dict):
                yield self._read(payload)

    @abstractmethod
    def _chars_of_deltas(self, payloads: bytes) -> int:
        """Count events that are all deltas of text, as nearly all are. Raises MsgspecError when one is not."""

    @abstractmethod
    def _decode(self, payloads: bytes) -> Iterable[Any]:
        """Decode events. Raises MsgspecError when one has not the usual form."""

    @abstractmethod
    def _read(self, payload: dict[str, Any]) -> Any:
        """Read an event that has not the usual form."""

    @abstractmethod
    def _count(self, event: Any) -> None:
        """Count an event."""

    def _begin_long_event(self) -> None:
        """Count the beginning of an event that is too long to hold: an image, or else text."""
        self.stop_reason = None
        self._is_mid_event, self._is_long_text = True, _BASE64.match(self._rest, len(self._rest) // 2) is None
        if not self._is_long_text:
            self._add_chars(IMAGE_CHARS)
        self._add_long(self._rest)
        self._rest = self._rest[-_SEAM_BYTES:]

    def _after_long_event(self, piece: bytes) -> bytes:
        """Count on to the end of a long event, and return what follows. `_rest` is its last bytes so far."""
        seam = self._rest + piece[:_SEAM_BYTES]
        ends = [sse.first_end(seam) - len(self._rest), sse.first_end(piece)]
        end = next((each for each in ends if each > 0), 0)
        self._is_mid_event = not end
        self._add_long(piece[:end] if end else piece)
        self._rest = b"" if end else (self._rest + piece[-_SEAM_BYTES:])[-_SEAM_BYTES:]
        return piece[end:] if end else b""

    def _add_long(self, piece: bytes) -> None:
        if self._is_long_text:
            # In slices, so that no second copy of it is made; a letter at their edges does not matter.
            slices = (piece[at : at + _SLICE_BYTES] for at in range(0, len(piece), _SLICE_BYTES))
            self._add_chars(sum(len(each.decode(errors="ignore")) for each in slices))

    def _add_chars(self, chars: int) -> None:
        self._add(None, chars)

    def _add_unit(self, unit: str | None) -> None:
        if unit is not None:
            self.units = {**self.units, unit: self.units.get(unit, 0) + 1}


# One byte less than the longest end of an event.
_SEAM_BYTES = 2
_MAX_HEAD_BYTES = 128
_SLICE_BYTES = 64 * 1024
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
_BASE64 = re.compile(rb"[A-Za-z0-9+/=_\\-]{200}")


def _lenient(payload: bytes) -> Any:
    """Read JSON with NaN and half surrogates; None for what Python's own reader cannot read either.

    First halves are left out: an emoji that was cut in two counts once.
    """
    try:
        plain = json.dumps(json.loads(payload.decode("utf-8-sig")), ensure_ascii=False)
        return json.loads(_HIGH_HALF.sub("", plain))
    except (ValueError, RecursionError):
        return None


S = TypeVar("S", bound=Struct)


def _struct(kind: type[S], payload: Any) -> S:
    """Make a struct of an object's fields; of anything else, one without."""
    given = payload if isinstance(payload, dict) else {}
    return kind(**{name: given[name] for name in kind.__struct_fields__ if name in given})


# Chat and text completions


class _Choice(Struct, gc=False):
    index: Any = 0
    delta: Any = None
    message: Any = None
    text: Any = None
    finish_reason: Any = None


class _Chunk(Struct, gc=False):
    choices: list[_Choice] | None = None


class _TextInDelta(Struct, gc=False, forbid_unknown_fields=True):
    content: str | None = None
    reasoning_content: str | None = None
    role: Any = None
    function_call: None = None
    provider_specific_fields: Any = None
    refusal: None = None
    tool_calls: None = None


class _TextChoice(Struct, gc=False):
    delta: _TextInDelta
    index: int = 0
    finish_reason: None = None
    text: None = None


class _TextChunk(Struct, gc=False):
    choices: list[_TextChoice]


_chunks = msgspec.json.Decoder(_Chunk)
_text_chunks = msgspec.json.Decoder(_TextChunk)


class ChoicesOutput(Output):
    """Output of chat and text completions."""

    _REFUSALS = ("content_filter", "refusal")
    _PLAIN_STOPS = frozenset({"stop"})

    def __init__(self) -> None:
        # Choices that have begun, by index, and whether their end is still to come: a call may ask for several.
        self._is_open: dict[int, bool] = {}

    @override
    def _chars_of_deltas(self, payloads: bytes) -> int:
        chars, is_open = 0, self._is_open
        for chunk in _text_chunks.decode_lines(payloads):
            for choice in chunk.choices:
                delta, before = choice.delta, chars
                if text := delta.content:
                    chars += _length(text)
                if text := delta.reasoning_content:
                    chars += _length(text)
                if chars > before or choice.index not in is_open:  # comments and pings may follow the end
                    is_open[choice.index] = True
        if chars:
            self.stop_reason = None
        return chars

    @override
    def _decode(self, payloads: bytes) -> Iterable[_Chunk]:
        return _chunks.decode_lines(payloads)

    @override
    def _read(self, payload: dict[str, Any]) -> _Chunk:
        choices = payload.get("choices")
        return _Chunk([_struct(_Choice, each) for each in choices] if isinstance(choices, list) else None)

    @override
    def _count(self, event: _Chunk) -> None:
        for choice in event.choices or ():
            # Perplexity repeats the whole message beside each delta.
            written = choice.delta or choice.text or (choice.message if choice.delta is None else None)
            if written:
                self._add(written, chars_in(written))
            index = choice.index if isinstance(choice.index, int) else 0
            if choice.finish_reason:
                self._is_open[index] = False
                self.stop_reason = None if any(self._is_open.values()) else str(choice.finish_reason)
                self.is_refused = self.is_refused or choice.finish_reason in self._REFUSALS
            elif written:
                self._is_open[index], self.stop_reason = True, None


# Responses


class _Level(IntEnum):
    """Events that say a text again, each as part of a larger whole."""

    TEXT = 0
    PART = 1
    ITEM = 2
    RESPONSE = 3


class _ResponseEvent(Struct, gc=False):
    type: Any = ""
    delta: Any = None
    text: Any = None
    refusal: Any = None
    arguments: Any = None
    input: Any = None
    code: Any = None
    transcript: Any = None
    part: Any = None
    item: Any = None
    response: Any = None
    output_index: Any = None
    item_id: Any = None
    content_index: Any = None
    summary_index: Any = None
    partial_image_index: Any = None


class _TextEvent(Struct, gc=False):
    type: Literal[
        "response.output_text.delta",
        "response.reasoning_text.delta",
        "response.reasoning_summary_text.delta",
        "response.function_call_arguments.delta",
        "response.custom_tool_call_input.delta",
    ]
    delta: str


_response_events = msgspec.json.Decoder(_ResponseEvent)
_text_events = msgspec.json.Decoder(_TextEvent)
_RESPONSE_ENDS = ("response.completed", "response.incomplete")
_AUDIO_DELTAS = ("response.audio.delta", "response.output_audio.delta")


class ItemsOutput(Output):
    """Output of responses: deltas, then the same up to four times more, each time as part of a larger whole.

    What comes again is recognized by its length alone, since ids and indexes differ between providers and are missing
    in some: for each level, the characters that no event of that level has said again.
    """

    def __init__(self) -> None:
        self._unrepeated = [0] * len(_Level)
        self._seen: set[int] = set()

    @override
    def _chars_of_deltas(self, payloads: bytes) -> int:
        return sum([_length(event.delta) for event in _text_events.decode_lines(payloads)])

    @override
    def _decode(self, payloads: bytes) -> Iterable[_ResponseEvent]:
        return _response_events.decode_lines(payloads)

    @override
    def _read(self, payload: dict[str, Any]) -> _ResponseEvent:
        return _struct(_ResponseEvent, payload)

    @override
    def _count(self, event: _ResponseEvent) -> None:
        kind = event.type
        if not isinstance(kind, str):
            return
        if kind.endswith(".delta"):
            count: Callable[[Any], int] = _audio_chars if kind in _AUDIO_DELTAS else chars_in
            self._deliver(event.delta, count(event.delta))
        elif kind.endswith("output_item.done"):
            if self._repeat(event, _Level.ITEM, event.item):
                self._add_unit(unit_of_call(event.item))
        elif kind.endswith("part.done"):
            self._repeat(event, _Level.PART, event.part)
        elif kind.endswith(".done"):
            texts = (event.text, event.refusal, event.arguments, event.input, event.code, event.transcript)
            self._repeat(event, _Level.TEXT, next((text for text in texts if text), None))
        elif kind.endswith(".partial_image") and not event.partial_image_index:
            self._deliver(None, IMAGE_CHARS)
        elif kind == "response.output_item.added":
            self._is_any = self._is_any or _is_output(event.item)
        elif kind in _RESPONSE_ENDS and isinstance(event.response, dict):
            self._repeat(event, _Level.RESPONSE, event.response.get("output"))
        if kind == "response.incomplete":
            self.stop_reason = "incomplete"
            details = event.response.get("incomplete_details") if isinstance(event.response, dict) else None
            self.is_refused = isinstance(details, dict) and details.get("reason") == "content_filter"

    @override
    def _add_chars(self, chars: int) -> None:
        self._deliver(None, chars)

    def _deliver(self, written: Any, chars: int) -> None:
        self._add(written, chars)
        self._unrepeated = [each + chars for each in self._unrepeated]

    def _repeat(self, event: _ResponseEvent, level: _Level, written: Any) -> bool:
        """Count what an event says again only as far as nothing said it before. Returns whether the event is new."""
        chars = chars_in(written)
        item_id = written.get("id") if isinstance(written, dict) else event.item_id
        # Some say even this twice.
        mark = hash(str((event.type, event.output_index, item_id, event.content_index, event.summary_index, chars)))
        if mark in self._seen:
            return False
        self._seen.add(mark)
        more = max(0, chars - self._unrepeated[level])
        self._add(written, more)
        self._unrepeated = [
            each + more if above > level else max(0, each - chars) for above, each in enumerate(self._unrepeated)
        ]
        return True


# Messages


class _MessageEvent(Struct, gc=False):
    type: Any = ""
    delta: Any = None
    content_block: Any = None


class _TextInBlock(Struct, gc=False, forbid_unknown_fields=True):
    type: Literal["text_delta", "thinking_delta", "input_json_delta"]
    text: str = ""
    thinking: str = ""
    partial_json: str = ""


class _BlockDelta(Struct, gc=False):
    type: Literal["content_block_delta"]
    delta: _TextInBlock


_message_events = msgspec.json.Decoder(_MessageEvent)
_block_deltas = msgspec.json.Decoder(_BlockDelta)


class BlocksOutput(Output):
    """Output of messages."""

    _PLAIN_STOPS = frozenset({"end_turn"})

    @override
    def _chars_of_deltas(self, payloads: bytes) -> int:
        deltas = [event.delta for event in _block_deltas.decode_lines(payloads)]
        return sum([_length(each.text or each.thinking or each.partial_json) for each in deltas])

    @override
    def _decode(self, payloads: bytes) -> Iterable[_MessageEvent]:
        return _message_events.decode_lines(payloads)

    @override
    def _read(self, payload: dict[str, Any]) -> _MessageEvent:
        return _struct(_MessageEvent, payload)

    @override
    def _count(self, event: _MessageEvent) -> None:
        written = event.delta or event.content_block
        if written:
            self._add(written, chars_in(written))
            self._add_unit(unit_of_block(event.content_block))
        reason = (
            event.delta.get("stop_reason") if event.type == "message_delta" and isinstance(event.delta, dict) else None
        )
        if reason:
            self.stop_reason = str(reason)
            self.is_refused = self.is_refused or reason == "refusal"
