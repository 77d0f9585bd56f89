"""Buckets of time."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logs.periods import RANGES, midnight, period_of

ZONES = ["UTC", "Europe/Istanbul", "America/New_York", "Asia/Kathmandu", "America/Sao_Paulo", "Pacific/Apia"]


@given(
    name=st.sampled_from(sorted(RANGES)),
    zone=st.sampled_from(ZONES),
    now=st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis adds it
)
def test_the_present_lies_in_the_last_bucket(name: str, zone: str, now: datetime) -> None:
    period = period_of(name, now, ZoneInfo(zone))
    assert period.start == period.buckets[0]
    assert list(period.buckets) == sorted(set(period.buckets))
    assert period.buckets[-1] <= now < period.end
    assert len(period.buckets) == (24 if name == "24h" else RANGES[name])


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)])
def test_a_day_is_as_long_as_the_clocks_make_it(day: str, hours: int) -> None:
    zone = ZoneInfo("Europe/Berlin")
    date = datetime.fromisoformat(day).date()
    length = midnight(date + timedelta(days=1), zone).astimezone(UTC) - midnight(date, zone).astimezone(UTC)
    assert length == timedelta(hours=hours)
