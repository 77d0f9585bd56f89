"""What one process may let in alone, and when it stops asking Redis."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.errors import (
    ConcurrencyExceeded,
    DailyQuotaExceeded,
    LimiterUnavailable,
    RateLimitExceeded,
    TokenRateExceeded,
)
from billing.limiter.admission import Admission
from billing.limiter.fallback import SAME_OUTAGE_S, Breaker, Rations, Terms, Wish
from billing.plans import Limits
from codexflow.lib.errors import AppError

MINUTE_MS, DAY_MS = 60_000, 86_400_000
NOON_MS = 20_000 * DAY_MS + DAY_MS // 2
SCOPES = (b"organization", b"key")


def a_wish(*, tokens: int = 10, hold_nanos: int = 0, streams: tuple[int, int] | None = None) -> Wish:
    return Wish(tokens=tokens, hold_nanos=hold_nanos, takes_slot=streams is not None, open_streams=streams or (0, 0))


def rations(*, known: int | None = 0, limits: tuple[Limits, Limits], day_ms: int = NOON_MS, **terms: int) -> Rations:
    """During an outage; Redis had counted `known` requests today before it."""
    found = Rations(Terms(**terms))
    if known is not None:
        found.remember(SCOPES, an_admission(limits, known, day_ms))
    found.begin(0.0)
    return found


def an_admission(limits: tuple[Limits, Limits], used: int, now_ms: int) -> Admission:
    return Admission(
        day=now_ms // DAY_MS, minute=now_ms // MINUTE_MS, now_ms=now_ms, limits=limits, requests_today=(used, used)
    )


def answers(given: Rations, limits: tuple[Limits, Limits], number: int, wish: Wish, now_ms: int = NOON_MS) -> list[str]:
    """What each of so many calls gets: ok or the error's code."""
    found = []
    for _ in range(number):
        try:
            given.admit(SCOPES, limits, wish, now_ms=now_ms)
        except AppError as exc:
            found.append(exc.code)
        else:
            found.append("ok")
    return found


@given(
    limit=st.integers(0, 2_000),
    known=st.none() | st.integers(0, 2_000),
    processes=st.integers(1, 8),
    is_of_key=st.booleans(),
    calls=st.integers(0, 150),
)
def test_an_outage_admits_its_part_of_what_was_left_and_no_more(
    limit: int, known: int | None, processes: int, is_of_key: bool, calls: int
) -> None:
    own, other = Limits(daily_requests=limit), Limits()
    limits = (other, own) if is_of_key else (own, other)
    given = rations(known=known, limits=limits, processes=processes)
    admitted = answers(given, limits, calls, a_wish()).count("ok")
    part = max(1, limit * 5 // 100 // processes) if known is not None else 1
    assert admitted == min(calls, part, max(0, limit - (known or 0)))


def test_all_keys_of_an_organization_share_its_part() -> None:
    limits = (Limits(daily_requests=100), Limits())
    given = Rations(Terms())
    keys = [(b"organization", f"key{n}".encode()) for n in range(9)]
    for scopes in keys:
        given.remember(scopes, an_admission(limits, 3, NOON_MS))
    given.begin(0.0)
    admitted = 0
    for scopes in keys:
        try:
            given.admit(scopes, limits, a_wish(), now_ms=NOON_MS)
        except LimiterUnavailable:
            continue
        admitted += 1
    assert admitted == 5


def test_a_new_day_begins_with_everything_left() -> None:
    limits = (Limits(daily_requests=100), Limits())
    given = rations(known=100, limits=limits)
    assert answers(given, limits, 1, a_wish()) == ["daily_quota_exceeded"]
    assert answers(given, limits, 1, a_wish(), NOON_MS + DAY_MS // 2) == ["ok"]


def test_a_relapse_is_the_same_outage_and_a_later_one_is_another() -> None:
    limits = (Limits(daily_requests=40), Limits())
    given = rations(limits=limits)
    assert answers(given, limits, 3, a_wish()) == ["ok", "ok", "limiter_unavailable"]
    given.end(100.0)
    given.begin(100.0 + SAME_OUTAGE_S)
    assert answers(given, limits, 1, a_wish()) == ["limiter_unavailable"]
    given.end(200.0)
    given.begin(200.1 + SAME_OUTAGE_S)
    assert answers(given, limits, 3, a_wish()) == ["ok", "ok", "limiter_unavailable"]


@pytest.mark.parametrize("scope", [0, 1])
@pytest.mark.parametrize(
    ("own", "wish", "error", "admitted"),
    [
        (Limits(daily_requests=0), a_wish(), DailyQuotaExceeded, 0),
        (Limits(rpm=5), a_wish(), RateLimitExceeded, 3),
        (Limits(tpm=100), a_wish(tokens=20), TokenRateExceeded, 2),
        (Limits(tpm=100), a_wish(tokens=200), TokenRateExceeded, 1),
        (Limits(tpm=0), a_wish(), TokenRateExceeded, 0),
        (Limits(concurrent_streams=3), a_wish(streams=(2, 2)), ConcurrencyExceeded, 0),
        (Limits(concurrent_streams=0), a_wish(streams=(0, 0)), ConcurrencyExceeded, 0),
        (Limits(total_budget_nanos=10**12), a_wish(), LimiterUnavailable, 0),
        (Limits(day_budget_nanos=10**12), a_wish(), LimiterUnavailable, 0),
        (Limits(month_budget_nanos=10**12), a_wish(), LimiterUnavailable, 0),
    ],
)
def test_each_limit_of_each_scope_is_kept_by_half_of_the_processes(
    scope: int, own: Limits, wish: Wish, error: type[AppError], admitted: int
) -> None:
    limits = (own, Limits()) if scope == 0 else (Limits(), own)
    given = rations(limits=limits, processes=2)
    assert answers(given, limits, admitted + 2, wish) == ["ok"] * admitted + [error.code] * 2
    # The next minute is a new one for what is counted by the minute.
    if error in (RateLimitExceeded, TokenRateExceeded) and own.tpm != 0:
        assert answers(given, limits, 1, wish, NOON_MS + MINUTE_MS) == ["ok"]


@given(
    calls=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), max_size=30),
    allowance=st.integers(0, 2_000),
    processes=st.integers(1, 4),
)
def test_spent_and_held_never_pass_the_allowance(calls: list[tuple[int, int]], allowance: int, processes: int) -> None:
    """Each call holds the first number and costs at most that: every second one ends at once."""
    limits = (Limits(), Limits())
    given = rations(limits=limits, allowance_nanos=allowance, processes=processes)
    at_risk = 0
    for n, (hold, cost) in enumerate(calls):
        fits = at_risk + hold <= allowance // processes
        assert answers(given, limits, 1, a_wish(hold_nanos=hold)) == ["ok" if fits else "limiter_unavailable"]
        if fits and n % 2:
            given.settle(SCOPES, hold_nanos=hold, cost_nanos=min(cost, hold))
            at_risk += min(cost, hold)
        elif fits:
            at_risk += hold


