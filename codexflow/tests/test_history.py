"""The past of the status page."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from adminpanel.models import Incident
from codexflow.lib import clock
from codexflow.pages.history import DAYS, Level, Outage, history_of
from codexflow.pages.status import CACHE_KEY

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
moments = st.datetimes(datetime(2026, 8, 1), datetime(2026, 11, 28, 12), timezones=st.just(UTC))  # noqa: DTZ001 - aware by `timezones`
levels: st.SearchStrategy[Level] = st.sampled_from(["warning", "error"])


def outage(level: Level, began: datetime, ended: datetime | None) -> Outage:
    return Outage(component="models", level=level, began_at=began, ended_at=ended)


outages = st.lists(
    st.builds(lambda level, a, b: outage(level, min(a, b), max(a, b)), levels, moments, moments), max_size=6
)


@given(found=outages)
def test_a_day_is_never_longer_than_it_is(found: list[Outage]) -> None:
    history = history_of("models", found, NOW)
    assert len(history.days) == DAYS
    assert history.days[-1].day == NOW.date()
    for each in history.days:
        assert timedelta() <= each.down <= timedelta(days=1)
        assert not each.down or each.level == "error"
    assert 0 <= history.uptime_permille <= 1000
    assert (history.uptime_permille == 1000) == all(not each.down for each in history.days)


@given(found=outages)
def test_outages_of_another_component_change_nothing(found: list[Outage]) -> None:
    assert all(each.level == "ok" for each in history_of("limits", found, NOW).days)


@given(found=outages)
def test_the_same_outage_twice_counts_once(found: list[Outage]) -> None:
    assert history_of("models", found * 2, NOW) == history_of("models", found, NOW)


def test_an_outage_over_midnight_is_of_both_days() -> None:
    midnight = NOW.replace(hour=0)
    history = history_of("models", [outage("error", midnight - timedelta(hours=2), midnight + timedelta(hours=1))], NOW)
    yesterday, today = history.days[-2:]
    assert (yesterday.down, today.down) == (timedelta(hours=2), timedelta(hours=1))
    assert history.uptime_permille == 998


def test_an_open_outage_lasts_until_now() -> None:
    history = history_of("models", [outage("error", NOW - timedelta(hours=3), None)], NOW)
    assert history.days[-1].down == timedelta(hours=3)


@pytest.mark.django_db
def test_the_status_page_has_its_past_and_names_no_part_of_the_inside(client: Client) -> None:
    cache.delete(CACHE_KEY)  # what another test has left
    at = clock.now()
    Incident.objects.create(
        key="litellm", level="error", began_at=at - timedelta(hours=5), ended_at=at - timedelta(hours=4)
    )
    Incident.objects.create(key="dead_letters", level="error", began_at=at - timedelta(hours=2))
    text = client.get(reverse("status")).content.decode()
    history = text[text.index('id="history"') :]
    assert history.count("<rect") == 3 * DAYS
    assert re.search(r"99\.\d%", history)
    incidents = history[history.index('id="incidents"') :]
    assert "Models" in incidents
    assert "1 h" in incidents
    assert "dead" not in incidents.lower()
