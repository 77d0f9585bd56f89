"""Thresholds of budgets and credit. Pure."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.alerts import PERCENTS, Watched, watched_budgets, watched_credit
from billing.sources import PAID, Source

TODAY = date(2026, 11, 28)


@pytest.mark.parametrize(
    ("used", "limit", "reached"),
    [(0, 100, None), (49, 100, None), (50, 100, 50), (79, 100, 50), (80, 100, 80), (99, 100, 80), (100, 100, 100),
     (250, 100, 100), (0, 0, 100)],
)  # fmt: skip
def test_the_highest_threshold_that_is_reached(used: int, limit: int, reached: int | None) -> None:
    assert Watched(kind="day", limit_nanos=limit, used_nanos=used, period="2026-11-28").reached == reached


@given(used=st.integers(-(10**12), 10**15), limit=st.integers(0, 10**15))
def test_a_threshold_is_reached_exactly_when_so_much_is_used(used: int, limit: int) -> None:
    watched = Watched(kind="day", limit_nanos=limit, used_nanos=used, period="")
    expected = [each for each in PERCENTS if not limit or used * 100 >= each * limit]
    assert watched.reached == max(expected, default=None)


def test_only_budgets_that_are_set_are_watched_each_in_its_window() -> None:
    none = {"used_today": 3, "used_this_month": 7, "today": TODAY}
    assert watched_budgets(day_nanos=None, month_nanos=None, **none) == []  # type: ignore[arg-type]
    day, month = watched_budgets(day_nanos=5, month_nanos=10, **none)  # type: ignore[arg-type]
    assert (day.window, day.used_nanos) == ("day 2026-11-28 5", 3)
    assert (month.window, month.used_nanos) == ("month 2026-11 10", 7)


def test_credit_is_what_the_sources_that_have_something_left_were_granted() -> None:
    spent = Source(1, PAID, 0, granted_nanos=500)
    half = Source(2, PAID, 5, granted_nanos=10)
    assert watched_credit([], None) is None
    found = watched_credit([spent, half], half)
    assert found is not None
    assert (found.limit_nanos, found.used_nanos, found.window) == (10, 5, "credit source 2")
    gone = watched_credit([spent], spent)
    assert gone is not None
    assert gone.reached == 100
