"""GET /metrics: the installation's state in Prometheus' text format, behind a token. A raw ASGI application.

Values are read during the scrape from PostgreSQL, Redis and the journal's folder, or were stored before by a worker;
calls through the gateway update no counters. A source that does not respond in time is left out and its metric
(`codexflow_postgres_up`, `codexflow_redis_up`) is 0. docs/metrics.md documents every metric.
"""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import redis.asyncio
from django.db import DatabaseError, connection, connections, transaction
from django.db.models import Count
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis import RedisError
from typing_extensions import override

from billing.ledger_audit import age_s, last_audit
from billing.limiter.limits import ShardKeys
from billing.payments.events import count_failed, count_waiting
from codexflow.catalogue import directory
from codexflow.catalogue.schema import CatalogueError
from codexflow.env import Env
from codexflow.lib import clock
from codexflow.lib.asgi import Scope, Send
from codexflow.lib.db import on_healthy_connection
from codexflow.lib.envelope import envelope
from codexflow.lib.errors import NotFound
from codexflow.lib.exchange import send_json, send_response
from codexflow.lib.redis import SHARDS, async_client
from logs.litellm import stream
from logs.litellm.daily import stored_totals
from logs.margin.report import sums_of
from logs.models import DayMargin, DayReconciled, DeadLetter, SyncRun, UnmatchedReport
from logs.pipeline import partitions
from routing.upstream.breaker_store import key_of

logger = logging.getLogger(__name__)

PATH = "/metrics"
# A source that has not responded by then counts as down.
SCRAPE_TIMEOUT_S = 3.0
STATEMENT_TIMEOUT_MS = 2_000
WINDOWS_DAYS = (1, 7)
BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}
TEXT = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
NOT_CACHED = (b"cache-control", b"no-store")

# name without its prefix: (help text, labels)
METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "postgres_up": ("Whether PostgreSQL answered this scrape", ()),
    "redis_up": ("Whether Redis answered this scrape", ()),
    "requests_in_flight": ("Calls that hold a lease, over all processes", ()),
    "usage_events_waiting": ("Events in the stream that are not stored yet", ()),
    "usage_oldest_event_seconds": ("Age of the oldest waiting event; 0 without one", ()),
    "report_deliveries_waiting": ("Deliveries of LiteLLM's webhook that are not stored yet", ()),
    "breaker_state": ("State of a model's circuit: 0 closed, 1 half-open, 2 open", ("model",)),
    "journal_segments": ("Files of this machine's journal", ("state",)),
    "journal_oldest_seconds": ("Age of the oldest segment waiting to be shipped; 0 without one", ()),
    "dead_letters": ("Events and reports that could not be stored", ()),
    "unmatched_reports": ("LiteLLM's reports without a matching request", ("state",)),
    "sync_age_seconds": ("Time since the last read of LiteLLM's log ended", ()),
    "sync_success": ("Whether that read succeeded", ()),
    "reconciliation_age_seconds": ("Time since the last daily comparison with LiteLLM", ()),
    "reconciliation_calls": ("Calls of the last days compared with LiteLLM's reports", ("days", "result")),
    "reconciliation_token_drift": ("Tokens by which the sides differ", ("days",)),
    "reconciliation_cost_drift_nano_usd": ("Cost by which the sides differ", ("days",)),
    "margin_charged_nano_usd": ("Charges of the last days' calls", ("days",)),
    "margin_upstream_nano_usd": ("Cost that LiteLLM reports for them", ("days",)),
    "margin_calls": ("Calls by what is known of their cost", ("days", "result")),
    "margin_losing_models": ("Models that cost more than they were charged for, beyond the bound", ("days",)),
    "ledger_audit_age_seconds": ("Time since the ledger was last proven", ()),
    "ledger_audit_findings": ("Sums that did not follow from the ledger's entries then", ()),
    "payment_events_waiting": ("Events of payment providers that wait for another attempt", ()),
    "payment_events_failed": ("Events of payment providers that have failed within a day", ()),
    "partition_stray_rows": ("Rows in the default partitions, counted up to 1,000", ()),
    "partition_days_ahead": ("Days after today that have a partition", ()),
}
PREFIX = "codexflow_"


