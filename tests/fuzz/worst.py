"""Search for the requests that are most work for their size.

`python -m tests.fuzz.worst --rounds 2000 --seed 7` (`make worst`) changes shapes of requests at random, keeps those
that hold up the event loop longest or take most memory for each byte, and prints the worst as a table. A body goes
the way that the gateway's bodies go before any limit is asked, in a process of its own with its own loop.
"""

import argparse
import asyncio
import gc
import secrets
import sys
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain
from random import Random

from codexflow.lib.clock import monotonic_s
from codexflow.lib.complexity import TooComplex, check_complexity, is_light
from codexflow.lib.errors import AppError
from codexflow.lib.heavy import beside_the_loop
from routing.surfaces.body import ParsedRequest, parse, upstream_tail
from routing.surfaces.requests import Chat, Completions, Embeddings, Messages, RequestSchema, Responses

MAX_BYTES = 10 * 1024 * 1024
SIZES = (1_000, 16_000, 32_768, 32_800, 65_536, 65_600, 300_000, 1_048_576, 1_050_000, 4_000_000, MAX_BYTES)
# Bodies before the repeated elements and after them. The elements of the last are fields.
_CHAT, _END = b'{"model":"m","messages":[{"role":"user","content":', b"}]}"
PLACES: tuple[tuple[type[RequestSchema], bytes, bytes], ...] = (
    (Chat, _CHAT + b"[", b"]" + _END),
    (Chat, b'{"model":"m","messages":[', b"]}"),
    (Chat, _CHAT + b'"x"}],"tools":[', b"]}"),
    (Chat, _CHAT + b'"x"}],"functions":[', b"]}"),
    (Chat, _CHAT + b'"x"}],"modalities":[', b"]}"),
    (Chat, _CHAT + b'"x"}],"plugins":[', b"]}"),
    (Chat, _CHAT + b'"', b'"' + _END),
    (Chat, _CHAT + b'[{"type":"text","text":"', b'"}]' + _END),
    (Chat, _CHAT + b'"x","images":[', b"]" + _END),
    (Messages, _CHAT + b"[", b"]" + _END),
    (Messages, _CHAT + b'"x"}],"system":[', b"]}"),
    (Responses, b'{"model":"m","input":[', b"]}"),
    (Responses, b'{"model":"m","input":[{"type":"function_call_output","output":[', b"]}]}"),
    (Embeddings, b'{"model":"m","input":[', b"]}"),
    (Completions, b'{"model":"m","prompt":[', b"]}"),
    (Chat, _CHAT + b'"x"}],', b"}"),
    (Chat, _CHAT + b'"x"}],"metadata":{', b"}}"),
)
_FIELDS_FROM = len(PLACES) - 2
_STRINGS = (6, 7)
_NAMES = (
    b"type", b"text", b"content", b"role", b"image_url", b"input_audio", b"file", b"file_id", b"source", b"data",
    b"url", b"output", b"result", b"images", b"audio", b"tool", b"tools", b"definition", b"function", b"name", b"x",
)  # fmt: skip
_LEAVES = (
    b"1", b"null", b'""', b'"a"', b"{}", b"[]", b"0.1", b"-1e9", b'"image"', b'"image_url"', b'"function"', b'"user"',
    b'"document"', b'"tool_result"', b'"function_call_output"', b'"data:image/png;base64,aaaa"', b'"\\u00fc"',
    "“ş😀”".join('""').encode(), b"9" * 40, b'"' + b"A" * 9_000 + b'"',
)  # fmt: skip
_TEXTS = (
    b"a",
    b"\\n",
    b"\\u00fc",
    b'\\"',
    b"\\\\",
    b"\\ud83d\\ude00",
    "ş".encode(),
    "😀".encode(),
    b"fix it. ",
    b"{[,:",
)


