"""Response formats of the surfaces: reading usage, content and the end, writing errors. Pure.

Bytes pass as they came. Only these are changed: usage that was not requested, the upstream's cost, which is not the
caller's price, and on responses the model's name.
"""

import contextlib
import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct
from typing_extensions import override

from billing.usage import OUTPUT_COUNTS, UNKNOWN, read_usage, usage_of_call
from codexflow.lib.envelope import anthropic_envelope, envelope
from codexflow.lib.errors import AppError
from routing.errors import StreamBroken
from routing.surfaces import sse
from routing.surfaces.compaction import item_of, summary_in
from routing.surfaces.failures import is_error_name, tells_error
from routing.surfaces.output import BlocksOutput, ChoicesOutput, ItemsOutput, Output
from routing.surfaces.sse import Event, Kind
from routing.surfaces.tools import CALLS_IN_OUTPUT, unit_of_call
from routing.surfaces.usage import ProviderUsage, usage_in

T = TypeVar("T")

_NEWLINE = ord("\n")
_AFTER_DATA = slice(sse.DATA_BYTES, None)
_COST, _COST_NAME = b"cost", "cost"
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
_MAX_DIGITS = 100
_encode = msgspec.json.encode
_raw_fields = msgspec.json.Decoder(dict[str, Raw])
_objects = msgspec.json.Decoder(dict[str, Any])
_lists = msgspec.json.Decoder(list[Any])


class Identity(NamedTuple):
    """Id of a response and the model that serves it, as the provider names them; empty where it does not."""

    id: str = ""
    model: str = ""


class _Identified(Protocol):
    id: Any
    model: Any


class ResponseSummary(Struct, frozen=True):
    """Facts of a whole JSON response."""

    identity: Identity
    usage: ProviderUsage | None
    output: Output


class ResponseFormat(ABC):
    """Response format of a surface. Defaults are OpenAI's."""

    # A longer event is passed on in pieces: it is content, not one of the small events that are inspected.
    max_held_bytes: int = 256 * 1024

    def most_held_bytes(self, beginning: bytes) -> int:
        """Return how much to hold of an event with this beginning that is longer than `max_held_bytes`."""
        return self.max_held_bytes

    # The end that its clients wait for, written here when only it is missing.
    missing_end: bytes = b""
    # Of ids that are made here, for events before the response.
    id_prefix: str = "chatcmpl-"
    # Whether callers of streams get the content at the end only, so that they need signs of life while it arrives.
    hides_content: bool = False
    # Whether a provider tells the size of the prompt before any output.
    begins_with_usage: bool = False

    @abstractmethod
    def is_plain(self, event: bytes) -> bool:
        """Return whether this is one whole, ordinary event of content, passed untouched. May err towards False."""

    def are_plain(self, events: bytes) -> bool:
        """Return whether these are several such events. May err towards False."""
        return 0 < events.find(b"\n\n") < len(events) - 2 and all(map(self.is_plain, sse.events_of(events)))

    @abstractmethod
    def classify(self, raw: bytes) -> Event:
        """Classify one event."""

    @abstractmethod
    def identity(self, event: bytes) -> Identity:
        """Return what one of the first events says of the response."""

    @abstractmethod
    def for_caller(self, event: Event, *, wants_usage: bool) -> bytes:
        """Return an event with usage, or the last one, as the caller may see it."""

    def named(self, event: bytes, model: str, response_id: str = "") -> bytes:
        """Return an event with the model's public name, which LiteLLM writes elsewhere, and `response_id`, if given."""
        return event

    @abstractmethod
    def ping(self, *, response_id: str, model: str, created_s: int, is_first: bool) -> bytes:
        """Return events that say nothing: clients take them for life. `is_first`: nothing has been sent before."""

    @abstractmethod
    def output(self) -> Output:
        """Return an empty output, for a response that begins."""

    @abstractmethod
    def summarize(self, body: bytes) -> ResponseSummary | None:
        """Read a whole JSON response; None when it is none of this surface, or an error."""

    def body_for_caller(self, body: bytes, summary: ResponseSummary) -> bytes:
        """Return a whole JSON response as the caller may see it."""
        if summary.usage is None or _COST not in body:
            return body
        fields = _strictly(_raw_fields, body) or {}
        usage = _strictly(_objects, fields["usage"]) if "usage" in fields else None
        if usage is not None:  # all else stays byte for byte
            shown = _without_cost(usage)
            return body if shown == usage else _encode({**fields, "usage": shown})
        payload = _payload(body)
        if payload is None or not isinstance(payload.get("usage"), dict):
            return body
        payload["usage"] = _without_cost(payload["usage"])
        return _json(payload)

    def error_body(self, error: AppError) -> bytes:
        return _encode(envelope(error))

    def error_event(self, error: AppError) -> bytes:
        """Write an error as the last event of a stream: no end follows, so a cut stream never looks complete."""
        return b"data: " + self.error_body(error) + b"\n\n"


