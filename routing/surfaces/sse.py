"""Splitting a stream of server-sent events into content that passes untouched and events to inspect. Pure.

A line ends with CRLF, LF or CR, and an event with an empty line. A chunk that is one ordinary event, as nearly all are,
is recognized in one strict decoding; everything else is split and each event classified.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import msgspec
from msgspec import Raw

from routing.surfaces.usage import ProviderUsage

DONE = b"data: [DONE]\n\n"
DATA_BYTES = len(b"data:")
# Pairs of bytes that only an empty line has. CRLF is none of them: it is one line end.
ENDS = (b"\n\n", b"\n\r", b"\r\r", b"\n\r\n", b"\r\r\n")
_END = re.compile(rb"\n\r?\n|\n\r|\r\r\n?")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_skip_json = msgspec.json.Decoder(Raw).decode


class Kind(Enum):
    """Kind of an event, for the gateway."""

    CONTENT = 0
    USAGE = 1  # usage alone: sent only to callers that request it
    ERROR = 2
    END = 3  # the last one of a complete stream
    BROKEN = 4  # no JSON: clients fail on it


@dataclass(slots=True)
class Event:
    """One event, or a piece of a very long one, as it came."""

    raw: bytes
    kind: Kind = Kind.CONTENT
    usage: ProviderUsage | None = None


class Classifier(Protocol):
    """The part of a response format that splitting needs."""

    max_held_bytes: int

    def most_held_bytes(self, beginning: bytes) -> int:
        """Return how much to hold of an event with this beginning that is longer than `max_held_bytes`."""

    def is_plain(self, event: bytes) -> bool:
        """Return whether this is one whole, ordinary event of content. May err only towards False."""

    def classify(self, raw: bytes) -> Event:
        """Classify one event."""


class Splitter:
    """Splits chunks of any size into whole events. Chunk edges make no difference."""

    __slots__ = ("_last", "_max_bytes", "_response_format", "_rest", "_rest_bytes", "has_rest")

    def __init__(self, response_format: Classifier) -> None:
        self._response_format = response_format
        # The pieces of an event that has not ended yet, and their last byte, with which its end may have begun.
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self.has_rest = False
        self._max_bytes = response_format.max_held_bytes
        self._last = b""

    def is_plain(self, chunk: bytes) -> bool:
        """Return whether a chunk is one whole event of content, as nearly all are: then it need not be split."""
        return not self.has_rest and self._response_format.is_plain(chunk)

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield the events that this chunk completes."""
        if not end_of_events(self._last + chunk if self._last else chunk):
            self._hold(chunk)
            if self._rest_bytes > self._max_bytes and not self._may_hold_more():
                yield Event(self._take())
            return
        if self._rest:
            self._hold(chunk)
            chunk = self._take()
        end = end_of_events(chunk)
        if end < len(chunk):
            self._hold(chunk[end:])
            chunk = chunk[:end]
        yield from map(self._response_format.classify, events_of(chunk))

    def flush(self) -> Iterator[Event]:
        """Yield the remainder when the stream has ended: some servers omit the last empty line.

        Half an event is left out: it is of no use to a caller.
        """
        remainder = self._take()
        if remainder.strip():
            event = self._response_format.classify(remainder.rstrip(b"\r\n") + b"\n\n")
            if event.kind is not Kind.BROKEN:
                yield event

    def _may_hold_more(self) -> bool:
        self._rest = [b"".join(self._rest)]
        before, self._max_bytes = self._max_bytes, self._response_format.most_held_bytes(self._rest[0])
        return self._max_bytes > before

    def _hold(self, piece: bytes) -> None:
        # Not one growing buffer: copying and searching it with every piece takes a second for 8 MB.
        if piece:
            self._rest.append(piece)
            self._rest_bytes += len(piece)
            self.has_rest = True
            self._last = piece[-1:]

    def _take(self) -> bytes:
        rest = self._rest[0] if len(self._rest) == 1 else b"".join(self._rest)
        self._rest, self._rest_bytes, self._last, self.has_rest = [], 0, b"", False
        self._max_bytes = self._response_format.max_held_bytes
        return rest


def end_of_events(stream: bytes) -> int:
    """Return the offset at which the last whole event ends; 0 when none does."""
    end = stream.rfind(b"\n\n") + 2
    if b"\r" not in stream:
        return end if end >= 2 else 0
    for mark in (b"\n\r", b"\r\r"):
        at = stream.rfind(mark)
        if at >= 0:  # the CR may be the first half of CRLF
            end = max(end, at + (3 if stream.startswith(b"\n", at + 2) else 2))
    return end if end >= 2 else 0


def first_end(stream: bytes) -> int:
    """Return the offset at which the first event ends; 0 when none does."""
    found = _END.search(stream)
    return found.end() if found else 0


def events_of(whole: bytes) -> Iterator[bytes]:
    """Yield the events one by one, each with the empty line that ends it."""
    start = 0
    if b"\r" in whole:
        for found in _END.finditer(whole):
            yield whole[start : found.end()]
            start = found.end()
    while (end := whole.find(b"\n\n", start) + 2) >= 2:
        yield whole[start:end]
        start = end
    if start < len(whole):
        yield whole[start:]


def data_of(event: bytes) -> bytes:
    """Return the payload of an event's `data:` lines."""
    is_one_line = event.startswith(b"data:") and event.endswith(b"\n\n") and event.find(b"\n") == len(event) - 2
    if is_one_line and b"\r" not in event:  # nearly always
        return event[DATA_BYTES:-2].strip()
    lines = [
        line[5:].strip() for line in event.removeprefix(_BYTE_ORDER_MARK).splitlines() if line.startswith(b"data:")
    ]
    return b"\n".join(lines)


def name_of(event: bytes) -> str:
    """Return an event's name; empty when it has none."""
    if b"event:" not in event:
        return ""
    lines = event.removeprefix(_BYTE_ORDER_MARK).splitlines()
    names = [line[6:].strip() for line in lines if line.startswith(b"event:")]
    return names[-1].decode("utf-8", "replace") if names else ""


def is_broken(data: bytes) -> bool:
    """Return whether an event's payload is something, but no JSON that any reader takes. Lenient ones take NaN."""
    if not data or data == b"[DONE]":
        return False
    try:
        _skip_json(data)
    except RecursionError:
        return False
    except msgspec.MsgspecError:
        return not _is_lenient_json(data)
    return False


def _is_lenient_json(data: bytes) -> bool:
    try:
        json.loads(data.decode("utf-8-sig", "replace"))
    except RecursionError:
        return True
    except ValueError:
        return False
    return True
