"""Refused calls: counted without loss or doubling between gateways and workers, and shown to their organization."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.conf import settings
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from codexflow.lib import clock
from codexflow.lib.ids import new_id
from codexflow.lib.redis import sync_client
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
    client.delete(store.hash_of(PREFIX), f"{store.hash_of(PREFIX)}:taken")


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
        counted.add(organization, key, code, 60.0)
        if failed and number % 7 == 0:
            counted.put_back(counted.take())
    assert {entry.code: count for entry, count in counted.take().items()} == Counter(calls)
    assert counted.take() == {}


def test_a_flood_of_different_codes_takes_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MAX_ENTRIES", 3)
    counted, organization, key = RefusalCounts(), new_id(), new_id()
    for code in "abcde":
        counted.add(organization, key, code, 0)
        counted.add(organization, key, "a", 0)
    assert {entry.code: count for entry, count in counted.take().items()} == {"a": 6, "b": 1, "c": 1}
    assert counted.left_out == 2


@pytest.mark.django_db
def test_workers_add_up_what_gateways_counted(redis: "Redis") -> None:
    organization, key, minute = new_id(), new_id(), int(datetime(2026, 11, 20, 8, tzinfo=UTC).timestamp()) // 60
    first = Refused(organization, key, "rate_limit_exceeded", minute)
    later = first._replace(minute=minute + 5)
    for number, entry in enumerate((first, later, first)):
        redis.hincrby(store.hash_of(PREFIX), field_of(entry), number + 1)
    redis.hincrby(store.hash_of(PREFIX), "nonsense", 1)
    assert store.take_waiting(redis, PREFIX) == 3
    assert store.take_waiting(redis, PREFIX) == 0
    redis.hincrby(store.hash_of(PREFIX), field_of(first), 10)
    assert store.take_waiting(redis, PREFIX) == 1
    day = datetime(2026, 11, 20, tzinfo=UTC)
    (found,) = refusals_of(organization, day, day + timedelta(days=1))
    assert (found.key_id, found.code, found.count) == (key, "rate_limit_exceeded", 16)
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


@pytest.mark.django_db
@pytest.mark.parametrize("page", ["", "logs/"])
def test_pages_show_an_organizations_own_refusals(client: Client, cast: Cast, page: str) -> None:
    happened(cast, an_event_of(cast))
    minute = clock.now().replace(second=0, microsecond=0)
    facts = {"key_id": cast.key.pk, "minute": minute}
    RefusalCount.objects.create(organization_id=cast.organization.pk, code="rate_limit_exceeded", count=1234, **facts)
    RefusalCount.objects.create(organization_id=new_id(), code="insufficient_quota", count=5, **facts)
    client.force_login(cast.vic)
    text = client.get(f"/o/{cast.slug}/{page}").content.decode()
    section = text[text.index('id="refusals"') :].partition("</section>")[0]
    assert "rate_limit_exceeded" in section
    assert "1,234" in section
    assert cast.key.name in section
    assert "insufficient_quota" not in text
