"""Series of usage: every hour is in exactly one bucket, also when clocks change."""

import random
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codexflow.lib.ids import random_id
from logs.models import UsageHourly
from logs.pipeline import histogram
from logs.usage.periods import HOUR, Interval, buckets_of
from logs.usage.series import SUMS, usage_of
from tests.support.examples import examples

ISTANBUL, NEW_YORK, KOLKATA = "Europe/Istanbul", "America/New_York", "Asia/Kolkata"
# UTC by its other name: days of "UTC" itself come from the daily rollups, which these tests do not fill.
ZONES = [
    "Etc/UTC", ISTANBUL, NEW_YORK, KOLKATA, "Asia/Kathmandu", "America/Sao_Paulo", "Australia/Lord_Howe",
    "Pacific/Apia",
]  # fmt: skip
INTERVALS: list[Interval] = ["hour", "day", "month"]


def hourly(organization_id: Any, hour: datetime, **facts: Any) -> UsageHourly:
    known: dict[str, Any] = {"key_id": random_id(), "user_id": 1, "model": "m", "stage": "code", "requests": 1}
    return UsageHourly(organization_id=organization_id, hour=hour, **{**known, **facts})


def every_hour(organization_id: Any, first: datetime, count: int) -> None:
    UsageHourly.objects.bulk_create([hourly(organization_id, first + HOUR * n) for n in range(count)])


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        (NEW_YORK, "2026-03-08", 23), (NEW_YORK, "2026-11-01", 25), (NEW_YORK, "2026-11-02", 24),
        (ISTANBUL, "2015-03-29", 23), (ISTANBUL, "2015-11-08", 25), (ISTANBUL, "2026-03-29", 24),
        (KOLKATA, "2026-03-29", 24), ("Australia/Lord_Howe", "2026-04-05", 25),
        ("Australia/Lord_Howe", "2026-10-04", 23),
    ],
)  # fmt: skip
def test_a_day_has_as_many_hours_as_its_clocks(zone: str, day: str, hours: int) -> None:
    """Lord Howe moves by half an hour: the whole hours come out a little before or after the clock's."""
    organization, here = random_id(), date.fromisoformat(day)
    every_hour(organization, datetime.combine(here, datetime.min.time(), UTC) - HOUR * 48, 24 * 5)
    (cell,) = usage_of(organization, here, here, interval="day", zone=ZoneInfo(zone), group=None).cells
    by_hour = usage_of(organization, here, here, interval="hour", zone=ZoneInfo(zone), group=None)
    assert sum(each.sums["requests"] for each in by_hour.cells) == cell.sums["requests"]
    assert len(by_hour.cells) == cell.sums["requests"]
    assert abs(cell.sums["requests"] - hours) <= (zone == "Australia/Lord_Howe")


@pytest.mark.django_db
def test_a_repeated_hour_is_two_buckets_and_a_skipped_one_is_none() -> None:
    organization = random_id()
    every_hour(organization, datetime(2026, 11, 1, tzinfo=UTC), 48)
    autumn, spring = date(2026, 11, 1), date(2026, 3, 8)
    cells = usage_of(organization, autumn, autumn, interval="hour", zone=ZoneInfo(NEW_YORK), group=None).cells
    assert [each.bucket.start.isoformat() for each in cells[:4]] == [
        "2026-11-01T00:00:00-04:00", "2026-11-01T01:00:00-04:00", "2026-11-01T01:00:00-05:00",
        "2026-11-01T02:00:00-05:00",
    ]  # fmt: skip
    every_hour(organization, datetime(2026, 3, 8, tzinfo=UTC), 48)
    cells = usage_of(organization, spring, spring, interval="hour", zone=ZoneInfo(NEW_YORK), group=None).cells
    assert [each.bucket.start.hour for each in cells[:4]] == [0, 1, 3, 4]


