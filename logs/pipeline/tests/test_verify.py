"""Drift between rows and rollups is found, and nothing else is."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from django.db import connection, transaction

from billing.models import SpendDaily
from billing.tests.factories import an_organization
from codexflow.lib import clock
from codexflow.lib.ids import random_id, uuid7_floor
from logs.models import RequestLog, UsageDaily, UsageHourly
from logs.pipeline.drain import store
from logs.pipeline.events import orphaned
from logs.pipeline.rollups import day_of
from logs.pipeline.verify import verify_rollups
from logs.tests.factories import an_event, entries

pytestmark = pytest.mark.django_db(transaction=True)
DAY = timedelta(days=1)


def a_request(moment: datetime, *, day: int | None = None) -> None:
    """Store a request that began at a moment, and was admitted on a day (since 1970) by Redis's clock."""
    ms = int(moment.timestamp() * 1000)
    request_id = UUID(int=uuid7_floor(moment).int | (0x7 << 76) | (0x2 << 62) | (random_id().int & 0xFFFF))
    facts = {"request_id": request_id, "started_ms": ms, "day": ms // 86_400_000 if day is None else day}
    store(entries([an_event(an_organization().id, random_id(), **facts)]))


# One of each sum, and of what it is the sum of.
CHANGES: list[dict[str, Any]] = [
    {"cost_nanos": 1}, {"requests": 2}, {"errors": 1}, {"disconnects": 1}, {"cached_tokens": 1}, {"prompt_tokens": 1},
    {"completion_tokens": 1}, {"reasoning_tokens": 1}, {"upstream_cost_nanos": 1}, {"latency_histogram": [2]},
    {"ttft_histogram": [1]}, {"model": "another"}, {"stage": "plan"}, {"user_id": 7},
]  # fmt: skip


@pytest.mark.parametrize("table", [UsageHourly, UsageDaily])
def test_a_change_of_any_sum_is_found(table: Any) -> None:
    now = clock.now()
    a_request(now)
    assert verify_rollups() == []
    for change in CHANGES:
        before = table.objects.values(*change).get()
        table.objects.update(**change)
        (drift,) = verify_rollups()
        assert (drift.table, drift.day) == (table._meta.db_table, now.date()), change
        table.objects.update(**before)
    assert verify_rollups() == []


def test_a_request_counted_in_another_hour_is_found() -> None:
    yesterday = clock.now().replace(hour=12, minute=30) - DAY
    a_request(yesterday)
    assert verify_rollups() == []
    UsageHourly.objects.update(hour=yesterday.replace(hour=11, minute=0, second=0, microsecond=0))
    (drift,) = verify_rollups()
    assert (drift.table, drift.sums, drift.day) == ("usage_hourly", 2, yesterday.date())


def test_requests_at_the_edge_of_a_day_count_on_their_day_of_admission() -> None:
    midnight = clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    days = int(midnight.timestamp() // 86_400)
    # The gateway's clock and Redis's do not agree on the day.
    for moment, day in ((midnight - timedelta(seconds=1), days), (midnight, days - 1)):
        a_request(moment, day=day)
    assert verify_rollups() == []


@pytest.mark.parametrize("later", [-1, 1])
def test_a_call_whose_gateway_and_sweeper_had_different_days_counts_on_one(later: int) -> None:
    """As when Redis was away at midnight, or its clock was set: the gateway's own clock then has the day."""
    event = an_event(an_organization().id, random_id())
    store(entries([orphaned(event, progress=3, now_ms=event.started_ms + 1)]))
    store(entries([msgspec.structs.replace(event, day=event.day + later)]))
    row = RequestLog.objects.get()
    assert (row.source, row.day, row.revision) == ("gateway", day_of(event), 2)
    assert {day_of(event)} == set(UsageDaily.objects.filter(requests__gt=0).values_list("day", flat=True))
    spent = SpendDaily.objects.filter(organization_id=event.organization_id)
    assert [(each.day, each.requests, each.cost_nanos) for each in spent] == [(row.day, 1, row.cost_nanos)]
    assert verify_rollups() == []


def test_every_day_with_rows_is_verified_once_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    noon = clock.now().replace(hour=12)
    a_request(noon - 20 * DAY)
    a_request(noon - 33 * DAY)
    UsageDaily.objects.update(errors=1)
    found = set()
    for hour in range(24):
        monkeypatch.setattr(clock, "now", lambda hour=hour: noon.replace(hour=hour))
        found |= {drift.day for drift in verify_rollups()}
    assert found == {(noon - 20 * DAY).date(), (noon - 33 * DAY).date()}


def test_days_whose_rows_were_dropped_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    noon = clock.now().replace(hour=12)
    a_request(noon - 40 * DAY)
    for hour in range(24):
        monkeypatch.setattr(clock, "now", lambda hour=hour: noon.replace(hour=hour))
        assert verify_rollups() == []


@pytest.mark.parametrize(("table", "moment"), [("usage_hourly", "hour"), ("usage_daily", "day")])
def test_verifying_two_days_does_not_read_the_others(table: str, moment: str) -> None:
    question = f"EXPLAIN SELECT FROM {table} WHERE {moment} >= now() AND {moment} < now() + interval '1 day'"
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(question)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert f"{table}_{moment}" in plan
