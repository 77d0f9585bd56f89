"""Histograms: within their error, and mergeable."""

import math

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from logs.pipeline.histogram import BUCKETS, add, bucket_of, merged, middle_ms, of, quantile

durations = st.lists(st.integers(1, 1_700_000), min_size=1, max_size=200)


@given(st.integers(1, 1_700_000))
def test_a_buckets_middle_is_within_five_percent(value: int) -> None:
    assert abs(middle_ms(bucket_of(value)) - value) <= 0.05 * value + 0.01
    assert bucket_of(value) < BUCKETS


@given(a=durations, b=durations)
def test_merging_is_counting_both(a: list[int], b: list[int]) -> None:
    assert merged(of(a), of(b)) == of(a + b)


@given(values=durations, q=st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_percentiles_are_within_five_percent(values: list[int], q: float) -> None:
    exact = sorted(values)[math.floor(q * (len(values) - 1))]
    found = quantile(of(values), q)
    assert found is not None
    assert abs(found - exact) <= 0.05 * exact + 0.01


def test_an_empty_histogram_has_no_percentile() -> None:
    assert quantile([], 0.5) is None


@pytest.mark.django_db
def test_the_database_adds_histograms_in_the_same_way() -> None:
    a, b = of([1, 5, 5, 900]), of([2, 70_000])
    with connection.cursor() as cursor:
        cursor.execute("SELECT cfx_add_histograms(%s, %s)", [a, b])
        assert cursor.fetchone()[0] == merged(a, b)


@pytest.mark.django_db
def test_a_removed_duration_leaves_no_trace() -> None:
    counts = of([5])
    add(counts, 70_000)
    add(counts, 70_000, -1)
    assert counts == of([5])
    out: list[int] = []
    add(out, 70_000, -1)
    assert merged(of([5, 70_000]), out) == of([5])
    with connection.cursor() as cursor:
        cursor.execute("SELECT cfx_add_histograms(%s, %s)", [of([5, 70_000]), out])
        assert cursor.fetchone()[0] == of([5])
