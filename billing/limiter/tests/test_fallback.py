"""Local limits of one process during an outage, and the circuit breaker for Redis."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from billing.errors import (
    ConcurrencyExceeded,
    DailyQuotaExceeded,
    LimiterUnavailable,
    RateLimitExceeded,
    TokenRateExceeded,
)
from billing.limiter.admission import Admission
from billing.limiter.fallback import SAME_OUTAGE_S, LocalClaim, LocalLimiter, OutageTerms, RedisBreaker
from billing.plans import Limits
from codexflow.lib.errors import AppError

MINUTE_MS, DAY_MS = 60_000, 86_400_000
NOON_MS = 20_000 * DAY_MS + DAY_MS // 2
SCOPES = (b"organization", b"key")


def a_claim(*, tokens: int = 10, hold_nanos: int = 0, streams: tuple[int, int] | None = None) -> LocalClaim:
    return LocalClaim(
        tokens=tokens, hold_nanos=hold_nanos, takes_slot=streams is not None, open_streams=streams or (0, 0)
    )


def a_limiter(
    *, known: int | None = 0, limits: tuple[Limits, Limits], day_ms: int = NOON_MS, **terms: int
) -> LocalLimiter:
    """During an outage; Redis had counted `known` requests today before it."""
    found = LocalLimiter(OutageTerms(**terms))
    if known is not None:
        found.remember(SCOPES, an_admission(limits, known, day_ms))
    found.begin(0.0)
    return found


def an_admission(limits: tuple[Limits, Limits], used: int, now_ms: int) -> Admission:
    return Admission(
        day=now_ms // DAY_MS, minute=now_ms // MINUTE_MS, now_ms=now_ms, limits=limits, requests_today=(used, used)
    )


def outcomes(
    limiter: LocalLimiter, limits: tuple[Limits, Limits], number: int, claim: LocalClaim, now_ms: int = NOON_MS
) -> list[str]:
    """Outcome of each of `number` calls: ok or the error's code."""
    found = []
    for _ in range(number):
        try:
            limiter.admit(SCOPES, limits, claim, now_ms=now_ms)
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
def test_an_outage_admits_its_share_of_the_remaining_requests_and_no_more(
    limit: int, known: int | None, processes: int, is_of_key: bool, calls: int
) -> None:
    own, other = Limits(daily_requests=limit), Limits()
    limits = (other, own) if is_of_key else (own, other)
    limiter = a_limiter(known=known, limits=limits, processes=processes)
    admitted = outcomes(limiter, limits, calls, a_claim()).count("ok")
    part = max(1, limit * 5 // 100 // processes) if known is not None else 1
    assert admitted == min(calls, part, max(0, limit - (known or 0)))


@given(known=st.integers(0, 80), processes=st.integers(1, 4), is_of_key=st.booleans(), counts_tokens=st.booleans())
def test_an_outage_shares_what_was_left_of_the_minute(
    known: int, processes: int, is_of_key: bool, counts_tokens: bool
) -> None:
    own, other = Limits(tpm=600) if counts_tokens else Limits(rpm=60), Limits()
    limits = (other, own) if is_of_key else (own, other)
    limiter = a_limiter(limits=limits, processes=processes, allowance_nanos=10**12)
    before = replace(
        an_admission(limits, 0, NOON_MS), minute_requests=(known, known), minute_tokens=(10 * known, 10 * known)
    )
    limiter.remember(SCOPES, before)
    left = max(0, 60 - known)
    expected = -(-(10 * left) // processes) // 10 if counts_tokens else -(-left // processes)
    assert outcomes(limiter, limits, 70, a_claim()).count("ok") == expected
    later = NOON_MS + MINUTE_MS
    assert outcomes(limiter, limits, 70, a_claim(), now_ms=later).count("ok") >= 60 // processes


@given(rpm=st.integers(0, 60) | st.just(-1), is_of_key=st.booleans(), is_known=st.booleans())
def test_a_process_that_starts_in_an_outage_gives_nobody_the_minute_again(
    rpm: int, is_of_key: bool, is_known: bool
) -> None:
    own, other = Limits(rpm=rpm), Limits()
    limits = (other, own) if is_of_key else (own, other)
    limiter = LocalLimiter(OutageTerms(), born_ms=NOON_MS)
    if is_known:
        limiter.remember(SCOPES, an_admission(limits, 0, NOON_MS))
    limiter.begin(0.0)
    if not is_known and rpm > 0:
        seen = outcomes(limiter, limits, 3, a_claim(), NOON_MS + MINUTE_MS - 1)
        assert seen == ["ok", "limiter_unavailable", "limiter_unavailable"]
    unlimited = 70 if rpm < 0 else rpm
    assert outcomes(limiter, limits, 70, a_claim(), NOON_MS + MINUTE_MS).count("ok") == unlimited


def test_all_keys_of_an_organization_share_its_requests() -> None:
    limits = (Limits(daily_requests=100), Limits())
    limiter = LocalLimiter(OutageTerms())
    keys = [(b"organization", f"key{n}".encode()) for n in range(9)]
    for scopes in keys:
        limiter.remember(scopes, an_admission(limits, 3, NOON_MS))
    limiter.begin(0.0)
    admitted = 0
    for scopes in keys:
        try:
            limiter.admit(scopes, limits, a_claim(), now_ms=NOON_MS)
        except LimiterUnavailable:
            continue
        admitted += 1
    assert admitted == 5


def test_a_new_day_resets_the_daily_count() -> None:
    limits = (Limits(daily_requests=100), Limits())
    limiter = a_limiter(known=100, limits=limits)
    assert outcomes(limiter, limits, 1, a_claim()) == ["daily_quota_exceeded"]
    assert outcomes(limiter, limits, 1, a_claim(), NOON_MS + DAY_MS // 2) == ["ok"]


def test_a_relapse_is_the_same_outage_and_a_later_one_is_another() -> None:
    limits = (Limits(daily_requests=40), Limits())
    limiter = a_limiter(limits=limits)
    assert outcomes(limiter, limits, 3, a_claim()) == ["ok", "ok", "limiter_unavailable"]
    limiter.end(100.0)
    limiter.begin(100.0 + SAME_OUTAGE_S)
    assert outcomes(limiter, limits, 1, a_claim()) == ["limiter_unavailable"]
    limiter.end(200.0)
    limiter.begin(200.1 + SAME_OUTAGE_S)
    assert outcomes(limiter, limits, 3, a_claim()) == ["ok", "ok", "limiter_unavailable"]


@pytest.mark.parametrize("scope", [0, 1])
@pytest.mark.parametrize(
    ("own", "claim", "error", "admitted"),
    [
        (Limits(daily_requests=0), a_claim(), DailyQuotaExceeded, 0),
        (Limits(rpm=5), a_claim(), RateLimitExceeded, 3),
        (Limits(tpm=100), a_claim(tokens=20), TokenRateExceeded, 2),
        (Limits(tpm=100), a_claim(tokens=200), TokenRateExceeded, 1),
        (Limits(tpm=0), a_claim(), TokenRateExceeded, 0),
        (Limits(concurrent_streams=3), a_claim(streams=(2, 2)), ConcurrencyExceeded, 0),
        (Limits(concurrent_streams=0), a_claim(streams=(0, 0)), ConcurrencyExceeded, 0),
        (Limits(total_budget_nanos=10**12), a_claim(), LimiterUnavailable, 0),
        (Limits(day_budget_nanos=10**12), a_claim(), LimiterUnavailable, 0),
        (Limits(month_budget_nanos=10**12), a_claim(), LimiterUnavailable, 0),
    ],
)
def test_each_limit_of_each_scope_is_split_between_processes(
    scope: int, own: Limits, claim: LocalClaim, error: type[AppError], admitted: int
) -> None:
    limits = (own, Limits()) if scope == 0 else (Limits(), own)
    limiter = a_limiter(limits=limits, processes=2)
    assert outcomes(limiter, limits, admitted + 2, claim) == ["ok"] * admitted + [error.code] * 2
    # The next minute is a new one for what is counted by the minute.
    if error in (RateLimitExceeded, TokenRateExceeded) and own.tpm != 0:
        assert outcomes(limiter, limits, 1, claim, NOON_MS + MINUTE_MS) == ["ok"]


@given(
    calls=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), max_size=30),
    allowance=st.integers(0, 2_000),
    processes=st.integers(1, 4),
)
def test_spent_and_held_never_pass_the_allowance(calls: list[tuple[int, int]], allowance: int, processes: int) -> None:
    """Each call holds the first number and costs at most that: every second one ends at once."""
    limits = (Limits(), Limits())
    limiter = a_limiter(limits=limits, allowance_nanos=allowance, processes=processes)
    at_risk = 0
    for n, (hold, cost) in enumerate(calls):
        fits = at_risk + hold <= allowance // processes
        assert outcomes(limiter, limits, 1, a_claim(hold_nanos=hold)) == ["ok" if fits else "limiter_unavailable"]
        if fits and n % 2:
            limiter.settle(SCOPES, hold_nanos=hold, cost_nanos=min(cost, hold))
            at_risk += min(cost, hold)
        elif fits:
            at_risk += hold


def test_a_closed_plan_refuses_everything() -> None:
    limits = (Limits(), Limits())
    with pytest.raises(LimiterUnavailable) as caught:
        a_limiter(limits=limits).admit(SCOPES, limits, a_claim(), now_ms=NOON_MS, is_closed=True)
    assert caught.value.retry_after_s == 1
    assert caught.value.facts["admission"].headers() == [(b"x-cfx-degraded", b"limiter")]


def test_headers_continue_from_the_last_counts_of_redis() -> None:
    limits = (Limits(daily_requests=1000, rpm=5, tpm=5), Limits())
    headers = dict(a_limiter(known=10, limits=limits).admit(SCOPES, limits, a_claim(), now_ms=NOON_MS).headers())
    assert headers == {
        b"x-ratelimit-limit": b"1000",
        b"x-ratelimit-remaining": b"989",
        b"x-ratelimit-reset": b"%d" % (20_001 * 86_400),
        b"x-cfx-degraded": b"limiter",
    }


def test_a_refusal_carries_the_same_counts() -> None:
    limits = (Limits(daily_requests=1000, total_budget_nanos=5), Limits())
    with pytest.raises(LimiterUnavailable) as caught:
        a_limiter(known=10, limits=limits).admit(SCOPES, limits, a_claim(), now_ms=NOON_MS)
    assert caught.value.facts["admission"].remaining == 990


def test_the_breaker_opens_after_five_failures_and_tries_once_a_second() -> None:
    breaker = RedisBreaker()
    for _ in range(5):
        assert breaker.allow_request(10.0, is_up=True)
        breaker.record_failure(10.0, is_up=True)
    assert [breaker.allow_request(at_s, is_up=True) for at_s in (10.0, 10.9, 11.0, 11.1, 11.9, 12.1)] == [
        False, False, True, False, False, True,
    ]  # fmt: skip
    breaker.record_success()
    assert [breaker.allow_request(12.2, is_up=True) for _ in range(3)] == [True] * 3


def test_the_breaker_opens_at_once_without_a_connection_and_closes_with_one() -> None:
    breaker = RedisBreaker()
    assert breaker.allow_request(10.0, is_up=False)  # a short stall is retried once
    breaker.record_failure(10.2, is_up=False)
    assert not breaker.allow_request(20.0, is_up=False)
    assert breaker.allow_request(10.3, is_up=True)
    breaker.record_success()
    assert breaker.allow_request(10.4, is_up=False)


def test_a_success_between_failures_keeps_the_breaker_closed() -> None:
    breaker = RedisBreaker()
    for _ in range(4):
        breaker.record_failure(1.0, is_up=True)
    breaker.record_success()
    for _ in range(4):
        breaker.record_failure(1.0, is_up=True)
    assert breaker.allow_request(1.0, is_up=True)
