"""The overview, the request log and one request."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from billing.models import Plan
from billing.pricing import Usage
from codexflow.lib.ids import uuid7_floor
from codexflow.templatetags import show
from codexflow.testing.cast import Cast, an_event_of, happened
from logs.events import AttemptFact, UsageEvent

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


def test_today_s_numbers(page: Client, cast: Cast) -> None:
    good = an_event_of(cast)
    bad = an_event_of(cast, status=503, error_code="upstream_unavailable", usage=Usage())
    happened(cast, good, bad)
    answer = page.get(reverse("overview", args=[cast.slug]))
    values = {kpi["name"]: kpi["value"] for kpi in answer.context["kpis"]}
    assert values == {"cost": show.usd(good.cost_nanos), "requests": "2", "tokens": "150", "errors": "1"}
    assert 'id="chart-data"' in answer.content.decode()


@pytest.mark.parametrize("query", ["range=24h", "range=30d&group=stage&metric=tokens", "range=x&group=y&metric=z"])
def test_every_cut_of_the_chart(page: Client, cast: Cast, query: str) -> None:
    happened(cast, *(back(cast, days) for days in (0, 1, 8, 20)))
    answer = page.get(f"{reverse('overview', args=[cast.slug])}?{query}")
    assert answer.status_code == 200
    spec = answer.context["chart"]["spec"]
    assert all(len(series["values"]) == len(spec["buckets"]) for series in spec["series"])


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
        ({"stage": "nonsense", "key": "x", "range": "1y"}, 4),
        ({"before": "nonsense", "request": "nonsense"}, 4),
    ],
)
def test_filters_stand_in_the_address(page: Client, cast: Cast, query: dict[str, str], expected: int) -> None:
    happened(
        cast,
        an_event_of(cast, stage="plan"),
        an_event_of(cast, model="gpt-4o"),
        an_event_of(cast, status=503, error_code="upstream_unavailable"),
        back(cast, 3),
    )
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
        usage=Usage(prompt_tokens=1000, cached_tokens=400, completion_tokens=500),
        hold_nanos=9_000_000,
        attempts=(
            AttemptFact(n=1, model="gpt-4o", status=502, error_code="upstream_error", duration_ms=100),
            AttemptFact(n=2, model="gpt-4o-mini", status=200, started_ms=100, first_byte_ms=50, duration_ms=300),
        ),
        latency_ms=400,
    )
    happened(cast, event)
    where = reverse("request", args=[cast.slug, event.request_id])
    text = page.get(where).content.decode()
    for shown in ("$0.000090", "$0.000060", "$0.000300", "$0.000450", "$0.009000", "upstream_error", "Input, cached"):
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
    assert len(many) == len(few)
    assert not [each for each in many.captured_queries if "COUNT(*)" in each["sql"] and "request_log" in each["sql"]]
