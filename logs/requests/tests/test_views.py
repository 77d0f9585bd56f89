"""The overview, the request log and one request."""

import html
import io
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from billing.models import Plan
from billing.pricing import Usage
from codexflow.lib.ids import new_id, uuid7_floor
from codexflow.templatetags import show
from logs.pipeline.events import AttemptFact, UsageEvent
from tests.support.cast import Cast, an_event_of, happened

HTMX = {"hx-request": "true"}
DAY_MS = 86_400_000


@pytest.fixture
def page(client: Client, cast: Cast) -> Client:
    client.force_login(cast.ada)
    return client


def back(cast: Cast, days: int, **facts: Any) -> UsageEvent:
    """A request of some days ago."""
    event = an_event_of(cast, **facts)
    started_ms = event.started_ms - days * DAY_MS
    moment = datetime.fromtimestamp(started_ms / 1000, UTC)
    request_id = type(event.request_id)(int=uuid7_floor(moment).int | event.request_id.int & (1 << 80) - 1)
    return msgspec.structs.replace(event, request_id=request_id, started_ms=started_ms, day=started_ms // DAY_MS)


def test_before_the_first_request_the_page_says_how(page: Client, cast: Cast) -> None:
    text = page.get(reverse("overview", args=[cast.slug])).content.decode()
    assert "chat/completions" in text
    assert "from openai import OpenAI" in text
    assert "import OpenAI from &quot;openai&quot;" in text
    assert "every 3s" in text


def test_the_waiting_page_turns_into_the_overview(page: Client, cast: Cast) -> None:
    where = reverse("overview", args=[cast.slug])
    waiting = page.get(where, {"waiting": ""}, headers=HTMX)
    assert "Waiting" in waiting.content.decode()
    happened(cast, an_event_of(cast))
    assert page.get(where, {"waiting": ""}, headers=HTMX)["HX-Refresh"] == "true"


def test_the_numbers_of_the_range_and_of_the_time_before(page: Client, cast: Cast) -> None:
    good = an_event_of(cast, latency_ms=1000, ttft_ms=200)
    bad = an_event_of(cast, status=503, error_code="upstream_unavailable", usage=Usage(), latency_ms=1000)
    happened(cast, good, bad, *(back(cast, days, latency_ms=500) for days in (8, 9, 10, 11)))
    answer = page.get(reverse("overview", args=[cast.slug]))
    kpis = {kpi["name"]: kpi for kpi in answer.context["kpis"]}
    values = {name: kpi["value"] for name, kpi in kpis.items()}
    assert values == {"cost": show.usd(good.cost_nanos), "requests": "2", "tokens": "150", "errors": "1"}
    assert (kpis["requests"]["change"], kpis["errors"]["change"]) == (-50, None)
    latency = answer.context["latency"]
    assert latency.latency["p95"] == pytest.approx(1000, rel=0.05)
    assert latency.ttft["p50"] == pytest.approx(200, rel=0.05)
    assert latency.earlier["p95"] == pytest.approx(500, rel=0.05)
    assert answer.context["latency_kpi"]["change"] == pytest.approx(100, abs=10)
    assert 'id="chart-data"' in answer.content.decode()


@pytest.mark.parametrize("group", ["model", "stage", "key", "member"])
@pytest.mark.parametrize("range_name", ["24h", "7d", "30d", "month"])
def test_every_cut_of_the_chart(page: Client, cast: Cast, range_name: str, group: str) -> None:
    happened(cast, *(back(cast, days, user_id=cast.ada.pk) for days in (0, 1, 8, 20)))
    answer = page.get(reverse("overview", args=[cast.slug]), {"range": range_name, "group": group, "metric": "tokens"})
    assert answer.status_code == 200
    spec = answer.context["chart"]["spec"]
    assert all(len(series["values"]) == len(spec["buckets"]) for series in spec["series"])
    (line,) = answer.context["breakdown"]
    expected = {"model": "gpt-4o-mini", "stage": "direct", "key": "prod-web", "member": "Ada"}[group]
    assert (line["name"], line["share"]) == (expected, 100)
    assert line["sums"].tokens == sum(spec["series"][0]["values"])
    # The number opens the requests that it counts.
    listed = page.get(f"{reverse('log', args=[cast.slug])}?{line['query']}").context["rows"]
    if range_name in ("24h", "7d"):
        assert len(listed) == line["sums"].requests


def test_nonsense_in_the_address_is_the_default(page: Client, cast: Cast) -> None:
    happened(cast, an_event_of(cast))
    answer = page.get(reverse("overview", args=[cast.slug]), {"range": "x", "group": "y", "metric": "z"})
    assert [link["is_chosen"] for link in answer.context["ranges"]] == [False, True, False, False]


def test_small_groups_are_added_up_and_those_that_are_gone_keep_a_name(page: Client, cast: Cast) -> None:
    happened(cast, *(msgspec.structs.replace(an_event_of(cast), key_id=new_id()) for _ in range(14)))
    answer = page.get(reverse("overview", args=[cast.slug]), {"group": "key"})
    lines = answer.context["breakdown"]
    assert len(lines) == 13
    assert lines[-1]["sums"].requests == 2
    assert lines[0]["name"].startswith("…")


def test_money_is_for_those_who_may_see_it(client: Client, cast: Cast) -> None:
    happened(cast, an_event_of(cast))
    where = reverse("overview", args=[cast.slug])
    for person, sees in ((cast.ben, True), (cast.vic, False)):
        client.force_login(person)
        assert ("At this pace" in client.get(where).content.decode()) is sees


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, 4),
        ({"stage": "plan"}, 1),
        ({"model": "gpt-4o"}, 1),
        ({"status": "errors"}, 1),
        ({"status": "ok"}, 3),
        ({"status": "503"}, 1),
        ({"range": "24h"}, 3),
        ({"member": "ada"}, 3),
        ({"member": "ben"}, 1),
        ({"stage": "nonsense", "key": "x", "range": "1y"}, 4),
        ({"before": "nonsense", "request": "nonsense"}, 4),
    ],
)
def test_filters_stand_in_the_address(page: Client, cast: Cast, query: dict[str, str], expected: int) -> None:
    happened(
        cast,
        an_event_of(cast, stage="plan", user_id=cast.ada.pk),
        an_event_of(cast, model="gpt-4o", user_id=cast.ada.pk),
        an_event_of(cast, status=503, error_code="upstream_unavailable", user_id=cast.ada.pk),
        back(cast, 3, user_id=cast.ben.pk),
    )
    if "member" in query:
        query = {"member": str(getattr(cast, query["member"]).pk)}
    answer = page.get(reverse("log", args=[cast.slug]), query)
    rows = answer.context["rows"]
    assert len(rows) == expected


