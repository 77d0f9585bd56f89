"""The margin by day and model: sums, habitual leavers, stored days, alarm, API and metric."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.test import Client

from accounts.models import User
from billing.pricing import Usage
from billing.tests.factories import an_organization
from codexflow.lib import clock
from codexflow.lib.ids import new_id
from keys.tests.factories import a_key
from logs.margin import daily
from logs.margin.report import HABIT_CALLS, EarlyLeaver, ModelMargin, early_leavers_of, margins_of, sums_of
from logs.models import DayMargin
from logs.pipeline.events import RANK_COUNTED, RANK_DISBELIEVED, RANK_NONE, AttemptFact, UsageEvent
from logs.pipeline.merge import ReportedUsage
from logs.pipeline.partitions import make_ahead
from logs.pipeline.rows import AttemptReport, insert_attempts, insert_rows, write_reported
from logs.tests.factories import an_event

pytestmark = pytest.mark.django_db
# 100 x 0.15 + 50 x 0.60 USD a million tokens.
CHARGE = 45_000
LEAVER = new_id()


@pytest.fixture
def today() -> datetime:
    make_ahead()
    return clock.now()


def stored(key_id: UUID | None = None, **facts: Any) -> UsageEvent:
    event = an_event(new_id(), key_id or new_id(), **facts)
    insert_rows([event])
    insert_attempts([event])
    return event


def reported(event: UsageEvent, n: int, nanos: int) -> None:
    usage = ReportedUsage(usage=event.usage, cost_nanos=nanos, is_success=True, ended_ms=event.started_ms)
    write_reported({(event.request_id, n): AttemptReport(model=event.model, response_id="", usage=usage)})


def left_early(**facts: Any) -> UsageEvent:
    return stored(status=499, is_disconnected=True, usage=Usage(), rank=RANK_NONE, **facts)


def test_charges_stand_against_what_the_upstream_reports_of_every_attempt(today: datetime) -> None:
    attempts = (AttemptFact(n=1, model="m"), AttemptFact(n=2, model="m", first_byte_ms=5))
    both = stored(model="m", attempts=attempts)
    reported(both, 1, 7_000)
    reported(both, 2, 40_000)
    stored(model="m", upstream_cost_nanos=44_000)  # seen by the gateway alone
    stored(model="m")  # nobody told its cost
    stored(model="m", rank=RANK_COUNTED, upstream_cost_nanos=1_000)
    stored(model="o", rank=RANK_DISBELIEVED, upstream_cost_nanos=10**9)
    reported(left_early(model="m", attempts=attempts[:1]), 1, 9_000)
    left_early(model="m")
    stored(model="n", upstream_cost_nanos=45_000)
    stored(model="n", source="sync", upstream_cost_nanos=10**9)  # past the gateway: not ours
    assert margins_of(today.date()) == [
        ModelMargin(
            day=today.date(),
            model="m",
            calls=6,
            charged_nanos=4 * CHARGE,
            upstream_nanos=7_000 + 40_000 + 44_000 + 1_000 + 9_000,
            unreported=1,
            unreported_nanos=CHARGE,
            left_early=2,
            left_early_nanos=9_000,
            estimated=1,
        ),
        ModelMargin(day=today.date(), model="n", calls=1, charged_nanos=CHARGE, upstream_nanos=CHARGE),
        ModelMargin(
            day=today.date(),
            model="o",
            calls=1,
            charged_nanos=CHARGE,
            upstream_nanos=10**9,
            estimated=1,
            impossible=1,
        ),
    ]
    assert margins_of(today.date())[0].margin_nanos == 3 * CHARGE - 101_000
    assert sums_of(margins_of(today.date()))["calls"] == 8


def test_a_key_that_habitually_leaves_early_is_named(today: datetime) -> None:
    habitual, seldom = new_id(), new_id()
    for number in range(HABIT_CALLS):
        reported(left_early(key_id=habitual, attempts=(AttemptFact(n=1, model="m"),)), 1, 5)
        if number:
            left_early(key_id=seldom)
    assert early_leavers_of(today.date()) == [EarlyLeaver(habitual, HABIT_CALLS, HABIT_CALLS, 5 * HABIT_CALLS)]
    for _ in range(4 * HABIT_CALLS + 1):  # now a smaller share than the habit's
        stored(key_id=habitual)
    assert early_leavers_of(today.date()) == []


def test_three_days_are_stored_once_a_day_and_a_loss_is_an_alarm(
    today: datetime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stored(model="loss", upstream_cost_nanos=20_000_000)
    stored(model="fine", upstream_cost_nanos=CHARGE + 1_000)
    tomorrow = datetime.combine(today.date() + timedelta(days=1), datetime.min.time(), UTC)
    monkeypatch.setattr(clock, "now", lambda: tomorrow + timedelta(hours=5))
    assert daily.store_margins(bound_percent=2) == []
    monkeypatch.setattr(clock, "now", lambda: tomorrow + timedelta(hours=6))
    assert len(daily.store_margins(bound_percent=2)) == 3
    assert daily.store_margins(bound_percent=2) == []
    assert {row.model: row.is_loss for row in DayMargin.objects.all()} == {"loss": True, "fine": False}
    alarms = [record for record in caplog.records if record.message == "margin.loss"]
    assert [record.model for record in alarms] == ["loss"]  # type: ignore[attr-defined] # its extra


@pytest.mark.parametrize(
    ("charged", "upstream", "is_loss"),
    [
        (10**9, 1_019_000_000, False),
        (10**9, 1_021_000_000, True),
        (10**6, 10_900_000, False),  # a loss of less than a cent
        (0, 10_000_001, True),
        (2 * 10**9, 10**9, False),
    ],
)
def test_a_loss_is_more_than_the_bound_and_more_than_a_cent(charged: int, upstream: int, is_loss: bool) -> None:
    margin = ModelMargin(day=clock.now().date(), model="m", charged_nanos=charged, upstream_nanos=upstream)
    assert daily.is_loss(margin, bound_percent=2) is is_loss
    unknown = replace(margin, unreported_nanos=charged)
    assert daily.is_loss(unknown, bound_percent=2) is (upstream > 10_000_000)


def test_operators_read_it_and_nobody_else(today: datetime, client: Client) -> None:
    stored(model="m", upstream_cost_nanos=40_000)
    for _ in range(HABIT_CALLS):
        left_early(model="m", key_id=LEAVER)
    path = f"/api/v1/margin?start={today.date()}&end={today.date()}"
    assert client.get(path, headers={"authorization": f"Bearer {a_key().plain}"}).status_code == 404
    client.force_login(User.objects.create_user("ada@example.org"))
    assert client.get(path).status_code == 404
    root = User.objects.create_superuser("root@example.org")
    an_organization(owner=root)
    client.force_login(root)
    found = client.get(path).json()
    assert found["totals"]["margin_nanos"] == CHARGE - 40_000
    assert [row["model"] for row in found["data"]] == ["m"]
    assert [row["key_id"] for row in found["early_leavers"]] == [str(LEAVER)]
    assert client.get("/api/v1/margin?start=2026-01-01&end=2026-11-01").status_code == 400


def test_the_page_of_a_day_names_the_leavers(today: datetime, client: Client) -> None:
    for _ in range(HABIT_CALLS):
        left_early(model="m", key_id=LEAVER)
    numbers = dict.fromkeys(daily.NUMBERS, 0)
    row = DayMargin.objects.create(day=today.date(), model="m", stored_at=today, is_loss=True, **numbers)
    client.force_login(User.objects.create_superuser("root@example.org"))
    assert f"/ops/logs/daymargin/{row.pk}/change/" in client.get("/ops/logs/daymargin/").content.decode()
    assert str(LEAVER) in client.get(f"/ops/logs/daymargin/{row.pk}/change/").content.decode()
