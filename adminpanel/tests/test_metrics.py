"""/metrics: who may read it, what it says, and that it answers whatever is away. On real PostgreSQL and Valkey."""

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
from logs.models import DayReconciled, DeadLetter, SyncRun, UnmatchedReport
from logs.pipeline.drain import Entry, store
from logs.pipeline.events import encode
from logs.tests.factories import an_event
from routing.upstream.breaker_store import key_of

pytestmark = pytest.mark.django_db(transaction=True)
TOKEN = "a-token-of-some-length"
BEARER = f"Bearer {TOKEN}".encode()
NOBODY = "127.0.0.1:1"  # an address where nobody listens
Told = dict[tuple[str, tuple[str, ...]], float]


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


def asked(env: Env, method: str = "GET", authorization: bytes | None = BEARER) -> httpx.Response:
    """A request to a process that has only just begun."""

    async def ask() -> httpx.Response:
        metrics: Any = Metrics(env)
        headers = {} if authorization is None else {b"authorization": authorization}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=metrics), base_url="http://house") as client:
            answer = await client.request(method, PATH, headers=headers)
        await metrics.close()
        return answer

    return asyncio.run(ask())


def values_in(text: str) -> Told:
    return {
        (sample.name.removeprefix(PREFIX), tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def told(env: Env) -> Told:
    answer = asked(env)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return values_in(answer.text)


@pytest.mark.parametrize(
    "given", [None, b"", b"Bearer", BEARER + b"x", BEARER[:-1], b"Basic " + BEARER[7:], BEARER[7:], b"Bearer \xff"]
)
def test_nobody_without_the_token_finds_anything(env: Env, given: bytes | None) -> None:
    answer = asked(env, authorization=given)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert PREFIX not in answer.text


def test_without_a_token_there_is_nothing_for_anybody(env: Env) -> None:
    for given in (None, b"Bearer ", BEARER):
        assert asked(replace(env, metrics_token=""), authorization=given).status_code == 404


def test_it_cannot_be_posted_to(env: Env) -> None:
    assert asked(env, "POST").status_code == 404


def test_a_house_at_rest(env: Env) -> None:
    values = told(env)
    for name in (
        "requests_in_flight", "usage_events_waiting", "usage_oldest_event_seconds", "report_deliveries_waiting",
        "journal_oldest_seconds", "dead_letters", "partition_stray_rows",
    ):  # fmt: skip
        assert values[name, ()] == 0, name
    assert (values["postgres_up", ()], values["redis_up", ()]) == (1, 1)
    assert values["partition_days_ahead", ()] >= 7
    assert not [name for name, _ in values if name.startswith(("sync", "reconciliation"))]


def test_what_waits_and_what_went_wrong_is_told(env: Env, redis: "Redis", tmp_path: Path) -> None:
    shard = ShardKeys.of(env.redis_prefix, 3)
    long_ago_ms = clock.now_ms() - 90_000
    redis.xadd(shard.usage, {"e": b"x"}, id=f"{long_ago_ms}-0")
    redis.xadd(ShardKeys.of(env.redis_prefix, 4).usage, {"e": b"x"})
    redis.zadd(shard.alive, {"one": 1, "two": 2})
    redis.hset(key_of(env.redis_prefix, "gpt-4o-mini").decode(), "state", "open")
    (tmp_path / "1-1.closed").write_bytes(b"x")
    (tmp_path / "1-2.open").write_bytes(b"")
    broken_books()

    values = told(env)

    assert values["usage_events_waiting", ()] == 2
    assert 90 <= values["usage_oldest_event_seconds", ()] < 150
    assert values["requests_in_flight", ()] == 2
    assert (values["journal_segments", ("closed",)], values["journal_segments", ("bad",)]) == (1, 0)
    assert values["breaker_state", ("gpt-4o-mini",)] == 2
    assert values["breaker_state", ("deepseek-v3",)] == 0
    assert values["dead_letters", ()] == 1
    assert (values["unmatched_reports", ("unmatched",)], values["unmatched_reports", ("waiting",)]) == (1, 0)
    assert values["partition_stray_rows", ()] == 2
    assert values["sync_success", ()] == 0
    assert 600 <= values["sync_age_seconds", ()] < 660
    assert values["reconciliation_calls", ("1", "missing_here")] == 0
    assert values["reconciliation_calls", ("7", "missing_here")] == 5
    assert values["reconciliation_cost_drift_nano_usd", ("7",)] == 10


def broken_books() -> None:
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


def test_it_answers_without_redis(env: Env) -> None:
    values = told(replace(env, redis_url=f"redis://{NOBODY}/0"))
    assert (values["redis_up", ()], values["postgres_up", ()]) == (0, 1)
    assert ("usage_events_waiting", ()) not in values
    assert values["dead_letters", ()] == 0


def test_it_answers_without_postgres(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(("HOST", "PORT"), NOBODY.split(":"), strict=True):
        monkeypatch.setitem(connections.settings["default"], name, value)
    values = told(env)  # its thread makes a connection of its own
    assert (values["redis_up", ()], values["postgres_up", ()]) == (1, 0)
    assert ("dead_letters", ()) not in values
    assert values["usage_events_waiting", ()] == 0


def test_every_metric_is_documented_and_nothing_else_is() -> None:
    text = (REPOSITORY / "docs" / "metrics.md").read_text()
    documented = re.findall(rf"^\| `{PREFIX}([a-z_]+)` \| [^|]+ \| [^|]+ \|", text, re.MULTILINE)
    exported = re.findall(rf"^# TYPE {PREFIX}([a-z_]+) gauge$", text_of([]).decode(), re.MULTILINE)
    assert documented == exported == list(METRICS)
