"""Day partitions: created ahead, dropped after retention."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest
from django.db import connection, connections

from billing.limiter.limits import ShardKeys
from billing.models import Plan
from billing.services import seed_plans
from codexflow.lib.clock import now
from codexflow.lib.ids import uuid7_floor
from keys.tests.factories import a_key
from logs.models import RequestLog, UsageDaily
from logs.pipeline import partitions
from logs.pipeline.drain import Entry, store
from logs.pipeline.events import UsageEvent, encode
from logs.tests.factories import an_event

pytestmark = pytest.mark.django_db


def stored_on(day: datetime) -> UsageEvent:
    """A request with an id of that moment."""
    request_id = UUID(int=uuid7_floor(day).int + 1)
    key = a_key().row
    event = an_event(key.organization_id, key.id, request_id=request_id)
    store([Entry(ShardKeys.of("test", 0), b"1-0", encode(event))])
    return event


def tables() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT inhrelid::regclass::text FROM pg_inherits")
        return {row[0] for row in cursor.fetchall()}


def name_of(days_ago: int) -> str:
    return f"request_log_{now().date() - timedelta(days=days_ago):%Y%m%d}"


def make(days_ago: int) -> None:
    day = now().date() - timedelta(days=days_ago)
    with connection.cursor() as cursor:
        cursor.execute("SELECT cfx_make_partitions(%s, %s)", [day, day])


def test_days_are_created_ahead_and_far_enough_back_for_imports() -> None:
    assert partitions.make_ahead() == 0  # the migration has
    assert {name_of(35), name_of(0), name_of(-7)} <= tables()
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {name_of(-7)}")
    assert partitions.make_ahead() == 1


def test_days_that_no_plan_shows_are_dropped_and_rollups_stay() -> None:
    seed_plans()
    Plan.objects.update(log_retention_days=30)
    Plan.objects.filter(slug="team").update(log_retention_days=60)
    for days_ago in (200, 62, 61, 60):
        make(days_ago)
    event = stored_on(now() - timedelta(days=200))
    Plan.objects.exclude(slug="team").update(log_retention_days=30)  # migrations and seeds bring plans of their own
    assert partitions.drop_expired() == [
        name.replace("request_log", table)
        for name in (name_of(200), name_of(62))
        for table in ("request_log", "upstream_attempt")
    ]
    assert {name_of(61), name_of(60), "request_log_default"} <= tables()
    assert not RequestLog.objects.filter(request_id=event.request_id).exists()
    assert UsageDaily.objects.filter(organization_id=event.organization_id).exists()
    assert partitions.drop_expired() == []


def test_days_that_an_import_may_write_are_not_dropped() -> None:
    seed_plans()
    Plan.objects.update(log_retention_days=1)
    assert partitions.drop_expired() == []
    assert name_of(35) in tables()


def test_ids_of_no_known_day_are_stored_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert partitions.strays() == 0
    stored_on(now() + timedelta(days=400))
    assert partitions.strays() == 2
    assert "partitions.strays" in caplog.text


def test_a_day_whose_requests_came_before_its_partition_gets_one() -> None:
    """As after a week without the task, or with a wrong clock."""
    with connection.cursor() as cursor:
        for table in ("request_log", "upstream_attempt"):
            cursor.execute(f"DROP TABLE {name_of(-6).replace('request_log', table)}, {table}_{now():%Y%m%d}")
    early, other = stored_on(now() + timedelta(days=6)), stored_on(now() + timedelta(days=400))
    assert partitions.strays() == 4
    assert partitions.make_ahead() == 4
    assert partitions.strays() == 2  # the other one's day is far away
    assert RequestLog.objects.filter(request_id__in=[early.request_id, other.request_id]).count() == 2
    with connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass::text FROM request_log WHERE request_id = %s", [early.request_id])
        assert cursor.fetchall() == [(name_of(-6),)]
        cursor.execute(
            "SELECT count(*) FROM pg_indexes WHERE tablename = ANY(%s) GROUP BY tablename", [[name_of(-6), name_of(-5)]]
        )
        its_indexes, those_of_another = cursor.fetchall()
    assert its_indexes == those_of_another
    assert partitions.make_ahead() == 0


def test_days_ahead_wait_for_a_reader_of_the_whole_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(partitions, "DAYS_AHEAD", partitions.DAYS_AHEAD + 1)
    monkeypatch.setattr(partitions, "LOCK_TIMEOUT", "50ms")
    reader = connections.create_connection("default")
    try:
        reader.set_autocommit(False)
        with reader.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM request_log_default")
        assert partitions.make_ahead() == 0
        assert "partitions.busy" in caplog.text
    finally:
        reader.close()
    assert partitions.make_ahead() == 2