class Sample(NamedTuple):
    """Value of a metric. `name` is without its prefix; `labels` are in the order of METRICS."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


class Metrics:
    """ASGI application of the endpoint. One instance per process."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._redis: redis.asyncio.Redis | None = None
        # A separate thread: a hanging PostgreSQL blocks only this one, never the gateway's calls.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._running_query: asyncio.Future[list[Sample]] | None = None

    async def __call__(self, scope: Scope, _receive: Any, send: Send) -> None:
        if not self._is_authorized(scope):
            await send_json(send, 404, envelope(NotFound()), [NOT_CACHED])
            return
        await send_response(send, 200, text_of(await self.samples()), [TEXT, NOT_CACHED])

    def _is_authorized(self, scope: Scope) -> bool:
        """Return whether the request has the token, compared in constant time. Others get 404."""
        token = self._env.metrics_token
        given = dict(scope["headers"]).get(b"authorization", b"")
        is_token = hmac.compare_digest(given, f"Bearer {token}".encode())
        return bool(token) and is_token and scope["method"] in ("GET", "HEAD")

    async def close(self) -> None:
        self._thread.submit(connections.close_all)
        await asyncio.to_thread(self._thread.shutdown)
        if self._redis is not None:
            await self._redis.aclose()

    async def samples(self) -> list[Sample]:
        """Samples of all sources that respond within SCRAPE_TIMEOUT_S."""
        found = await asyncio.gather(
            _or_timeout("postgres", self._read_postgres()),
            _or_timeout("redis", self._read_redis()),
            asyncio.to_thread(lambda: list(_journal_samples(self._env.journal_dir))),
        )
        return [sample for part in found for sample in part]

    async def _read_postgres(self) -> list[Sample]:
        if self._running_query is None or self._running_query.done():
            loop = asyncio.get_running_loop()
            self._running_query = loop.run_in_executor(self._thread, on_healthy_connection, _postgres_samples)
            self._running_query.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
        return await asyncio.shield(self._running_query)

    async def _read_redis(self) -> list[Sample]:
        if self._redis is None:
            self._redis = async_client(self._env.redis_url)
        return await _redis_samples(self._redis, self._env.redis_prefix)


async def _or_timeout(source: str, reading: Awaitable[list[Sample]]) -> list[Sample]:
    """Samples of a source and `<source>_up`, which is 0, alone, if it fails or does not respond in time."""
    try:
        async with asyncio.timeout(SCRAPE_TIMEOUT_S):
            return [Sample(f"{source}_up", 1), *await reading]
    except (OSError, TimeoutError, DatabaseError, RedisError) as exc:
        logger.warning("metrics.source_failed", extra={"missing": source, "reason": repr(exc)})
        return [Sample(f"{source}_up", 0)]


def text_of(samples: Iterable[Sample]) -> bytes:
    """Render samples in Prometheus' text format. Metrics without a value are described, too."""
    families = {
        name: GaugeMetricFamily(f"{PREFIX}{name}", text, labels=labels) for name, (text, labels) in METRICS.items()
    }
    for name, value, labels in samples:
        families[name].add_metric(labels, value)

    class Families(Collector):
        @override
        def collect(self) -> Iterable[GaugeMetricFamily]:
            return families.values()

    registry = CollectorRegistry()
    registry.register(Families())
    return generate_latest(registry)


async def _redis_samples(client: "redis.asyncio.Redis", prefix: str) -> list[Sample]:
    shards = [ShardKeys.of(prefix, number) for number in range(SHARDS)]
    models = _models()
    pipe: Any = client.pipeline(transaction=False)  # typed as if every command had to be awaited
    pipe.time()
    pipe.xlen(stream.name_of(prefix))
    for shard in shards:
        pipe.xlen(shard.usage)
        pipe.xrange(shard.usage, count=1)
        pipe.zcard(shard.alive.decode())
    for model in models:
        pipe.hget(key_of(prefix, model).decode(), "state")
    (seconds, micros), deliveries, *rest = await pipe.execute()
    of_shards, states = rest[: 3 * SHARDS], rest[3 * SHARDS :]
    oldest = [int(entries[0][0].partition(b"-")[0]) / 1000 for entries in of_shards[1::3] if entries]
    now_s = seconds + micros / 1e6  # stream ids carry the time of Redis' clock
    return [
        Sample("requests_in_flight", sum(of_shards[2::3])),
        Sample("usage_events_waiting", sum(of_shards[0::3])),
        Sample("usage_oldest_event_seconds", max(0.0, now_s - min(oldest, default=now_s))),
        Sample("report_deliveries_waiting", deliveries),
        *(
            Sample("breaker_state", BREAKER_STATES[(state or b"closed").decode()], (model,))
            for model, state in zip(models, states, strict=True)
        ),
    ]


