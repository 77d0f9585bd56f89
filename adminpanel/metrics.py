"""GET /metrics: the installation's state in Prometheus' text format, behind a token. A raw ASGI application.

Values are read during the scrape from PostgreSQL, Redis and the journal's folder, or were stored before by a worker;
calls through the gateway update no counters. A source that does not respond in time is left out and its metric
(`codexflow_postgres_up`, `codexflow_redis_up`) is 0. docs/metrics.md documents every metric.
"""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis.asyncio
from django.db import DatabaseError, connections
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from redis import RedisError
from typing_extensions import override

from adminpanel.samples import Sample, ask_redis, journal_samples, postgres_samples, redis_samples
from codexflow.env import Env
from codexflow.lib.asgi import Scope, Send
from codexflow.lib.db import on_healthy_connection
from codexflow.lib.envelope import envelope
from codexflow.lib.errors import NotFound
from codexflow.lib.exchange import send_json, send_response
from codexflow.lib.redis import async_client

logger = logging.getLogger(__name__)

PATH = "/metrics"
# A source that has not responded by then counts as down.
SCRAPE_TIMEOUT_S = 3.0
TEXT = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
NOT_CACHED = (b"cache-control", b"no-store")

# name without its prefix: (help text, labels)
METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "postgres_up": ("Whether PostgreSQL answered this scrape", ()),
    "redis_up": ("Whether Redis answered this scrape", ()),
    "redis_memory_ratio": ("Part of its memory that Redis uses", ()),
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
    "calls_today": ("Calls of today (UTC) that were stored", ("model", "result")),
    "disconnects_today": ("Those whose caller left", ("model",)),
    "tokens_today": ("Their tokens", ("model", "kind")),
    "charged_today_nano_usd": ("Their charges", ("model",)),
    "refusals_today": ("Calls of known keys that were refused today (UTC)", ("code",)),
    "call_latency_seconds": ("Time of today's calls, to their end", ()),
    "time_to_first_token_seconds": ("Time of today's calls, to the first content", ()),
    "partition_stray_rows": ("Rows in the default partitions, counted up to 1,000", ()),
    "partition_days_ahead": ("Days after today that have a partition", ()),
}
HISTOGRAMS = {"call_latency_seconds", "time_to_first_token_seconds"}
PREFIX = "codexflow_"


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
            asyncio.to_thread(lambda: list(journal_samples(self._env.journal_dir))),
        )
        return [sample for part in found for sample in part]

    async def _read_postgres(self) -> list[Sample]:
        if self._running_query is None or self._running_query.done():
            loop = asyncio.get_running_loop()
            self._running_query = loop.run_in_executor(self._thread, on_healthy_connection, postgres_samples)
            self._running_query.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
        return await asyncio.shield(self._running_query)

    async def _read_redis(self) -> list[Sample]:
        if self._redis is None:
            self._redis = async_client(self._env.redis_url)
        pipe: Any = self._redis.pipeline(transaction=False)  # typed as if every command had to be awaited
        models = ask_redis(pipe, self._env.redis_prefix)
        return redis_samples(models, await pipe.execute())


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
    families = {name: _family(name, text, labels) for name, (text, labels) in METRICS.items()}
    for each in samples:
        family = families[each.name]
        if isinstance(family, HistogramMetricFamily):
            family.add_metric(each.labels, buckets=list(each.buckets), sum_value=None)
        else:
            family.add_metric(each.labels, each.value)

    class Families(Collector):
        @override
        def collect(self) -> Iterable[Metric]:
            return families.values()

    registry = CollectorRegistry()
    registry.register(Families())
    return generate_latest(registry)


def _family(name: str, text: str, labels: tuple[str, ...]) -> GaugeMetricFamily | HistogramMetricFamily:
    if name in HISTOGRAMS:
        return HistogramMetricFamily(f"{PREFIX}{name}", text, labels=labels)
    return GaugeMetricFamily(f"{PREFIX}{name}", text, labels=labels)
