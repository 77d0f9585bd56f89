"""Refused calls: counted without loss or doubling between gateways and workers, and shown to their organization."""

import html
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from codexflow.lib import clock
from codexflow.lib.ids import new_id
from codexflow.lib.redis import sync_client
from keys.tests.factories import a_key
from logs.models import RefusalCount
from logs.refusals import counts, store
from logs.refusals.counts import RefusalCounts, Refused, entry_of, field_of
from logs.refusals.selectors import refusals_of
from tests.support.cast import Cast, an_event_of, happened

PREFIX = f"{settings.ENV.redis_prefix}_refusals"


@pytest.fixture
def redis() -> Iterator["Redis"]:
    client = sync_client(settings.ENV.redis_url)
    yield client
    names = (store.hash_of(PREFIX), store.messages_of(PREFIX))
    client.delete(*names, *(f"{name}:taken" for name in names))


entries = st.builds(
    Refused, st.uuids(), st.uuids(), st.from_regex(r"[a-z_]{1,40}", fullmatch=True), st.integers(0, 10**9)
)


@given(entry=entries)
def test_an_entry_reads_back(entry: Refused) -> None:
    assert entry_of(field_of(entry)) == entry


@pytest.mark.parametrize("field", ["", "a:b:c:d", "x", f"{UUID(int=1).hex}:{UUID(int=1).hex}:x:code"])
def test_what_is_no_entry_is_left_out(field: str) -> None:
    assert entry_of(field) is None


@given(calls=st.lists(st.sampled_from("abc"), max_size=50), failed=st.booleans())
def test_every_call_is_counted_once(calls: list[str], failed: bool) -> None:
    counted, organization, key = RefusalCounts(), new_id(), new_id()
    for number, code in enumerate(calls):
        counted.add(organization, key, code, f"{code} happened", 60.0)
        if failed and number % 7 == 0:
            counted.put_back(*counted.take())
    found, messages = counted.take()
    assert {entry.code: count for entry, count in found.items()} == Counter(calls)
    assert {entry.code: message for entry, message in messages.items()} == {c: f"{c} happened" for c in calls}
    assert counted.take() == ({}, {})


def test_a_flood_of_different_codes_takes_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MAX_ENTRIES", 3)
    counted, organization, key = RefusalCounts(), new_id(), new_id()
    for code in "abcde":
        counted.add(organization, key, code, "x" * 1000, 0)
        counted.add(organization, key, "a", "", 0)
    found, messages = counted.take()
    assert {len(message) for message in messages.values()} == {counts.MAX_MESSAGE}
    assert {entry.code: count for entry, count in found.items()} == {"a": 6, "b": 1, "c": 1}
    assert counted.left_out == 2


@pytest.mark.django_db
def test_workers_add_up_what_gateways_counted(redis: "Redis") -> None:
    organization, key, minute = new_id(), new_id(), int(datetime(2026, 11, 20, 8, tzinfo=UTC).timestamp()) // 60
    first = Refused(organization, key, "rate_limit_exceeded", minute)
    later = first._replace(minute=minute + 5)
    for number, entry in enumerate((first, later, first)):
        redis.hincrby(store.hash_of(PREFIX), field_of(entry), number + 1)
        redis.hset(store.messages_of(PREFIX), field_of(entry), f"Retry in {number} s\0")
    redis.hincrby(store.hash_of(PREFIX), "nonsense", 1)
    assert store.take_waiting(redis, PREFIX) == 2
    assert store.take_waiting(redis, PREFIX) == 0
    redis.hincrby(store.hash_of(PREFIX), field_of(first), 10)
    assert store.take_waiting(redis, PREFIX) == 1
    day = datetime(2026, 11, 20, tzinfo=UTC)
    (found,) = refusals_of(organization, day, day + timedelta(days=1))
    assert (found.key_id, found.code, found.count) == (key, "rate_limit_exceeded", 16)
    assert found.message == "Retry in 1 s"  # of the last minute
    assert {each.message for each in RefusalCount.objects.all()} == {"Retry in 2 s", "Retry in 1 s"}
    assert found.last - found.first == timedelta(minutes=5)
    assert refusals_of(organization, day, day + timedelta(days=1), key_id=new_id()) == []
    assert refusals_of(new_id(), day, day + timedelta(days=1)) == []
    assert store.delete_before(day.date()) == 0
    assert store.delete_before(day.date() + timedelta(days=1)) == 2
    assert not RefusalCount.objects.exists()


@pytest.mark.django_db
def test_what_a_dead_worker_took_is_stored_by_the_next(redis: "Redis") -> None:
    entry = Refused(new_id(), new_id(), "a", 1)
    redis.hincrby(f"{store.hash_of(PREFIX)}:taken", field_of(entry), 4)
    redis.hincrby(store.hash_of(PREFIX), field_of(entry), 3)
    store.take_waiting(redis, PREFIX)
    store.take_waiting(redis, PREFIX)
    assert RefusalCount.objects.get().count == 7


def refuse(cast: Cast, code: str, count: int = 1, *, minutes_ago: int = 0, **facts: Any) -> None:
    minute = clock.now().replace(second=0, microsecond=0) - timedelta(minutes=minutes_ago)
    given = {"organization_id": cast.organization.pk, "key_id": cast.key.pk, "minute": minute, **facts}
    RefusalCount.objects.create(code=code, count=count, **given)


def refused_figure(page: str) -> str:
    mark = page.index('data-kpi="refused"')
    return page[page.rindex("<a ", 0, mark) : page.index("</a>", mark)]


