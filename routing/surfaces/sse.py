"""Splitting a stream of server-sent events into content that passes untouched and events to inspect. Pure.

Only events that carry usage, an error or the end are decoded; a surface's format recognizes them by bytes that cannot
occur inside a JSON string, where the quote would be escaped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from routing.surfaces.usage import ProviderUsage

DONE = b"data: [DONE]\n\n"
# One byte less than the longest end of an event.
_SEAM_BYTES = 3


class Kind(Enum):
    """Kind of an event, for the gateway."""

    CONTENT = 0
    USAGE = 1  # usage alone: sent only to callers that request it
    ERROR = 2
    END = 3  # the last one of a complete stream


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

    def may_matter(self, events: bytes) -> bool:
        """Return whether any of these events could be more than content. May err only towards True."""

    def classify(self, raw: bytes) -> Event:
        """Classify one event."""


class Splitter:
    """Splits chunks of any size into whole events. Chunk edges make no difference."""

    __slots__ = ("_max_bytes", "_response_format", "_rest", "_rest_bytes", "_seam")

    def __init__(self, response_format: Classifier) -> None:
        self._response_format = response_format
        # The pieces of an event that has not ended yet, and their last bytes, in which its end may have begun.
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._max_bytes = response_format.max_held_bytes
        self._seam = b""

    def is_plain(self, chunk: bytes) -> bool:
        """Return whether a chunk is whole events of content, as nearly all are: then it need not be split."""
        return not self._rest and chunk.endswith(b"\n\n") and not self._response_format.may_matter(chunk)

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield the events that this chunk completes. Runs of plain content come as one piece."""
        if not _end_of_events(self._seam + chunk if self._seam else chunk):
            self._hold(chunk)
            if self._rest_bytes > self._max_bytes and not self._may_hold_more():
                yield Event(self._take())
            return
        if self._rest:
            self._hold(chunk)
            chunk = self._take()
        end = _end_of_events(chunk)
        if end < len(chunk):
            self._hold(chunk[end:])
            chunk = chunk[:end]
        if self._response_format.may_matter(chunk):
            yield from map(self._response_format.classify, events_of(chunk))
        else:
            yield Event(chunk)

    def flush(self) -> Iterator[Event]:
        """Yield the remainder when the stream has ended: some servers omit the last empty line."""
        remainder = self._take()
        if remainder.strip():
            yield self._response_format.classify(remainder)

    def _may_hold_more(self) -> bool:
        self._rest = [b"".join(self._rest)]
        before, self._max_bytes = self._max_bytes, self._response_format.most_held_bytes(self._rest[0])
        return self._max_bytes > before

    def _hold(self, piece: bytes) -> None:
        # Not one growing buffer: copying and searching it with every piece takes a second for 8 MB.
        self._rest.append(piece)
        self._rest_bytes += len(piece)
        self._seam = (self._seam + piece)[-_SEAM_BYTES:]

    def _take(self) -> bytes:
        rest = self._rest[0] if len(self._rest) == 1 else b"".join(self._rest)
        self._rest, self._rest_bytes, self._seam = [], 0, b""
        self._max_bytes = self._response_format.max_held_bytes
        return rest


def _end_of_events(data: bytes) -> int:
    """Return the offset at which the last whole event ends; 0 when none does."""
    end = data.rfind(b"\n\n")
    end = 0 if end < 0 else end + 2
    crlf_end = data.rfind(b"\r\n\r\n")
    return max(end, crlf_end + 4) if crlf_end >= 0 else end


def events_of(whole: bytes) -> Iterator[bytes]:
    """Yield the events one by one, each with the empty line that ends it."""
    start = 0
    while start < len(whole):
        ends = [at + len(mark) for mark in (b"\n\n", b"\r\n\r\n") if (at := whole.find(mark, start)) >= 0]
        end = min(ends, default=len(whole))
        yield whole[start:end]
        start = end


def data_of(event: bytes) -> bytes:
    """Return the payload of an event's `data:` lines."""
    lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines)
