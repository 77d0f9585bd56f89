"""Metering of a call: the provider's usage, or our own count without it. Pure."""

from decimal import Decimal

from billing.pricing import Usage
from codexflow.lib.money import NANOS_PER_USD
from logs.pipeline.events import RANK_COUNTED, RANK_NONE, RANK_PROVIDER
from routing.surfaces.responses import ResponseSummary
from routing.surfaces.sse import count_of
from routing.surfaces.usage import MAX_TOKENS, NO_USAGE, ProviderUsage

BYTES_PER_TOKEN = 4
MAX_COST_USD = 1_000_000


class Meter:
    """Output and usage of one call so far; `max_tokens` bounds its output."""

    __slots__ = (
        "_begun", "_provider", "bytes_out", "events_out", "first_event_bytes", "has_begun", "max_tokens",
        "response_id", "upstream_cost_nanos",
    )  # fmt: skip

    def __init__(self, max_tokens: int = MAX_TOKENS) -> None:
        self.max_tokens = max_tokens
        self._provider: Usage | None = None
        # Usage reported at the beginning of a stream: its input counts until it is reported again.
        self._begun = NO_USAGE
        # Whether the upstream has begun to respond: then it has read the prompt.
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

    def record_delivery(self, raw: bytes) -> None:
        """Count content sent to the caller."""
        events = count_of(raw)
        self.events_out += events
        self.bytes_out += len(raw)
        if not self.first_event_bytes:
            self.first_event_bytes = len(raw) // max(1, events)

    def record_usage(self, usage: ProviderUsage) -> None:
        """Take the usage that the provider reports."""
        if (tokens := usage.tokens(self._begun)) is None:
            return
        if usage.is_only_input:
            self._begun = tokens
            return
        self._provider = tokens
        if usage.cost is not None:
            self.upstream_cost_nanos = nanos_of(usage.cost)

    def record_response(self, summary: ResponseSummary, cost_header: bytes | None) -> None:
        """Take id, size and usage of a whole JSON response."""
        self.response_id = summary.id
        self.has_begun = True
        self.events_out = 1
        self.bytes_out = summary.text_bytes
        if summary.usage is not None:
            self.record_usage(summary.usage)
        if cost_header is not None and self.upstream_cost_nanos is None:
            self.upstream_cost_nanos = nanos_of(cost_header.decode("latin-1"))

    def delivered_tokens(self) -> int:
        """Estimate the output: providers send about one token per event, or more bytes than fit one token.

        Never more than allowed: images are many bytes, and a response repeats everything at its end.
        """
        envelope = self.events_out * self.first_event_bytes
        return min(self.max_tokens, max(self.events_out, (self.bytes_out - envelope) // BYTES_PER_TOKEN))

    def usage(self, prompt_tokens_guess: int) -> tuple[Usage, int]:
        """Return usage and its rank: the provider's if known, else an estimate of what was delivered, else nothing."""
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
        """For the heartbeat: tokens delivered, or empty before the upstream responds."""
        return str(self.delivered_tokens()) if self.has_begun else ""


def nanos_of(usd: object) -> int | None:
    """Convert LiteLLM's cost, a float in USD, to nanos; None when it is no number."""
    try:
        amount = Decimal(str(usd))
        return int(amount * NANOS_PER_USD) if amount.is_finite() and 0 <= amount <= MAX_COST_USD else None
    except ArithmeticError:
        return None
