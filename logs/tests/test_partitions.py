"""Days of the log: made ahead, dropped when over."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest
from django.db import connection

from billing.limits import ShardKeys
from billing.models import Plan
from billing.services import seed_plans
from codexflow.lib.clock import now
from codexflow.lib.ids import uuid7_floor
from keys.tests.factories import a_key
from logs import partitions
from logs.drain import Entry, store
from logs.events import UsageEvent, encode
from logs.models import RequestLog, UsageDaily
from logs.tests.factories import an_event

pytestmark = pytest.mark.django_db


def stored_on(day: datetime) -> UsageEvent:
    """A request whose id says that it began then."""
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


def test_days_are_made_ahead_and_far_enough_back_for_imports() -> None:
    assert partitions.make_ahead() == 0  # the migration has
    assert {name_of(35), name_of(0), name_of(-7)} <= tables()
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {name_of(-7)}")
    assert partitions.make_ahead() == 1


def test_days_go_once_no_plan_shows_them_and_sums_stay() -> None:
    seed_plans()
    Plan.objects.update(log_retention_days=30)
    Plan.objects.filter(slug="team").update(log_retention_days=60)
    for days_ago in (200, 62, 61, 60):
        make(days_ago)
    event = stored_on(now() - timedelta(days=200))
    Plan.objects.exclude(slug="team").update(log_retention_days=30)  # the house brings its own
    assert partitions.drop_expired() == [
        name.replace("request_log", table)
        for name in (name_of(200), name_of(62))
        for table in ("request_log", "upstream_attempt")
    ]
    assert {name_of(61), name_of(60), "request_log_default"} <= tables()
    assert not RequestLog.objects.filter(request_id=event.request_id).exists()
    assert UsageDaily.objects.filter(organization_id=event.organization_id).exists()
    assert partitions.drop_expired() == []


def test_what_an_import_may_still_write_stays_whatever_plans_say() -> None:
    seed_plans()
    Plan.objects.update(log_retention_days=1)
    assert partitions.drop_expired() == []
    assert name_of(35) in tables()


def test_ids_of_no_known_day_are_kept_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    assert partitions.strays() == 0
    stored_on(now() + timedelta(days=400))
    assert partitions.strays() == 2
    assert "partitions.strays" in caplog.text
