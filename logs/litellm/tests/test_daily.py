"""The daily reconciliation with LiteLLM: its time, and the stored results."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings

from codexflow.lib import clock
from codexflow.lib.ids import random_id
from logs.litellm.daily import reconcile_days, stored_totals
from logs.models import DayReconciled, UnmatchedReport

pytestmark = pytest.mark.django_db
ENV = replace(settings.ENV, webhook_keys=("x",))
MORNING = datetime(2026, 11, 20, 6, tzinfo=UTC)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> "At":
    return At(monkeypatch)


class At:
    """Sets the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(self, moment: datetime) -> None:
        self._monkeypatch.setattr(clock, "now", lambda: moment)


def an_unmatched_report(began: datetime) -> None:
    facts = {"source": "webhook", "started_at": began, "call": "x", "report": b""}
    UnmatchedReport.objects.create(digest=random_id(), state="unmatched", reason="no_owner", **facts)


def test_three_days_are_reconciled_once_a_day_and_not_before_six(at: At) -> None:
    at(MORNING - timedelta(minutes=1))
    assert reconcile_days(ENV) == []
    at(MORNING)
    assert [each.day for each in reconcile_days(ENV)] == [17, 18, 19]
    at(MORNING + timedelta(hours=3))
    assert reconcile_days(ENV) == []
    at(MORNING + timedelta(days=1))
    assert [each.day for each in reconcile_days(ENV)] == [18, 19, 20]
    assert DayReconciled.objects.count() == 4


def test_a_late_report_is_in_the_next_result(at: At) -> None:
    at(MORNING)
    reconcile_days(ENV)
    an_unmatched_report(MORNING - timedelta(days=2))
    assert DayReconciled.objects.get(day="2026-11-18").missing_here == 0
    at(MORNING + timedelta(days=1))
    reconcile_days(ENV)
    assert DayReconciled.objects.get(day="2026-11-18").missing_here == 1


def test_without_reports_nothing_is_reconciled(at: At) -> None:
    at(MORNING)
    assert reconcile_days(replace(settings.ENV, webhook_keys=(), litellm_admin_key="")) == []


def test_totals_add_up_whole_days(at: At) -> None:
    at(MORNING)
    assert stored_totals(days=7) is None
    for days_ago in (1, 1, 2, 8):
        an_unmatched_report(MORNING - timedelta(days=days_ago))
    reconcile_days(ENV)
    one, seven = stored_totals(days=1), stored_totals(days=7)
    assert one is not None
    assert seven is not None
    assert (one.missing_here, seven.missing_here) == (2, 3)
