"""Minor units of currencies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.payments.currencies import decimals_of, minor_units, nanos_of
from codexflow.lib.money import NANOS_PER_USD, InvalidAmount

ZERO, THREE = ("JPY", "KRW", "VND", "CLP", "XOF"), ("BHD", "JOD", "KWD", "OMR", "TND")
CURRENCIES = ("USD", "EUR", "TRY", "GBP", *ZERO, *THREE, "ISK", "UGX")


@pytest.mark.parametrize(
    ("nanos", "currency", "expected"),
    [
        (25 * NANOS_PER_USD, "USD", 2500),
        (NANOS_PER_USD // 100, "usd", 1),
        (5 * NANOS_PER_USD, "JPY", 5),
        (5 * NANOS_PER_USD, "KWD", 5000),
        (5 * NANOS_PER_USD, "ISK", 500),
        (5 * NANOS_PER_USD, "UGX", 500),
    ],
)
def test_a_yen_is_no_hundred_yen(nanos: int, currency: str, expected: int) -> None:
    assert minor_units(nanos, currency) == expected


@pytest.mark.parametrize(
    ("nanos", "currency"),
    [
        (NANOS_PER_USD // 2, "JPY"),
        (NANOS_PER_USD // 1000, "USD"),
        (1, "USD"),
        (NANOS_PER_USD // 1000, "KWD"),
        (NANOS_PER_USD // 2, "ISK"),
    ],
)
def test_an_amount_that_cannot_be_paid_exactly_is_refused(nanos: int, currency: str) -> None:
    with pytest.raises(InvalidAmount):
        minor_units(nanos, currency)


@given(units=st.integers(0, 10**12), currency=st.sampled_from(CURRENCIES))
def test_minor_units_survive_both_ways(units: int, currency: str) -> None:
    units *= 100  # whole steps of every currency
    assert minor_units(nanos_of(units, currency), currency) == units


@given(nanos=st.integers(0, 10**18), currency=st.sampled_from(CURRENCIES))
def test_nothing_is_ever_rounded(nanos: int, currency: str) -> None:
    try:
        units = minor_units(nanos, currency)
    except InvalidAmount:
        return
    assert nanos_of(units, currency) == nanos
    assert units == nanos * 10 ** decimals_of(currency) // NANOS_PER_USD