def _decoded(decoder: msgspec.json.Decoder[T], data: bytes | Raw) -> T | None:
    """Decode, and once more as leniently as Python's own reader does; None for what neither can read.

    Providers write NaN, half a surrogate, or a byte order mark; what their response says is good all the same.
    """
    found = _strictly(decoder, data)
    if found is None and (plain := _plain(bytes(data))) is not None:
        with contextlib.suppress(msgspec.MsgspecError, RecursionError):
            return decoder.decode(json.dumps(_readable(plain)))
    return found


def _strictly(decoder: msgspec.json.Decoder[T], data: bytes | Raw) -> T | None:
    try:
        return decoder.decode(data)
    except _UNREADABLE:
        return None


def _unread(raw: bytes, data: bytes) -> Event:
    """Classify an event that is no object."""
    if b"error" in data and tells_error(_strictly(_lists, data)):
        return Event(raw, Kind.ERROR)
    return Event(raw, Kind.BROKEN if sse.is_broken(data) else Kind.CONTENT)


def _usage_in_event(value: Any, *, is_partial: bool = False) -> ProviderUsage | None:
    """As `usage_in`; what cannot be read counts as usage that tells nothing, so that it is not shown unasked."""
    return None if value is None else usage_in(value, is_partial=is_partial) or ProviderUsage({}, is_partial)


def _tells_no_usage(usage: ProviderUsage | None) -> bool:
    report = read_usage(usage.fields) if usage is not None else UNKNOWN
    return not report.is_input_known and not report.usage.completion_tokens


def _plain(data: bytes) -> Any:
    """Read a value as Python's own reader does; None for what it cannot read either.

    Bytes that are no UTF-8 are read as replacement characters, as clients read them.
    """
    try:
        return json.loads(data.decode("utf-8-sig", "replace"), parse_int=_int)
    except (ValueError, RecursionError):
        return None


def _payload(data: bytes) -> dict[str, Any] | None:
    """Read an object as `_plain`; None for any other value."""
    plain = _plain(data)
    return plain if isinstance(plain, dict) else None


def _int(digits: str) -> int | None:
    """Read an integer; None for one of so many digits that it is none. Python refuses thousands of them."""
    return int(digits) if len(digits) <= _MAX_DIGITS else None


def _json(payload: Any) -> bytes:
    """Write what `_payload` read: half surrogates and NaN as they came."""
    return json.dumps(payload, separators=(",", ":")).encode()


def _readable(value: Any) -> Any:
    """Replace half surrogates and NaN, which strict readers refuse. Only read from, never sent on."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_readable(each) for each in value]
    if isinstance(value, dict):
        return {_readable(name): _readable(each) for name, each in value.items()}
    return value


def _text(value: Any) -> str:
    """Return an id as text. Some providers write numbers."""
    if type(value) is str:
        return value  # nearly always
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _identity(found: _Identified | None) -> Identity:
    return Identity() if found is None else Identity(_text(found.id), _text(found.model))


def _event_like(raw: bytes, fields: dict[str, Raw]) -> bytes:
    """Write an object as an event with the name that `raw` has."""
    names = b"".join(b"%b\n" % line for line in raw.splitlines() if line.startswith(b"event:"))
    return names + b"data: " + _encode(fields) + b"\n\n"


def _without_cost(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Remove what the call cost the operator, under any provider's name (`estimated_cost`), also in the details."""
    return {
        name: {each: value for each, value in found.items() if _COST_NAME not in each}
        if isinstance(found, dict)
        else found
        for name, found in usage.items()
        if _COST_NAME not in name
    }


