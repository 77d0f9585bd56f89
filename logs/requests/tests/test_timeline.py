"""The timeline above the log: its numbers are those of the requests that its bars open."""

import re
from datetime import timedelta
from html import unescape

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from codexflow.lib.clock import now
from codexflow.lib.ids import uuid7_floor
from logs.models import RefusalCount
from logs.requests.selectors import Filters
from logs.requests.spans import Span, buckets_of
from logs.requests.timeline import timeline_of
from logs.tests.factories import DAY_MS
from tests.support.cast import Cast, an_event_of, happened


def ago(cast: Cast, minutes: int, **facts: object) -> object:
    """An event that began so many minutes ago, a second into its minute."""
    moment = now().replace(second=1) - timedelta(minutes=minutes)
    started_ms = int(moment.timestamp() * 1000)
    request_id = type(uuid7_floor(moment))(int=uuid7_floor(moment).int + 7 + minutes)
    return an_event_of(cast, request_id=request_id, started_ms=started_ms, day=started_ms // DAY_MS, **facts)


def many(cast: Cast) -> None:
    events = [
        ago(
            cast,
            minutes,
            status=503 if minutes % 3 == 0 else 200,
            error_code="upstream_timeout" if minutes % 3 == 0 else "",
            tag="a" if minutes % 2 else "",
            model="gpt-4o" if minutes % 5 else "deepseek-v3",
            latency_ms=minutes,
        )
        for minutes in (1, 2, 9, 62, 63, 64, 65, 200, 333, 1000, 1300, 2000, 4000, 7000)
    ]
    happened(cast, *events)  # type: ignore[arg-type] # events


@pytest.mark.parametrize("range_name", ["24h", "7d"])
@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"status": "errors"},
        {"model": "gpt-4o"},
        {"q": "-model:gpt-4o"},
        {"q": "tag:a"},
        {"q": "latency:>60ms"},
        {"q": "code:upstream_timeout"},
        {"status": "503"},
    ],
)
def test_every_bar_opens_as_many_requests_as_it_shows(
    client: Client, cast: Cast, range_name: str, filters: dict[str, str]
) -> None:
    many(cast)
    client.force_login(cast.ada)
    where, queries = reverse("log", args=[cast.slug]), [{"range": range_name, **filters}]
    opened = 0
    while queries:
        page = client.get(where, queries.pop())
        assert page.context["timeline"]["counted_from"] is None
        for each in page.context["timeline"]["bars"]:
            bar = each.bar
            if not each.query:
                assert bar.total == 0 or bar.span.end - bar.span.start == timedelta(minutes=1)
                continue
            narrowed = client.get(f"{where}?{each.query}")
            rows = [row.request for row in narrowed.context["rows"]]
            assert len(rows) == bar.ok + bar.failed
            assert sum(row.status >= 400 for row in rows) == bar.failed
            inner = [one.bar for one in narrowed.context["timeline"]["bars"]]
            assert sum(one.total for one in inner) == bar.total, "what is narrowed adds up to the bar"
            opened += 1
    assert opened


def test_bars_are_links_with_words(client: Client, cast: Cast) -> None:
    many(cast)
    moment = now().replace(second=0, microsecond=0) - timedelta(minutes=1)
    RefusalCount.objects.create(
        organization_id=cast.organization.pk, key_id=cast.key.pk, code="rate_limited", minute=moment, count=4
    )
    client.force_login(cast.ada)
    where = reverse("log", args=[cast.slug])
    text = unescape(client.get(where, {"range": "24h"}).content.decode())
    labels = re.findall(r'aria-label="[^"]*: (\d+) succeeded, (\d+) failed, (\d+) refused"', text)
    assert sum(int(refused) for _, _, refused in labels) == 4
    assert sum(int(ok) + int(failed) for ok, failed, _ in labels) == 11
    assert "Refused 4" in text
    # Refused calls have no model: a filter for one leaves them out.
    assert client.get(where, {"model": "gpt-4o"}).context["timeline"]["sums"][2][2] == 0
    assert client.get(where, {"q": "code:rate_limited"}).context["timeline"]["sums"][2][2] == 4
    # Fragments replace it, older rows and searches for an id do without.
    part = client.get(where, {"q": "tag:a"}, headers={"hx-request": "true"}).content.decode()
    assert 'id="timeline"' in part
    # So do the counts and links of both kinds of calls: they are of the same time.
    part = client.get(where, {"range": "30d"}, headers={"hx-request": "true"}).content.decode()
    kinds = re.search(r'<nav [^>]*id="kinds".*?</nav>', part, re.DOTALL)
    assert kinds
    assert 'hx-swap-oob="true"' in kinds[0]
    assert "/logs/refused/?range=30d" in kinds[0]
    assert "timeline" not in client.get(where, {"q": "0198f2c1"}).context


def test_without_filters_no_row_of_the_log_is_counted(cast: Cast) -> None:
    many(cast)
    filters = Filters(start=now() - timedelta(days=7), end=now())
    buckets = buckets_of(Span(filters.start, filters.end), filters.start - timedelta(days=1), now().tzinfo)  # type: ignore[arg-type] # aware
    with CaptureQueriesContext(connection) as captured:
        found = timeline_of(cast.organization.pk, filters, buckets)
    assert sum(bar.total for bar in found.bars) == 14
    assert not [each for each in captured if "request_log" in each["sql"]]


@pytest.mark.parametrize("filters", [{}, {"model": "gpt-4o"}, {"status": "errors"}])
def test_a_late_call_of_a_finished_day_is_counted(cast: Cast, filters: dict[str, str]) -> None:
    """Finished days are cached, until something of them changes."""
    many(cast)
    wanted = Filters(start=now() - timedelta(days=7), end=now(), **filters)  # type: ignore[arg-type] # words
    buckets = buckets_of(Span(wanted.start, wanted.end), wanted.start - timedelta(days=1), now().tzinfo)  # type: ignore[arg-type] # aware
    before = [bar.total for bar in timeline_of(cast.organization.pk, wanted, buckets).bars]
    with CaptureQueriesContext(connection) as captured:
        assert [bar.total for bar in timeline_of(cast.organization.pk, wanted, buckets).bars] == before
    assert sum("SUM" in each["sql"] for each in captured) == 2, "hours before the first whole day, and of today"
    happened(cast, ago(cast, 3003, status=503, error_code="upstream_timeout", model="gpt-4o"))  # type: ignore[arg-type] # an event
    after = [bar.total for bar in timeline_of(cast.organization.pk, wanted, buckets).bars]
    assert sum(after) == sum(before) + 1


def test_out_of_time_it_says_from_when_on_it_counted(cast: Cast) -> None:
    many(cast)
    filters = Filters(start=now() - timedelta(days=7), end=now(), tag="a")
    buckets = buckets_of(Span(filters.start, filters.end), filters.start - timedelta(days=1), now().tzinfo)  # type: ignore[arg-type] # aware
    found = timeline_of(cast.organization.pk, filters, buckets, time_limit_s=0)
    assert found.counted_from is not None
    assert all(bar.total == 0 for bar in found.bars if bar.span.start < found.counted_from)
