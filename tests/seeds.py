"""Seed of a test run: `make test SEED=7` sets it for Hypothesis, chaos, fuzz and the pages of a cut."""

import secrets
from functools import cache

import pytest


def seed_of(config: pytest.Config) -> int:
    """Return the run's seed (`--hypothesis-seed`), or a random one; a failing test must print it."""
    given = config.getoption("--hypothesis-seed")
    return _drawn() if given is None else int(given)


@cache
def _drawn() -> int:
    """Of this process, so that its tests make the parts of one cut."""
    return secrets.randbelow(1_000_000)