@dataclass(frozen=True, slots=True)
class ShapeOfBody:
    """A place, what is repeated there, and how much of it."""

    place: int
    element: bytes
    size_bytes: int

    @property
    def schema(self) -> type[RequestSchema]:
        return PLACES[self.place][0]

    def body(self) -> bytes:
        _, begin, end = PLACES[self.place]
        if self.place in _STRINGS:
            return begin + self.element * ((self.size_bytes - len(begin) - len(end)) // len(self.element)) + end
        room = max(1, (self.size_bytes - len(begin) - len(end)) // (len(self.element) + 1))
        if self.place >= _FIELDS_FROM:
            room = max(1, (self.size_bytes - len(begin) - len(end)) // (len(self.element) + 10))
            return begin + b",".join([b'"%06x":%b' % (number, self.element) for number in range(room)]) + end
        return begin + b",".join([self.element] * room) + end

    def text(self) -> str:
        schema, begin, _ = PLACES[self.place]
        element = self.element if len(self.element) <= 60 else self.element[:57] + b"..."
        where = begin.removeprefix(_CHAT).decode() or "content"
        return f"{schema.__name__.lower()} `{where}` × `{element.decode()}`"


@dataclass(frozen=True, slots=True)
class Cost:
    """Work of one body."""

    outcome: str  # "ok", or the code of its refusal
    size_bytes: int
    lag_s: float
    took_s: float
    memory_bytes: int = 0

    @property
    def memory_per_byte(self) -> float:
        return self.memory_bytes / self.size_bytes


def drawn(draw: Random) -> ShapeOfBody:
    """Draw any shape."""
    place = draw.randrange(len(PLACES))
    return ShapeOfBody(place, _element(draw, place), draw.choice(SIZES))


def mutated(draw: Random, shape: ShapeOfBody) -> ShapeOfBody:
    """Change one thing of a shape."""
    how = draw.randrange(4)
    if how == 0:
        return replace(shape, size_bytes=draw.choice(SIZES))
    if how == 1 and shape.place not in _STRINGS:
        place = draw.choice([each for each in range(len(PLACES)) if each not in _STRINGS])
        return replace(shape, place=place)
    if how == 2 and shape.place not in _STRINGS:
        return replace(shape, element=_wrapped(draw, shape.element))
    return replace(shape, element=_element(draw, shape.place))


def _element(draw: Random, place: int) -> bytes:
    if place in _STRINGS:
        return b"".join(draw.choices(_TEXTS, k=draw.choice((1, 1, 2, 5))))
    element = draw.choice(_LEAVES)
    for _ in range(draw.choice((0, 1, 1, 1, 2, 3))):
        element = _wrapped(draw, element)
    return element


def _wrapped(draw: Random, element: bytes) -> bytes:
    """Put an element into a list or an object, beside others."""
    others = [draw.choice(_LEAVES) for _ in range(draw.choice((0, 0, 1, 3)))]
    if draw.random() < 0.3:
        return b"[" + b",".join([element, *others]) + b"]"
    names = draw.sample(_NAMES, len(others) + 1)
    return b"{" + b",".join(b'"%b":%b' % pair for pair in zip(names, [element, *others], strict=True)) + b"}"


def _understood(body: bytes, schema: type[RequestSchema]) -> ParsedRequest:
    check_complexity(body)
    request = parse(body, schema)
    request.prompt()
    return request


async def received(body: bytes, schema: type[RequestSchema]) -> str:
    """Take a body as `routing.accept` does, up to what goes upstream. Returns "ok" or the code of its refusal."""
    try:
        if is_light(body):
            request = _understood(body, schema)
        else:
            request = await beside_the_loop(_understood, body, schema)
        upstream_tail(request, max_tokens=5, temperature=None)
    except TooComplex:
        return "too complex"
    except AppError as exc:
        return exc.code
    return "ok"


async def cost_of(shape: ShapeOfBody, *, measures_memory: bool = False) -> Cost:
    """Measure a body: how long the loop stood still at most, and how much memory it took at its peak."""
    body = shape.body()
    lag_s, is_over = 0.0, False

    async def tick() -> None:
        nonlocal lag_s
        before_s = monotonic_s()
        while not is_over:
            await asyncio.sleep(0)
            now_s = monotonic_s()
            lag_s, before_s = max(lag_s, now_s - before_s), now_s

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0)
    began_s = monotonic_s()
    outcome = await received(body, shape.schema)
    took_s = monotonic_s() - began_s
    await asyncio.sleep(0)
    is_over = True
    await ticker
    memory_bytes = await _memory_of(body, shape.schema) if measures_memory else 0
    return Cost(outcome, len(body), lag_s, took_s, memory_bytes)


async def _memory_of(body: bytes, schema: type[RequestSchema]) -> int:
    tracemalloc.start(1)
    try:
        await received(body, schema)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def search(rounds: int, seed: int) -> list[tuple[ShapeOfBody, Cost]]:
    """Search for the worst shapes, of which half are worst by lag and half by memory for each byte."""
    draw = Random(seed)  # noqa: S311 - repeatable
    found: dict[ShapeOfBody, Cost] = {}
    for number in range(rounds):
        known = _worst(found, 10) if number % 2 else []
        shape = mutated(draw, draw.choice(known)[0]) if known else drawn(draw)
        if shape not in found:
            found[shape] = await cost_of(shape, measures_memory=number % 4 == 0)
    again = [(shape, await _steady_cost(shape)) for shape, _ in _worst(found, 12)]
    return sorted(again, key=lambda each: each[1].lag_s, reverse=True)


async def _steady_cost(shape: ShapeOfBody) -> Cost:
    """The least of three measurements: other programs only add to it."""
    costs = [await cost_of(shape, measures_memory=number == 0) for number in range(3)]
    least = min(costs, key=lambda each: each.lag_s)
    return replace(least, memory_bytes=costs[0].memory_bytes)


def _worst(found: dict[ShapeOfBody, Cost], count: int) -> list[tuple[ShapeOfBody, Cost]]:
    def by(key: Callable[[Cost], float]) -> Iterable[tuple[ShapeOfBody, Cost]]:
        return sorted(found.items(), key=lambda each: key(each[1]), reverse=True)[: count // 2]

    return list(dict(chain(by(lambda cost: cost.lag_s), by(lambda cost: cost.memory_per_byte))).items())


def table(worst: list[tuple[ShapeOfBody, Cost]]) -> str:
    """Write the worst as a table of Markdown."""
    rows = [
        f"| {shape.text()} | {cost.size_bytes / 1024:,.0f} | {cost.outcome} | {cost.lag_s * 1000:.0f} "
        f"| {cost.took_s * 1000:.0f} | {cost.memory_per_byte:.1f} |"
        for shape, cost in worst
    ]
    head = (
        "| Repeated | KB | Outcome | Lag (ms) | In all (ms) | Memory per byte |",
        "| --- | --- | --- | --- | --- | --- |",
    )
    return "\n".join((*head, *rows))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.worst", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="default: random, and printed")
    options = parser.parse_args()
    gc.collect()
    gc.freeze()  # as the gateway does after its start
    worst = asyncio.run(search(options.rounds, options.seed))
    sys.stdout.write(f"worst: seed {options.seed}, {options.rounds} bodies\n{table(worst)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
