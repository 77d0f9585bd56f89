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
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct
from typing_extensions import override

from codexflow.lib.envelope import anthropic_envelope, envelope
from codexflow.lib.errors import AppError
from routing.surfaces import sse
from routing.surfaces.output import BlocksOutput, ChoicesOutput, ItemsOutput, Output
from routing.surfaces.sse import Event, Kind
from routing.surfaces.tools import CODE_EXECUTION, FILE_SEARCH, IMAGE_GENERATION, MCP_CALL, WEB_SEARCH
from routing.surfaces.usage import ProviderUsage, usage_in

T = TypeVar("T")

_NULL = b"null"
_COST_MARK = b'"cost'
# Values without content, as bytes of JSON.
_EMPTY = frozenset({b"null", b'""', b"[]", b"{}"})
_encode = msgspec.json.encode
_raw_fields = msgspec.json.Decoder(dict[str, Raw])
_objects = msgspec.json.Decoder(dict[str, Any])


class ResponseSummary(Struct, frozen=True):
    """Facts of a whole JSON response."""

    id: str
    usage: ProviderUsage | None
    output: Output


class Opening(Struct, frozen=True):
    """Facts from the first bytes of a stream."""

    response_id: str = ""
    is_error: bool = False
    # It ends without content: LiteLLM turns a provider's error page into a clean empty stream.
    may_be_empty: bool = False


class ResponseFormat(ABC):
    """Response format of a surface. Defaults are OpenAI's."""

    # A longer event is passed on in pieces: it is content, not one of the small events that are inspected.
    max_held_bytes: int = 256 * 1024

    def most_held_bytes(self, beginning: bytes) -> int:
        """Return how much to hold of an event with this beginning that is longer than `max_held_bytes`."""
        return self.max_held_bytes

    def may_matter(self, events: bytes) -> bool:
        """Return whether any of these events could be more than content."""
        return b'"usage"' in events or b"[DONE]" in events or b'"error"' in events

    @abstractmethod
    def classify(self, raw: bytes) -> Event:
        """Classify one event."""

    @abstractmethod
    def opening(self, chunk: bytes) -> Opening:
        """Read the beginning of a stream."""

    @abstractmethod
    def is_content(self, events: bytes) -> bool:
        """Return whether these events carry output of the model, or its own reason to stop."""

    def is_empty(self, stream: bytes) -> bool:
        """Return whether a whole stream has neither output nor output tokens, or ends in an error."""
        events = [self.classify(raw) for raw in sse.events_of(stream)]
        if any(event.kind is Kind.ERROR for event in events):
            return True
        return not self.is_content(stream) and not any(event.usage and event.usage.produced for event in events)

    @abstractmethod
    def for_caller(self, event: Event, *, wants_usage: bool) -> bytes:
        """Return an event with usage, or the last one, as the caller may see it."""

    def with_model(self, events: bytes, model: str) -> bytes:
        """Return a stream's first or last events with the model's public name. Elsewhere LiteLLM writes it."""
        return events

    @abstractmethod
    def output(self) -> Output:
        """Return an empty output, for a response that begins."""

    @abstractmethod
    def summarize(self, body: bytes) -> ResponseSummary | None:
        """Read a whole JSON response; None when it is none of this surface."""

    def body_for_caller(self, body: bytes, summary: ResponseSummary) -> bytes:
        """Return a whole JSON response as the caller may see it."""
        if _COST_MARK not in body or summary.usage is None:
            return body
        fields = _strictly(_raw_fields, body) or {}
        usage = _strictly(_objects, fields["usage"]) if "usage" in fields else None
        if usage is not None:  # all else stays byte for byte
            return _encode({**fields, "usage": _without_cost(usage)})
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
    if found is None and (plain := _payload(bytes(data))) is not None:
        with contextlib.suppress(msgspec.MsgspecError, RecursionError):
            return decoder.decode(json.dumps(_readable(plain)))
    return found


def _strictly(decoder: msgspec.json.Decoder[T], data: bytes | Raw) -> T | None:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _payload(data: bytes) -> dict[str, Any] | None:
    """Read an object as Python's own reader does; None for what it cannot read either."""
    try:
        plain = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return plain if isinstance(plain, dict) else None


def _payload_of(event: bytes) -> dict[str, Any] | None:
    """Read the object that an event carries."""
    data = sse.data_of(event)
    found = _strictly(_objects, data)
    return _payload(data) if found is None else found