def _raw_fields_of(data: bytes | Raw) -> dict[str, Raw] | None:
    """Read an object's fields as their bytes; None for anything else."""
    found = _strictly(_raw_fields, data)
    if found is None and (plain := _payload(bytes(data))) is not None:
        found = {name: Raw(_json(value)) for name, value in plain.items()}
    return found


def _usage_without_cost(fields: dict[str, Raw]) -> dict[str, Raw]:
    """Remove the cost from the usage among these fields. A usage that is no object is removed."""
    if "usage" not in fields:
        return fields
    usage = _decoded(_objects, fields["usage"])
    return {**fields, "usage": Raw(b"null" if usage is None else _encode(_without_cost(usage)))}


def _event_without_cost(raw: bytes) -> bytes:
    """Remove the cost from an event's usage, wherever that stands; all else stays byte for byte."""
    fields = _raw_fields_of(sse.data_of(raw)) if _COST in raw else None
    if fields is None:
        return raw
    for name in ("response", "message"):
        if name in fields and (inner := _raw_fields_of(fields[name])):
            fields[name] = Raw(_encode(_usage_without_cost(inner)))
    return _event_like(raw, _usage_without_cost(fields))


# Chat and text completions, embeddings


def _usage_among(choices: list[dict[str, Any]], x_groq: Any, usage_metadata: Any) -> Any:
    """Return the usage that stands in a choice (Moonshot), in `x_groq`, or under Gemini's name; None if none does."""
    for place in (*choices, x_groq):
        if isinstance(place, dict) and isinstance(place.get("usage"), dict):
            return place["usage"]
    return usage_metadata if isinstance(usage_metadata, dict) else None


