"""Measurements of `bench.logs`: run inside Django, on the servers that `bench.logs` started."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.db import connection
from django.test import Client

from accounts.models import Membership, Organization
from bench.fill_logs import fill
from billing.limiter.limits import ShardKeys
from codexflow.catalogue import directory
from codexflow.lib.ids import new_id, uuid7_floor
from codexflow.lib.redis import database_url, shard_of, sync_client
from keys.models import ApiKey
from keys.services import KeyTerms, issue_key
from logs.pipeline.drain import drain
from logs.pipeline.events import encode
from logs.tests.factories import an_event

KEYS = 20
MANY_KEYS = 1_000
REPEATS = 15
# Whole hours from UTC on either side, half an hour, and the quarter that no hour of a rollup fits.
ZONES = ("UTC", "Europe/Istanbul", "America/Los_Angeles", "Asia/Kolkata", "Asia/Kathmandu")
Report = Callable[[str], None]


def measure(rows: int, backlog: int, report: Report) -> None:
    directory.load(settings.ENV.config_path)
    owner = Membership.objects.select_related("organization", "user").filter(role="owner").earliest("pk")
    organization, user = owner.organization, owner.user
    type(user).objects.filter(pk=user.pk).update(must_change_password=False)
    keys = [issue_key(organization, name=f"key {n}", created_by=user, terms=KeyTerms()) for n in range(KEYS)]
    started = perf_counter()
    fill(organization.pk, [key.row.pk for key in keys], user.pk, rows=rows, report=lambda _line: None)
    report(f"{_rows():,} rows of {KEYS} keys over 30 days, made in {perf_counter() - started:.0f} s, {_size()}\n")
    browser = Client(headers={"host": "localhost"})
    browser.force_login(user)
    report("| page | median ms |\n|---|---|")
    for name, url in _pages(organization, keys[-1].row).items():
        report(f"| {name} | {median_ms(lambda url=url: _get(browser, url)):.0f} |")  # type: ignore[misc]
    for zone in ZONES:
        type(user).objects.filter(pk=user.pk).update(timezone=zone)
        for days in (30, 90):
            url = f"/o/{organization.slug}/?" + urlencode({"range": f"{days}d"})
            for kept, words in (("usage:day:", "past the cache of a period"), ("nothing", "first view ever")):
                took_ms = median_ms(
                    lambda url=url: _get(browser, url),  # type: ignore[misc]
                    before=lambda kept=kept: _forget_overviews(kept),  # type: ignore[misc]
                )
                report(f"| overview, {days} days, {words}, {zone} | {took_ms:.0f} |")
    for n in range(KEYS, MANY_KEYS):
        issue_key(organization, name=f"key {n}", created_by=user, terms=KeyTerms())
    report(f"| keys, {MANY_KEYS:,} | {median_ms(lambda: _get(browser, f'/o/{organization.slug}/keys/')):.0f} |")
    _measure_drain(organization, keys[0].row, backlog, report)


def median_ms(request: Callable[[], Any], *, before: Callable[[], Any] = lambda: None) -> float:
    """Time REPEATS calls after one that warms up, with `before` ahead of each; returns their median."""
    request()
    taken = []
    for _ in range(REPEATS):
        before()
        started = perf_counter()
        request()
        taken.append((perf_counter() - started) * 1000)
    return median(taken)


def _pages(organization: Organization, quiet_key: ApiKey) -> dict[str, str]:
    log, api = f"/o/{organization.slug}/logs/?", f"/api/v1/requests?organization={organization.slug}&"
    deep = str(uuid7_floor(datetime.now(UTC) - timedelta(days=25)))
    month = {"range": "30d"}
    since = (datetime.now(UTC) - timedelta(days=30)).isoformat()
    return {
        "log, first page": log + urlencode(month),
        "log, a page 25 days back": log + urlencode({**month, "before": deep}),
        "log, one stage": log + urlencode({**month, "stage": "review"}),
        "log, a rare model": log + urlencode({**month, "model": "claude-haiku-5.5"}),
        "log, a model nobody used": log + urlencode({**month, "model": "gemini-3.5-flash-lite"}),
        "log, failures": log + urlencode({**month, "status": "errors"}),
        "log, a rare status": log + urlencode({**month, "status": "499"}),
        "log, a status that never was": log + urlencode({**month, "status": "418"}),
        "log, a quiet key": log + urlencode({**month, "key": quiet_key.pk}),
        "log, a quiet key's failures on a rare model": log
        + urlencode({**month, "key": quiet_key.pk, "model": "claude-haiku-5.5", "status": "errors"}),
        "log, a stage and a model that never meet": log
        + urlencode({**month, "stage": "plan", "model": "deepseek-v4.1-flash"}),
        "API, first page": api + urlencode({"start": since}),
        "API, failures of a stage": api + urlencode({"start": since, "status": "errors", "stage": "review"}),
        "overview, 30 days by model": f"/o/{organization.slug}/?" + urlencode({**month, "group": "model"}),
        "API, 30 days by key": f"/api/v1/usage?organization={organization.slug}&group=key",
    }


def _forget_overviews(kept: str) -> None:
    """Remove what the overview caches, but for names with `kept`."""
    redis = sync_client(database_url(settings.ENV.redis_url, 2))
    for pattern in ("*overview:*", "*usage:day:*"):
        for name in redis.scan_iter(pattern, count=10_000):
            if kept.encode() not in name:
                redis.delete(name)


def _get(browser: Client, url: str) -> None:
    response = browser.get(url)
    assert response.status_code == 200, (url, response.status_code, response.headers.get("location"))  # noqa: S101 - a failed page must not be timed


def _measure_drain(organization: Organization, key: ApiKey, backlog: int, report: Report) -> None:
    """Time the drain of events as the gateway settles them, all in the stream before it begins."""
    redis, prefix = sync_client(settings.ENV.redis_url), settings.ENV.redis_prefix
    stream = ShardKeys.of(prefix, shard_of(organization.pk)).usage
    before = redis.info("memory")["used_memory"]
    for _ in range(backlog // 1_000):
        pipe = redis.pipeline(transaction=False)
        for _ in range(1_000):
            pipe.xadd(stream, {"e": encode(an_event(organization.pk, key.pk, request_id=new_id()))})
        pipe.execute()
    waiting_mb = (redis.info("memory")["used_memory"] - before) / 1024 / 1024
    drain(redis, prefix=prefix, consumer="bench", max_batches=2)  # warms up
    resident, started = _resident_mb(), perf_counter()
    done = drain(redis, prefix=prefix, consumer="bench", max_batches=backlog)
    took_s = perf_counter() - started
    report(
        f"\n{done.stored:,} events drained in {took_s:.1f} s: {done.stored / took_s:,.0f} a second;"
        f" {waiting_mb:.0f} MB in Redis before;"
        f" resident {resident:.0f} MB at the start, {_resident_mb():.0f} at the end"
    )


def _resident_mb() -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def _rows() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM request_log")
        return int(cursor.fetchone()[0])


def _size() -> str:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_size_pretty(sum(pg_total_relation_size(inhrelid))) FROM pg_inherits"
            " WHERE inhparent = 'request_log'::regclass"
        )
        return str(cursor.fetchone()[0])