def _written(payload: Any) -> bytes:
    """Write an object that was read strictly or leniently."""
    try:
        return _encode(payload)
    except (UnicodeError, msgspec.MsgspecError):
        return _json(payload)


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
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _event_like(raw: bytes, payload: Any) -> bytes:
    """Write `payload` as an event with the name that `raw` has."""
    names = b"".join(b"%b\n" % line for line in raw.splitlines() if line.startswith(b"event:"))
    return names + b"data: " + _written(payload) + b"\n\n"


def _without_cost(usage: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in usage.items() if not name.startswith("cost")}


# Chat and text completions, embeddings


class _Choice(Struct):
    delta: dict[str, Raw] | None = None
    finish_reason: str | None = None
    text: str | None = None

    @property
    def has_content(self) -> bool:
        """True if it has more than a role, or another reason to end than "stop"."""
        if self.text or self.finish_reason not in (None, "stop"):
            return True
        return any(bytes(raw) not in _EMPTY for name, raw in (self.delta or {}).items() if name != "role")

    @property
    def is_empty(self) -> bool:
        return not self.delta and not self.finish_reason and not self.text


class _Chunk(Struct):
    id: Any = None
    usage: Any = None
    choices: list[_Choice] | None = None
    # Not `Raw | None`: msgspec reads that as null only.
    error: Raw = Raw(_NULL)

    @property
    def is_error(self) -> bool:
        return bytes(self.error) != _NULL


class _Written(Struct):
    message: dict[str, Any] | None = None
    text: str | None = None
    finish_reason: Any = None


class _Whole(Struct):
    choices: list[_Written] | None
    id: Any = None
    usage: Any = None


class _Vectors(Struct):
    data: list[Raw]
    usage: Any = None


_chunk = msgspec.json.Decoder(_Chunk)
_whole = msgspec.json.Decoder(_Whole)
_vectors = msgspec.json.Decoder(_Vectors)


class Completions(ResponseFormat):
    """Chat completions and text completions."""

    @override
    def classify(self, raw: bytes) -> Event:
        data = sse.data_of(raw)
        if data == b"[DONE]":
            return Event(raw, Kind.END)
        if b'"usage"' not in raw and b'"error"' not in raw:
            return Event(raw)
        chunk = _decoded(_chunk, data)
        if chunk is None:
            return Event(raw)
        if chunk.is_error:
            return Event(raw, Kind.ERROR, usage_in(chunk.usage))
        # OpenAI sends usage without choices; LiteLLM beside an empty one; others in every chunk.
        is_usage_only = all(choice.is_empty for choice in chunk.choices or ())
        usage = usage_in(chunk.usage, is_partial=not is_usage_only)
        if usage is None:
            return Event(raw)
        return Event(raw, Kind.USAGE if is_usage_only else Kind.CONTENT, usage)

    @override
    def opening(self, chunk: bytes) -> Opening:
        first = _decoded(_chunk, sse.data_of(next(sse.events_of(chunk))))
        if first is None:
            return Opening()
        may_be_empty = b'"stop"' in chunk and not self.is_content(chunk)
        return Opening(_text(first.id), first.is_error, may_be_empty)

    @override
    def is_content(self, events: bytes) -> bool:
        for raw in sse.events_of(events):
            data = sse.data_of(raw)
            if not data or data == b"[DONE]":
                continue
            chunk = _decoded(_chunk, data)
            # An event that cannot be decoded counts as content.
            if chunk is None or any(choice.has_content for choice in chunk.choices or ()):
                return True
        return False

    @override
    def for_caller(self, event: Event, *, wants_usage: bool) -> bytes:
        if event.usage is None:
            return event.raw
        if not wants_usage and event.kind is Kind.USAGE:
            return b""
        payload = _payload_of(event.raw)
        if payload is None:
            return event.raw
        if not wants_usage:
            del payload["usage"]
        elif "cost" in payload["usage"]:
            payload["usage"] = _without_cost(payload["usage"])
        else:
            return event.raw
        return b"data: " + _written(payload) + b"\n\n"

    @override
    def output(self) -> Output:
        return ChoicesOutput()

    @override
    def summarize(self, body: bytes) -> ResponseSummary | None:
        whole = _decoded(_whole, body)
        if whole is None:
            return None
        choices, output = whole.choices or (), self.output()
        output.add_whole([each.message or each.text for each in choices])
        output.is_refused = any(each.finish_reason in ("content_filter", "refusal") for each in choices)
        return ResponseSummary(_text(whole.id), usage_in(whole.usage), output)


class Embeddings(Completions):
    """Vectors. Their requests never stream, so only the whole response differs."""

    @override
    def summarize(self, body: bytes) -> ResponseSummary | None:
        vectors = _decoded(_vectors, body)
        # Vectors have no output tokens: without usage only the input counts.
        return None if vectors is None else ResponseSummary("", usage_in(vectors.usage), self.output())