def _is_failed(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta")
    return bool(
        choice.get("error")
        or choice.get("finish_reason") == "error"
        or (isinstance(delta, dict) and delta.get("error"))
    )


class _Chunk(Struct, rename={"usage_metadata": "usageMetadata"}):
    id: Any = None
    model: Any = None
    usage: Any = None
    choices: Any = msgspec.UNSET
    error: Any = None
    object: Any = None
    x_groq: Any = None
    usage_metadata: Any = None

    @property
    def choice_objects(self) -> list[dict[str, Any]]:
        choices = self.choices if isinstance(self.choices, list) else []
        return [each for each in choices if isinstance(each, dict)]

    def is_error(self, choices: list[dict[str, Any]]) -> bool:
        """Return whether there is an error anywhere. One that says nothing, such as null or "", is none."""
        return bool(self.error) or self.object == "error" or any(map(_is_failed, choices))


class _PlainDelta(Struct, gc=False):
    error: None = None


class _PlainChoice(Struct, gc=False):
    delta: _PlainDelta | None = None
    finish_reason: None = None
    error: None = None


class _PlainChunk(Struct, gc=False):
    choices: Annotated[list[_PlainChoice], Meta(min_length=1)]
    usage: None = None
    error: None = None


def _is_blank(choice: dict[str, Any]) -> bool:
    return not (choice.get("delta") or choice.get("finish_reason") or choice.get("text"))


class _Vectors(Struct):
    data: list[Raw]
    id: Any = None
    model: Any = None
    usage: Any = None
    meta: Any = None
    error: Any = None


_chunk = msgspec.json.Decoder(_Chunk)
_plain_chunk = msgspec.json.Decoder(_PlainChunk).decode
_vectors = msgspec.json.Decoder(_Vectors)


class Completions(ResponseFormat):
    """Chat completions and text completions."""

    missing_end = sse.DONE

    @override
    def is_plain(self, event: bytes) -> bool:
        if event.find(b"\n") != len(event) - 2 or event[-1] != _NEWLINE:
            return False
        try:
            _plain_chunk(event[_AFTER_DATA])
        except _UNREADABLE:
            return False
        return True

    @override
    def classify(self, raw: bytes) -> Event:
        if raw == sse.DONE:
            return Event(raw, Kind.END)
        data = sse.data_of(raw)
        if is_error_name(raw):
            return Event(raw, Kind.ERROR)
        if data == b"[DONE]":
            return Event(raw, Kind.END)
        chunk = _decoded(_chunk, data)
        if chunk is None:
            return _unread(raw, data)
        choices = chunk.choice_objects
        if chunk.is_error(choices) or (not choices and tells_error(_decoded(_objects, data))):
            return Event(raw, Kind.ERROR, usage_in(chunk.usage))
        # OpenAI sends usage without choices; LiteLLM beside an empty one; others in every chunk.
        is_usage_only = all(map(_is_blank, choices))
        usage = _usage_in_event(chunk.usage, is_partial=not is_usage_only)
        if usage is None:
            elsewhere = _usage_among(choices, chunk.x_groq, chunk.usage_metadata)
            # It is shown as it came: these places are for clients of that provider.
            return Event(raw, Kind.CONTENT, usage_in(elsewhere, is_partial=True))
        return Event(raw, Kind.USAGE if is_usage_only else Kind.CONTENT, usage)

    @override
    def identity(self, event: bytes) -> Identity:
        return _identity(_decoded(_chunk, sse.data_of(event)))

    @override
    def for_caller(self, event: Event, *, wants_usage: bool) -> bytes:
        if event.usage is None:
            return event.raw
        if wants_usage:
            return _event_without_cost(event.raw)
        if event.kind is Kind.USAGE:
            return b""
        fields = _raw_fields_of(sse.data_of(event.raw))
        if fields is None:
            return event.raw
        return _event_like(event.raw, {name: value for name, value in fields.items() if name != "usage"})

    @override
    def ping(self, *, response_id: str, model: str, created_s: int, is_first: bool) -> bytes:
        choice = {"index": 0, "delta": {}, "finish_reason": None}
        return self._chunk("chat.completion.chunk", response_id, model, created_s, choice)

    @staticmethod
    def _chunk(kind: str, response_id: str, model: str, created_s: int, choice: dict[str, Any]) -> bytes:
        chunk = {"id": response_id, "object": kind, "created": created_s, "model": model, "choices": [choice]}
        return b"data: " + _encode(chunk) + b"\n\n"

    @override
    def output(self) -> Output:
        return ChoicesOutput()

    @override
    def summarize(self, body: bytes) -> ResponseSummary | None:
        whole = _decoded(_chunk, body)
        if whole is None or whole.choices is msgspec.UNSET:
            return None
        choices = whole.choice_objects
        if whole.is_error(choices):
            return None
        if not all(isinstance(each.get("message"), dict | None) for each in choices):
            return None
        output = self.output()
        output.add_whole([each.get("message") or each.get("text") for each in choices])
        reasons = [str(each.get("finish_reason")) for each in choices]
        output.is_refused = any(each in ("content_filter", "refusal") for each in reasons)
        usage = usage_in(whole.usage) or usage_in(_usage_among(choices, whole.x_groq, whole.usage_metadata))
        if not choices and (_tells_no_usage(usage) or tells_error(_decoded(_objects, body))):
            return None
        return ResponseSummary(_identity(whole), usage, output)


class TextCompletions(Completions):
    """Text completions, whose chunks have a text instead of a delta."""

    id_prefix = "cmpl-"

    @override
    def ping(self, *, response_id: str, model: str, created_s: int, is_first: bool) -> bytes:
        choice = {"index": 0, "text": "", "logprobs": None, "finish_reason": None}
        return self._chunk("text_completion", response_id, model, created_s, choice)


class _Results(Struct):
    results: list[Raw]
    id: Any = None
    model: Any = None
    meta: Any = None
    usage: Any = None
    error: Any = None


_results = msgspec.json.Decoder(_Results)


class Rerank(Completions):
    """Documents in order of relevance. Usage is in `meta` (Cohere, LiteLLM) or in `usage`, in several units."""

    @override
    def summarize(self, body: bytes) -> ResponseSummary | None:
        found = _decoded(_results, body)
        if found is None or found.error:
            return None
        return ResponseSummary(_identity(found), usage_in(usage_of_call(found.meta, found.usage)), self.output())


class Moderations(Completions):
    """Judgements of texts. Most providers tell no usage."""

    @override
    def summarize(self, body: bytes) -> ResponseSummary | None:
        found = _decoded(_results, body)
        if found is None or found.error:
            return None
        return ResponseSummary(_identity(found), usage_in(usage_of_call(None, found.usage)), self.output())


class Embeddings(Completions):
    """Vectors. Their requests never stream, so only the whole response differs."""

    @override
    def summarize(self, body: bytes) -> ResponseSummary | None:
        vectors = _decoded(_vectors, body)
        if vectors is None or vectors.error:
            return None
        # Vectors have no output tokens: without usage only the input counts.
        usage = usage_in(vectors.usage)
        if _tells_no_usage(usage):  # often there is only a total
            usage = usage_in(usage_of_call(vectors.meta, vectors.usage)) or usage
        return ResponseSummary(_identity(vectors), usage, self.output())


# Responses


class _Response(Struct):
    id: Any = None
    model: Any = None
    usage: Any = None
    status: Any = None
    error: Any = None
    output: Raw = Raw(b"null")  # images make it large


_RESPONSE_ERRORS = ("response.failed", "response.error", "response.cancelled", "error")


class _ResponseEvent(Struct):
    type: Any = ""
    response: _Response | None = None
    error: Any = None
    usage: Any = None

    @property
    def is_error(self) -> bool:
        """True for an error anywhere. One that says nothing, such as null or "", is none."""
        response = self.response
        is_failed = response is not None and (response.status in ("failed", "cancelled") or bool(response.error))
        return self.type in _RESPONSE_ERRORS or bool(self.error) or is_failed


class _PlainEvent(Struct, gc=False):
    type: Literal[
        "response.output_text.delta",
        "response.reasoning_text.delta",
        "response.reasoning_summary_text.delta",
        "response.refusal.delta",
        "response.function_call_arguments.delta",
        "response.custom_tool_call_input.delta",
        "response.code_interpreter_call_code.delta",
        "response.audio.delta",
        "response.output_audio.delta",
    ]
    error: None = None


class _WholeResponse(Struct):
    output: Any
    id: Any = None
    model: Any = None
    usage: Any = None
    status: Any = None
    error: Any = None
    incomplete_details: Any = None

    @property
    def is_refused(self) -> bool:
        if self.status in ("failed", "cancelled") or self.error:
            return True
        return isinstance(self.incomplete_details, dict) and self.incomplete_details.get("reason") == "content_filter"


# Text cannot hold these: its quotes are escaped.
_CALL_MARKS = tuple(b'"%b"' % name.encode() for name in CALLS_IN_OUTPUT)


def _with_calls(usage: Any, output: Any, raw: bytes) -> Any:
    """Add the calls of hosted tools to a response's usage, which has no count of them."""
    if not any(mark in raw for mark in _CALL_MARKS):
        return usage
    items = _decoded(_lists, output) if isinstance(output, Raw) else output
    counts = {f"{unit}_requests": count for unit, count in Counter(map(unit_of_call, items or ())).items() if unit}
    if not counts:
        return usage
    fields = usage if isinstance(usage, dict) else {}
    told = fields.get("server_tool_use")
    return {**fields, "server_tool_use": {**counts, **told} if isinstance(told, dict) else counts}


_response_event = msgspec.json.Decoder(_ResponseEvent)
_plain_event = msgspec.json.Decoder(_PlainEvent).decode
_whole_response = msgspec.json.Decoder(_WholeResponse)


def _named(raw: bytes, model: str, response_id: str) -> bytes:
    """Replace the model's name, and the id, in an event that carries the response; return any other as it is."""
    payload = _raw_fields_of(sse.data_of(raw)) if b'"response"' in raw else None
    response = _raw_fields_of(payload["response"]) if payload and "response" in payload else None
    if not payload or not response:
        return raw
    changed = {"model": Raw(_encode(model))} if "model" in response else {}
    if response_id:
        changed["id"] = Raw(_encode(response_id))
    if all(bytes(response.get(name, b"")) == bytes(value) for name, value in changed.items()):
        return raw
    payload["response"] = Raw(_encode({**response, **changed}))
    if "model" in payload:
        payload["model"] = Raw(_encode(model))
    return _event_like(raw, payload)


class Responses(ResponseFormat):
    """OpenAI's responses: typed events; the last one repeats the whole response, with usage."""

    id_prefix = "resp_"
    max_held_bytes: int = 8 * 1024 * 1024
    # Images are repeated, too. As much as whole responses of other surfaces may have by default.
    _MAX_LAST_EVENT_BYTES = 64 * 1024 * 1024
    _TYPE_WITHIN_BYTES = 512
    _ENDS = ("response.completed", "response.incomplete")

    @override
    def is_plain(self, event: bytes) -> bool:
        at = event.find(b"data:")
        if at < 0 or event.find(b"\n", at) != len(event) - 2 or event[-1] != _NEWLINE:
            return False
        try:
            _plain_event(event[at + sse.DATA_BYTES :])
        except _UNREADABLE:
            return False
        return True

    @override
    def most_held_bytes(self, beginning: bytes) -> int:
        start = beginning[: self._TYPE_WITHIN_BYTES]
        is_last = any(b'"%b"' % name.encode() in start for name in (*self._ENDS, "response.failed"))
        return self._MAX_LAST_EVENT_BYTES if is_last else self.max_held_bytes

    @override
    def classify(self, raw: bytes) -> Event:
        data = sse.data_of(raw)
        if is_error_name(raw):
            return Event(raw, Kind.ERROR)
        event = _decoded(_response_event, data)
        if event is None:
            return _unread(raw, data)
        response, kind = event.response, event.type or sse.name_of(raw)
        if event.is_error or kind in _RESPONSE_ERRORS or (not kind and tells_error(_decoded(_objects, data))):
            return Event(raw, Kind.ERROR, usage_in(response.usage if response else event.usage))
        if kind in self._ENDS:
            usage = response.usage if response else None
            usage = _with_calls(event.usage if usage is None else usage, response.output, raw) if response else None
            return Event(raw, Kind.END, _usage_in_event(usage))
        return Event(raw)

    @override
    def identity(self, event: bytes) -> Identity:
        found = _decoded(_response_event, sse.data_of(event))
        return _identity(found.response if found is not None else None)

    @override
    def named(self, event: bytes, model: str, response_id: str = "") -> bytes:
        return _named(event, model, response_id)

    @override
    def for_caller(self, event: Event, *, wants_usage: bool) -> bytes:
        return event.raw if event.usage is None else _event_without_cost(event.raw)

    @override
    def ping(self, *, response_id: str, model: str, created_s: int, is_first: bool) -> bytes:
        """OpenAI's SDKs raise on any event before `response.created`, and on a second id after it."""
        response = {
            "id": response_id,
            "object": "response",
            "created_at": created_s,
            "status": "in_progress",
            "model": model,
            "output": [],
        }
        kinds = ("response.created", "response.in_progress") if is_first else ("response.in_progress",)
        return b"".join(
            b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind, "response": response}))
            for kind in kinds
        )

    @override
    def output(self) -> Output:
        return ItemsOutput()

    @override
    def summarize(self, body: bytes) -> ResponseSummary | None:
        whole = _decoded(_whole_response, body)
        if whole is None or not isinstance(whole.output, list | dict | None):
            return None
        items = whole.output if isinstance(whole.output, list) else []
        output = self.output()
        output.add_whole(items)
        output.is_refused = whole.is_refused
        usage = usage_in(_with_calls(whole.usage, items, body))
        if not items and whole.status == "completed" and not output.is_refused and _tells_no_usage(usage):
            return None
        return ResponseSummary(_identity(whole), usage, output)

    @override
    def error_event(self, error: AppError) -> bytes:
        """Write the error twice: OpenAI's SDKs raise on `error`, Codex reads only `response.failed`.

        In this order, because the SDKs would compare the failed response's id, which is not known here.
        """
        fields = envelope(error)["error"]
        reason = {"code": error.code, "message": error.message}
        response = {"object": "response", "status": "failed", "error": reason, "output": []}
        failed = _encode({"type": "response.failed", "response": response})
        # The fields of OpenAI's event, and `error`, on which its SDK raises.
        sdk_error = _encode({**fields, "type": "error", "error": fields})
        return b"event: error\ndata: " + sdk_error + b"\n\nevent: response.failed\ndata: " + failed + b"\n\n"


