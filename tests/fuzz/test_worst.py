"""A short search for requests that are much work: each is taken or refused, within a bound of memory."""

import asyncio
from random import Random

import pytest

from tests.fuzz.worst import PLACES, Cost, ShapeOfBody, cost_of, drawn, mutated, search, table
from tests.seeds import seed_of

SHAPES = 60
# Beside what a body takes for itself, a few times: most objects that the bounds of structure allow.
MAX_COPIES = 4
MAX_OBJECTS_BYTES = 40 * 1024 * 1024


def shapes(seed: int, count: int) -> list[ShapeOfBody]:
    draw = Random(seed)  # noqa: S311 - repeatable
    found = [drawn(draw)]
    while len(found) < count:
        found.append(mutated(draw, draw.choice(found)) if draw.random() < 0.5 else drawn(draw))
    return found


def test_every_body_is_taken_or_refused_within_a_bound_of_memory(pytestconfig: pytest.Config) -> None:
    seed = seed_of(pytestconfig)
    for shape in shapes(seed, SHAPES):
        cost = asyncio.run(cost_of(shape, measures_memory=True))
        assert cost.outcome in ("ok", "too complex", "invalid_request", "invalid_json"), (seed, shape)
        assert cost.memory_bytes < MAX_COPIES * cost.size_bytes + MAX_OBJECTS_BYTES, (seed, shape, cost)


def test_the_same_seed_makes_the_same_shapes() -> None:
    assert shapes(7, 200) == shapes(7, 200)
    assert {shape.place for shape in shapes(7, 400)} == set(range(len(PLACES)))


def test_the_search_ends_with_a_table() -> None:
    worst = asyncio.run(search(6, seed=1))
    assert all(isinstance(cost, Cost) for _, cost in worst)
    assert table(worst).count("\n") == len(worst) + 1
