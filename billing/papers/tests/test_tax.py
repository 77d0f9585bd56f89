"""Tax of an invoice's lines."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.papers.tax import Taxed, rounded_cents, tax_in, tax_of_lines, tax_of_part

amounts = st.lists(st.integers(0, 10_000_000), max_size=12)
rates = st.integers(0, 10_000)


@pytest.mark.parametrize(
    ("total", "rate", "tax"),
    [(12_000, 2000, 2_000), (2_500, 2000, 417), (2_500, 0, 0), (0, 2000, 0), (3, 10_000, 2), (1, 10_000, 1)],
)
def test_tax_in_an_amount(total: int, rate: int, tax: int) -> None:
    assert tax_in(total, rate) == tax


def test_lines_share_the_tax_of_their_sum() -> None:
    # Each alone would have 16.67 cents: 17 + 17 + 17 is a cent too much.
    assert [each.tax_cents for each in tax_of_lines([100, 100, 100], 2000)] == [17, 17, 16]
    assert tax_of_lines([], 2000) == []


@given(amounts, rates)
def test_lines_add_up_and_none_is_a_cent_from_its_exact_tax(totals: list[int], rate: int) -> None:
    lines = tax_of_lines(totals, rate)
    assert [each.total_cents for each in lines] == totals
    assert sum(each.tax_cents for each in lines) == tax_in(sum(totals), rate)
    assert sum(each.net_cents for each in lines) + sum(each.tax_cents for each in lines) == sum(totals)
    for each in lines:
        assert abs(each.tax_cents - Fraction(each.total_cents * rate, 10_000 + rate)) < 1
        assert 0 <= each.tax_cents <= each.total_cents


@given(amounts.flatmap(lambda each: st.tuples(st.just(each), st.permutations(each))), rates)
def test_the_order_of_lines_does_not_matter(lists: tuple[list[int], list[int]], rate: int) -> None:
    one, other = ([(each.total_cents, each.tax_cents) for each in tax_of_lines(each, rate)] for each in lists)
    assert sorted(one) == sorted(other)


@pytest.mark.parametrize(("totals", "rate"), [([5, -1], 2000), ([5], -1)])
def test_negative_amounts_and_rates_are_refused(totals: list[int], rate: int) -> None:
    with pytest.raises(ValueError, match="not negative"):
        tax_of_lines(totals, rate)


@given(st.lists(st.integers(1, 1_000_000), min_size=1, max_size=10), rates)
def test_parts_that_add_up_to_the_total_have_its_tax(parts: list[int], rate: int) -> None:
    paper = Taxed(sum(parts), tax_in(sum(parts), rate))
    credited = Taxed(0, 0)
    for part in parts:
        taxed = tax_of_part(paper, credited, part)
        assert 0 <= taxed.tax_cents <= taxed.total_cents
        credited = Taxed(credited.total_cents + part, credited.tax_cents + taxed.tax_cents)
    assert credited == paper
    with pytest.raises(ValueError, match="no part"):
        tax_of_part(paper, credited, 1)


def test_a_part_is_above_zero() -> None:
    with pytest.raises(ValueError, match="no part"):
        tax_of_part(Taxed(100, 17), Taxed(0, 0), 0)


@pytest.mark.parametrize(
    ("nanos", "cents"),
    [(0, 0), (4_999_999, 0), (5_000_000, 1), (-5_000_000, -1), (-4_999_999, 0), (12_345_678_900, 1_235)],
)
def test_half_a_cent_is_rounded_away_from_zero(nanos: int, cents: int) -> None:
    assert rounded_cents(nanos) == cents
