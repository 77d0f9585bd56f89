"""The confidence interval of bench-compare."""

from itertools import product
from math import isclose
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.intervals import _cut, interval, typical

ratios = st.floats(min_value=0.2, max_value=5.0)
samples = st.lists(ratios, min_size=6, max_size=24)


@pytest.mark.parametrize(("size", "cut"), [(5, None), (6, 0), (8, 3), (10, 8), (12, 13), (20, 52)])
def test_the_cut_is_that_of_published_tables(size: int, cut: int | None) -> None:
    assert _cut(size, 0.025) == cut


@given(st.lists(ratios, min_size=1, max_size=5))
def test_five_pairs_have_no_interval(sample: list[float]) -> None:
    assert interval(sample) is None


@given(samples)
def test_the_estimate_lies_in_the_interval_and_the_interval_in_the_range(sample: list[float]) -> None:
    found = interval(sample)
    assert found is not None
    slack = 1 + 1e-9
    assert min(sample) / slack <= found.low <= typical(sample) * slack
    assert typical(sample) / slack <= found.high <= max(sample) * slack


@given(samples, st.randoms(use_true_random=False))
def test_the_order_of_the_pairs_does_not_matter(sample: list[float], draw: Random) -> None:
    shuffled = list(sample)
    draw.shuffle(shuffled)
    one, other = interval(sample), interval(shuffled)
    assert one is not None
    assert other is not None
    assert isclose(one.low, other.low)
    assert isclose(one.high, other.high)


@given(samples)
def test_swapping_the_two_sides_turns_the_interval_around(sample: list[float]) -> None:
    forth, back = interval(sample), interval([1 / ratio for ratio in sample])
    assert forth is not None
    assert back is not None
    assert isclose(forth.low, 1 / back.high)
    assert isclose(forth.high, 1 / back.low)


@given(samples, st.floats(min_value=1.0, max_value=3.0))
def test_a_slower_side_moves_both_ends_by_as_much(sample: list[float], factor: float) -> None:
    before, after = interval(sample), interval([ratio * factor for ratio in sample])
    assert before is not None
    assert after is not None
    assert isclose(after.low, before.low * factor)
    assert isclose(after.high, before.high * factor)


@given(st.lists(st.floats(min_value=1.001, max_value=1.5), min_size=6, max_size=9, unique=True))
def test_symmetric_noise_around_no_change_is_covered_as_often_as_promised(noise: list[float]) -> None:
    """Every way in which a neighbour may have hit one side or the other, counted: the promise is exact."""
    found = [
        interval([size if is_new else 1 / size for size, is_new in zip(noise, hits, strict=True)])
        for hits in product([False, True], repeat=len(noise))
    ]
    covered = sum(each is not None and each.low <= 1 <= each.high for each in found)
    assert covered >= 0.95 * len(found)
