"""Cutting a stream of server-sent events into what passes untouched and what must be looked at. Pure.

Only events that carry usage, an error or the end are looked into; a surface's format knows them by bytes that cannot
stand inside a JSON string, where the quote would be escaped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from routing.surfaces.usage import ProviderUsage

DONE = b"data: [DONE]\n\n"
# The longest mark of an event's end is a byte longer.
_SEAM_BYTES = 3


class Kind(Enum):
    """What an event is to the gateway."""

    CONTENT = 0
    USAGE = 1  # usage and nothing else: only those who asked for it get it
    ERROR = 2
    END = 3  # the last one of a complete stream


@dataclass(slots=True)
class Event:
    """One event, or a piece of a very long one, as it came."""

    raw: bytes
    kind: Kind = Kind.CONTENT
    usage: ProviderUsage | None = None


class Classifier(Protocol):
    """What cutting needs to know of a response_format."""

    max_held_bytes: int

    def most_held_bytes(self, beginning: bytes) -> int:
        """How much is held of an event that begins so and is longer than `max_held_bytes`."""

    def may_matter(self, events: bytes) -> bool:
        """Whether any of these events could be more than content. May be wrong only by saying yes."""

    def classify(self, raw: bytes) -> Event:
        """What one event is."""


class Splitter:
    """Feeds on chunks of any size, yields whole events. Chunk edges make no difference."""

    __slots__ = ("_most_bytes", "_response_format", "_rest", "_rest_bytes", "_seam")

    def __init__(self, response_format: Classifier) -> None:
        self._response_format = response_format
        # The pieces of an event that has not ended yet, and their last bytes, in which its end may have begun.
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._most_bytes = response_format.max_held_bytes
        self._seam = b""

    def is_plain(self, chunk: bytes) -> bool:
        """Whether a chunk is whole events of content, as nearly every one is: then it need not be cut at all."""
        return not self._rest and chunk.endswith(b"\n\n") and not self._response_format.may_matter(chunk)

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that this chunk completes. Runs of plain content come as one piece, uncut."""
        if not _end_of_events(self._seam + chunk if self._seam else chunk):
            self._keep(chunk)
            if self._rest_bytes > self._most_bytes and not self._may_hold_more():
                yield Event(self._take())
            return
        if self._rest:
            self._keep(chunk)
            chunk = self._take()
        end = _end_of_events(chunk)
        if end < len(chunk):
            self._keep(chunk[end:])
            chunk = chunk[:end]
        if self._response_format.may_matter(chunk):
            yield from map(self._response_format.classify, events_of(chunk))
        else:
            yield Event(chunk)

    def flush(self) -> Iterator[Event]:
        """What is left when the stream has ended: some servers leave out the last empty line."""
        rest = self._take()
        if rest.strip():
            yield self._response_format.classify(rest)

    def _may_hold_more(self) -> bool:
        self._rest = [b"".join(self._rest)]
        before, self._most_bytes = self._most_bytes, self._response_format.most_held_bytes(self._rest[0])
        return self._most_bytes > before

    def _keep(self, piece: bytes) -> None:
        # Not one growing text: copying and searching it with every piece takes a second for 8 MB.
        self._rest.append(piece)
        self._rest_bytes += len(piece)
        self._seam = (self._seam + piece)[-_SEAM_BYTES:]

    def _take(self) -> bytes:
        rest = self._rest[0] if len(self._rest) == 1 else b"".join(self._rest)
        self._rest, self._rest_bytes, self._seam = [], 0, b""
        self._most_bytes = self._response_format.max_held_bytes
        return rest


def _end_of_events(data: bytes) -> int:
    """Where the last whole event ends; 0 when none does."""
    end = data.rfind(b"\n\n")
    end = 0 if end < 0 else end + 2
    windows_end = data.rfind(b"\r\n\r\n")
    return max(end, windows_end + 4) if windows_end >= 0 else end


def events_of(whole: bytes) -> Iterator[bytes]:
    """One piece after the other, each with the empty line that ends it."""
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


def count_of(events: bytes) -> int:
    """Events begin a line; inside JSON a line break is escaped, so a text that says "data:" is no event."""
    return events.count(b"\ndata:") + events.startswith(b"data:")
