"""Sync from LiteLLM's own log, against a stand-in that behaves like three versions of it."""

import dataclasses
import hashlib
import io
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from redis import Redis

from billing.models import SpendDaily
from billing.tests.factories import an_organization
from codexflow.lib import clock
from codexflow.lib.ids import random_id
from codexflow.lib.redis import sync_client
from logs.litellm import sync as syncing
from logs.litellm.client import KeyRefused, LitellmClient, LitellmError, NoDatabase, TooManyRows
from logs.litellm.ingest import Taken, take
from logs.litellm.sync import WIDE, days_back, read_window
from logs.litellm.tests.factories import a_mapped_key, a_payload, a_spend_row
from logs.models import RequestLog, SyncRun, UnmatchedReport
from logs.pipeline.drain import store
from logs.pipeline.events import RANK_COUNTED, AttemptFact, UsageEvent
from logs.pipeline.verify import verify_rollups
from logs.tests.factories import an_event, entries
from tests.support.litellm_admin import ADMIN_KEY, LitellmAdmin

pytestmark = pytest.mark.django_db(transaction=True)
VERSIONS = ["1.80.8", "1.90.0", "1.109.1"]
CUSTOMER = hashlib.sha256(b"sk-customer").hexdigest()


@pytest.fixture(params=VERSIONS)
def versions(request: pytest.FixtureRequest) -> Iterator[LitellmAdmin]:
    with LitellmAdmin(request.param) as litellm:
        yield litellm


@pytest.fixture
def litellm(settings: Any) -> Iterator[LitellmAdmin]:
    with LitellmAdmin() as made:
        settings.ENV = dataclasses.replace(
            settings.ENV,
            litellm_url=made.url,
            litellm_admin_key=ADMIN_KEY,
            litellm_sync="spend_logs",
            is_demo_upstream=False,
            redis_prefix=f"sync_{random_id().hex}",
        )
        yield made


@pytest.fixture
def redis(settings: Any) -> Redis:
    return sync_client(settings.ENV.redis_url)


def client_of(litellm: LitellmAdmin, key: str = ADMIN_KEY) -> LitellmClient:
    return LitellmClient(litellm.url, key, pause=lambda _s: None)


def read(litellm: LitellmAdmin) -> SyncRun:
    now = clock.now()
    with client_of(litellm) as client:
        return read_window(client, now - timedelta(hours=1), now + timedelta(minutes=1), redis=None, prefix="")


def a_request(number: int = 0) -> UsageEvent:
    won = AttemptFact(n=1, model="gpt-4o-mini", status=200, first_byte_ms=1, response_id=f"chatcmpl-{number}")
    return an_event(an_organization().id, random_id(), rank=RANK_COUNTED, attempts=(won,))


def spend_row(call_id: str, **fields: Any) -> dict[str, Any]:
    return a_spend_row(a_payload(call_id, **fields))


def test_rows_of_every_version_correct_their_requests_once(versions: LitellmAdmin) -> None:
    events = [a_request(number) for number in range(5)]
    store(entries(events))
    versions.rows = [spend_row(f"{event.request_id}.1", id=f"chatcmpl-{n}") for n, event in enumerate(events)]
    first, second = read(versions), read(versions)
    assert (first.error, first.seen, first.new, first.duplicate, first.unmatched) == ("", 5, 5, 0, 0)
    assert (second.error, second.seen, second.new, second.duplicate) == ("", 5, 0, 5)
    assert set(RequestLog.objects.values_list("usage_rank", "completion_tokens")) == {(30, 60)}
    assert RequestLog.objects.count() == 5
    assert verify_rollups() == []


def test_pages_are_read_until_one_is_empty(versions: LitellmAdmin) -> None:
    key = a_mapped_key(CUSTOMER)
    count = 250
    now_s = clock.now_s()
    versions.rows = [
        spend_row(f"c{n}", key_hash=CUSTOMER, started_s=now_s - n, response_cost=0.001) for n in range(count)
    ]
    run = read(versions)
    assert (run.error, run.seen, run.new) == ("", count, count)
    queries = [query for path, query in versions.asked if path == "/spend/logs/v2"]
    sizes = {int(query["page_size"]) for query in queries}
    assert sizes == ({1000} if versions.version == "1.109.1" else {1000, 100})
    assert SpendDaily.objects.get(organization_id=key.organization_id, key_id=key.pk).requests == count
    assert RequestLog.objects.filter(source="sync", cost_nanos=0, upstream_cost_nanos=1_000_000).count() == count
    assert read(versions).new == 0


