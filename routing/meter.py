"""Counting what a call used: the provider's numbers, or our own when it gave none. Pure."""

from decimal import Decimal

import msgspec
from msgspec import Struct

from billing.pricing import Usage
from codexflow.lib.money import NANOS_PER_USD
from logs.events import RANK_COUNTED, RANK_NONE, RANK_PROVIDER
from routing.sse import ProviderUsage

BYTES_PER_TOKEN = 4
# More is a mistake of the provider, and would not fit the columns.
MAX_TOKENS = 1_000_000_000
MAX_COST_USD = 1_000_000


class _Answer(Struct):
    id: str | None = None
    usage: ProviderUsage | None = None


_decoder = msgspec.json.Decoder(_Answer)


class _Written(Struct):
    message: dict[str, msgspec.Raw]


class _Content(Struct):
    choices: list[_Written]


_content_decoder = msgspec.json.Decoder(_Content)
# What of a message the model wrote.
_WRITTEN = ("content", "reasoning_content", "tool_calls")


class Meter:
    """What one call has produced so far."""

    __slots__ = ("_provider", "bytes_out", "events_out", "first_event_bytes", "response_id", "upstream_cost_nanos")

    def __init__(self) -> None:
        self._provider: Usage | None = None
        self.events_out = 0
        self.bytes_out = 0
        self.first_event_bytes = 0
        self.response_id = ""
        self.upstream_cost_nanos: int | None = None

    def delivered(self, raw: bytes) -> None:
        """Content went out to the caller."""
        events = _events_in(raw)
        self.events_out += events
        self.bytes_out += len(raw)
        if not self.first_event_bytes:
            self.first_event_bytes = len(raw) // max(1, events)

    def reported(self, usage: ProviderUsage) -> None:
        """The provider said what it counted."""
        prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
        if min(prompt, completion) < 0 or not 0 < prompt + completion <= MAX_TOKENS:
            return  # LiteLLM writes zeros when the provider gave nothing
        details, output = usage.prompt_tokens_details, usage.completion_tokens_details
        self._provider = Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            cached_tokens=_part(details.cached_tokens, prompt) if details else 0,
            reasoning_tokens=_part(output.reasoning_tokens, completion) if output else 0,
        )
        if usage.cost is not None:
            self.upstream_cost_nanos = nanos_of(usage.cost)

    def answered(self, body: bytes, cost_header: bytes | None) -> bool:
        """A whole JSON answer arrived. Returns whether it is one."""
        try:
            answer = _decoder.decode(body)
        except (msgspec.MsgspecError, RecursionError):
            return False
        self.bytes_out = len(body)
        self.response_id = answer.id or ""
        self.events_out = 1
        if answer.usage is not None:
            self.reported(answer.usage)
        if self._provider is None:
            self.bytes_out = _text_bytes(body)
        if cost_header is not None and self.upstream_cost_nanos is None:
            self.upstream_cost_nanos = nanos_of(cost_header.decode("latin-1"))
        return True

    def delivered_tokens(self) -> int:
        """Our own estimate of the output: providers send about one token an event, or more bytes than one fits."""
        envelope = self.events_out * self.first_event_bytes
        return max(self.events_out, (self.bytes_out - envelope) // BYTES_PER_TOKEN)

    def usage(self, prompt_tokens_guess: int) -> tuple[Usage, int]:
        """Usage and its rank: the provider's when it is known, else what was delivered, else nothing."""
        if self._provider is not None:
            return self._provider, RANK_PROVIDER
        if self.events_out == 0:
            return Usage(), RANK_NONE
        counted = Usage(prompt_tokens=prompt_tokens_guess, completion_tokens=self.delivered_tokens())
        return counted, RANK_COUNTED

    @property
    def progress(self) -> str:
        """For the heartbeat: tokens delivered, or nothing while no byte is out."""
        return str(self.delivered_tokens()) if self.events_out else ""


def _events_in(raw: bytes) -> int:
    """Events begin a line; inside JSON a line break is escaped, so a text that says "data:" is no event."""
    return raw.count(b"\ndata:") + raw.startswith(b"data:")


def _text_bytes(body: bytes) -> int:
    """Bytes of what the model wrote, without the envelope; of all when the answer has another form."""
    try:
        messages = [choice.message for choice in _content_decoder.decode(body).choices]
    except (msgspec.MsgspecError, RecursionError):
        return len(body)
    texts = [bytes(message[name]) for message in messages for name in _WRITTEN if name in message]
    return sum(len(text) for text in texts if text != b"null")


def _part(tokens: int | None, whole: int) -> int:
    return min(max(0, tokens or 0), whole)


def nanos_of(usd: float | str) -> int | None:
    """LiteLLM's cost, a float in USD, as nanos; None when it is no number."""
    try:
        amount = Decimal(str(usd))
        return int(amount * NANOS_PER_USD) if amount.is_finite() and 0 <= amount <= MAX_COST_USD else None
    except ArithmeticError:
        return None
