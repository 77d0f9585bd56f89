"""Which of two reports about one request holds. Pure.

A report of higher rank replaces usage and cost, and the difference goes to ledger and rollups; an equal or lower one
changes nothing that is known. So reports may come in any order, any number of times.
"""

from dataclasses import dataclass

from billing.pricing import Usage
from logs.events import UsageEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a stored row says of its usage."""

    usage: Usage
    cost_nanos: int
    rank: int
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A row's next revision and what changes with it."""

    revision: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost_nanos: int


def correction(known: Known, event: UsageEvent) -> Correction | None:
    """What a later report changes: differences new minus old, or None when the row stands."""
    if event.rank <= known.rank:
        return None
    old, new = known.usage, event.usage
    return Correction(
        revision=known.revision + 1,
        prompt_tokens=new.prompt_tokens - old.prompt_tokens,
        cached_tokens=new.cached_tokens - old.cached_tokens,
        completion_tokens=new.completion_tokens - old.completion_tokens,
        reasoning_tokens=new.reasoning_tokens - old.reasoning_tokens,
        cost_nanos=event.cost_nanos - known.cost_nanos,
    )
