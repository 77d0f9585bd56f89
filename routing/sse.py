"""Cutting a stream of server-sent events, and building our own. Pure.

Bytes pass untouched. Only three kinds of event are looked into: those with usage, those with an error, and the
closing `[DONE]`. All of them are recognised by bytes that cannot stand inside a JSON string, where the quote would be
escaped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import msgspec
from msgspec import Struct

DONE = b"data: [DONE]\n\n"
# An event longer than this is passed on in pieces: it is content, not one of the small events we look for.
MAX_HELD_BYTES = 256 * 1024

_USAGE_MARK = b'"usage":'
_ERROR_MARK = b'"error":'
_DONE_MARK = b"[DONE]"


class Kind(Enum):
    """What an event is to the gateway."""

    CONTENT = 0
    USAGE = 1  # usage and nothing else: only those who asked for it get it
    ERROR = 2
    DONE = 3


class _TokenDetails(Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class ProviderUsage(Struct):
    """`usage` as OpenAI and LiteLLM write it."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _TokenDetails | None = None
    completion_tokens_details: _TokenDetails | None = None
    cost: float | None = None


class _Choice(Struct):
    delta: dict[str, msgspec.Raw] | None = None
    finish_reason: str | None = None
    text: str | None = None

    @property
    def is_empty(self) -> bool:
        return not self.delta and not self.finish_reason and not self.text


class _Payload(Struct):
    id: str | None = None
    usage: ProviderUsage | None = None
    choices: list[_Choice] | None = None
    # Not `Raw | None`: msgspec reads that as null only.
    error: msgspec.Raw = msgspec.Raw(b"null")


_decoder = msgspec.json.Decoder(_Payload)


@dataclass(slots=True)
class Event:
    """One event, or a piece of a very long one, as it came."""

    raw: bytes
    kind: Kind = Kind.CONTENT
    usage: ProviderUsage | None = None


class Splitter:
    """Feeds on chunks of any size, yields whole events. Chunk edges make no difference."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that this chunk completes. Runs of plain content come as one piece, uncut."""
        if self._rest:
            chunk, self._rest = self._rest + chunk, b""
        end = _end_of_events(chunk)
        if end == 0:
            if len(chunk) > MAX_HELD_BYTES:
                yield Event(chunk)
            else:
                self._rest = chunk
            return
        whole, self._rest = (chunk, b"") if end == len(chunk) else (chunk[:end], chunk[end:])
        if _USAGE_MARK not in whole and _DONE_MARK not in whole and _ERROR_MARK not in whole:
            yield Event(whole)
            return
        yield from map(_classified, _events_of(whole))

    def flush(self) -> Iterator[Event]:
        """What is left when the stream has ended: some servers leave out the last empty line."""
        rest, self._rest = self._rest, b""
        if rest.strip():
            yield _classified(rest)


def _end_of_events(data: bytes) -> int:
    """Where the last whole event ends; 0 when none does."""
    end = data.rfind(b"\n\n")
    end = 0 if end < 0 else end + 2
    windows_end = data.rfind(b"\r\n\r\n")
    return max(end, windows_end + 4) if windows_end >= 0 else end


def _events_of(whole: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(whole):
        ends = [at + len(mark) for mark in (b"\n\n", b"\r\n\r\n") if (at := whole.find(mark, start)) >= 0]
        end = min(ends, default=len(whole))
        yield whole[start:end]
        start = end


def data_of(event: bytes) -> bytes:
    """The payload of an event's `data:` lines."""
    lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines)


def _classified(raw: bytes) -> Event:
    data = data_of(raw)
    if data == _DONE_MARK:
        return Event(raw, Kind.DONE)
    if _USAGE_MARK not in raw and _ERROR_MARK not in raw:
        return Event(raw)
    try:
        payload = _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        return Event(raw)
    if bytes(payload.error) != b"null":
        return Event(raw, Kind.ERROR)
    if payload.usage is None:
        return Event(raw)
    # OpenAI sends usage without choices; LiteLLM beside an empty one.
    is_usage_only = all(choice.is_empty for choice in payload.choices or ())
    return Event(raw, Kind.USAGE if is_usage_only else Kind.CONTENT, payload.usage)


def error_event(body: bytes) -> bytes:
    """An error as the last event of a stream: no [DONE] follows, so a cut stream never looks complete."""
    return b"data: " + body + b"\n\n"


def is_error(chunk: bytes) -> bool:
    """Whether a stream's first chunk is an error in place of a first event."""
    if _ERROR_MARK not in chunk:
        return False
    return any(_classified(raw).kind is Kind.ERROR for raw in list(_events_of(chunk))[:1])


def response_id(chunk: bytes) -> str:
    """The provider's id of the answer, from the first event of its stream."""
    for raw in _events_of(chunk):
        try:
            return _decoder.decode(data_of(raw)).id or ""
        except (msgspec.MsgspecError, RecursionError):
            return ""
    return ""


def for_caller(event: Event, *, wants_usage: bool) -> bytes:
    """An event with usage as its caller may see it: without usage that was not asked for, and never with `cost`.

    What the upstream charges us is not the caller's price.
    """
    payload = msgspec.json.decode(data_of(event.raw))
    if not wants_usage:
        if event.kind is Kind.USAGE:
            return b""
        del payload["usage"]
    elif "cost" in payload["usage"]:
        payload["usage"] = {name: value for name, value in payload["usage"].items() if not name.startswith("cost")}
    else:
        return event.raw
    return b"data: " + msgspec.json.encode(payload) + b"\n\n"