@pytest.mark.django_db
def test_the_overview_counts_refused_calls_and_leads_to_their_page(client: Client, cast: Cast) -> None:
    happened(cast, an_event_of(cast))
    refuse(cast, "rate_limit_exceeded", 1234)
    refuse(cast, "insufficient_quota", 5, organization_id=new_id())
    client.force_login(cast.vic)
    text = client.get(f"/o/{cast.slug}/").content.decode()
    figure = refused_figure(text)
    assert "1,234" in figure
    assert "text-error" in figure
    found = re.search(r'href="([^"]+)"', figure)
    assert found
    listed = client.get(html.unescape(found[1]))
    assert listed.context["calls"] == 1234
    assert "since=" in listed.context["log_query"]
    assert client.get(listed.request["PATH_INFO"], {"since": "2999-01-01T00:00:00Z"}).context["calls"] == 0
    section = text[text.index('id="refusals"') :].partition("</section>")[0]
    assert "Requests per minute used up" in section
    assert "1,234" in section
    assert cast.key.name in section
    assert "Credit or budget" not in text


@pytest.mark.django_db
def test_nothing_refused_is_not_red(client: Client, cast: Cast) -> None:
    happened(cast, an_event_of(cast))
    client.force_login(cast.vic)
    text = client.get(f"/o/{cast.slug}/").content.decode()
    assert "text-error" not in refused_figure(text)
    assert 'id="refusals"' not in text


@pytest.mark.django_db
def test_the_page_of_refused_calls_says_which_limit_and_what_to_do(client: Client, cast: Cast) -> None:
    refuse(cast, "daily_quota_exceeded", 40, message="200 requests a day on plan Free, all used", minutes_ago=7)
    refuse(cast, "daily_quota_exceeded", 2, message="300 requests a day on plan Free, all used <b>")
    refuse(cast, "model_not_allowed", 9, minutes_ago=60 * 26)
    refuse(cast, "code_of_tomorrow", 3)
    refuse(cast, "insufficient_quota", 5, organization_id=new_id())
    client.force_login(cast.vic)
    address = f"/o/{cast.slug}/logs/refused/"
    text = client.get(address).content.decode()
    assert "42 calls" in text
    assert "300 requests a day on plan Free, all used &lt;b&gt;" in text
    assert "Wait until midnight UTC" in text
    assert '/docs/errors/#daily_quota_exceeded"' in text
    assert cast.key.name in text
    assert "code_of_tomorrow" in text
    assert "insufficient_quota" not in text
    assert "model_not_allowed" not in text  # the day before
    assert "There is no such model here" in client.get(f"{address}?range=7d").content.decode()
    only = client.get(f"{address}?range=7d&code=model_not_allowed").content.decode()
    assert "There is no such model here" in only
    assert "Requests of the day used up" not in only
    assert "No refused call matches" in client.get(f"{address}?key={new_id()}").content.decode()


@pytest.mark.django_db
def test_a_filter_that_only_refused_calls_would_match_leads_to_them(client: Client, cast: Cast) -> None:
    refuse(cast, "rate_limit_exceeded", 52)
    client.force_login(cast.vic)
    text = client.get(f"/o/{cast.slug}/logs/?status=429&key={cast.key.pk}").content.decode()
    said = text[text.index('id="refused-instead"') :].partition("</p>")[0]
    assert "52 calls were refused in this time" in said
    assert f"key={cast.key.pk}" in said


@pytest.mark.django_db
def test_the_log_is_filtered_by_error_code(client: Client, cast: Cast) -> None:
    failed = an_event_of(cast, status=504, error_code="upstream_timeout")
    other = an_event_of(cast, status=503, error_code="upstream_unavailable")
    happened(cast, failed, other)
    client.force_login(cast.vic)
    text = client.get(f"/o/{cast.slug}/logs/?code=upstream_timeout").content.decode()
    assert str(failed.request_id) in text
    assert str(other.request_id) not in text
    assert "letters, digits and underscores" in client.get(f"/o/{cast.slug}/logs/?code=a%20b").content.decode()


@pytest.mark.django_db
def test_a_failed_request_says_why_and_what_the_caller_was_sent(client: Client, cast: Cast) -> None:
    events = [
        an_event_of(cast, status=504, error_code="upstream_timeout"),
        an_event_of(cast, status=400, error_code="upstream_refused"),
        an_event_of(cast),
    ]
    happened(cast, *events)
    client.force_login(cast.vic)
    timeout, refused, fine = (client.get(f"/o/{cast.slug}/logs/{each.request_id}/").content.decode() for each in events)
    assert "No model responded in time" in timeout
    assert "did not answer in time" in timeout  # the message itself
    assert '/docs/errors/#upstream_timeout"' in timeout
    assert "because it may quote the prompt" in refused
    assert 'id="why-failed"' not in fine


@pytest.mark.django_db
def test_the_api_takes_the_first_day_of_the_calendar_for_an_end(client: Client) -> None:
    headers = {"authorization": f"Bearer {a_key().plain}"}
    for query in ({"end": "0001-01-01"}, {"start": "0001-01-01"}, {"start": "0001-01-01", "end": "9999-12-31"}):
        response = client.get(reverse("api-refusals"), query, headers=headers)
        assert (response.status_code, response.json()) == (200, {"data": []}), query
    turned = client.get(reverse("api-refusals"), {"start": "9999-12-31", "end": "0001-01-01"}, headers=headers)
    assert turned.json()["error"]["param"] == "start"
