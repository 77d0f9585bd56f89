"""Seed of a test run: `make test SEED=7` sets it for Hypothesis, chaos and fuzz."""

import secrets

import pytest


def seed_of(config: pytest.Config) -> int:
    """Return the run's seed (`--hypothesis-seed`), or a random one; a failing test must print it."""
    given = config.getoption("--hypothesis-seed")
    return secrets.randbelow(1_000_000) if given is None else int(given)