def test_a_request_is_found_by_the_beginning_of_its_id(page: Client, cast: Cast) -> None:
    event, other = back(cast, 0), back(cast, 2)
    happened(cast, event, other)
    where = reverse("log", args=[cast.slug])
    found = page.get(where, {"id": str(event.request_id)[:18]}).context["rows"]
    assert [row.request.request_id for row in found] == [event.request_id]
    assert page.get(where, {"id": "no id"}).context["rows"] == []


def test_rows_are_found_by_key(page: Client, cast: Cast) -> None:
    happened(cast, an_event_of(cast))
    where = reverse("log", args=[cast.slug])
    assert len(page.get(where, {"key": str(cast.key.pk)}).context["rows"]) == 1


def test_paging_shows_every_request_once(page: Client, cast: Cast) -> None:
    events = [an_event_of(cast) for _ in range(120)]
    happened(cast, *events)
    where, seen = reverse("log", args=[cast.slug]), []
    query = ""
    while True:
        answer = page.get(f"{where}?{query}", headers=HTMX if query else {})
        seen += [row.request.request_id for row in answer.context["rows"]]
        query = answer.context["older"]
        if not query:
            break
    assert seen == sorted((event.request_id for event in events), reverse=True)


def test_what_the_plan_no_longer_keeps_is_not_shown(page: Client, cast: Cast) -> None:
    happened(cast, back(cast, 10), an_event_of(cast))
    where = reverse("log", args=[cast.slug])
    assert len(page.get(where, {"range": "30d"}).context["rows"]) == 1  # the free plan keeps seven days
    Plan.objects.filter(slug="free").update(log_retention_days=30)
    assert len(page.get(where, {"range": "30d"}).context["rows"]) == 2


def test_filtering_answers_with_the_table_alone(page: Client, cast: Cast) -> None:
    happened(cast, an_event_of(cast))
    where = reverse("log", args=[cast.slug])
    part = page.get(where, headers=HTMX).content.decode()
    assert part.strip().startswith('<div id="results"')
    back_button = page.get(where, headers={**HTMX, "hx-history-restore-request": "true"}).content.decode()
    assert "<html" in back_button


def test_no_hits_offer_to_clear_the_filters(page: Client, cast: Cast) -> None:
    assert "Clear filters" in page.get(reverse("log", args=[cast.slug]), {"stage": "plan"}).content.decode()