# Responses


class _Response(Struct):
    id: Any = None
    usage: Any = None
    output: list[Raw] | None = None


class _ResponseEvent(Struct):
    type: str = ""
    response: _Response | None = None
    error: Raw = Raw(_NULL)
    usage: Any = None

    @property
    def reported_usage(self) -> ProviderUsage | None:
        return usage_in(self.response.usage if self.response else self.usage)


class _WholeResponse(Struct):
    output: list[Any] | None
    id: Any = None
    usage: Any = None
    status: Any = None
    incomplete_details: Any = None

    @property
    def is_refused(self) -> bool:
        details = self.incomplete_details
        return self.status == "failed" or (isinstance(details, dict) and details.get("reason") == "content_filter")


def _unit_of(item: Any) -> str | None:
    """Return the price line of a tool that the provider has carried out; None for all other items."""
    if not isinstance(item, dict):
        return None
    kind, environment = item.get("type"), item.get("environment")
    if kind == "shell_call":
        return CODE_EXECUTION if isinstance(environment, dict) and environment.get("type") != "local" else None
    return _UNIT_OF_CALL.get(kind) if isinstance(kind, str) else None


# Items of a response that are calls of hosted tools, and how they are sold.
_UNIT_OF_CALL = {
    "web_search_call": WEB_SEARCH,
    "file_search_call": FILE_SEARCH,
    "code_interpreter_call": CODE_EXECUTION,
    "image_generation_call": IMAGE_GENERATION,
    "mcp_call": MCP_CALL,
}
# Text cannot hold these: its quotes are escaped.
_CALL_MARKS = tuple(b'"%b"' % name.encode() for name in (*_UNIT_OF_CALL, "shell_call"))


def _with_calls(usage: Any, output: list[Any] | None, raw: bytes) -> Any:
    """Add the calls of hosted tools to a response's usage, which has no count of them."""
    if not output or not any(mark in raw for mark in _CALL_MARKS):
        return usage
    units = [_unit_of(_decoded(_objects, each) if isinstance(each, Raw) else each) for each in output]
    counts = {f"{unit}_requests": count for unit, count in Counter(units).items() if unit}
    if not counts:
        return usage
    fields = usage if isinstance(usage, dict) else {}
    told = fields.get("server_tool_use")
    return {**fields, "server_tool_use": {**counts, **told} if isinstance(told, dict) else counts}


_response_event = msgspec.json.Decoder(_ResponseEvent)
_whole_response = msgspec.json.Decoder(_WholeResponse)


def _with_model(raw: bytes, model: bytes) -> bytes:
    """Replace the model's name in an event that carries the response; return any other as it is."""
    payload = _decoded(_raw_fields, sse.data_of(raw)) if b'"response"' in raw else None
    response = _decoded(_raw_fields, payload["response"]) if payload and "response" in payload else None
    if not payload or not response or bytes(response.get("model", model)) == model:
        return raw
    payload["response"] = Raw(_encode({**response, "model": Raw(model)}))
    if "model" in payload:
        payload["model"] = Raw(model)
    return _event_like(raw, payload)


