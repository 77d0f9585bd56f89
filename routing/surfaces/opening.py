"""Beginning of a stream, up to the first event that says something. Pure.

Until then nothing is sent, so that another model can still be tried: comments, pings, a role alone and empty deltas are
no response yet, and an error may come after them.
"""

from collections.abc import Iterable

from billing.usage import read_usage
from routing.surfaces.responses import Identity, ResponseFormat
from routing.surfaces.sse import Event, Kind, Splitter, data_of

ERROR_EVENT = "error event"


class Opening:
    """Collects the beginning of one stream. `splitter` then splits what follows, and `output` counts it."""

    __slots__ = (
        "_collected_bytes", "_response_format", "counted", "events", "failure", "identity", "is_response",
        "output", "splitter",
    )  # fmt: skip

    def __init__(self, response_format: ResponseFormat) -> None:
        self._response_format = response_format
        self._collected_bytes = 0
        self.splitter = Splitter(response_format)
        self.output = response_format.output()
        self.events: list[Event] = []
        # The number of events, from the first on, that `output` has.
        self.counted = 0
        self.identity = Identity()
        # Whether the stream is a response, and why it is none; neither while that is open.
        self.is_response = False
        self.failure = ""

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk."""
        self._collected_bytes += len(chunk)
        self._take([Event(chunk)] if self.splitter.is_plain(chunk) else self.splitter.feed(chunk))
        if not self.is_response and not self.failure and self._collected_bytes > self._response_format.max_held_bytes:
            self.failure = "too much without content"

    def end(self) -> None:
        """Take the end of the stream."""
        self._take(self.splitter.flush())
        if not self.is_response and not self.failure:
            self._end()

    def _take(self, events: Iterable[Event]) -> None:
        for event in events:
            self.events.append(event)
            if self.is_response or self.failure:
                continue
            if event.kind in (Kind.ERROR, Kind.BROKEN):
                self.failure = ERROR_EVENT if event.kind is Kind.ERROR else "broken JSON"
                continue
            if not all(self.identity) and data_of(event.raw):
                found = self._response_format.identity(event.raw)
                self.identity = Identity(self.identity.id or found.id, self.identity.model or found.model)
            if event.kind is not Kind.USAGE:
                self.output.add(event.raw)
            self.counted = len(self.events)
            is_piece = event.kind is Kind.CONTENT and len(event.raw) > self._response_format.max_held_bytes
            self.is_response = is_piece or self.output.says_something
            if event.kind is Kind.END and not self.is_response:
                self._end()

    def _end(self) -> None:
        """Decide over a stream that ended without content: LiteLLM makes a clean one of a provider's error page."""
        usages = [event.usage for event in self.events if event.usage is not None]
        # Of text that the provider holds back.
        has_counted_output = any(usage.produced > 0 for usage in usages)
        # LiteLLM makes up usage at the end; only the provider knows the size of the prompt at the beginning.
        is_prompt_known = self._response_format.begins_with_usage and any(
            usage.is_partial and read_usage(usage.fields).usage.prompt_tokens > 0 for usage in usages
        )
        self.is_response = has_counted_output or (is_prompt_known and self.output.stop_reason is not None)
        if not self.is_response:
            self.failure = "empty success" if self.events else "empty stream"
