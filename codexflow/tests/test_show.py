"""Template filters of numbers, money and time."""

from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from django.utils import translation

from codexflow.lib.clock import now
from codexflow.lib.money import format_usd
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
    [(0, "$0.00", "$0.000000"), (75_000, "$0.0001", "$0.000075"), (10, "$0.0000", "$0.000000010"),
     (18_420_000_000, "$18.42", "$18.420000"), (-4_500_000, "−$0.0045", "−$0.004500")],
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
