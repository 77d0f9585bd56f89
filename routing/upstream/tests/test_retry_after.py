"""How long a provider asks to wait."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexflow.lib.errors import MAX_RETRY_AFTER_S
from routing.upstream.retry_after import retry_after_s

NOW_S = 1_795_000_000.0
NAMES = (b"retry-after", b"retry-after-ms", b"llm_provider-retry-after", b"llm_provider-retry-after-ms")


def http_date(in_s: float) -> bytes:
    return formatdate(NOW_S + in_s, usegmt=True).encode()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"7", 7),
        (b" 7 ", 7),
        (b"0", 1),
        (b"007", 7),
        (b"30.5", 31),
        (b"30.0", 30),
        (b"30.", 30),
        (b"0.0001", 1),
        (b"2.00000000000001", 3),
        (b"61", 60),
        (b"86400", 60),
        (b"9" * 20, 60),
        (b"9" * 5_000, 60),
        (b"0" * 5_000 + b"5", 5),
        (b"1." + b"9" * 5_000, 2),
        (http_date(45), 45),
        (http_date(45).lower(), 45),
        (http_date(86_400), 60),
        (http_date(-86_400), 1),
        (b"Sunday, 06-Nov-94 08:49:37 GMT", 1),
        (b"Sun Nov  6 08:49:37 1994", 1),
        (b"Fri, 31 Dec 9999 23:59:59 GMT", 60),
        (b"-5", None),
        (b"+5", None),
        (b"1e3", None),
        (b"inf", None),
        (b"nan", None),
        (b"soon", None),
        (b"", None),
        ("٣".encode(), None),
        (b"x" * 100_000, None),
        (b"Fri, 31 Dec 99999999999999 23:59:59 GMT", None),
    ],
)
def test_seconds_fractions_and_dates_are_read(value: bytes, seconds: int | None) -> None:
    assert retry_after_s({b"retry-after": value}, NOW_S) == seconds
    assert retry_after_s({b"llm_provider-retry-after": value}, NOW_S) == seconds


def test_milliseconds_are_more_exact() -> None:
    assert retry_after_s({b"retry-after": b"9", b"retry-after-ms": b"1500"}, NOW_S) == 2
    assert retry_after_s({b"retry-after": b"9", b"retry-after-ms": b"soon"}, NOW_S) == 9


def test_the_upstreams_own_header_comes_before_the_providers() -> None:
    assert retry_after_s({b"retry-after": b"3", b"llm_provider-retry-after": b"9"}, NOW_S) == 3
    assert retry_after_s({b"retry-after": b"soon", b"llm_provider-retry-after-ms": b"8500"}, NOW_S) == 9
    assert retry_after_s({}, NOW_S) is None


values = (
    st.binary(max_size=100)
    | st.from_regex(rb"[ +-]?[0-9]{0,40}\.?[0-9]{0,40}")
    | st.datetimes().map(lambda at: at.strftime("%a, %d %b %Y %H:%M:%S GMT").encode())
)


@given(headers=st.dictionaries(st.sampled_from(NAMES), values), now_s=st.floats(0, 1e11))
def test_any_headers_give_a_bounded_wait_or_none(headers: dict[bytes, bytes], now_s: float) -> None:
    found = retry_after_s(headers, now_s)
    assert found is None or 1 <= found <= MAX_RETRY_AFTER_S
