"""Temporary raises of budgets."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.budgets.raises import Raise, Raises, window_end
from codexflow.lib.ids import new_id

NOON = datetime(2026, 2, 28, 12, tzinfo=UTC)
KEY, TAG = new_id(), new_id()


def a_raise(window: str, nanos: int, **of: object) -> Raise:
    return Raise(window=window, amount_nanos=nanos, ends_at=NOON, **of)  # type: ignore[arg-type] # ids


@given(budget=st.integers(0, 2**60), amounts=st.lists(st.integers(1, 2**50)))
def test_raises_add_up_and_only_to_what_they_are_of(budget: int, amounts: list[int]) -> None:
    others = [a_raise("month", 7), a_raise("day", 7, key_id=KEY), a_raise("day", 7, tag_budget_id=TAG)]
    raises = Raises((*(a_raise("day", each) for each in amounts), *others))
    assert raises.of(budget, "day") == budget + sum(amounts)
    assert raises.of(budget, "month") == budget + 7
    assert raises.of(budget, "day", key_id=KEY) == budget + 7
    assert raises.of(budget, "day", key_id=new_id()) == budget
    assert raises.of(budget, "day", tag_budget_id=TAG) == budget + 7
    assert raises.of(None, "day") is None


def test_the_first_end_is_known() -> None:
    assert Raises().next_end() is None
    later = Raise(window="day", amount_nanos=1, ends_at=NOON + timedelta(days=1))
    assert Raises((later, a_raise("day", 1))).next_end() == NOON


@pytest.mark.parametrize(
    ("window", "at", "end"),
    [
        ("day", NOON, datetime(2026, 3, 1, tzinfo=UTC)),
        ("month", NOON, datetime(2026, 3, 1, tzinfo=UTC)),
        ("month", datetime(2026, 12, 31, 23, 59, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        ("day", datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)),
    ],
)
def test_a_window_ends_at_midnight_utc(window: str, at: datetime, end: datetime) -> None:
    assert window_end(window, at) == end
