"""Tax numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.papers.tax_ids import COUNTRIES, normalized


@pytest.mark.parametrize(
    ("kind", "number", "country", "shown"),
    [
        ("vkn", " 4540536920 ", "TR", "4540536920"),
        ("tckn", "172 917 160 60", "TR", "17291716060"),
        ("eu_vat", "DE 136695976", "DE", "DE136695976"),
        ("eu_vat", "136 695 976", "DE", "DE136695976"),
        ("eu_vat", "el 094259216", "GR", "EL094259216"),
        ("eu_vat", "NL4495445B01", "NL", "NL004495445B01"),
        ("other", "CHE-100.155.212  MWST", "CH", "CHE-100.155.212 MWST"),
    ],
)
def test_a_right_number_is_normalized(kind: str, number: str, country: str, shown: str) -> None:
    assert normalized(kind, number, country) == shown


@pytest.mark.parametrize(
    ("kind", "number", "country"),
    [
        ("vkn", "4540536921", "TR"),
        ("vkn", "454053692", "TR"),
        ("vkn", "4540536920", "DE"),
        ("vkn", "17291716060", "TR"),
        ("tckn", "17291716061", "TR"),
        ("tckn", "07291716060", "TR"),
        ("tckn", "4540536920", "TR"),
        ("eu_vat", "DE136695978", "DE"),
        ("eu_vat", "DE136695976", "FR"),
        ("eu_vat", "4540536920", "TR"),
        ("eu_vat", "", "DE"),
        ("other", "  ", "US"),
        ("other", "x" * 41, "US"),
        ("other", "a\x00b", "US"),
        ("none", "1", "US"),
    ],
)
def test_a_wrong_number_is_refused(kind: str, number: str, country: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        normalized(kind, number, country)


@given(
    st.sampled_from(["eu_vat", "vkn", "tckn", "other"]),
    st.text(max_size=20) | st.text(alphabet="0123456789DEx .-", max_size=16),
    st.sampled_from(["TR", "DE", "GR", "FR", "US"]),
)
def test_any_text_is_normalized_once_or_refused(kind: str, number: str, country: str) -> None:
    try:
        once = normalized(kind, number, country)
    except ValueError:
        return
    assert normalized(kind, once, country) == once


def test_countries_are_those_of_iso_3166() -> None:
    assert len(COUNTRIES) == 249
    assert {"TR", "DE", "GR", "GB", "US"} < COUNTRIES
