"""Metering of a call: the provider's usage, or our own count without it. Pure."""

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from billing.pricing import FrozenRates, Usage
from billing.usage import (
    MAX_TOKENS,
    MOST_UNITS,
    UNITS_OBJECT,
    UsageReport,
    merged,
    most_units,
    read_usage,
    with_units_of_call,
)
from codexflow.lib.money import NANOS_PER_USD
from logs.pipeline.events import RANK_COUNTED, RANK_NONE, RANK_PROVIDER
from routing.surfaces.output import Output
from routing.surfaces.responses import ResponseSummary
from routing.surfaces.usage import ProviderUsage

# Delivered bytes that wait to be counted: all of an ordinary stream, whose usage then makes counting unnecessary.
MAX_PENDING_BYTES = 64 * 1024
MAX_COST_USD = 1_000_000
# No text has so many times fewer tokens than are estimated by its characters.
MOST_TOKEN_RATIO = 4


class Meter:
    """Output and usage of one call so far; `max_tokens` bounds its output."""

    __slots__ = (
        "_fields", "_is_output_final", "_least", "_output", "_partial_counts", "_pending", "_pending_bytes", "_report",
        "has_begun", "max_tokens", "upstream_cost_nanos",
    )  # fmt: skip

    def __init__(self, max_tokens: int = MAX_TOKENS) -> None:
        self.max_tokens = max_tokens
        # The provider's usage so far, in its own fields; whether its output is final.
        self._fields: Mapping[str, Any] = {}
        self._least: Mapping[str, Any] = {}
        self._report: UsageReport | None = None  # the fields as they were last read
        self._is_output_final = False
        # How often the provider counted output beside a piece of it, after it last counted all of it.
        self._partial_counts = 0
        # Whether the upstream has begun to respond: then it has read the prompt.
        self.has_begun = False
        self._output: Output | None = None
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self.upstream_cost_nanos: int | None = None

    def begin(self, output: Output) -> None:
        """The upstream has begun to respond: it has read the prompt. `output` counts what will be delivered."""
        self.has_begun = True
        self._output = output

    def end(self, last_event: bytes = b"") -> None:
        """The stream is complete: what was reported while it ran is final. Its last event may hold a text, too."""
        self._is_output_final = True
        self._pending.append(last_event)

    def record_delivery(self, raw: bytes) -> None:
        """Take a piece of the stream that is sent to the caller; pieces come in order, and may be cut anywhere."""
        self._pending.append(raw)
        self._pending_bytes += len(raw)
        if self._pending_bytes > MAX_PENDING_BYTES:
            self._count_pending()

    def _count_pending(self) -> None:
        if self._pending and self._output is not None:
            self._output.add(b"".join(self._pending))
        self._pending, self._pending_bytes = [], 0

    def record_usage(self, usage: ProviderUsage) -> None:
        """Take the usage that the provider reports; fields that a later event leaves out hold from before."""
        self._fields, self._report = merged(self._fields, usage.fields), None
        self._is_output_final = self._is_output_final or not usage.is_partial
        self._partial_counts = self._partial_counts + 1 if usage.is_partial and usage.produced else 0
        if usage.cost is not None:
            self.upstream_cost_nanos = nanos_of(usage.cost)

    def record_least(self, units: Mapping[str, int]) -> None:
        """Take what the call uses of hosted tools, before any attempt: what the provider tells counts instead."""
        self._least = {UNITS_OBJECT: {f"{name}_requests": count for name, count in units.items()}}
        self._fields, self._report = self._least, None

    @property
    def is_output_told(self) -> bool:
        """True once the provider has counted output."""
        return self._read().usage.completion_tokens > 0

    def _read(self) -> UsageReport:
        if self._report is None:
            self._report = read_usage(self._fields)
        return self._report

    def record_response(self, summary: ResponseSummary, cost_header: bytes | None) -> None:
        """Take output and usage of a whole JSON response. A refusal or failure without output costs nothing."""
        if summary.output.is_refused and not summary.output.tokens:
            return
        self.begin(summary.output)
        if summary.usage is not None:
            self.record_usage(summary.usage)
        if cost_header is not None and self.upstream_cost_nanos is None:
            self.upstream_cost_nanos = nanos_of(cost_header.decode("latin-1"))

    def add_upstream_cost(self, nanos: int | None) -> None:
        """Add what a part of the call cost upstream, where that is known."""
        if nanos is not None:
            self.upstream_cost_nanos = (self.upstream_cost_nanos or 0) + nanos

    def disbelieve(self) -> None:
        """Forget what the provider reported: it is more than can be. Uses of tools stay, unless they are."""
        self._fields = {name: value for name, value in self._fields.items() if name == UNITS_OBJECT}
        self._report = None
        if most_units(self._read().usage) > MOST_UNITS:
            self._fields, self._report = self._least, None

    @property
    def stop_reason(self) -> str | None:
        """Why the stream ended, as its provider wrote it, if nothing has been said since."""
        self._count_pending()
        return self._output.stop_reason if self._output is not None else None

    def delivered_tokens(self) -> int:
        """Estimate the output by what was delivered; never more than allowed."""
        self._count_pending()
        return min(self.max_tokens, self._output.tokens) if self._output is not None else 0

    def usage(self, prompt_tokens_guess: int) -> tuple[Usage, int]:
        """Return usage and its rank: the provider's if known, else an estimate of what was delivered, else nothing.

        Input and output are known apart: what the provider did not tell is estimated. An output of 0 beside delivered
        content is no count. A refusal before any output costs nothing.
        """
        report = self._read()
        usage, delivered = report.usage, 0
        has_output = report.is_output_known and self._is_output_final and not self._is_count_of_a_piece(usage)
        if not has_output or not usage.completion_tokens:
            delivered = self.delivered_tokens()
            has_output = has_output and not delivered
            if not delivered and not usage.completion_tokens and self._output is not None and self._output.is_refused:
                return Usage(), RANK_NONE
        if report.is_input_known and has_output:
            return usage, RANK_PROVIDER
        if not self.has_begun:
            return Usage(), RANK_NONE
        if not report.is_input_known:
            usage = replace(usage, prompt_tokens=prompt_tokens_guess)
        if not has_output:
            usage = replace(usage, completion_tokens=max(delivered, usage.completion_tokens), reasoning_tokens=0)
            usage = self._with_delivered_units(usage)
        return usage, RANK_COUNTED

    def _with_delivered_units(self, usage: Usage) -> Usage:
        """Add the calls of hosted tools that were delivered, where their provider had not told of them yet."""
        units = self._output.units if self._output is not None else None
        return replace(usage, details=dict(Counter(usage.details or {}) | Counter(units))) if units else usage

    def _is_count_of_a_piece(self, usage: Usage) -> bool:
        """Return whether the last count can only be that of one event: some count each event by itself."""
        return self._partial_counts > 1 and usage.completion_tokens * MOST_TOKEN_RATIO < self.delivered_tokens()

    def usage_by_the_call(
        self, prompt_tokens_guess: int, units_guess: Mapping[str, int], rates: FrozenRates
    ) -> tuple[Usage, int]:
        """Return usage and rank of a call that may be sold by units: what the price counts is told or estimated."""
        usage, rank = self.usage(0)
        if rank == RANK_NONE:
            return usage, rank
        usage, is_told = with_units_of_call(usage, units_guess, rates)
        if is_told:
            return usage, RANK_PROVIDER
        return replace(usage, prompt_tokens=usage.prompt_tokens or prompt_tokens_guess), RANK_COUNTED

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
