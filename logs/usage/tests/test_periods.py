"""Periods and their buckets."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logs.usage.periods import RANGES, midnight, period_before, period_of

ZONES = ["UTC", "Europe/Istanbul", "America/New_York", "Asia/Kathmandu", "America/Sao_Paulo", "Pacific/Apia"]


@example(name="24h", zone="America/New_York", now=datetime(2025, 11, 2, 12, tzinfo=UTC))
@given(
    name=st.sampled_from(sorted(RANGES)),
    zone=st.sampled_from(ZONES),
    now=st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis adds it
)
def test_the_present_lies_in_the_last_bucket(name: str, zone: str, now: datetime) -> None:
    period = period_of(name, now, ZoneInfo(zone))
    assert period.start == period.buckets[0]
    moments = [bucket.astimezone(UTC) for bucket in period.buckets]  # in one zone a repeated hour compares equal
    assert moments == sorted(set(moments))
    assert period.buckets[-1] <= now < period.end
    assert len(period.buckets) == (24 if name == "24h" else RANGES[name])


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)])
def test_a_day_is_as_long_as_the_clocks_make_it(day: str, hours: int) -> None:
    zone = ZoneInfo("Europe/Berlin")
    date = datetime.fromisoformat(day).date()
    length = midnight(date + timedelta(days=1), zone).astimezone(UTC) - midnight(date, zone).astimezone(UTC)
    assert length == timedelta(hours=hours)


@pytest.mark.parametrize(
    ("name", "start", "until"),
    [
        ("24h", "2026-03-29 13:00", "2026-03-30 12:30"),
        ("7d", "2026-03-18 00:00", "2026-03-24 12:30"),
        ("month", "2026-02-01 00:00", "2026-03-01 00:00"),
    ],
)
def test_the_span_before_has_as_much_passed_time_as_the_period(name: str, start: str, until: str) -> None:
    zone, now = ZoneInfo("Etc/UTC"), datetime(2026, 3, 31, 12, 30, tzinfo=UTC)
    period = period_of(name, now, zone)
    assert [f"{moment:%Y-%m-%d %H:%M}" for moment in period_before(name, period, now, zone)] == [start, until]


def test_the_month_has_its_days_so_far() -> None:
    period = period_of("month", datetime(2026, 3, 31, 21, 30, tzinfo=UTC), ZoneInfo("Europe/Istanbul"))
    assert len(period.buckets) == 1  # there it is April
    assert (period.start.month, period.start.day) == (4, 1)
