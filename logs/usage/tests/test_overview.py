"""Sums of the overview in buckets of the user's zone."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from codexflow.lib.ids import random_id
from logs.models import UsageDaily, UsageHourly
from logs.pipeline.histogram import merged
from logs.pipeline.histogram import of as of_ms
from logs.usage import overview
from logs.usage.overview import Chart, Latency, sums_before, usage_of
from logs.usage.periods import Period, period_before, period_of
from logs.usage.series import quantiles

pytestmark = pytest.mark.django_db


def an_hour(organization_id: Any, hour: datetime, **facts: Any) -> None:
    """Rollups of an hour and of its day, as the drain writes them."""
    known = {"key_id": random_id(), "user_id": 1, "model": "m", "stage": "code", "requests": 1}
    row = {"organization_id": organization_id, **known, **facts}
    UsageHourly.objects.create(hour=hour, **row)
    UsageDaily.objects.create(day=hour.date(), **row)


def chart_of(organization_id: Any, period: Period, *, group: str = "model") -> Chart:
    earlier = period.start - timedelta(days=1), period.start
    return usage_of(organization_id, period, earlier, metric="requests", group=group)[0]


def latency_of(organization_id: Any, period: Period, earlier: tuple[datetime, datetime]) -> Latency:
    return usage_of(organization_id, period, earlier, metric="requests", group="model")[1]


def test_an_hour_that_the_clocks_repeat_has_two_buckets() -> None:
    organization_id = random_id()
    for hour in (5, 6):  # one o'clock in New York, and one o'clock again
        an_hour(organization_id, datetime(2025, 11, 2, hour, tzinfo=UTC), requests=hour)
    period = period_of("24h", datetime(2025, 11, 2, 12, tzinfo=UTC), ZoneInfo("America/New_York"))
    chart = chart_of(organization_id, period)
    assert [total.requests for total in chart.totals if total.requests] == [5, 6]


@pytest.mark.parametrize("name", ["24h", "7d", "month"])
def test_the_present_bucket_is_never_cached(name: str) -> None:
    organization_id, now, zone = random_id(), datetime(2026, 3, 18, 12, 30, tzinfo=UTC), ZoneInfo("Europe/Istanbul")
    period = period_of(name, now, zone)
    for count in (1, 2, 3):
        an_hour(organization_id, datetime(2026, 3, 18, 12, tzinfo=UTC))
        assert chart_of(organization_id, period, group="key").total.requests == count


def test_past_buckets_are_cached() -> None:
    organization_id, now, zone = random_id(), datetime(2026, 3, 18, 12, 30, tzinfo=UTC), ZoneInfo("UTC")
    period = period_of("7d", now, zone)
    an_hour(organization_id, datetime(2026, 3, 14, 12, tzinfo=UTC))
    for _ in range(2):
        assert chart_of(organization_id, period).total.requests == 1
        an_hour(organization_id, datetime(2026, 3, 14, 12, tzinfo=UTC))
    # Another organization's is another's.
    assert chart_of(random_id(), period).total.requests == 0


@pytest.mark.parametrize("zone_name", ["UTC", "Asia/Kathmandu"])
def test_only_finished_days_that_have_changed_are_read_again(zone_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the minutes of a period's cache, days are known by the versions of their rollups."""
    monkeypatch.setattr(overview, "CACHE_TTL_S", 0)
    organization_id, zone = random_id(), ZoneInfo(zone_name)
    now, noon = datetime(2026, 3, 18, 12, 30, tzinfo=UTC), datetime(2026, 3, 14, 12, tzinfo=UTC)
    period = period_of("30d", now, zone)
    earlier = period_before("30d", period, now, zone)
    spans: list[int] = []
    read = overview._cells_by_day

    def counted(organization: Any, starts: Any, *rest: Any) -> Any:
        spans.append(len(starts))
        return read(organization, starts, *rest)

    monkeypatch.setattr(overview, "_cells_by_day", counted)
    touched = 1 if zone_name == "UTC" else 2  # days of the zone that have hours of the UTC day
    for requests, days in ((1, 29), (2, touched)):
        an_hour(organization_id, noon, latency_histogram=of_ms([100]))
        for again in (False, True):
            spans.clear()
            chart = chart_of(organization_id, period)
            assert chart.total.requests == requests
            assert spans == ([1] if again else [days, 1]), "of the present day each time"
            latency = latency_of(organization_id, period, earlier)
            assert latency.latency["p50"] == pytest.approx(100, rel=0.05)
            assert [bool(times.p50) for times in latency.by_bucket].count(True) == 1


@pytest.mark.parametrize("zone_name", ["UTC", "Europe/Istanbul", "America/Los_Angeles", "Asia/Kathmandu"])
def test_the_first_hours_of_a_month_are_compared_with_those_of_the_last(zone_name: str) -> None:
    organization_id, zone = random_id(), ZoneInfo(zone_name)
    moment = datetime(2026, 10, 1, 5, 30, tzinfo=zone)
    period = period_of("month", moment, zone)
    start, end = period_before("month", period, moment, zone)
    first = start.astimezone(UTC).replace(minute=0) - timedelta(hours=30)
    counted = {first + timedelta(hours=n): n + 1 for n in range(60)}
    for hour, requests in counted.items():
        an_hour(organization_id, hour, requests=requests, latency_histogram=of_ms([100] * requests))
    expected = sum(requests for hour, requests in counted.items() if start <= hour < end)
    assert sums_before(organization_id, start, end).requests == expected
    assert latency_of(organization_id, period, (start, end)).earlier["p50"] == pytest.approx(100, rel=0.05)


