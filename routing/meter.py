"""Counting what a call used: the provider's numbers, or our own when it gave none. Pure."""

from decimal import Decimal

from billing.pricing import Usage
from codexflow.lib.money import NANOS_PER_USD
from logs.pipeline.events import RANK_COUNTED, RANK_NONE, RANK_PROVIDER
from routing.surfaces.responses import Answer
from routing.surfaces.sse import count_of
from routing.surfaces.usage import MAX_TOKENS, NOTHING, ProviderUsage

BYTES_PER_TOKEN = 4
MAX_COST_USD = 1_000_000


class Meter:
    """What one call has produced so far; `most_tokens` is what it may produce."""

    __slots__ = (
        "_begun", "_provider", "bytes_out", "events_out", "first_event_bytes", "has_begun", "most_tokens",
        "response_id", "upstream_cost_nanos",
    )  # fmt: skip

    def __init__(self, most_tokens: int = MAX_TOKENS) -> None:
        self.most_tokens = most_tokens
        self._provider: Usage | None = None
        # What a stream told at its beginning: its input holds until it is told again.
        self._begun = NOTHING
        # Whether the model has answered at all: then it has read the prompt.
        self.has_begun = False
        self.events_out = 0
        self.bytes_out = 0
        self.first_event_bytes = 0
        self.response_id = ""
        self.upstream_cost_nanos: int | None = None

    def begin(self) -> None:
        """The upstream has begun to respond: it has read the prompt."""
        self.has_begun = True

    def discard(self) -> None:
        """Forget all usage: the call is not charged."""
        self._provider = None
        self.upstream_cost_nanos = None
        self.has_begun = False

    def delivered(self, raw: bytes) -> None:
        """Content goes out to the caller."""
        events = count_of(raw)
        self.events_out += events
        self.bytes_out += len(raw)
        if not self.first_event_bytes:
            self.first_event_bytes = len(raw) // max(1, events)

    def reported(self, usage: ProviderUsage) -> None:
        """The provider said what it counted."""
        if (tokens := usage.tokens(self._begun)) is None:
            return
        if usage.is_only_input:
            self._begun = tokens
            return
        self._provider = tokens
        if usage.cost is not None:
            self.upstream_cost_nanos = nanos_of(usage.cost)

    def answered(self, answer: Answer, cost_header: bytes | None) -> None:
        """A whole JSON answer arrived."""
        self.response_id = answer.id
        self.has_begun = True
        self.events_out = 1
        self.bytes_out = answer.text_bytes
        if answer.usage is not None:
            self.reported(answer.usage)
        if cost_header is not None and self.upstream_cost_nanos is None:
            self.upstream_cost_nanos = nanos_of(cost_header.decode("latin-1"))

    def delivered_tokens(self) -> int:
        """Our own estimate of the output: providers send about one token an event, or more bytes than one fits.

        Never more than was allowed: pictures are many bytes, and a response says everything again at its end.
        """
        envelope = self.events_out * self.first_event_bytes
        return min(self.most_tokens, max(self.events_out, (self.bytes_out - envelope) // BYTES_PER_TOKEN))

    def usage(self, prompt_tokens_guess: int) -> tuple[Usage, int]:
        """Usage and its rank: the provider's when it is known, else what was delivered, else nothing."""
        if self._provider is not None:
            return self._provider, RANK_PROVIDER
        if not self.has_begun:
            return Usage(), RANK_NONE
        counted = Usage(
            prompt_tokens=self._begun.prompt_tokens or prompt_tokens_guess,
            cached_tokens=self._begun.cached_tokens,
            cache_write_tokens=self._begun.cache_write_tokens,
            cache_write_1h_tokens=self._begun.cache_write_1h_tokens,
            completion_tokens=self.delivered_tokens(),
        )
        return counted, RANK_COUNTED

    @property
    def progress(self) -> str:
        """For the heartbeat: tokens delivered, or nothing while the model has not answered."""
        return str(self.delivered_tokens()) if self.has_begun else ""


def nanos_of(usd: object) -> int | None:
    """LiteLLM's cost, a float in USD, as nanos; None when it is no number."""
    try:
        amount = Decimal(str(usd))
        return int(amount * NANOS_PER_USD) if amount.is_finite() and 0 <= amount <= MAX_COST_USD else None
    except ArithmeticError:
        return None
