"""The management API of usage."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests.support.cast import Cast, an_event_of, happened


@pytest.fixture
def api(client: Client, cast: Cast) -> Client:
    client.force_login(cast.ada)
    return client


def test_a_day_of_utc_has_sums_and_percentiles(api: Client, cast: Cast) -> None:
    events = [an_event_of(cast, latency_ms=100 * n, ttft_ms=n) for n in range(1, 11)]
    happened(cast, *events)
    page = api.get(reverse("api-usage")).json()
    (day,) = page["data"]
    assert {"day", "group", "requests", "errors", "prompt_tokens", "completion_tokens", "cost_nanos"} <= set(day)
    assert (day["requests"], day["group"]) == (10, None)
    assert day["latency_ms"]["p50"] == pytest.approx(500, rel=0.12)
    assert day["latency_ms"]["p99"] == pytest.approx(900, rel=0.06)
    assert day["ttft_ms"]["p95"] == pytest.approx(9.5, rel=0.12)
    assert page["total"]["requests"] == 10


def test_daily_and_hourly_rollups_give_the_same_sums(api: Client, cast: Cast) -> None:
    happened(cast, *(an_event_of(cast, latency_ms=50 * n, ttft_ms=n) for n in range(20)))
    for interval in ("day", "month"):
        by_days, by_hours = (
            api.get(reverse("api-usage"), {"tz": zone, "interval": interval}).json() for zone in ("UTC", "Etc/UTC")
        )
        assert by_days["data"] == by_hours["data"]
        assert by_days["total"] == by_hours["total"]


@pytest.mark.parametrize("interval", ["hour", "day", "month"])
@pytest.mark.parametrize("group", ["none", "stage", "model", "key", "user"])
def test_every_interval_and_group_has_the_same_total(api: Client, cast: Cast, interval: str, group: str) -> None:
    happened(cast, an_event_of(cast), an_event_of(cast, stage="plan", status=503, error_code="x", is_disconnected=True))
    query = {"interval": interval, "group": group, "tz": "Europe/Istanbul"}
    page = api.get(reverse("api-usage"), query).json()
    assert (page["total"]["requests"], page["total"]["errors"], page["total"]["disconnects"]) == (2, 1, 1)
    assert sum(cell["cost_nanos"] for cell in page["data"]) == page["total"]["cost_nanos"] > 0
    assert all(cell["start"].endswith("+03:00") for cell in page["data"])
    names = {cell["group"] for cell in page["data"]}
    expected: dict[str, set[Any]] = {
        "none": {None}, "stage": {"direct", "plan"}, "model": {"gpt-4o-mini"}, "key": {str(cast.key.pk)}, "user": {"1"},
    }  # fmt: skip
    assert names == expected[group]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"tz": "Mars/Olympus"}, "tz"), ({"tz": "../etc/passwd"}, "tz"), ({"tz": "Europe"}, "tz"),
        ({"interval": "week"}, "interval"),
        ({"group": "model", "tag": "a"}, "group"), ({"group": "tag", "interval": "hour"}, "interval"),
        ({"group": "tag", "tz": "Europe/Istanbul"}, "tz"), ({"tag": "no spaces"}, "tag"),
        ({"group": "colour"}, "group"), ({"start": "2026-01-01", "end": "2026-03-01", "interval": "hour"}, "start"),
        ({"start": "0001-01-01", "end": "0001-01-02"}, "end"), ({"start": "9999-12-30", "end": "9999-12-31"}, "end"),
    ],
)  # fmt: skip
def test_an_invalid_parameter_is_named(api: Client, query: dict[str, str], param: str) -> None:
    response = api.get(reverse("api-usage"), query)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("interval", ["day", "month"])
def test_tags_have_requests_and_cost_as_their_page_shows_them(api: Client, cast: Cast, interval: str) -> None:
    tagged = [an_event_of(cast, tag="team-a"), an_event_of(cast, tag="team-a"), an_event_of(cast, tag="team-b")]
    happened(cast, an_event_of(cast), *tagged)
    page = api.get(reverse("api-usage"), {"group": "tag", "interval": interval}).json()
    shown = {each["tag"]: each for each in api.get(reverse("api-tags")).json()["data"]}
    assert {cell["group"]: (cell["requests"], cell["cost_nanos"]) for cell in page["data"]} == {
        tag: (shown[tag]["requests"], shown[tag]["cost_nanos"]) for tag in ("team-a", "team-b")
    }
    assert page["total"]["requests"] == 3
    assert page["total"]["cost_nanos"] == sum(event.cost_nanos for event in tagged) > 0
    # What is not counted by tag is absent, not 0.
    assert "prompt_tokens" not in page["total"]
    assert "errors" not in page["data"][0]
    only = api.get(reverse("api-usage"), {"tag": "team-a", "interval": interval}).json()
    (cell,) = only["data"]
    assert (cell["group"], cell["requests"], only["total"]["requests"]) == (None, 2, 2)


def test_tags_beyond_the_dearest_are_added_up(api: Client, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logs.usage.series.MAX_TAGS", 1)
    events = [an_event_of(cast, tag=tag) for tag in ("dear", "dear", "b", "c")]
    happened(cast, *events)
    page = api.get(reverse("api-usage"), {"group": "tag"}).json()
    assert {cell["group"]: cell["requests"] for cell in page["data"]} == {"dear": 2, "*": 2}
    assert page["total"]["cost_nanos"] == sum(event.cost_nanos for event in events)


def test_tags_of_another_organization_are_not_counted(api: Client, cast: Cast) -> None:
    happened(cast, an_event_of(cast, tag="team-a"))
    api.force_login(cast.eve)
    page = api.get(reverse("api-usage"), {"group": "tag"}).json()
    assert (page["data"], page["total"]["requests"]) == ([], 0)
    stranger = api.get(reverse("api-usage"), {"group": "tag", "organization": cast.slug})
    assert stranger.status_code == 404


def test_tags_need_the_permission_to_see_billing(api: Client, cast: Cast) -> None:
    api.force_login(cast.vic)
    assert api.get(reverse("api-usage")).status_code == 200
    assert api.get(reverse("api-usage"), {"group": "tag"}).status_code == 403
    assert api.get(reverse("api-usage"), {"tag": "team-a"}).status_code == 403
