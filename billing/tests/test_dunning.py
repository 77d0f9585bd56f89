"""Schedule of charges: how often, when, and when not any more."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from billing.dunning import BEFORE_END, FINAL, LEAST_BETWEEN, Try, next_try

END = datetime(2026, 12, 31, 12, tzinfo=UTC)
LONG_AGO = END - timedelta(days=90)
delays = st.timedeltas(timedelta(0), timedelta(days=2))


def failed(at: datetime, code: str = "insufficient_funds") -> Try:
    return Try(at=at, code=code)


def test_the_first_charge_is_three_days_before_the_end() -> None:
    assert next_try(END, [], card_saved_at=LONG_AGO) == END - timedelta(days=3)


def test_a_declined_card_is_tried_on_the_days_that_are_left() -> None:
    tries: list[Try] = []
    while (due := next_try(END, tries, card_saved_at=LONG_AGO)) is not None:
        tries.append(failed(due))
    assert [END - each.at for each in tries] == list(BEFORE_END)


@given(late=st.lists(delays, min_size=8, max_size=8))
def test_tries_are_few_apart_and_before_the_end(late: list[timedelta]) -> None:
    tries: list[Try] = []
    for delay in late:
        due = next_try(END, tries, card_saved_at=LONG_AGO)
        if due is None:
            break
        assert due < END
        tries.append(failed(due + delay))
    assert len(tries) <= len(BEFORE_END)
    gaps = [after.at - before.at for before, after in pairwise(tries)]
    assert all(gap >= LEAST_BETWEEN for gap in gaps)


@given(code=st.sampled_from(sorted(FINAL)), after=delays)
def test_a_card_that_is_refused_for_good_waits_for_another(code: str, after: timedelta) -> None:
    tries = [failed(END - timedelta(days=3), code)]
    assert next_try(END, tries, card_saved_at=LONG_AGO) is None
    saved_at = END - timedelta(days=3) + after + timedelta(seconds=1)
    assert next_try(END, tries, card_saved_at=saved_at) == saved_at


def test_another_card_is_tried_at_once_and_once() -> None:
    first = failed(END - timedelta(days=3))
    saved_at = END - timedelta(days=2, hours=12)
    assert next_try(END, [first], card_saved_at=saved_at) == saved_at
    assert next_try(END, [first, failed(saved_at)], card_saved_at=saved_at) == END - timedelta(days=2)
