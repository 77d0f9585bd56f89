"""Plan of an answer: what the planner model wrote, read, bounded and completed. Pure.

The text comes from a model that has read the caller's words. Whatever it says, a plan has at most as many parts of at
most as many tokens as the configuration allows, and every ask and every section of the input is in some part.
"""

from collections.abc import Collection, Sequence
from itertools import pairwise

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from codexflow.catalogue.schema import PlannerConfig
from routing.planner.engage import Quality

MAX_TITLE_CHARS, MAX_INSTRUCTION_CHARS = 120, 2_000
MAX_ASKS, MAX_ASK_CHARS = 60, 300
FAST, DEEP = "fast", "deep"


class BadPlan(Exception):
    """The text is no plan; its message says why, for the planner model."""


class Chunk(Struct, frozen=True, kw_only=True):
    """One part. Numbers count from 1; those in `depends_on` are smaller than the part's own."""

    title: str
    instruction: str
    asks: tuple[int, ...] = ()
    inputs: tuple[int, ...] = ()
    depends_on: tuple[int, ...] = ()
    tokens: int = 0
    quality: str = FAST


class Plan(Struct, frozen=True, kw_only=True):
    """Parts of one answer in their order. `language` is that of the answer, as two letters."""

    asks: tuple[str, ...]
    chunks: tuple[Chunk, ...]
    language: str = "en"

    @property
    def tokens(self) -> int:
        return sum([chunk.tokens for chunk in self.chunks])


class _WrittenChunk(Struct):
    title: str
    instruction: str
    asks: list[int] = []
    inputs: list[int] = []
    depends_on: list[int] = []
    tokens: int = 0
    quality: str = ""


class _Written(Struct):
    chunks: list[_WrittenChunk]
    asks: list[str] = []
    language: str = "en"


_written = msgspec.json.Decoder(_Written, strict=False)


def read_plan(
    text: str, config: PlannerConfig, *, sections: int, wanted_tokens: int | None, quality: Quality = Quality.AUTO
) -> Plan:
    """Read a plan out of a model's text. `wanted_tokens`: output that the parts must be able to give together.

    Raises BadPlan.
    """
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise BadPlan("there is no JSON object")
    try:
        written = _written.decode(text[start : end + 1])
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as exc:
        raise BadPlan(f"the JSON cannot be read: {exc}") from None
    if not written.chunks:
        raise BadPlan("`chunks` is empty")
    if len(written.chunks) > config.max_chunks:
        raise BadPlan(f"there are {len(written.chunks)} chunks, and at most {config.max_chunks} are allowed")
    asks = tuple(_line(each, MAX_ASK_CHARS) for each in written.asks[:MAX_ASKS] if each.strip())
    chunks = tuple(
        _chunk(each, n, config, asks=len(asks), sections=sections, quality=quality)
        for n, each in enumerate(written.chunks, start=1)
    )
    language = written.language.strip().lower()[:2] or "en"
    plan = Plan(asks=asks, chunks=chunks, language=language)
    return _large_enough(completed(plan, sections=sections), config, wanted_tokens)


def _chunk(
    written: _WrittenChunk, n: int, config: PlannerConfig, *, asks: int, sections: int, quality: Quality
) -> Chunk:
    if not written.title.strip() or not written.instruction.strip():
        raise BadPlan(f"chunk {n} has no title or no instruction")
    if any(not 1 <= each < n for each in written.depends_on):
        raise BadPlan(f"chunk {n} may depend on earlier chunks only, and names {written.depends_on}")
    return Chunk(
        title=_line(written.title, MAX_TITLE_CHARS),
        instruction=written.instruction.strip()[:MAX_INSTRUCTION_CHARS],
        asks=_known(written.asks, asks),
        inputs=_known(written.inputs, sections),
        depends_on=tuple(sorted({*written.depends_on})),
        tokens=min(
            max(written.tokens or config.optimal_chunk_tokens, config.min_chunk_tokens), config.max_chunk_tokens
        ),
        quality=_quality(written.quality, quality, config),
    )


def _quality(written: str, asked: Quality, config: PlannerConfig) -> str:
    """Without cost optimization all parts are of the deep model, unless the caller wants the fast one."""
    if asked is not Quality.AUTO:
        return str(asked.value)
    return FAST if config.cost_optimization_enabled and written.strip().lower() != DEEP else DEEP


def _known(numbers: Collection[int], most: int) -> tuple[int, ...]:
    return tuple(sorted({each for each in numbers if 1 <= each <= most}))


def _line(text: str, most_chars: int) -> str:
    return " ".join(text.split())[:most_chars]


def completed(plan: Plan, *, sections: int) -> Plan:
    """Give asks and sections that are in no part to the part that is nearest to them in order."""
    chunks = list(plan.chunks)
    for name, count in (("asks", len(plan.asks)), ("inputs", sections)):
        taken = {number for chunk in chunks for number in getattr(chunk, name)}
        for number in range(1, count + 1):
            if number not in taken:
                at = _nearest(plan.chunks, name, number, count)
                chunks[at] = replace(chunks[at], **{name: tuple(sorted((*getattr(chunks[at], name), number)))})
    return replace(plan, chunks=tuple(chunks))


def _nearest(chunks: Sequence[Chunk], name: str, number: int, count: int) -> int:
    """Index of the part whose numbers are nearest; where no part has any, the one at the same place in the answer."""
    distances = [
        (min([abs(each - number) for each in getattr(chunk, name)]), at)
        for at, chunk in enumerate(chunks)
        if getattr(chunk, name)
    ]
    return min(distances)[1] if distances else (number - 1) * len(chunks) // count


def _large_enough(plan: Plan, config: PlannerConfig, wanted_tokens: int | None) -> Plan:
    """Enlarge the parts alike until they can give what is wanted, as far as they may."""
    if wanted_tokens is None or plan.tokens >= wanted_tokens:
        return plan
    chunks = tuple(
        replace(each, tokens=min(config.max_chunk_tokens, -(-each.tokens * wanted_tokens // plan.tokens)))
        for each in plan.chunks
    )
    missing = wanted_tokens - sum([each.tokens for each in chunks])
    grown = []
    for each in chunks:
        more = max(0, min(missing, config.max_chunk_tokens - each.tokens))
        missing -= more
        grown.append(replace(each, tokens=each.tokens + more))
    return replace(plan, chunks=tuple(grown))


def levels(plan: Plan) -> list[list[int]]:
    """Numbers of the parts that may run together, in the order in which they may begin."""
    depth: dict[int, int] = {}
    for n, chunk in enumerate(plan.chunks, start=1):
        depth[n] = 1 + max([depth[each] for each in chunk.depends_on], default=-1)
    found: list[list[int]] = [[] for _ in range(1 + max(depth.values(), default=-1))]
    for n, at in depth.items():
        found[at].append(n)
    return found


def is_in_order(plan: Plan) -> bool:
    """Return whether each part depends on the one before it: then nothing runs beside anything."""
    return all(n in later.depends_on for n, (_, later) in enumerate(pairwise(plan.chunks), start=1))
