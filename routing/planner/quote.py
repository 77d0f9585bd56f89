"""Price of a plan before it is carried out: at most, as expected, and what one call would have cost."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from billing.limiter.holds import MOST_CONTEXT_TOKENS, CallSize, worst_nanos
from billing.pricing import FrozenRates, Usage, cost_nanos
from codexflow.catalogue.schema import Catalogue
from routing.planner.plan import Chunk, Plan, levels
from routing.planner.prompts import (
    MAX_CARRIED_BYTES,
    MAX_SUMMARIZED_CHARS,
    SUMMARY_TOKENS,
    body_of,
    chunk_messages,
    continuation_messages,
    summary_messages,
)
from routing.planner.request import Planning
from routing.surfaces import body
from routing.surfaces.bounds import bounded
from routing.surfaces.requests import Chat

# A part that was cut off is continued so often.
CONTINUATIONS = 1
# As models write, for the expected time.
TOKENS_PER_SECOND = 60
SECONDS_TO_FIRST_TOKEN = 2
# Two bytes each in JSON, as line breaks and quotation marks are.
_FILLER = '"'


class PartQuote(Struct, frozen=True, kw_only=True):
    """One part of a plan, with nano-USD at most and as expected."""

    title: str
    model: str
    tokens: int
    depends_on: tuple[int, ...]
    most_nanos: int
    expected_nanos: int


class Quote(Struct, frozen=True, kw_only=True):
    """A plan's price. What planning has cost already is part of both sums."""

    parts: tuple[PartQuote, ...]
    most_nanos: int
    expected_nanos: int
    expected_s: int
    planning_nanos: int


def sized(raw: bytes, models: Sequence[str], catalogue: Catalogue) -> tuple[body.ParsedRequest, CallSize]:
    """Parse the body of a call, and bound its size: no call costs more than `worst_nanos` of that.

    Raises InvalidRequestBody.
    """
    request = body.parse(raw, Chat)
    size = request.size(request.max_tokens(default=0, cap=max(request.limits.values(), default=0)))
    contexts = {model: catalogue.entries[model].context_tokens or MOST_CONTEXT_TOKENS for model in models}
    return request, bounded(raw, request, size, contexts)


def most_of(raw: bytes, rates: Mapping[str, FrozenRates], catalogue: Catalogue) -> int:
    """Return the most that a call with this body can cost at any of the models."""
    return worst_nanos(sized(raw, tuple(rates), catalogue)[1], rates)


def rates_of(planning: Planning, quality: str) -> dict[str, FrozenRates]:
    """Return the models that may write a part, with their prices."""
    return {model: planning.models.rates[model] for model in planning.models.of(quality)}


def quote_of(planning: Planning, plan: Plan, catalogue: Catalogue, *, planning_nanos: int) -> Quote:
    """Reckon what a plan costs: at most, with the longest texts that parts may be told of, and every continuation."""
    parts = tuple(_part(planning, plan, n, catalogue) for n in range(1, len(plan.chunks) + 1))
    summarized = {each for chunk in plan.chunks for each in chunk.depends_on}
    summary = body_of(summary_messages(_FILLER * MAX_SUMMARIZED_CHARS), max_tokens=SUMMARY_TOKENS)
    summaries = len(summarized) * most_of(summary, rates_of(planning, "fast"), catalogue) if summarized else 0
    seconds = [
        SECONDS_TO_FIRST_TOKEN + max([plan.chunks[n - 1].tokens for n in level]) // TOKENS_PER_SECOND
        for level in levels(plan)
    ]
    return Quote(
        parts=parts,
        most_nanos=planning_nanos + summaries + sum([part.most_nanos for part in parts]),
        expected_nanos=planning_nanos + sum([part.expected_nanos for part in parts]),
        expected_s=sum(seconds),
        planning_nanos=planning_nanos,
    )


def least_part_nanos(planning: Planning, catalogue: Catalogue) -> int:
    """Return what the smallest part that a plan may have is held for: without as much no plan can be carried out."""
    shortest = min(range(1, len(planning.sections) + 1), key=lambda n: len(planning.sections[n - 1]))
    chunk = Chunk(title="", instruction="", inputs=(shortest,), tokens=planning.config.min_chunk_tokens)
    messages = chunk_messages(planning.earlier, planning.sections, Plan(asks=(), chunks=(chunk,)), 1, "")
    raw = body_of(messages, max_tokens=chunk.tokens, parameters=planning.parameters)
    return most_of(raw, rates_of(planning, chunk.quality), catalogue)


def _part(planning: Planning, plan: Plan, number: int, catalogue: Catalogue) -> PartQuote:
    chunk = plan.chunks[number - 1]
    carried = _FILLER * MAX_CARRIED_BYTES if chunk.depends_on else ""
    messages = chunk_messages(planning.earlier, planning.sections, plan, number, carried)
    raw = body_of(messages, max_tokens=chunk.tokens, parameters=planning.parameters)
    rates = rates_of(planning, chunk.quality)
    most = most_of(raw, rates, catalogue)
    again = continuation_messages(messages, _FILLER * MAX_CARRIED_BYTES)
    more = most_of(body_of(again, max_tokens=chunk.tokens, parameters=planning.parameters), rates, catalogue)
    plain = chunk_messages(planning.earlier, planning.sections, plan, number, "")
    usual = Usage(
        prompt_tokens=len(body_of(plain, max_tokens=chunk.tokens)) // 4 + (MAX_CARRIED_BYTES // 8 if carried else 0),
        completion_tokens=chunk.tokens,
    )
    model = next(iter(rates))
    return PartQuote(
        title=chunk.title,
        model=model,
        tokens=chunk.tokens,
        depends_on=chunk.depends_on,
        most_nanos=most + CONTINUATIONS * more,
        expected_nanos=cost_nanos(usual, rates[model]),
    )
