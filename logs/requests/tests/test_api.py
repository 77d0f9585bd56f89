"""The management API of requests: filters, one request and its money."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from django.test import Client
from django.urls import reverse

from billing.limiter.limits import ShardKeys
from billing.models import Plan
from billing.pricing import Usage, cost_nanos
from billing.selectors import account_of
from codexflow.lib.clock import now
from codexflow.lib.ids import new_id, uuid7_floor
from logs.pipeline import partitions
from logs.pipeline.drain import Entry, store
from logs.pipeline.events import RANK_LITELLM, UsageEvent, encode
from tests.support.cast import Cast, an_event_of, happened


@pytest.fixture
def api(client: Client, cast: Cast) -> Client:
    client.force_login(cast.ada)
    return client


def listed(api: Client, **query: Any) -> list[dict[str, Any]]:
    response = api.get(reverse("api-requests"), query)
    assert response.status_code == 200, response.content
    rows: list[dict[str, Any]] = response.json()["data"]
    return rows


def ids(rows: list[dict[str, Any]]) -> set[str]:
    return {row["id"] for row in rows}


def test_every_filter_finds_its_requests_and_no_other(api: Client, cast: Cast) -> None:
    plain = an_event_of(cast)
    odd = an_event_of(
        cast,
        surface="messages",
        endpoint="/v1/messages",
        user_id=77,
        status=503,
        error_code="upstream_unavailable",
        usage=Usage(),
        is_stream=True,
        source="sweeper",
        stage="review",
        model="claude-haiku-3.5",
    )
    happened(cast, plain, odd)
    theirs: dict[str, Any] = {
        "surface": "messages", "user": 77, "error_code": "upstream_unavailable", "stream": "true", "source": "sweeper",
        "stage": "review", "model": "claude-haiku-3.5", "status": "errors", "id": str(odd.request_id)[:36],
    }  # fmt: skip
    for name, value in theirs.items():
        assert ids(listed(api, **{name: value})) == {str(odd.request_id)}, name
    assert ids(listed(api, **theirs)) == {str(odd.request_id)}
    assert ids(listed(api, stream="false")) == {str(plain.request_id)}
    assert ids(listed(api, key=str(cast.key.pk))) == {str(plain.request_id), str(odd.request_id)}
    assert listed(api, key=str(new_id())) == []


def test_a_search_is_a_filter_of_the_api_too(api: Client, cast: Cast) -> None:
    slow, fast = an_event_of(cast, latency_ms=9_000), an_event_of(cast, latency_ms=10)
    happened(cast, slow, fast)
    assert ids(listed(api, q="latency:>5s key:prod-web")) == {str(slow.request_id)}
    assert ids(listed(api, q=f"-latency:>5s id:{fast.request_id}")) == {str(fast.request_id)}
    refused = api.get(reverse("api-requests"), {"q": "modle:a"})
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert error["param"] == "q"
    assert "There is no field “modle”" in error["message"]


def test_requests_past_retention_are_not_found_by_id_either(api: Client, cast: Cast) -> None:
    days = account_of(cast.organization).plan.log_retention_days
    ages = {timedelta(days=days) - timedelta(minutes=1): 200, timedelta(days=days, minutes=1): 404}
    for age, status in ages.items():
        event = an_event_of(cast, request_id=UUID(int=uuid7_floor(now() - age).int + 1))
        happened(cast, event)
        assert api.get(reverse("api-request", args=[event.request_id])).status_code == status
        slug = cast.organization.slug
        assert api.get(reverse("request", args=[slug, event.request_id])).status_code == status
        opened = api.get(reverse("log", args=[slug]), {"request": str(event.request_id)}).context.get("opened")
        assert (opened is not None) == (status == 200)


def test_a_prefix_of_an_id_finds_its_requests(api: Client, cast: Cast) -> None:
    event = an_event_of(cast)
    happened(cast, event)
    for length in (1, 8, 9, 13, 36):
        assert ids(listed(api, id=str(event.request_id)[:length])) == {str(event.request_id)}
    assert listed(api, id="ffff") == []


def test_start_and_end_bound_the_list(api: Client, cast: Cast) -> None:
    happened(cast, an_event_of(cast))
    moment = now()
    assert len(listed(api, start=(moment - timedelta(hours=1)).isoformat())) == 1
    assert listed(api, end=(moment - timedelta(hours=1)).isoformat()) == []
    assert listed(api, end="1960-01-01T00:00:00Z") == []
    assert len(listed(api, end="9999-12-31T23:59:59Z", surface="chat")) == 1


def test_an_end_alone_lists_the_days_before_it(api: Client, cast: Cast) -> None:
    Plan.objects.update(log_retention_days=60)
    then = now() - timedelta(days=20)
    event = an_event_of(cast, request_id=uuid7_floor(then), started_ms=int(then.timestamp() * 1000))
    happened(cast, event)
    assert ids(listed(api, end=(then + timedelta(days=6)).isoformat())) == {str(event.request_id)}
    assert listed(api, end=(then + timedelta(days=8)).isoformat()) == []
    assert listed(api) == []


@pytest.mark.parametrize("days", [36_500, 1_000_000])
def test_a_plan_may_show_requests_for_ever(api: Client, cast: Cast, days: int) -> None:
    event = an_event_of(cast)
    happened(cast, event)
    Plan.objects.update(log_retention_days=days)
    assert len(listed(api)) == len(listed(api, start="1800-01-01T00:00:00Z")) == 1
    assert api.get(reverse("api-request", args=[event.request_id])).status_code == 200
    assert partitions.drop_expired() == []


def test_a_time_without_a_zone_is_utc_whatever_the_readers_zone(api: Client, cast: Cast) -> None:
    cast.ada.timezone = "Asia/Tokyo"
    cast.ada.save()
    happened(cast, an_event_of(cast))
    moment = now().replace(tzinfo=None)
    assert len(listed(api, start=(moment - timedelta(hours=1)).isoformat())) == 1
    assert listed(api, start=(moment + timedelta(minutes=10)).isoformat()) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "1000"), ("id", "xyz"), ("user", "0"), ("source", "nowhere"), ("stream", "perhaps"),
        ("start", "soon"), ("key", "1"), ("before", "1"), ("limit", "201"),
    ],
)  # fmt: skip
def test_an_invalid_filter_is_named(api: Client, name: str, value: str) -> None:
    response = api.get(reverse("api-requests"), {name: value})
    assert (response.status_code, response.json()["error"]["param"]) == (400, name)


def test_an_end_before_the_start_is_refused(api: Client) -> None:
    query = {"start": "2026-02-02T00:00:00Z", "end": "2026-02-01T00:00:00Z"}
    assert api.get(reverse("api-requests"), query).json()["error"]["param"] == "end"


def test_pages_have_neither_gaps_nor_duplicates(api: Client, cast: Cast) -> None:
    events = [an_event_of(cast) for _ in range(7)]
    happened(cast, *events)
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 3}
    while True:
        page = api.get(reverse("api-requests"), query).json()
        seen += [row["id"] for row in page["data"]]
        if page["next"] is None:
            break
        query["before"] = page["next"]
    assert seen == [str(event.request_id) for event in sorted(events, key=lambda each: each.request_id, reverse=True)]


def corrected(event: UsageEvent, usage: Usage) -> UsageEvent:
    better = msgspec.structs.replace(event, usage=usage, rank=RANK_LITELLM, cost_nanos=cost_nanos(usage, event.rates))
    store([Entry(ShardKeys.of("test", 0), b"corrected", encode(better))])
    return better


def test_a_request_has_its_charge_and_its_ledger_entries(api: Client, cast: Cast) -> None:
    event = an_event_of(cast, stage_reason="diff", hold_nanos=9_000_000, rank=20)
    happened(cast, event)
    better = corrected(event, Usage(prompt_tokens=200, cached_tokens=50, completion_tokens=60))
    found = api.get(reverse("api-request", args=[event.request_id])).json()
    assert (found["stage_reason"], found["stage_reason_text"]) == ("diff", "the last message brings a diff")
    charge = found["charge"]
    assert [(line["kind"], line["tokens"], line["rate_nanos"]) for line in charge["lines"]] == [
        ("input", 150, 150_000_000), ("cached", 50, 150_000_000), ("output", 60, 600_000_000),
    ]  # fmt: skip
    assert charge["total_nanos"] == found["cost"]["nanos"] == better.cost_nanos
    ledger = found["ledger"]
    assert [(line["kind"], line["revision"]) for line in ledger] == [("hold", 0), ("settle", 1), ("adjustment", 2)]
    assert ledger[0]["held_nanos"] == 9_000_000
    assert -sum(line["amount_nanos"] for line in ledger) == better.cost_nanos
    assert [attempt["model"] for attempt in found["attempts"]] == ["gpt-4o-mini"]


def test_the_stage_reason_is_in_the_users_language(api: Client, cast: Cast) -> None:
    event = an_event_of(cast, stage_reason="default")
    happened(cast, event)
    cast.ada.language = "tr"
    cast.ada.save()
    text = api.get(reverse("api-request", args=[event.request_id])).json()["stage_reason_text"]
    assert text != "nothing said otherwise"


@pytest.mark.parametrize("edge", ["end", "start"])
def test_the_ends_of_the_calendar_are_valid_times(api: Client, cast: Cast, edge: str) -> None:
    happened(cast, an_event_of(cast, stage="plan"))
    for moment in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"):
        response = api.get(reverse("api-requests"), {edge: moment, "stage": "plan", "model": "gpt-4o-mini"})
        assert response.status_code == 200, (moment, response.content)