def _models() -> list[str]:
    try:
        return sorted({*directory.current().models, *directory.todays_lineup().models})
    except CatalogueError:
        return []


def _journal_samples(folder: Path) -> Iterator[Sample]:
    """Samples of the journal. States: `open` is being written, `closed` waits to be shipped, `bad` is unreadable."""
    found = {state: list(folder.glob(f"*.{state}")) for state in ("open", "closed", "bad")}
    for state, paths in found.items():
        yield Sample("journal_segments", len(paths), (state,))
    written_s = []
    for path in found["closed"]:
        try:
            written_s.append(path.stat().st_mtime)
        except FileNotFoundError:  # shipped in the meantime
            continue
    now_s = clock.now_s()
    yield Sample("journal_oldest_seconds", max(0.0, now_s - min(written_s, default=now_s)))


def _postgres_samples() -> list[Sample]:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
        return [
            Sample("dead_letters", DeadLetter.objects.count()),
            *_unmatched_samples(),
            *_sync_samples(),
            *_reconciliation_samples(),
            *_margin_samples(),
            *_ledger_samples(),
            *_payment_samples(),
            Sample("partition_stray_rows", partitions.strays()),
            Sample("partition_days_ahead", partitions.days_ahead()),
        ]


def _unmatched_samples() -> Iterator[Sample]:
    counts = dict(UnmatchedReport.objects.values_list("state").annotate(Count("pk")))
    for state in UnmatchedReport.State.values:
        yield Sample("unmatched_reports", counts.get(state, 0), (state,))


def _sync_samples() -> Iterator[Sample]:
    # By end, not by start: a read of a long window may span several runs.
    last = SyncRun.objects.filter(ended_at__isnull=False).order_by("-ended_at").first()
    if last is not None and last.ended_at is not None:
        yield Sample("sync_age_seconds", (clock.now() - last.ended_at).total_seconds())
        yield Sample("sync_success", not last.error)


def _reconciliation_samples() -> Iterator[Sample]:
    last = DayReconciled.objects.order_by("-compared_at").first()
    if last is None:
        return
    yield Sample("reconciliation_age_seconds", (clock.now() - last.compared_at).total_seconds())
    for days in WINDOWS_DAYS:
        totals = stored_totals(days=days)
        if totals is None:
            continue
        for result in ("matched", "missing_here", "missing_there", "past_gateway", "differing"):
            yield Sample("reconciliation_calls", getattr(totals, result), (str(days), result))
        yield Sample("reconciliation_token_drift", totals.token_drift, (str(days),))
        yield Sample("reconciliation_cost_drift_nano_usd", totals.cost_drift_nanos, (str(days),))


def _ledger_samples() -> Iterable[Sample]:
    audit = last_audit()
    if audit is not None:
        yield Sample("ledger_audit_age_seconds", age_s(audit))
        yield Sample("ledger_audit_findings", audit.findings)


def _payment_samples() -> Iterable[Sample]:
    at = clock.now()
    yield Sample("payment_events_waiting", count_waiting(at))
    yield Sample("payment_events_failed", count_failed(at))


def _margin_samples() -> Iterator[Sample]:
    today = clock.now().date()
    for days in WINDOWS_DAYS:
        stored = list(DayMargin.objects.filter(day__gte=today - timedelta(days=days)))
        if not stored:
            continue
        sums = sums_of(stored)
        yield Sample("margin_charged_nano_usd", sums["charged_nanos"], (str(days),))
        yield Sample("margin_upstream_nano_usd", sums["upstream_nanos"], (str(days),))
        for result in ("calls", "unreported", "left_early", "estimated", "impossible"):
            yield Sample("margin_calls", sums[result], (str(days), "all" if result == "calls" else result))
        yield Sample("margin_losing_models", len({row.model for row in stored if row.is_loss}), (str(days),))
