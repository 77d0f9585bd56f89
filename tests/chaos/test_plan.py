"""The plan of a run: the seed decides it."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.plan import KINDS, TARGETS, Strike, drawn
from tests.chaos.run import EVERY_TARGET


def strikes(seed: int, *, longest_s: float, targets: tuple[str, ...] = EVERY_TARGET) -> list[Strike]:
    return list(drawn(seed, 40, kinds=KINDS, targets=targets, longest_s=longest_s, pause_s=(0.8, 3.2)))


@given(seed=st.integers(0, 10**6))
def test_a_seed_repeats_its_incidents_whatever_the_longest_may_be(seed: int) -> None:
    short, long = strikes(seed, longest_s=5), strikes(seed, longest_s=60)
    assert short == strikes(seed, longest_s=5)
    assert [replace(each, seconds=0) for each in short] == [replace(each, seconds=0) for each in long]
    assert max(each.seconds for each in short) == 5
    assert max(each.seconds for each in long) == 60


@given(seed=st.integers(0, 10**6), targets=st.sets(st.sampled_from(EVERY_TARGET), min_size=1))
def test_only_the_targets_are_struck_and_only_as_they_can_be(seed: int, targets: set[str]) -> None:
    for strike in strikes(seed, longest_s=5, targets=tuple(sorted(targets))):
        assert strike.target in targets & set(TARGETS[strike.kind])


def test_every_kind_is_drawn_within_a_few_runs() -> None:
    found = {(each.kind, each.target) for seed in range(20) for each in strikes(seed, longest_s=5)}
    assert found == {(kind, target) for kind, targets in TARGETS.items() for target in targets}
