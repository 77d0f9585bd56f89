"""Samples of the installation's state, from PostgreSQL, Redis and the journal's folder.

The metrics endpoint reads them during a scrape, and the operators' health checks make lines of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.db.models import Count, Sum

from billing.ledger_audit import age_s, last_audit
from billing.limiter.limits import ShardKeys
from billing.payments.events import count_failed, count_waiting
from codexflow.catalogue import directory
from codexflow.catalogue.schema import CatalogueError
from codexflow.lib import clock
from codexflow.lib.redis import SHARDS, memory_ratio_of, ms_of, queue_memory, queue_time
from logs.litellm import stream
from logs.litellm.daily import stored_totals
from logs.margin.report import sums_of
from logs.models import DayMargin, DayReconciled, DeadLetter, RefusalCount, SyncRun, UnmatchedReport, UsageDaily
from logs.pipeline import histogram, partitions
from logs.usage.overview import histograms_of_day
from routing.upstream.breaker_store import key_of

STATEMENT_TIMEOUT_MS = 2_000
WINDOWS_DAYS = (1, 7)
BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}


# Upper bounds of the histograms that are exported, in seconds.
BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
# In place of a model that the catalogue does not know any more: what callers send must not make series.
OTHER = "other"


class Sample(NamedTuple):
    """Value of a metric. `name` is without its prefix; `labels` are in the order of METRICS.

    A histogram has one sample, whose `buckets` are cumulative counts by upper bound.
    """

    name: str
    value: float
    labels: tuple[str, ...] = ()
    buckets: tuple[tuple[str, float], ...] = ()


def ask_redis(pipe: Any, prefix: str) -> list[str]:
    """Queue what `redis_samples` needs into a pipeline of either kind of client. Returns the models that it asks of."""
    models = _models()
    queue_time(pipe, stream.name_of(prefix))
    pipe.xlen(stream.name_of(prefix))
    for shard in (ShardKeys.of(prefix, number) for number in range(SHARDS)):
        queue_memory(pipe, shard.epoch)
        pipe.xlen(shard.usage)
        pipe.xrange(shard.usage, count=1)
        pipe.hlen(shard.intents.decode())
    for model in models:
        pipe.hget(key_of(prefix, model).decode(), "state")
    return models


def redis_samples(models: list[str], replies: list[Any]) -> list[Sample]:
    """Samples of the replies to `ask_redis`."""
    time, deliveries, *rest = replies
    of_shards, states = rest[: 4 * SHARDS], rest[4 * SHARDS :]
    oldest = [int(entries[0][0].partition(b"-")[0]) / 1000 for entries in of_shards[2::4] if entries]
    now_s = ms_of(time) / 1000  # stream ids carry the time of Redis' clock
    return [
        Sample("redis_memory_ratio", max(memory_ratio_of(each) for each in of_shards[0::4])),
        Sample("requests_in_flight", sum(of_shards[3::4])),
        Sample("usage_events_waiting", sum(of_shards[1::4])),
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


def journal_samples(folder: Path) -> Iterator[Sample]:
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


def postgres_samples() -> list[Sample]:
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
            *_usage_samples(),
            Sample("partition_stray_rows", partitions.strays()),
            Sample("partition_days_ahead", partitions.days_ahead()),
        ]


def _usage_samples() -> Iterator[Sample]:
    """Sums and histograms of today (UTC). No counters: a better report of a call may take some of a sum away again."""
    today, known = clock.now().date(), set(_models())
    sums: dict[str, dict[str, int]] = {}
    names = ("requests", "errors", "disconnects", "prompt_tokens", "completion_tokens", "cost_nanos")
    rows = UsageDaily.objects.filter(day=today).values_list("model").annotate(*(Sum(name) for name in names))
    for model, *values in rows:
        of_model = sums.setdefault(model if model in known else OTHER, dict.fromkeys(names, 0))
        for name, value in zip(names, values, strict=True):
            of_model[name] += int(value)
    for model, of_model in sorted(sums.items()):
        yield Sample("calls_today", of_model["requests"] - of_model["errors"], (model, "ok"))
        yield Sample("calls_today", of_model["errors"], (model, "error"))
        yield Sample("disconnects_today", of_model["disconnects"], (model,))
        yield Sample("tokens_today", of_model["prompt_tokens"], (model, "input"))
        yield Sample("tokens_today", of_model["completion_tokens"], (model, "output"))
        yield Sample("charged_today_nano_usd", of_model["cost_nanos"], (model,))
    midnight = datetime.combine(today, datetime.min.time(), UTC)
    refused = RefusalCount.objects.filter(minute__gte=midnight).values_list("code").annotate(Sum("count"))
    for code, count in sorted(refused):
        yield Sample("refusals_today", int(count), (code,))
    found = histograms_of_day(today)
    yield _histogram("call_latency_seconds", found.latency)
    yield _histogram("time_to_first_token_seconds", found.ttft)


def _histogram(name: str, counts: Sequence[int]) -> Sample:
    """Cumulative counts by BOUNDS_S, from ours: a bucket belongs where its middle does."""
    below = [sum(n for i, n in enumerate(counts) if histogram.middle_ms(i) <= bound * 1000) for bound in BOUNDS_S]
    buckets = [*zip((f"{bound:g}" for bound in BOUNDS_S), map(float, below), strict=True), ("+Inf", float(sum(counts)))]
    return Sample(name, sum(counts), buckets=tuple(buckets))


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
