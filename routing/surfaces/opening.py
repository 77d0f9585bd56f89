"""Beginning of a stream, up to the first event that says something. Pure.

Until then nothing is sent, so that another model can still be tried: comments, pings, a role alone and empty deltas are
no response yet, and an error may come after them.
"""

from collections.abc import Iterable

from billing.usage import read_usage
from routing.surfaces.responses import ResponseFormat
from routing.surfaces.sse import Event, Kind, Splitter, data_of

ERROR_EVENT = "error event"


class Opening:
    """Collects the beginning of one stream. `splitter` then splits what follows, and `output` counts it."""

    __slots__ = (
        "_collected_bytes", "_is_prompt_known", "_response_format", "counted", "events", "failure", "is_response",
        "output", "response_id", "splitter",
    )  # fmt: skip

    def __init__(self, response_format: ResponseFormat) -> None:
        self._response_format = response_format
        self._collected_bytes = 0
        self._is_prompt_known = False
        self.splitter = Splitter(response_format)
        self.output = response_format.output()
        self.events: list[Event] = []
        # The number of events, from the first on, that `output` has.
        self.counted = 0
        self.response_id = ""
        # Whether the stream is a response, and why it is none; neither while that is open.
        self.is_response = False
        self.failure = ""

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk."""
        self._collected_bytes += len(chunk)
        self._take(self.splitter.feed(chunk))
        if not self.is_response and not self.failure and self._collected_bytes > self._response_format.max_held_bytes:
            self.failure = "too much without content"

    def end(self) -> None:
        """Take the end of the stream."""
        self._take(self.splitter.flush())
        if not self.is_response and not self.failure:
            self.failure = "empty success" if self.events else "empty stream"

    def _take(self, events: Iterable[Event]) -> None:
        for event in events:
            self.events.append(event)
            if self.is_response or self.failure:
                continue
            if event.kind in (Kind.ERROR, Kind.BROKEN):
                self.failure = ERROR_EVENT if event.kind is Kind.ERROR else "broken JSON"
                continue
            if not self.response_id and data_of(event.raw):
                self.response_id = self._response_format.response_id(event.raw)
            if event.kind is not Kind.USAGE:
                self.output.add(event.raw)
            self.counted = len(self.events)
            self.is_response = self._says_something(event)
            if event.kind is Kind.END and not self.is_response:
                # LiteLLM turns a provider's error page into a clean stream without content.
                self.failure = "empty success"

    def _says_something(self, event: Event) -> bool:
        """Return whether the stream is a response by this event, if it was none before."""
        # Counted output is a response without content, too: of text that a provider holds back.
        if self.output.says_something or (event.usage is not None and event.usage.produced > 0):
            return True
        if event.usage is not None and event.usage.is_partial and self._response_format.begins_with_usage:
            # Only the provider knows the size of the prompt at the beginning: it has read it.
            self._is_prompt_known = read_usage(event.usage.fields).usage.prompt_tokens > 0
        is_piece = event.kind is Kind.CONTENT and len(event.raw) > self._response_format.max_held_bytes
        return is_piece or (self._is_prompt_known and self.output.stop_reason is not None)