def test_a_closed_plan_refuses_everything() -> None:
    limits = (Limits(), Limits())
    with pytest.raises(LimiterUnavailable) as caught:
        rations(limits=limits).admit(SCOPES, limits, a_wish(), now_ms=NOON_MS, is_closed=True)
    assert caught.value.retry_after_s == 1
    assert caught.value.facts["admission"].headers() == [(b"x-cfx-degraded", b"limiter")]


def test_what_is_told_counts_from_what_redis_said_last() -> None:
    limits = (Limits(daily_requests=1000, rpm=5, tpm=5), Limits())
    headers = dict(rations(known=10, limits=limits).admit(SCOPES, limits, a_wish(), now_ms=NOON_MS).headers())
    assert headers == {
        b"x-ratelimit-limit": b"1000",
        b"x-ratelimit-remaining": b"989",
        b"x-ratelimit-reset": b"%d" % (20_001 * 86_400),
        b"x-cfx-degraded": b"limiter",
    }


def test_a_refusal_tells_the_same() -> None:
    limits = (Limits(daily_requests=1000, total_budget_nanos=5), Limits())
    with pytest.raises(LimiterUnavailable) as caught:
        rations(known=10, limits=limits).admit(SCOPES, limits, a_wish(), now_ms=NOON_MS)
    assert caught.value.facts["admission"].remaining == 990


def test_the_breaker_opens_after_five_failures_and_tries_once_a_second() -> None:
    breaker = Breaker()
    for _ in range(5):
        assert breaker.asks(10.0, is_up=True)
        breaker.failed(10.0, is_up=True)
    assert [breaker.asks(at_s, is_up=True) for at_s in (10.0, 10.9, 11.0, 11.1, 11.9, 12.1)] == [
        False, False, True, False, False, True,
    ]  # fmt: skip
    breaker.succeeded()
    assert [breaker.asks(12.2, is_up=True) for _ in range(3)] == [True] * 3


def test_the_breaker_opens_at_once_without_a_connection_and_closes_with_one() -> None:
    breaker = Breaker()
    assert breaker.asks(10.0, is_up=False)  # a stall of a moment is waited for, once
    breaker.failed(10.2, is_up=False)
    assert not breaker.asks(20.0, is_up=False)
    assert breaker.asks(10.3, is_up=True)
    breaker.succeeded()
    assert breaker.asks(10.4, is_up=False)


def test_a_success_between_failures_keeps_the_breaker_closed() -> None:
    breaker = Breaker()
    for _ in range(4):
        breaker.failed(1.0, is_up=True)
    breaker.succeeded()
    for _ in range(4):
        breaker.failed(1.0, is_up=True)
    assert breaker.asks(1.0, is_up=True)
