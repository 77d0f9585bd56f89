"""Rate limit headers and refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.limiter.admission import Admission, duration, least_left, refusal
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
