"""Sums in the reader's buckets."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from codexflow.lib.ids import random_id
from logs.models import UsageHourly
from logs.overview import chart_of
from logs.periods import period_of

pytestmark = pytest.mark.django_db


def test_an_hour_that_the_clocks_repeat_keeps_what_was_counted_in_it() -> None:
    organization_id, key_id = random_id(), random_id()
    for hour in (5, 6):  # one o'clock in New York, and one o'clock again
        UsageHourly.objects.create(
            organization_id=organization_id, key_id=key_id, user_id=1, model="m", stage="code", requests=hour,
            hour=datetime(2025, 11, 2, hour, tzinfo=UTC),
        )  # fmt: skip
    period = period_of("24h", datetime(2025, 11, 2, 12, tzinfo=UTC), ZoneInfo("America/New_York"))
    chart = chart_of(organization_id, period, metric="requests", group="model")
    assert [total.requests for total in chart.totals if total.requests] == [5, 6]


def an_hour(organization_id: Any, hour: datetime, **facts: Any) -> None:
    known = {"key_id": random_id(), "user_id": 1, "model": "m", "stage": "code", "requests": 1}
    UsageHourly.objects.create(organization_id=organization_id, hour=hour, **{**known, **facts})


@pytest.mark.parametrize("name", ["24h", "7d", "month"])
def test_the_present_is_never_old(name: str) -> None:
    organization_id, now, zone = random_id(), datetime(2026, 3, 18, 12, 30, tzinfo=UTC), ZoneInfo("Europe/Istanbul")
    period = period_of(name, now, zone)
    for count in (1, 2, 3):
        an_hour(organization_id, datetime(2026, 3, 18, 12, tzinfo=UTC))
        assert chart_of(organization_id, period, metric="requests", group="key").total.requests == count


def test_what_is_over_is_read_once_for_a_while() -> None:
    organization_id, now, zone = random_id(), datetime(2026, 3, 18, 12, 30, tzinfo=UTC), ZoneInfo("UTC")
    period = period_of("7d", now, zone)
    an_hour(organization_id, datetime(2026, 3, 14, 12, tzinfo=UTC))
    for _ in range(2):
        assert chart_of(organization_id, period, metric="requests", group="model").total.requests == 1
        an_hour(organization_id, datetime(2026, 3, 14, 12, tzinfo=UTC))
    # Another organization's is another's.
    assert chart_of(random_id(), period, metric="requests", group="model").total.requests == 0


def test_without_redis_sums_are_read_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr("codexflow.lib.keep.cache.get", gone)
    monkeypatch.setattr("codexflow.lib.keep.cache.set", gone)
    organization_id, zone = random_id(), ZoneInfo("UTC")
    period = period_of("7d", datetime(2026, 3, 18, 12, 30, tzinfo=UTC), zone)
    for count in (1, 2):
        an_hour(organization_id, datetime(2026, 3, 14, 12, tzinfo=UTC))
        assert chart_of(organization_id, period, metric="requests", group="model").total.requests == count
