"""A short fuzz run on real servers; the run's seed chooses the bodies, and a failure prints it."""

import asyncio

import pytest

from keys.tests.factories import a_key
from tests.fuzz.bodies import SEEDS, body_of
from tests.fuzz.run import fuzz
from tests.gateway.test_surfaces import SURFACE_CASES
from tests.seeds import seed_of
from tests.support.installation import Gateway, Installation

BODIES = 1_500
MAX_GROWTH_KB = 50 * 1024


def test_every_surface_has_seeds() -> None:
    assert {case.path.partition("?")[0] for case in SURFACE_CASES} - {"/chat/completions"} < set(SEEDS)


def test_the_same_number_makes_the_same_body() -> None:
    for path in SEEDS:
        bodies = [body_of(1, path, number) for number in range(20)]
        assert bodies == [body_of(1, path, number) for number in range(20)]
        assert len(set(bodies)) > 10


def test_no_body_makes_the_gateway_fail_or_grow(
    running: Installation, unbreakable: Gateway, pytestconfig: pytest.Config
) -> None:
    seed = seed_of(pytestconfig)
    work = fuzz(unbreakable.url, a_key().plain, bodies=BODIES, seed=seed, pid=unbreakable.process.pid)
    outcome = asyncio.run(work)
    assert not outcome.failures, outcome.text()
    assert outcome.growth_kb < MAX_GROWTH_KB, f"seed {seed}: {outcome.text()}"
    assert "Traceback" not in unbreakable.log.read_text()
    # Most are refused at once, but some must reach the upstream.
    for path, counts in outcome.counts.items():
        assert counts[400] > BODIES / 2, path
        assert counts[200] > BODIES / 50, path