@pytest.mark.django_db
def test_an_hour_across_midnight_belongs_to_the_day_in_which_it_begins() -> None:
    """Midnight in Kolkata is 18:30 UTC."""
    organization = random_id()
    UsageHourly.objects.bulk_create(
        [
            hourly(organization, datetime(2026, 6, 9, 18, tzinfo=UTC), requests=3),
            hourly(organization, datetime(2026, 6, 9, 19, tzinfo=UTC), requests=5),
        ]
    )
    first, last = date(2026, 6, 9), date(2026, 6, 10)
    cells = usage_of(organization, first, last, interval="day", zone=ZoneInfo(KOLKATA), group=None).cells
    assert [(cell.bucket.day, cell.sums["requests"]) for cell in cells] == [(first, 3), (last, 5)]
    hours = usage_of(organization, last, last, interval="hour", zone=ZoneInfo(KOLKATA), group=None).cells
    assert [cell.bucket.start.isoformat() for cell in hours] == ["2026-06-10T00:30:00+05:30"]


@given(
    zone=st.sampled_from(ZONES),
    first=st.dates(date(2008, 1, 1), date(2030, 1, 1)),
    days=st.integers(0, 45),
    interval=st.sampled_from(INTERVALS),
)
def test_buckets_follow_each_other(zone: str, first: date, days: int, interval: Interval) -> None:
    buckets, end = buckets_of(first, first + timedelta(days=days), interval, ZoneInfo(zone))
    starts = [bucket.start.astimezone(UTC) for bucket in buckets]
    assert starts == sorted(set(starts))
    assert all(start < end.astimezone(UTC) for start in starts)
    assert all(bucket.day == bucket.start.date() or interval != "hour" for bucket in buckets)


@pytest.mark.django_db
@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    zone=st.sampled_from(ZONES),
    interval=st.sampled_from(INTERVALS),
    group=st.sampled_from([None, "stage", "model", "key", "user"]),
    first=st.dates(date(2008, 1, 1), date(2030, 1, 1)),
    cuts=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    seed=st.integers(0, 2**32),
)
def test_a_span_cut_anywhere_adds_up_to_the_whole(
    zone: str, interval: Interval, group: str | None, first: date, cuts: list[int], seed: int
) -> None:
    dice, organization, here = random.Random(seed), random_id(), ZoneInfo(zone)  # noqa: S311 - shuffling
    last = first + timedelta(days=sum(cuts) - 1)
    begin = datetime.combine(first, datetime.min.time(), UTC) - HOUR * 30
    hours = [begin + HOUR * n for n in range((sum(cuts) + 3) * 24)]
    keys = [random_id(), random_id()]
    UsageHourly.objects.bulk_create(
        hourly(
            organization,
            hour,
            key_id=dice.choice(keys),
            user_id=dice.randrange(2),
            stage=dice.choice(["plan", "code"]),
            model=dice.choice(["a", "b"]),
            requests=dice.randrange(1, 1000),
            cost_nanos=dice.randrange(10**12),
            latency_histogram=histogram.of([dice.randrange(1, 10**6)]),
        )
        for hour in dice.sample(hours, 40)
    )
    whole = usage_of(organization, first, last, interval=interval, zone=here, group=group)
    parts, start = [], first
    for cut in cuts:
        end = start + timedelta(days=cut - 1)
        parts.append(usage_of(organization, start, end, interval=interval, zone=here, group=group))
        start = end + timedelta(days=1)
    for name in SUMS:
        assert sum(part.total.sums[name] for part in parts) == whole.total.sums[name]
        assert sum(cell.sums[name] for cell in whole.cells) == whole.total.sums[name]
    merged: list[int] = []
    for part in parts:
        merged = histogram.merged(merged, part.total.latency)
    assert merged == whole.total.latency
    # And against the plain truth: the hours whose local date is one of the days.
    kept = [row for row in UsageHourly.objects.filter(organization_id=organization)
            if first <= row.hour.astimezone(here).date() <= last]  # fmt: skip
    assert whole.total.sums["requests"] == sum(row.requests for row in kept)
    for cell in whole.cells:
        local = [row for row in kept if _bucket_of(row.hour.astimezone(here), interval) == _bucket_of(
            cell.bucket.start, interval)]  # fmt: skip
        if group is None:
            assert cell.sums["requests"] == sum(row.requests for row in local)


def _bucket_of(moment: datetime, interval: Interval) -> Any:
    day = moment.date()
    return {"hour": moment.astimezone(UTC), "day": day, "month": (day.year, day.month)}[interval]