class Compactions(Responses):
    """Summaries of conversations: callers get one item in place of the text, streamed or whole."""

    hides_content = True
    _BEGINNINGS = ("response.created", "response.queued", "response.in_progress")

    def __init__(self, *, is_history: bool = False) -> None:
        self._is_history = is_history  # the form of the endpoint, which never streams

    @override
    def is_plain(self, event: bytes) -> bool:
        return False

    @override
    def for_caller(self, event: Event, *, wants_usage: bool) -> bytes:
        """Return the beginning as it is, nothing for the text, and at the end the item. Raises StreamBroken."""
        if event.kind is Kind.END:
            return self._end(super().for_caller(event, wants_usage=wants_usage))
        found = _decoded(_response_event, sse.data_of(event.raw))
        return event.raw if found is not None and found.type in self._BEGINNINGS else b""

    def _end(self, raw: bytes) -> bytes:
        response = (_raw_fields_of(sse.data_of(raw)) or {}).get("response", Raw(b"{}"))
        compacted = self._compacted(_raw_fields_of(response) or {})
        if compacted is None:
            raise StreamBroken(reason="no summary")
        shown, item = compacted
        place = {"output_index": 0, "item": item}
        events: list[dict[str, Any]] = [
            {"type": "response.output_item.added", **place},
            {"type": "response.output_item.done", **place},
            {"type": "response.completed", "response": shown},
        ]
        return b"".join(b"event: %b\ndata: %b\n\n" % (each["type"].encode(), _encode(each)) for each in events)

    @staticmethod
    def _compacted(response: dict[str, Raw]) -> tuple[dict[str, Any], dict[str, str]] | None:
        """Return a response with the item as its only output, and the item; None when it has no text."""
        summary = summary_in(_decoded(_lists, response["output"]) if "output" in response else None)
        if not summary:
            return None
        item = item_of(summary)
        return {**response, "status": "completed", "output": [item]}, item

    @override
    def named(self, event: bytes, model: str, response_id: str = "") -> bytes:
        return b"".join(_named(each + b"\n\n", model, response_id) for each in event.split(b"\n\n") if each)

    @override
    def summarize(self, body: bytes) -> ResponseSummary | None:
        if self._compacted(_raw_fields_of(body) or {}) is None:
            return None
        return super().summarize(body)

    @override
    def body_for_caller(self, body: bytes, summary: ResponseSummary) -> bytes:
        compacted = self._compacted(_raw_fields_of(super().body_for_caller(body, summary)) or {})
        if compacted is None:
            return body
        response, _item = compacted
        if not self._is_history:
            return _encode(response)
        kept = {name: response[name] for name in ("id", "created_at", "output", "usage") if name in response}
        return _encode({**kept, "object": "response.compaction"})


