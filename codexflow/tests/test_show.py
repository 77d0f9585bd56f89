"""Template filters of numbers, money and time."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.utils import formats, translation
from hypothesis import given
from hypothesis import strategies as st

from codexflow.lib.clock import now
from codexflow.lib.money import NANOS_PER_USD, format_usd, parse_usd
from codexflow.templatetags import show


@pytest.mark.parametrize(
    ("value", "english", "turkish"),
    [(0, "0", "0"), (9_999, "9,999", "9.999"), (12_345, "12.3K", "12,3K"), (150_000, "150K", "150K"),
     (61_800_000, "61.8M", "61,8M"), (2_000_000_000, "2.0B", "2,0B")],
)  # fmt: skip
def test_large_numbers_are_abbreviated_in_every_language(value: int, english: str, turkish: str) -> None:
    with translation.override("en"):
        assert show.compact(value) == english
    with translation.override("tr"):
        assert show.compact(value) == turkish


@pytest.mark.parametrize(
    ("nanos", "table", "exact"),
    [(0, "$0.00", "$0.000000"), (75_000, "$0.0001", "$0.000075"), (10, "<$0.0001", "$0.000000010"),
     (18_420_000_000, "$18.42", "$18.420000"), (500_000_000, "$0.50", "$0.500000"),
     (-4_500_000, "−$0.0045", "−$0.004500")],
)  # fmt: skip
def test_money_is_formatted_in_every_language(nanos: int, table: str, exact: str) -> None:
    with translation.override("en"):
        assert (show.usd(nanos), show.usd_exact(nanos)) == (table, exact)
    with translation.override("tr"):
        assert show.usd(nanos) == table.replace(".", ",")


@pytest.mark.parametrize(
    ("nanos", "shown"),
    [(0, "$0.00"), (10_000_000, "$0.01"), (6_000_000, "$0.006"), (125_000_000, "$0.125"), (15_000_000_000, "$15.00"),
     (1, "$0.000000001")],
)  # fmt: skip
def test_a_price_is_shown_as_it_is_charged(nanos: int, shown: str) -> None:
    assert show.usd_price(nanos) == shown


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        ([], []),
        ([0, 18_420_000_000], ["$0.00", "$18.42"]),
        ([500_000_000, 10_000_000], ["$0.50", "$0.01"]),
        ([1_550_000_000, 6_900_000], ["$1.5500", "$0.0069"]),
        ([1_000_000_000, 27_000], ["$1.000000", "$0.000027"]),
        ([20, 1_000_000_000, 0], ["<$0.000001", "$1.000000", "$0.000000"]),
        ([-4_500_000, 2_000_000_000], ["−$0.0045", "$2.0000"]),
    ],
)
def test_a_column_has_as_many_decimals_in_each_row(column: list[int], shown: list[str]) -> None:
    places = show.column_places(column)
    assert [show.usd_at(nanos, places) for nanos in column] == shown


@given(column=st.lists(st.integers(-(10**13), 10**13), min_size=1))
def test_no_amount_of_a_column_is_shown_as_nothing(column: list[int]) -> None:
    places = show.column_places(column)
    shown = [show.usd_at(nanos, places) for nanos in column]
    assert len({len(text.partition(".")[2]) for text in shown}) == 1
    assert all(text.strip("$0.") for nanos, text in zip(column, shown, strict=True) if nanos > 0)


@given(column=st.lists(st.integers(0, 10**13), min_size=1))
def test_a_column_of_prices_is_exact(column: list[int]) -> None:
    places = show.price_places(column)
    for nanos in column:
        assert parse_usd(show.usd_at(nanos, places).strip("$").replace(",", "")) == nanos
    receipt = show.receipt_places(column)
    assert all(parse_usd(show.usd_at(nanos, receipt).strip("$").replace(",", "")) == nanos for nanos in column)


def test_zero_is_formatted_without_an_exponent() -> None:
    assert format_usd(0, decimals=9) == "0.000000000"


def test_the_percent_sign_follows_the_language() -> None:
    with translation.override("en"):
        assert (show.percent(47), show.change(-12), show.margin(1550)) == ("47%", "−12%", "15.5%")
    with translation.override("tr"):
        assert (show.percent(47), show.change(12), show.margin(1550)) == ("%47", "+%12", "%15,5")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(5, "5 sec. ago"), (130, "2 min. ago"), (7_300, "2 hr. ago"), (90_000, "1 day ago")]
)
def test_elapsed_time_is_rounded_down(seconds: int, shown: str) -> None:
    with translation.override("en"):
        assert show.ago(now() - timedelta(seconds=seconds)) == shown


@pytest.mark.parametrize(
    ("zone", "shown"), [("UTC", "UTC+0"), ("Europe/Istanbul", "UTC+3"), ("Asia/Kathmandu", "UTC+5:45")]
)
def test_utc_offsets_are_formatted(zone: str, shown: str) -> None:
    assert show.offset(ZoneInfo(zone)) == shown


@pytest.mark.parametrize(
    ("user_agent", "shown"),
    [
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36", "Chrome · Windows"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0", "Edge · Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19.0 Safari/604.1", "Safari · iPhone"),
        ("Mozilla/5.0 (Linux; Android 16) AppleWebKit/537.36 Chrome/140.0 Safari/537.36", "Chrome · Android"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0", "Firefox · Linux"),
        ("curl/8.5.0", "curl/8.5.0"),
        ("", ""),
    ],
)
def test_user_agents_are_shown_as_browser_and_system(user_agent: str, shown: str) -> None:
    assert show.browser(user_agent) == shown


def test_rates_of_a_column_have_one_decimal() -> None:
    assert [show.rate(part, 50) for part in (4, 1, 50, 0)] == ["8.0%", "2.0%", "100.0%", "0.0%"]
    assert show.rate(1, 100_000) == "<0.1%"


def test_a_credit_has_two_decimals_unless_it_has_more() -> None:
    assert show.usd_signed(50 * NANOS_PER_USD, 2) == "+$50.00"
    assert show.usd_signed(-NANOS_PER_USD // 3, 2) == "\N{MINUS SIGN}$0.333333334"
    assert show.usd_signed(27_000) == "+$0.000027000"


def test_english_dates_of_the_operators_tables_have_24_hours() -> None:
    with translation.override("en"):
        assert formats.date_format(datetime(2026, 11, 29, 22, 37, tzinfo=UTC), "DATETIME_FORMAT") == "29 Nov 2026 22:37"
