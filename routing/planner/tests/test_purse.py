"""Money of a planned request: the sum never passes the limit."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from routing.planner.purse import Purse, limit_of

nanos = st.integers(0, 10**10)


@given(limit=nanos, calls=st.lists(st.tuples(nanos, st.floats(0, 1), st.booleans()), max_size=20))
def test_whatever_is_begun_and_ended_the_sum_stays_within_the_limit(
    limit: int, calls: list[tuple[int, float, bool]]
) -> None:
    purse = Purse(limit)
    running: list[tuple[int, int]] = []
    for most, share, ends_one in calls:
        if purse.reserve(most):
            running.append((most, int(most * share)))
        if ends_one and running:
            purse.pay(*running.pop(0))
        assert 0 <= purse.paid_nanos + purse.reserved_nanos <= limit
    for each in running:
        purse.pay(*each)
    assert purse.reserved_nanos == 0
    assert purse.paid_nanos <= limit


@given(most=nanos, cap=st.none() | nanos, margin=st.decimals(0, Decimal("0.99"), places=2))
def test_the_limit_is_the_smaller_cap_less_the_margin(most: int, cap: int | None, margin: Decimal) -> None:
    smaller = most if cap is None else min(most, cap)
    limit = limit_of(max_cost_nanos=most, cap_nanos=cap, margin=margin)
    assert 0 <= limit <= smaller
    assert limit == int(smaller * (1 - margin))
