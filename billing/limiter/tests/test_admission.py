"""Rate limit headers and refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.errors import InsufficientQuota
from billing.limiter.admission import SCOPES, Admission, Shortage, duration, least_left, refusal
from billing.plans import Limits

NOW_S = 20_000 * 86_400 + 3 * 3600 + 17  # 17 seconds into a minute


def an_admission(organization: Limits, key: Limits, used: tuple[int, int] = (0, 0)) -> Admission:
    return Admission(
        day=20_000,
        minute=NOW_S // 60,
        now_ms=NOW_S * 1000 + 999,
        limits=(organization, key),
        requests_today=used,
        minute_requests=used,
        minute_tokens=used,
    )


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (12, "12s"), (60, "1m0s"), (61, "1m1s")])
def test_durations_have_openais_format(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def test_every_limit_has_its_three_headers() -> None:
    headers = an_admission(Limits(daily_requests=100, rpm=60, tpm=9_000), Limits(), used=(7, 7)).headers()
    assert headers == [
        (b"x-ratelimit-limit", b"100"),
        (b"x-ratelimit-remaining", b"93"),
        (b"x-ratelimit-reset", b"%d" % (20_001 * 86_400)),
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-remaining-requests", b"53"),
        (b"x-ratelimit-reset-requests", b"43s"),
        (b"x-ratelimit-limit-tokens", b"9000"),
        (b"x-ratelimit-remaining-tokens", b"8993"),
        (b"x-ratelimit-reset-tokens", b"43s"),
    ]


def test_limits_that_are_not_set_have_no_headers() -> None:
    assert an_admission(Limits(), Limits(concurrent_streams=3, day_budget_nanos=5)).headers() == []
    assert [name for name, _ in an_admission(Limits(), Limits(tpm=5)).headers()] == [
        b"x-ratelimit-limit-tokens",
        b"x-ratelimit-remaining-tokens",
        b"x-ratelimit-reset-tokens",
    ]


limits = st.integers(-1, 50)
counts = st.integers(0, 100)


@given(organization=limits, key=limits, used=st.tuples(counts, counts))
def test_headers_have_the_limit_with_less_left(organization: int, key: int, used: tuple[int, int]) -> None:
    both = zip((organization, key), used, strict=True)
    left = sorted((max(0, limit - count), limit) for limit, count in both if limit >= 0)
    assert least_left(organization, key, used) == (left[0][::-1] if left else (-1, 0))
    # With an unrelated limit of the key and without: both ways through the headers.
    for streams in (-1, 3):
        own = Limits(daily_requests=key, rpm=key, tpm=key, concurrent_streams=streams)
        whole = Limits(daily_requests=organization, rpm=organization, tpm=organization)
        shown = dict(an_admission(whole, own, used=used).headers())
        for kind in (b"", b"-requests", b"-tokens"):
            pair = (shown.get(b"x-ratelimit-remaining" + kind), shown.get(b"x-ratelimit-limit" + kind))
            assert pair == (tuple(b"%d" % each for each in left[0]) if left else (None, None))


@pytest.mark.parametrize(
    ("verdict", "slot_free_in_ms", "retry_after_s"),
    [
        ("day", 0, None),
        ("rpm", 0, 43),
        ("tpm", 0, 43),
        ("streams", 4_001, 5),
        ("streams", 4_000, 4),
        ("streams", 0, 1),
        ("budget", 0, None),
    ],
)
def test_a_refusal_has_the_time_to_retry_after(verdict: str, slot_free_in_ms: int, retry_after_s: int | None) -> None:
    error = refusal(verdict, 1, an_admission(Limits(), Limits()), slot_free_in_ms=slot_free_in_ms)
    assert error.retry_after_s == retry_after_s
    assert "limit of the key" in error.message


PAGES = "https://codexflow.example/o/acme"
LIMITS = Limits(daily_requests=50, rpm=10, tpm=20_000, concurrent_streams=1, day_budget_nanos=5 * 10**9)


@pytest.mark.parametrize(
    ("verdict", "scope", "message"),
    [
        ("rpm", 0, "10 requests a minute on plan Free; retry in 43 s (limit of the organization)"),
        ("rpm", 1, "10 requests a minute; retry in 43 s (limit of the key)"),
        (
            "tpm",
            0,
            "20,000 tokens a minute on plan Free (18,500 used or reserved, this request may use 9,000); retry in 43 s"
            " (limit of the organization)",
        ),
        (
            "day",
            0,
            "50 requests a day on plan Free, all used; the next begin at midnight UTC; larger plans at"
            " https://codexflow.example/o/acme/billing/ (limit of the organization)",
        ),
        (
            "streams",
            0,
            "1 open stream at once on plan Free; retry when one has ended, at the latest in 5 s"
            " (limit of the organization)",
        ),
    ],
)
def test_a_refusal_names_its_number_and_the_way_out(verdict: str, scope: int, message: str) -> None:
    admission = an_admission(LIMITS, LIMITS, used=(18_500, 18_500))
    error = refusal(verdict, scope, admission, slot_free_in_ms=4_500, tokens=9_000, plan="Free", pages_url=PAGES)
    assert error.message == message


@pytest.mark.parametrize(
    ("budget", "scope", "message"),
    [
        (
            "credit",
            0,
            "Credit left $0.0158, this request may cost $0.0306; add credit at"
            " https://codexflow.example/o/acme/billing/, or request fewer tokens (limit of the organization)",
        ),
        (
            "day",
            0,
            "Budget of the day ($5.00) left $0.0158, this request may cost $0.0306; it resets at midnight UTC;"
            " change it at https://codexflow.example/o/acme/billing/ (limit of the organization)",
        ),
        (
            "day",
            1,
            "Budget of the day ($5.00) left $0.0158, this request may cost $0.0306; it resets at midnight UTC;"
            " change it at https://codexflow.example/o/acme/keys/ (limit of the key)",
        ),
    ],
)
def test_missing_money_is_named_with_both_amounts(budget: str, scope: int, message: str) -> None:
    money = Shortage(budget=budget, left_nanos=15_812_345, hold_nanos=30_600_000)
    error = refusal("budget", scope, an_admission(LIMITS, LIMITS), money=money, plan="Free", pages_url=PAGES)
    assert (error.message, type(error)) == (message, InsufficientQuota)


@pytest.mark.parametrize(
    ("left_nanos", "hold_nanos", "words"),
    [
        (0, 30_600_000, "left $0.0000, this request may cost $0.0306"),
        (2 * 10**9, 3 * 10**9, "left $2.00, this request may cost $3.00"),
        (15_800_000, 15_800_001, "left $0.015800000, this request may cost $0.015800001"),
        (7, 8, "left $0.000000007, this request may cost $0.000000008"),
    ],
)
def test_amounts_are_told_apart(left_nanos: int, hold_nanos: int, words: str) -> None:
    money = Shortage(left_nanos=left_nanos, hold_nanos=hold_nanos)
    assert words in refusal("budget", 0, an_admission(LIMITS, LIMITS), money=money).message


@given(
    verdict=st.sampled_from(["day", "rpm", "tpm", "streams", "budget"]),
    scope=st.sampled_from([0, 1]),
    limit=limits,
    used=st.tuples(counts, counts),
    amounts=st.tuples(st.integers(0, 10**18), st.integers(0, 10**18)),
)
def test_any_refusal_names_its_scope_and_nobody_waits_longer_than_a_minute(
    verdict: str, scope: int, limit: int, used: tuple[int, int], amounts: tuple[int, int]
) -> None:
    both = Limits(daily_requests=limit, rpm=limit, tpm=limit, concurrent_streams=limit)
    money = Shortage(left_nanos=amounts[0], hold_nanos=amounts[1])
    error = refusal(verdict, scope, an_admission(both, both, used), slot_free_in_ms=10**9, money=money)
    assert f"limit of the {SCOPES[scope]}" in error.message
    assert error.retry_after_s is None or 1 <= error.retry_after_s <= 60
    waits = verdict in ("rpm", "tpm", "streams") and limit != 0
    assert error.outlasts_retries is not waits
    assert (error.retry_after_s is not None) >= waits
