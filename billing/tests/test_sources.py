"""Which source pays: order, debt, give-backs, expiry. Pure."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from billing.sources import DEBT, PAID, PLAN, PROMOTIONAL, Purse, Source, in_order, with_holds

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
KINDS = st.sampled_from([PLAN, PROMOTIONAL, PAID])
NANOS = st.integers(1, 10**12)
EXPIRIES = st.none() | st.integers(-3, 3).map(lambda hours: NOW + timedelta(hours=hours))


@st.composite
def purses(draw: st.DrawFn) -> Purse:
    kinds = draw(st.lists(st.tuples(KINDS, st.integers(0, 10**12), EXPIRIES), max_size=5))
    sources = [Source(n, kind, left, expires) for n, (kind, left, expires) in enumerate(kinds, start=1)]
    return Purse(sources, debt_nanos=draw(st.integers(0, 10**12)))


def test_credit_that_expires_first_is_spent_first_and_what_was_given_before_what_was_paid() -> None:
    tomorrow, later = NOW + timedelta(days=1), NOW + timedelta(days=30)
    sources = [
        Source(1, PAID, 10),
        Source(2, PROMOTIONAL, 10),
        Source(3, PAID, 10, tomorrow),
        Source(4, PLAN, 10, later),
        Source(5, PROMOTIONAL, 10, tomorrow),
    ]
    assert [each.id for each in in_order(sources)] == [5, 3, 4, 2, 1]
    assert Purse(sources).spend(25, admitted_at=NOW) == {5: -10, 3: -10, 4: -5}


@given(purse=purses(), amounts=st.lists(NANOS, max_size=6))
def test_what_is_spent_is_the_sum_of_its_parts_and_never_more_than_a_source_has(
    purse: Purse, amounts: list[int]
) -> None:
    for amount in amounts:
        balance = purse.balance_nanos
        parts = purse.spend(amount, admitted_at=NOW)
        assert sum(parts.values()) == -amount
        assert purse.balance_nanos == balance - amount
        assert all(source.remaining_nanos >= 0 for source in purse.sources)
        assert all(nanos < 0 for nanos in parts.values())
        # Debt only where no open source has anything left.
        if DEBT in parts:
            assert not any(source.remaining_nanos for source in purse.sources if source.is_open(NOW))


@given(purse=purses(), amount=NANOS, share=st.floats(0, 1))
def test_giving_back_undoes_what_was_paid_last(purse: Purse, amount: int, share: float) -> None:
    before = {source.id: source.remaining_nanos for source in purse.sources}
    debt = purse.debt_nanos
    paid = purse.spend(amount, admitted_at=NOW)
    if not purse.sources:
        return
    back = int(amount * share)
    parts = purse.give_back(back, paid)
    assert sum(parts.values()) == back
    rest = purse.give_back(amount - back, {each: paid.get(each, 0) + parts.get(each, 0) for each in {*paid, *parts}})
    assert sum(rest.values()) == amount - back
    assert {source.id: source.remaining_nanos for source in purse.sources} == before
    assert purse.debt_nanos == debt


@given(purse=purses(), amount=NANOS, kind=KINDS)
def test_a_grant_pays_off_debt_first(purse: Purse, amount: int, kind: str) -> None:
    debt, balance = purse.debt_nanos, purse.balance_nanos
    source = Source(99, kind, 0)
    parts = purse.grant(source, amount)
    assert sum(parts.values()) == amount
    assert parts.get(DEBT, 0) == min(debt, amount)
    assert purse.balance_nanos == balance + amount
    assert source.remaining_nanos == amount - min(debt, amount)


@given(purse=purses(), amount=NANOS)
def test_a_refund_takes_what_is_left_of_its_source_and_leaves_debt(purse: Purse, amount: int) -> None:
    purse.add(source := Source(99, PAID, 1_000))
    balance = purse.balance_nanos
    parts = purse.take_from(source, amount)
    assert sum(parts.values()) == -amount
    assert purse.balance_nanos == balance - amount
    assert parts.get(99) == -min(1_000, amount)


def test_a_call_admitted_before_the_expiry_is_paid_from_it_and_a_later_one_is_not() -> None:
    purse = Purse([Source(1, PLAN, 10, NOW), Source(2, PAID, 10)])
    assert purse.spend(4, admitted_at=NOW - timedelta(seconds=1)) == {1: -4}
    assert purse.spend(4, admitted_at=NOW) == {2: -4}
    assert purse.expire(purse.source(1)) == {1: -6}


def test_what_comes_back_to_an_expired_source_revives_nothing() -> None:
    purse = Purse([Source(1, PLAN, 0, NOW - timedelta(days=1)), Source(2, PAID, 10)])
    assert purse.give_back(3, {1: -3}) == {1: 3}
    assert purse.spend(3, admitted_at=NOW) == {2: -3}


def test_a_debt_that_is_paid_off_meanwhile_is_given_back_as_credit() -> None:
    purse = Purse([Source(1, PAID, 5)], debt_nanos=0)
    assert purse.give_back(7, {DEBT: -7}) == {1: 7}


@given(purse=purses(), held=st.integers(0, 10**13))
def test_holds_are_shown_at_the_sources_that_will_pay(purse: Purse, held: int) -> None:
    shown = with_holds(purse.sources, held, at=NOW)
    assert [each.source.id for each in shown] == [each.id for each in purse.sources if each.is_open(NOW)]
    assert sum(each.held_nanos for each in shown) == min(held, sum(each.source.remaining_nanos for each in shown))
    assert all(each.available_nanos >= 0 for each in shown)
    free = [each.available_nanos > 0 for each in shown if each.source.remaining_nanos]
    assert free == sorted(free)