def test_a_request_says_why_it_was_charged(page: Client, cast: Cast) -> None:
    event = an_event_of(
        cast,
        usage=Usage(prompt_tokens=1000, cached_tokens=400, cache_write_tokens=300, completion_tokens=500),
        hold_nanos=9_000_000,
        attempts=(
            AttemptFact(n=1, model="gpt-4o", status=502, error_code="upstream_error", duration_ms=100),
            AttemptFact(n=2, model="gpt-4o-mini", status=200, started_offset_ms=100, first_byte_ms=50, duration_ms=300),
        ),
        latency_ms=400,
    )
    happened(cast, event)
    where = reverse("request", args=[cast.slug, event.request_id])
    text = page.get(where).content.decode()
    for shown in ("$0.000045", "$0.000060", "$0.000300", "$0.000450", "$0.009000", "upstream_error", "Input, to cache"):
        assert shown in text, shown
    part = page.get(where, headers=HTMX).content.decode()
    assert "<html" not in part
    opened = page.get(reverse("log", args=[cast.slug]), {"request": str(event.request_id)}).content.decode()
    assert "data-open" in opened
    assert "$0.000450" in opened


def test_the_ledger_is_not_for_those_who_may_not_see_money(client: Client, cast: Cast) -> None:
    event = an_event_of(cast)
    happened(cast, event)
    client.force_login(cast.vic)
    assert (
        "Held at the start" not in client.get(reverse("request", args=[cast.slug, event.request_id])).content.decode()
    )


@pytest.mark.parametrize("name", ["overview", "log"])
def test_the_number_of_queries_does_not_grow_with_the_requests(page: Client, cast: Cast, name: str) -> None:
    where = reverse(name, args=[cast.slug])
    happened(cast, an_event_of(cast))
    page.get(where)
    with CaptureQueriesContext(connection) as few:
        page.get(where)
    happened(cast, *(an_event_of(cast) for _ in range(40)))
    with CaptureQueriesContext(connection) as many:
        page.get(where)
    assert len(many) <= len(few)
    assert not [each for each in many.captured_queries if "COUNT(*)" in each["sql"] and "request_log" in each["sql"]]


def test_a_request_says_why_its_stage_and_how_to_make_it_again(page: Client, cast: Cast) -> None:
    event = an_event_of(cast, stage="plan", stage_reason="keyword", requested_model="cfx-auto", is_stream=True)
    happened(cast, event)
    text = html.unescape(page.get(reverse("request", args=[cast.slug, event.request_id])).content.decode())
    assert "words of the last message" in text
    assert "-H 'X-CFX-Stage: plan'" in text
    assert '"stream": true' in text


def test_a_wrong_stage_is_kept_changed_and_taken_back(client: Client, cast: Cast) -> None:
    event = an_event_of(cast, stage="code", stage_reason="default", requested_model="cfx-auto")
    happened(cast, event)
    client.force_login(cast.ben)
    where = reverse("request-stage", args=[cast.slug, event.request_id])
    part = client.post(where, {"right_stage": "review"}, headers=HTMX).content.decode()
    assert "Should have been" in part
    client.post(where, {"right_stage": "plan"})
    assert client.post(where, {"right_stage": "nonsense"}).status_code == 404
    (line,) = told_stages()
    assert (line["request_id"], line["right_stage"], line["stage"], line["reason"]) == (
        str(event.request_id), "plan", "code", "default",
    )  # fmt: skip
    assert set(line) == {
        "request_id", "organization_id", "judged_at", "surface", "requested_model", "stage", "reason", "right_stage",
    }  # fmt: skip
    assert told_stages("--since", "2999-01-01") == []
    client.post(where, {"right_stage": "code"})
    assert told_stages() == []


def told_stages(*words: str) -> list[Any]:
    out = io.StringIO()
    call_command("wrong_stages", *words, stdout=out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_viewer_does_not_judge_stages(client: Client, cast: Cast) -> None:
    event = an_event_of(cast)
    happened(cast, event)
    client.force_login(cast.vic)
    text = client.get(reverse("request", args=[cast.slug, event.request_id])).content.decode()
    assert "Wrong stage?" not in text
    assert "Export" not in client.get(reverse("log", args=[cast.slug])).content.decode()


def test_live_goes_on_after_a_reload(page: Client, cast: Cast) -> None:
    field = 'id="live-field" disabled'
    where = reverse("log", args=[cast.slug])
    assert field in page.get(where).content.decode()
    assert field not in page.get(where, {"live": "1"}).content.decode()


def test_the_keyboard_stays_where_older_requests_are_asked_for(page: Client, cast: Cast) -> None:
    """The script puts the focus on what has the same id as before; without, it goes back to the top of the page."""
    happened(cast, *(an_event_of(cast) for _ in range(101)))
    answer = page.get(reverse("log", args=[cast.slug]))
    for _ in range(2):
        assert answer.content.decode().count('id="load-older"') == (1 if answer.context["older"] else 0)
        answer = page.get(f"{reverse('log', args=[cast.slug])}?{answer.context['older']}", headers=HTMX)
    assert not answer.context["older"]