# Messages


class _MessageEvent(Struct, rename={"metrics": "amazon-bedrock-invocationMetrics"}):
    type: Any = ""
    message: Any = None
    usage: Any = None
    error: Any = None
    delta: Any = None
    metrics: Any = None

    @property
    def message_object(self) -> dict[str, Any]:
        return self.message if isinstance(self.message, dict) else {}

    @property
    def delta_object(self) -> dict[str, Any]:
        return self.delta if isinstance(self.delta, dict) else {}

    @property
    def told_usage(self) -> Any:
        """Usage wherever it stands; Bedrock writes it once more beside the end."""
        places = (self.message_object.get("usage"), self.usage, self.delta_object.get("usage"), self.metrics)
        return next((each for each in places if each is not None), None)


class _PlainBlock(Struct, gc=False):
    type: Literal["content_block_delta", "content_block_start", "content_block_stop"]
    error: None = None


class _WholeMessage(Struct):
    content: Any
    type: Any = None
    id: Any = None
    model: Any = None
    usage: Any = None
    stop_reason: Any = None


_message_event = msgspec.json.Decoder(_MessageEvent)
_plain_block = msgspec.json.Decoder(_PlainBlock).decode
_whole_message = msgspec.json.Decoder(_WholeMessage)


class Messages(ResponseFormat):
    """Anthropic's messages: typed events with names; the input's tokens may come first and the output's last."""

    missing_end = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    begins_with_usage = True

    @override
    def is_plain(self, event: bytes) -> bool:
        at = event.find(b"data:")
        if at < 0 or event.find(b"\n", at) != len(event) - 2 or event[-1] != _NEWLINE:
            return False
        try:
            _plain_block(event[at + sse.DATA_BYTES :])
        except _UNREADABLE:
            return False
        return True

    @override
    def classify(self, raw: bytes) -> Event:
        data = sse.data_of(raw)
        if is_error_name(raw):
            return Event(raw, Kind.ERROR)
        event = _decoded(_message_event, data)
        kind = (event.type if event is not None else "") or sse.name_of(raw)
        if event is None:
            return Event(raw, Kind.END) if kind == "message_stop" and not data else _unread(raw, data)
        if kind == "error" or event.error or event.delta_object.get("stop_reason") == "error":
            return Event(raw, Kind.ERROR, usage_in(event.usage))
        if not kind and tells_error(_decoded(_objects, data)):
            return Event(raw, Kind.ERROR)
        usage = event.told_usage
        if kind == "message_stop":
            return Event(raw, Kind.END, usage_in(usage))
        if kind == "message_start" and isinstance(usage, dict):
            # Its count of the output is that of a beginning.
            usage = {name: value for name, value in usage.items() if name not in OUTPUT_COUNTS}
            return Event(raw, Kind.CONTENT, usage_in(usage, is_partial=True))
        return Event(raw, Kind.CONTENT, _usage_in_event(usage))

    @override
    def identity(self, event: bytes) -> Identity:
        found = _decoded(_message_event, sse.data_of(event))
        message = {} if found is None else found.message_object
        return Identity(_text(message.get("id")), _text(message.get("model")))

    @override
    def for_caller(self, event: Event, *, wants_usage: bool) -> bytes:
        return event.raw if event.usage is None else _event_without_cost(event.raw)

    @override
    def ping(self, *, response_id: str, model: str, created_s: int, is_first: bool) -> bytes:
        return b'event: ping\ndata: {"type": "ping"}\n\n'

    @override
    def output(self) -> Output:
        return BlocksOutput()

    @override
    def summarize(self, body: bytes) -> ResponseSummary | None:
        whole = _decoded(_whole_message, body)
        if whole is None or not isinstance(whole.content, list | str | None):
            return None
        if whole.type == "error" or whole.stop_reason == "error":
            return None
        output = self.output()
        output.add_whole(whole.content)
        output.is_refused = whole.stop_reason == "refusal"
        usage = usage_in(whole.usage)
        if not whole.content and whole.stop_reason in (None, "end_turn") and _tells_no_usage(usage):
            return None
        return ResponseSummary(_identity(whole), usage, output)

    @override
    def error_body(self, error: AppError) -> bytes:
        return _encode(anthropic_envelope(error))

    @override
    def error_event(self, error: AppError) -> bytes:
        return b"event: error\ndata: " + self.error_body(error) + b"\n\n"
