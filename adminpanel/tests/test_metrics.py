"""GET /metrics: authorization, values, and scrapes during outages. On real PostgreSQL and Valkey."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from django.conf import settings
from django.db import connections
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from adminpanel.metrics import METRICS, PATH, PREFIX, Metrics, text_of
from billing.limiter.limits import ShardKeys
from codexflow.catalogue import directory
from codexflow.env import REPOSITORY, Env
from codexflow.lib import clock
from codexflow.lib.ids import random_id
from codexflow.lib.redis import sync_client
from keys.tests.factories import a_key
from logs.litellm.daily import FIELDS
from logs.models import DayReconciled, DeadLetter, RefusalCount, SyncRun, UnmatchedReport
from logs.pipeline.drain import Entry, store
from logs.pipeline.events import encode
from logs.tests.factories import an_event
from routing.upstream.breaker_store import key_of

pytestmark = pytest.mark.django_db(transaction=True)
TOKEN = "a-token-of-some-length"
BEARER = f"Bearer {TOKEN}".encode()
UNREACHABLE = "127.0.0.1:1"  # no server listens there
Values = dict[tuple[str, tuple[str, ...]], float]


@pytest.fixture
def env(tmp_path: Path) -> Iterator[Env]:
    directory.load(settings.ENV.config_path)
    prefix = f"{settings.ENV.redis_prefix}_metrics"
    yield replace(settings.ENV, metrics_token=TOKEN, journal_dir=tmp_path, redis_prefix=prefix)
    client = sync_client(settings.ENV.redis_url)
    for key in client.scan_iter(match=f"{prefix}:*"):
        client.delete(key)


@pytest.fixture
def redis() -> "Redis":
    return sync_client(settings.ENV.redis_url)


def request(env: Env, method: str = "GET", authorization: bytes | None = BEARER) -> httpx.Response:
    """Response of a process that has just started."""

    async def send() -> httpx.Response:
        metrics: Any = Metrics(env)
        headers = {} if authorization is None else {b"authorization": authorization}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=metrics), base_url="http://gateway") as client:
            response = await client.request(method, PATH, headers=headers)
        await metrics.close()
        return response

    return asyncio.run(send())


def values_in(text: str) -> Values:
    return {
        (sample.name.removeprefix(PREFIX), tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped(env: Env) -> Values:
    response = request(env)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return values_in(response.text)


@pytest.mark.parametrize(
    "given", [None, b"", b"Bearer", BEARER + b"x", BEARER[:-1], b"Basic " + BEARER[7:], BEARER[7:], b"Bearer \xff"]
)
def test_a_scrape_without_the_token_gets_404(env: Env, given: bytes | None) -> None:
    response = request(env, authorization=given)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
    assert PREFIX not in response.text


def test_without_a_configured_token_there_is_no_metrics_page(env: Env) -> None:
    for given in (None, b"Bearer ", BEARER):
        assert request(replace(env, metrics_token=""), authorization=given).status_code == 404


def test_a_post_gets_404(env: Env) -> None:
    assert request(env, "POST").status_code == 404


def test_an_idle_installation_reports_zeros(env: Env) -> None:
    values = scraped(env)
    for name in (
        "requests_in_flight", "usage_events_waiting", "usage_oldest_event_seconds", "report_deliveries_waiting",
        "journal_oldest_seconds", "dead_letters", "partition_stray_rows",
    ):  # fmt: skip
        assert values[name, ()] == 0, name
    assert (values["postgres_up", ()], values["redis_up", ()]) == (1, 1)
    assert 0 < values["redis_memory_ratio", ()] < 0.7
    assert values["partition_days_ahead", ()] >= 7
    assert not [name for name, _ in values if name.startswith(("sync", "reconciliation"))]


def test_backlogs_and_failures_are_reported(env: Env, redis: "Redis", tmp_path: Path) -> None:
    shard = ShardKeys.of(env.redis_prefix, 3)
    long_ago_ms = clock.now_ms() - 90_000
    redis.xadd(shard.usage, {"e": b"x"}, id=f"{long_ago_ms}-0")
    redis.xadd(ShardKeys.of(env.redis_prefix, 4).usage, {"e": b"x"})
    redis.hset(shard.intents.decode(), mapping={"one": b"0:0:x", "two": b"0:0:x"})
    redis.hset(key_of(env.redis_prefix, "gpt-6-luna").decode(), "state", "open")
    (tmp_path / "1-1.closed").write_bytes(b"x")
    (tmp_path / "1-2.open").write_bytes(b"")
    store_failures()

    values = scraped(env)

    assert values["usage_events_waiting", ()] == 2
    assert 90 <= values["usage_oldest_event_seconds", ()] < 150
    assert values["requests_in_flight", ()] == 2
    assert (values["journal_segments", ("closed",)], values["journal_segments", ("bad",)]) == (1, 0)
    assert values["breaker_state", ("gpt-6-luna",)] == 2
    assert values["breaker_state", ("deepseek-v4.1-flash",)] == 0
    assert values["dead_letters", ()] == 1
    assert (values["unmatched_reports", ("unmatched",)], values["unmatched_reports", ("waiting",)]) == (1, 0)
    assert values["partition_stray_rows", ()] == 2
    assert values["sync_success", ()] == 0
    assert 600 <= values["sync_age_seconds", ()] < 660
    assert values["reconciliation_calls", ("1", "missing_here")] == 0
    assert values["reconciliation_calls", ("7", "missing_here")] == 5
    assert values["reconciliation_cost_drift_nano_usd", ("7",)] == 10


def store_failures() -> None:
    now = clock.now()
    DeadLetter.objects.create(stream_id="x", payload=b"x", reason="x")
    report = {"source": "webhook", "started_at": now, "call": "x", "report": b"x"}
    UnmatchedReport.objects.create(digest=random_id(), state="unmatched", reason="no_owner", **report)
    key = a_key().row
    event = an_event(key.organization_id, key.id, request_id=UUID("00000000-0000-4000-8000-000000000001"))
    store([Entry(ShardKeys.of("test", 0), b"1-0", encode(event))])
    ended = now - timedelta(minutes=10)
    SyncRun.objects.create(window_start=ended, window_end=ended, ended_at=ended, error="litellm_unauthorized: no")
    for days_ago, missing in ((1, 0), (2, 5)):
        numbers = {**dict.fromkeys(FIELDS, 5), "missing_here": missing}
        DayReconciled.objects.create(day=now.date() - timedelta(days=days_ago), compared_at=now, **numbers)


def test_a_scrape_without_redis_reports_the_rest(env: Env) -> None:
    values = scraped(replace(env, redis_url=f"redis://{UNREACHABLE}/0"))
    assert (values["redis_up", ()], values["postgres_up", ()]) == (0, 1)
    assert ("usage_events_waiting", ()) not in values
    assert values["dead_letters", ()] == 0


def test_a_scrape_without_postgres_reports_the_rest(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(("HOST", "PORT"), UNREACHABLE.split(":"), strict=True):
        monkeypatch.setitem(connections.settings["default"], name, value)
    values = scraped(env)  # the scrape's thread opens its own connection
    assert (values["redis_up", ()], values["postgres_up", ()]) == (1, 0)
    assert ("dead_letters", ()) not in values
    assert values["usage_events_waiting", ()] == 0


def test_exactly_the_exported_metrics_are_documented() -> None:
    text = (REPOSITORY / "docs" / "metrics.md").read_text()
    documented = re.findall(rf"^\| `{PREFIX}([a-z_]+)` \| [^|]+ \| [^|]+ \|", text, re.MULTILINE)
    exported = re.findall(rf"^# TYPE {PREFIX}([a-z_]+) (?:gauge|histogram)$", text_of([]).decode(), re.MULTILINE)
    assert documented == exported == list(METRICS)


def test_calls_of_today_are_counted_by_models_of_the_catalogue_alone(env: Env) -> None:
    key = a_key().row
    calls = [
        an_event(key.organization_id, key.id, model="gpt-6-luna", latency_ms=400),
        an_event(key.organization_id, key.id, model="gpt-6-luna", latency_ms=90_000, status=503),
        an_event(key.organization_id, key.id, model="made-up-by-a-caller", latency_ms=20),
    ]
    store([Entry(ShardKeys.of("test", 0), b"1-%d" % i, encode(event)) for i, event in enumerate(calls)])
    RefusalCount.objects.create(
        organization_id=key.organization_id, key_id=key.id, code="rate_limited", minute=clock.now(), count=7
    )
    values = scraped(env)
    assert (values["calls_today", ("gpt-6-luna", "ok")], values["calls_today", ("gpt-6-luna", "error")]) == (1, 1)
    assert values["calls_today", ("other", "ok")] == 1
    assert values["refusals_today", ("rate_limited",)] == 7
    assert not [labels for _name, labels in values if "made-up-by-a-caller" in labels]
    bounds = {labels: value for (name, labels), value in values.items() if name == "call_latency_seconds_bucket"}
    assert (bounds["0.05",], bounds["0.5",], bounds["60",], bounds["120",], bounds["+Inf",]) == (1, 2, 2, 3, 3)