def test_rows_beyond_the_capped_total_are_read(litellm: LitellmAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.litellm_admin.CAP", 100)
    monkeypatch.setattr("logs.litellm.client.PAGE_SIZES", (100,))
    litellm.rows = [spend_row(f"c{n}", key_hash=CUSTOMER, started_s=clock.now_s() - n) for n in range(250)]
    run = read(litellm)
    assert (run.seen, run.pages, run.unmatched) == (250, 3, 250)


def test_rows_written_during_a_run_are_found_by_the_next_at_the_latest(litellm: LitellmAdmin) -> None:
    a_mapped_key(CUSTOMER)
    litellm.rows = [spend_row(f"c{n}", key_hash=CUSTOMER, started_s=clock.now_s() - 60 - n) for n in range(30)]
    read(litellm)
    # Long calls are written late and dated by their start.
    litellm.rows += [spend_row(f"late{n}", key_hash=CUSTOMER, started_s=clock.now_s() - 1800) for n in range(3)]
    assert read(litellm).new == 3
    assert RequestLog.objects.count() == 33


def test_a_wrong_key_and_a_missing_database_have_errors_of_their_own(litellm: LitellmAdmin) -> None:
    now = clock.now()
    with client_of(litellm, "sk-wrong") as client, pytest.raises(KeyRefused, match="LITELLM_ADMIN_KEY"):
        next(client.spend_rows(now, now))
    litellm.has_database = False
    for key in (ADMIN_KEY, "sk-wrong"):
        with client_of(litellm, key) as client, pytest.raises(NoDatabase, match="DATABASE_URL"):
            next(client.spend_rows(now, now))


def test_temporary_failures_are_retried_and_lasting_ones_end_the_run(litellm: LitellmAdmin) -> None:
    litellm.rows = [spend_row("c", key_hash=CUSTOMER)]
    litellm.fail_next = 3
    assert (read(litellm).error, read(litellm).seen) == ("", 1)
    litellm.fail_next = 99
    run = read(litellm)
    assert run.error.startswith("litellm_failed:")
    assert run.ended_at is not None
    with LitellmClient("http://127.0.0.1:1", "k", pause=lambda _s: None) as client, pytest.raises(LitellmError):
        next(client.spend_rows(clock.now(), clock.now()))


def test_the_sync_pauses_after_a_failure_that_only_an_operator_can_end(
    litellm: LitellmAdmin, redis: Redis, settings: Any
) -> None:
    prefix = settings.ENV.redis_prefix
    litellm.has_database = False
    assert "no_database" in syncing.sync(redis, prefix)
    asked = len(litellm.asked)
    assert syncing.sync(redis, prefix).startswith("paused: no_database")
    assert len(litellm.asked) == asked
    litellm.has_database = True
    SyncRun.objects.update(started_at=clock.now() - timedelta(hours=2))
    assert syncing.sync(redis, prefix).startswith("seen 0")
    assert SyncRun.objects.filter(error="").count() == 2  # the last hour, and two days


def test_every_run_reads_the_last_hour_and_one_a_day_the_last_two_days(
    litellm: LitellmAdmin, redis: Redis, settings: Any
) -> None:
    for _ in range(3):
        syncing.sync(redis, settings.ENV.redis_prefix)
    hours = [(run.window_end - run.window_start) // timedelta(hours=1) for run in SyncRun.objects.order_by("pk")]
    assert hours == [1, 48, 1, 1]
    assert all(run.is_complete for run in SyncRun.objects.all())


def a_wide_run() -> SyncRun:
    """The only wide run."""
    (run,) = [each for each in SyncRun.objects.order_by("pk") if each.window_end - each.window_start >= WIDE]
    return run


def test_a_killed_wide_run_is_resumed_where_it_was(
    litellm: LitellmAdmin, redis: Redis, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = a_mapped_key(CUSTOMER)
    ages_h = (40, 30, 20, 10)
    litellm.rows = [
        spend_row(f"c{age}", key_hash=CUSTOMER, started_s=clock.now_s() - age * 3600 - 30) for age in ages_h
    ]
    taken: list[Any] = []

    def killed_at_the_third(*args: Any, **kwargs: Any) -> Taken:
        taken.append(args)
        if len(taken) == 3:
            raise SystemExit  # not an error that the run could store
        return take(*args, **kwargs)

    monkeypatch.setattr(syncing, "take", killed_at_the_third)
    with pytest.raises(SystemExit):
        syncing.sync(redis, settings.ENV.redis_prefix)
    cut = a_wide_run()
    assert (cut.seen, cut.ended_at, cut.is_complete) == (2, None, False)
    assert cut.reached is not None
    assert timedelta(hours=20) < clock.now() - cut.reached < timedelta(hours=21)
    litellm.asked.clear()
    assert syncing.sync(redis, settings.ENV.redis_prefix) == "seen 0, new 0, unmatched 0; seen 4, new 4, unmatched 0"
    asked = sorted(query["start_date"] for path, query in litellm.asked if path == "/spend/logs/v2")
    assert asked[0] == f"{cut.reached:%Y-%m-%d %H:%M:%S}"
    assert a_wide_run().is_complete
    assert RequestLog.objects.filter(key_id=key.pk).count() == 4


def test_a_wide_run_ends_at_its_time_limit_and_is_resumed(
    litellm: LitellmAdmin, redis: Redis, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syncing, "TIME_LIMIT_S", -1.0)
    line = syncing.sync(redis, settings.ENV.redis_prefix)
    first = a_wide_run()
    assert line == f"seen 0, new 0, unmatched 0; seen 0, new 0, unmatched 0, up to {first.window_start:%F %T}"
    monkeypatch.undo()
    syncing.sync(redis, settings.ENV.redis_prefix)
    assert (a_wide_run().pk, a_wide_run().is_complete) == (first.pk, True)


def test_days_without_a_sync_are_read_afterwards(litellm: LitellmAdmin, redis: Redis, settings: Any) -> None:
    now = clock.now()
    ended = now - timedelta(days=5)
    SyncRun.objects.create(started_at=ended, window_start=ended - WIDE, window_end=ended, reached=ended)
    a_mapped_key(CUSTOMER)
    litellm.rows = [spend_row("c", key_hash=CUSTOMER, started_s=clock.now_s() - 4 * 86_400)]
    syncing.sync(redis, settings.ENV.redis_prefix)
    assert RequestLog.objects.count() == 1


def test_a_day_with_too_many_rows_does_not_hide_the_next(
    litellm: LitellmAdmin, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.ENV = dataclasses.replace(settings.ENV, litellm_sync="documented")
    monkeypatch.setattr("logs.litellm.client.DOCUMENTED_LIMITS", (2,))
    now = clock.now()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    moments = [midnight - timedelta(hours=each) for each in (3, 2, 1)] + [midnight]
    litellm.logs = [
        {"id": f"log_{n}", "created_at": moment.isoformat(), "model": "m", "total_tokens": 1, "spend": 0}
        for n, moment in enumerate(moments)
    ]
    with client_of(litellm) as client:
        run = read_window(client, midnight - timedelta(days=1), now, redis=None, prefix="")
    assert run.error.startswith("too_many_rows:")
    assert (run.seen, run.is_complete) == (3, True)


def test_an_unconfigured_sync_reads_nothing(litellm: LitellmAdmin, redis: Redis, settings: Any) -> None:
    for change in ({"litellm_sync": "off"}, {"litellm_admin_key": ""}, {"is_demo_upstream": True}):
        before = settings.ENV
        settings.ENV = dataclasses.replace(before, **change)
        assert syncing.sync(redis, before.redis_prefix).startswith("off")
        settings.ENV = before
    assert litellm.asked == []


def test_two_runs_do_not_overlap(litellm: LitellmAdmin, redis: Redis, settings: Any) -> None:
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [syncing.ADVISORY_LOCK])
            assert syncing.sync(redis, settings.ENV.redis_prefix) == "another one is running"
            assert litellm.asked == []
            # Closing the connection would release the lock as well, but some time later.
            cursor.execute("SELECT pg_advisory_unlock(%s)", [syncing.ADVISORY_LOCK])
    finally:
        other.close()
    assert syncing.sync(redis, settings.ENV.redis_prefix).startswith("seen 0")


def test_a_key_is_found_by_any_of_litellms_names(litellm: LitellmAdmin) -> None:
    key = a_mapped_key("team-alias")
    litellm.keys = [{"token": CUSTOMER, "key_alias": "team-alias", "key_name": "sk-...ab"}]
    litellm.rows = [spend_row("c", key_hash=CUSTOMER)]
    assert read(litellm).new == 1
    assert RequestLog.objects.get().key_id == key.pk


def test_the_documented_endpoints_are_read_when_configured(litellm: LitellmAdmin, settings: Any) -> None:
    settings.ENV = dataclasses.replace(settings.ENV, litellm_sync="documented")
    key = a_mapped_key("key_id_1")
    litellm.keys = [{"key_id": "key_id_1", "token": "sk-customer", "metadata": {"user_email": "a@example.org"}}]
    litellm.logs = [
        {
            "id": f"log_{n}", "created_at": (clock.now() - timedelta(seconds=n)).isoformat(), "model": "gpt-4o-mini",
            "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150, "spend": 0.001, "response_time": 1.5,
            "status_code": 200, "user_api_key": "sk-customer", "path": "/v1/chat/completions",
        }
        for n in range(3)
    ]  # fmt: skip
    first, second = read(litellm), read(litellm)
    assert (first.error, first.new, first.reported_requests, first.reported_cost_nanos) == ("", 3, 3, 3_000_000)
    assert (second.new, second.duplicate) == (0, 3)
    row = RequestLog.objects.first()
    assert row is not None
    assert (row.key_id, row.latency_ms, row.endpoint, row.source) == (key.pk, 1500, "/v1/chat/completions", "sync")
    assert "sk-customer" not in str(list(RequestLog.objects.values())) + str(list(UnmatchedReport.objects.values()))


def test_the_import_reads_a_month_day_by_day_and_shows_its_progress(litellm: LitellmAdmin) -> None:
    a_mapped_key(CUSTOMER)
    now_s = clock.now_s()
    litellm.rows = [spend_row(f"c{n}", key_hash=CUSTOMER, started_s=now_s - n * 86_400) for n in range(30)]
    out = io.StringIO()
    call_command("import_litellm", "--days", "30", stdout=out)
    lines = out.getvalue().splitlines()
    assert lines[0] == f"[{'.' * 30}] 0/30 days, 0 rows, 0 new"
    assert lines[-1] == "30 rows of 30 days: 30 new, 0 unmatched."
    assert f"[{'#' * 30}] 30/30 days, 30 rows, 30 new" in lines
    assert RequestLog.objects.count() == 30
    call_command("import_litellm", "--days", "30", stdout=out)
    assert out.getvalue().splitlines()[-1] == "30 rows of 30 days: 0 new, 0 unmatched."
    assert len(days_back(30)) == 30


def test_the_import_ends_with_the_error(litellm: LitellmAdmin) -> None:
    litellm.has_database = False
    with pytest.raises(CommandError, match="no_database"):
        call_command("import_litellm", stdout=io.StringIO())
    for days in ("0", "35"):
        with pytest.raises(CommandError, match="--days"):
            call_command("import_litellm", "--days", days, stdout=io.StringIO())


@pytest.mark.parametrize(("most", "seen", "is_cut"), [(10, 5, False), (2, 2, True), (4, 4, True)])
def test_a_day_is_read_as_far_as_litellm_gives_it(
    litellm: LitellmAdmin, monkeypatch: pytest.MonkeyPatch, most: int, seen: int, is_cut: bool
) -> None:
    monkeypatch.setattr("logs.litellm.client.DOCUMENTED_LIMITS", (2, 4, 8))
    rows = [{"id": f"log_{n}"} for n in range(5)]

    def get(_client: Any, _path: str, query: Any) -> httpx.Response:
        given = rows[: min(query["limit"], most)]
        return httpx.Response(200, json={"data": given}, request=httpx.Request("GET", litellm.url))

    monkeypatch.setattr(LitellmClient, "_get", get)
    found: list[Any] = []
    with client_of(litellm) as client:
        pages = client.documented_rows(clock.now(), clock.now())
        found += next(pages)
        if is_cut:
            with pytest.raises(TooManyRows):
                next(pages)
        else:
            assert not list(pages)
    assert len(found) == seen