def test_without_redis_sums_are_read_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr("codexflow.lib.cache.cache.get", gone)
    monkeypatch.setattr("codexflow.lib.cache.cache.set", gone)
    organization_id, zone = random_id(), ZoneInfo("UTC")
    period = period_of("7d", datetime(2026, 3, 18, 12, 30, tzinfo=UTC), zone)
    for count in (1, 2):
        an_hour(organization_id, datetime(2026, 3, 14, 12, tzinfo=UTC))
        assert chart_of(organization_id, period).total.requests == count


ZONES = ("UTC", "Europe/Istanbul", "America/New_York", "Asia/Kolkata", "Pacific/Auckland", "Pacific/Kiritimati")


@pytest.mark.parametrize("zone_name", ZONES)
@pytest.mark.parametrize(
    "moment", [datetime(2026, 3, 30, 2, 30, tzinfo=UTC), datetime(2026, 11, 3, 23, 30, tzinfo=UTC)], ids=str
)
def test_days_are_those_of_the_users_zone_to_the_hour(zone_name: str, moment: datetime) -> None:
    organization_id, zone = random_id(), ZoneInfo(zone_name)
    period = period_of("30d", moment, zone)
    earlier = period_before("30d", period, moment, zone)
    hours = [earlier[0].astimezone(UTC).replace(minute=0) + timedelta(hours=n) for n in range(-26, 61 * 24)]
    counted = {hour: n * n % 1009 + 1 for n, hour in enumerate(hours)}
    for hour, requests in counted.items():
        an_hour(organization_id, hour, requests=requests, model=f"m{requests % 3}")

    def of(start: datetime, end: datetime) -> int:
        return sum(requests for hour, requests in counted.items() if start <= hour < end)

    chart = chart_of(organization_id, period)
    spans = zip(period.buckets, (*period.buckets[1:], period.end), strict=True)
    assert [total.requests for total in chart.totals] == [of(*span) for span in spans]
    assert {name: sums.requests for name, sums in chart.groups.items()} == {
        f"m{n}": sum(requests for hour, requests in counted.items() if requests % 3 == n and hour_is_in(hour, period))
        for n in range(3)
    }
    assert sums_before(organization_id, *earlier).requests == of(*earlier)


def hour_is_in(hour: datetime, period: Period) -> bool:
    return period.start <= hour < period.end


@pytest.mark.parametrize("name", ["24h", "30d"])
def test_percentiles_come_from_all_histograms_of_the_period(name: str) -> None:
    organization_id, now, zone = random_id(), datetime(2026, 3, 18, 12, 30, tzinfo=UTC), ZoneInfo("UTC")
    period = period_of(name, now, zone)
    earlier = period_before(name, period, now, zone)
    for start, latency_ms, ttft_ms in ((earlier[0], 50, 9), (period.start, 1000, 100), (period.buckets[-1], 3000, 300)):
        for _ in range(2):
            facts = {"latency_histogram": of_ms([latency_ms]), "ttft_histogram": of_ms([ttft_ms])}
            an_hour(organization_id, start.astimezone(UTC), **facts)
    for _ in ("read", "cached"):
        found = latency_of(organization_id, period, earlier)
        assert found.latency["p50"] == pytest.approx(1000, rel=0.05)
        assert found.latency["p99"] == pytest.approx(3000, rel=0.05)
        assert found.ttft["p99"] == pytest.approx(300, rel=0.05)
        assert found.earlier["p99"] == pytest.approx(50, rel=0.05)
        drawn = [value for value in found.p95_by_bucket if value]
        assert drawn == [pytest.approx(1000, rel=0.05), pytest.approx(3000, rel=0.05)]


@pytest.mark.parametrize("name", ["24h", "30d"])
@pytest.mark.parametrize("durations_ms", [[5], [5, 3000], [80, 85, 95], [3000], [85]], ids=str)
def test_durations_on_both_sides_of_ninety_milliseconds_are_counted(name: str, durations_ms: list[int]) -> None:
    """Buckets below are added only where a row has any; a call that does not stream has no first token."""
    organization_id, now, zone = random_id(), datetime(2026, 3, 18, 12, 30, tzinfo=UTC), ZoneInfo("Asia/Kathmandu")
    period = period_of(name, now, zone)
    hour, whole, first = now.replace(hour=11, minute=0), of_ms([]), of_ms([])
    for duration_ms in durations_ms:
        facts = {"latency_histogram": of_ms([duration_ms] * 2), "ttft_histogram": of_ms([duration_ms])}
        an_hour(organization_id, hour, **facts)
        whole, first = merged(whole, facts["latency_histogram"]), merged(first, facts["ttft_histogram"])
    an_hour(organization_id, hour, latency_histogram=[], ttft_histogram=[])
    found = latency_of(organization_id, period, period_before(name, period, now, zone))
    assert found.latency == quantiles(whole)
    assert found.ttft == quantiles(first)
