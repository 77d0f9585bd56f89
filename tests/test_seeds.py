"""Seed of a test run, and numbers of Hypothesis examples."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

from tests.seeds import seed_of
from tests.support.examples import examples


class Config:
    """Stand-in for the one part of pytest's configuration that is read."""

    def __init__(self, seed: str | None) -> None:
        self.seed = seed

    def getoption(self, name: str) -> str | None:
        assert name == "--hypothesis-seed"
        return self.seed


def test_a_given_seed_is_used() -> None:
    assert seed_of(Config("4711")) == 4711  # type: ignore[arg-type]
    assert 0 <= seed_of(Config(None)) < 1_000_000  # type: ignore[arg-type]


def test_hypothesis_defines_the_seed_option(pytestconfig: pytest.Config) -> None:
    assert seed_of(pytestconfig) >= 0


def test_examples_depend_on_the_seed_in_ci_too() -> None:
    """By default Hypothesis uses the same examples in every run where CI is set."""
    assert settings().derandomize is False
    assert settings.get_profile("nightly").derandomize is False


@pytest.fixture
def profile() -> Iterator[Callable[[str], None]]:
    """Load a Hypothesis profile for the duration of a test."""
    before = settings.get_current_profile_name()
    yield settings.load_profile
    settings.load_profile(before)


def test_the_nightly_profile_runs_ten_times_the_examples(profile: Callable[[str], None]) -> None:
    profile("codexflow")
    assert examples(40) == 40
    profile("nightly")
    assert examples(40) == 400