class Responses(ResponseFormat):
    """OpenAI's responses: typed events; the last one repeats the whole response, with usage."""

    max_held_bytes: int = 8 * 1024 * 1024
    # Images are repeated, too. As much as whole responses of other surfaces may have by default.
    _MAX_LAST_EVENT_BYTES = 64 * 1024 * 1024
    _TYPE_WITHIN_BYTES = 512
    _ENDS = ("response.completed", "response.incomplete")
    _FAILURES = ("response.failed", "error")

    @override
    def may_matter(self, events: bytes) -> bool:
        return (
            b'"response.completed"' in events
            or b'"error"' in events
            or b'"response.incomplete"' in events
            or b'"response.failed"' in events
        )

    @override
    def most_held_bytes(self, beginning: bytes) -> int:
        is_last = self.may_matter(beginning[: self._TYPE_WITHIN_BYTES])
        return self._MAX_LAST_EVENT_BYTES if is_last else self.max_held_bytes

    @override
    def classify(self, raw: bytes) -> Event:
        event = _decoded(_response_event, sse.data_of(raw))
        if event is None:
            return Event(raw)
        if event.type in self._FAILURES or bytes(event.error) != _NULL:
            return Event(raw, Kind.ERROR, event.reported_usage)
        if event.type in self._ENDS:
            response = event.response
            usage = _with_calls(response.usage, response.output, raw) if response else None
            return Event(raw, Kind.END, usage_in(usage))
        return Event(raw)

    @override
    def opening(self, chunk: bytes) -> Opening:
        first = next(sse.events_of(chunk))
        event = _decoded(_response_event, sse.data_of(first))
        if event is None:
            return Opening()
        response_id = _text(event.response.id) if event.response else ""
        may_be_empty = b'"response.completed"' in chunk and not self.is_content(chunk)
        return Opening(response_id, self.classify(first).kind is Kind.ERROR, may_be_empty)

    @override
    def is_content(self, events: bytes) -> bool:
        return b'.delta"' in events or b'"function_call"' in events or b'"response.incomplete"' in events

    @override
    def with_model(self, events: bytes, model: str) -> bytes:
        return b"".join([_with_model(raw, _encode(model)) for raw in sse.events_of(events)])

    @override
    def for_caller(self, event: Event, *, wants_usage: bool) -> bytes:
        if event.usage is None or _COST_MARK not in event.raw:
            return event.raw
        payload = _payload_of(event.raw)
        if payload is None:
            return event.raw
        payload["response"]["usage"] = _without_cost(payload["response"]["usage"])
        return _event_like(event.raw, payload)

    @override
    def output(self) -> Output:
        return ItemsOutput()

    @override
    def summarize(self, body: bytes) -> ResponseSummary | None:
        whole = _decoded(_whole_response, body)
        if whole is None:
            return None
        output = self.output()
        output.add_whole(whole.output)
        output.is_refused = whole.is_refused
        return ResponseSummary(_text(whole.id), usage_in(_with_calls(whole.usage, whole.output, body)), output)

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


# Messages


class _MessageStart(Struct):
    id: Any = None
    usage: Any = None


class _MessageEvent(Struct):
    type: str = ""
    message: _MessageStart | None = None
    usage: Any = None


class _WholeMessage(Struct):
    content: list[Any]
    id: Any = None
    usage: Any = None
    stop_reason: Any = None


_message_event = msgspec.json.Decoder(_MessageEvent)
_whole_message = msgspec.json.Decoder(_WholeMessage)


class Messages(ResponseFormat):
    """Anthropic's messages: typed events with names; the input's tokens may come first and the output's last."""

    @override
    def may_matter(self, events: bytes) -> bool:
        return b'"message_' in events or b'"error"' in events

    @override
    def classify(self, raw: bytes) -> Event:
        event = _decoded(_message_event, sse.data_of(raw))
        if event is None:
            return Event(raw)
        if event.type == "message_stop":
            return Event(raw, Kind.END)
        if event.type == "error":
            return Event(raw, Kind.ERROR, usage_in(event.usage))
        usage = event.message.usage if event.message else event.usage
        if event.type == "message_start" and isinstance(usage, dict):
            # Its count of the output is that of a beginning.
            usage = {name: value for name, value in usage.items() if name != "output_tokens"}
            return Event(raw, Kind.CONTENT, usage_in(usage, is_partial=True))
        return Event(raw, Kind.CONTENT, usage_in(usage))

    @override
    def opening(self, chunk: bytes) -> Opening:
        first = next(sse.events_of(chunk))
        event = _decoded(_message_event, sse.data_of(first))
        if event is None:
            return Opening()
        may_be_empty = b'"message_stop"' in chunk and not self.is_content(chunk)
        return Opening(_text(event.message.id) if event.message else "", event.type == "error", may_be_empty)

    @override
    def is_content(self, events: bytes) -> bool:
        return b'"content_block_delta"' in events or b'"tool_use"' in events or b'"max_tokens"' in events

    @override
    def for_caller(self, event: Event, *, wants_usage: bool) -> bytes:
        if event.usage is None or event.usage.is_partial or _COST_MARK not in event.raw:
            return event.raw
        payload = _payload_of(event.raw)
        if payload is None:
            return event.raw
        payload["usage"] = _without_cost(payload["usage"])
        return _event_like(event.raw, payload)

    @override
    def output(self) -> Output:
        return BlocksOutput()

    @override
    def summarize(self, body: bytes) -> ResponseSummary | None:
        whole = _decoded(_whole_message, body)
        if whole is None:
            return None
        output = self.output()
        output.add_whole(whole.content)
        output.is_refused = whole.stop_reason == "refusal"
        return ResponseSummary(_text(whole.id), usage_in(whole.usage), output)

    @override
    def error_body(self, error: AppError) -> bytes:
        return _encode(anthropic_envelope(error))

    @override
    def error_event(self, error: AppError) -> bytes:
        return b"event: error\ndata: " + self.error_body(error) + b"\n\n"
