"""Take LiteLLM's reports into the request log and the ledger, one transaction a batch.

Each call is resolved once (resolve.py), then written. Usage of an attempt is stored beside the attempt and corrects the
row (merge.py). A call past the gateway gets a row of its own, counts toward limits, and costs the customer nothing
unless the account says otherwise. Unmatched reports are stored: some to be retried, the rest for the operator.

Redelivery is harmless: the rows are the same however often and in whatever order reports come.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import transaction
from redis import Redis, RedisError

from billing.limiter.holds import MOST_CONTEXT_TOKENS
from billing.limiter.limits import Payer, count_sync
from billing.pricing import FrozenRates, Usage, cost_nanos
from billing.usage import is_possible, most_units
from codexflow.catalogue import directory
from codexflow.catalogue.entries import TOOL_UNITS
from codexflow.catalogue.reasons import PAST_GATEWAY
from codexflow.catalogue.schema import DIRECT as DIRECT_STAGE
from codexflow.catalogue.schema import CatalogueError
from codexflow.lib import clock
from codexflow.lib.ids import uuid7_floor
from codexflow.lib.redis import sync_client
from keys.models import ApiKey
from keys.selectors import lineages_of
from keys.services import mark_used
from logs.litellm.report import Delivery, Report, decode_delivery, distinct, encode
from logs.litellm.resolve import (
    MS_PER_DAY,
    AttemptOf,
    Call,
    CallOwner,
    KnownCall,
    NewCall,
    Resolution,
    State,
    Unmatched,
    moment_of,
    remember,
    resolve,
)
from logs.models import ReportIdentity, UnmatchedReport
from logs.pipeline.events import RANK_LITELLM, UsageEvent
from logs.pipeline.merge import DIRECT, ReportedUsage, better, corrected, merge_direct
from logs.pipeline.postings import Postings
from logs.pipeline.rollups import NO_KEY
from logs.pipeline.rows import (
    AttemptReport,
    ReportedAttempts,
    insert_rows,
    reported_attempts,
    stored_rows,
    update_rows,
    write_reported,
)
from logs.tail.publisher import TailPublisher

logger = logging.getLogger(__name__)

# The live tail shows calls that began this lately.
LIVE_TAIL_MS = 3_600_000
# Any model reads so many tokens.
USUAL_TOKENS = 100_000
CONVERSATIONS = frozenset({"chat", "responses", "messages"})
Kind = TypeVar("Kind", AttemptOf, KnownCall, NewCall, Unmatched)
_FREE = FrozenRates(input_nanos=0, cached_nanos=0, output_nanos=0)


@dataclass(slots=True)
class Taken:
    """Counts of a batch."""

    new: int = 0  # reported for the first time: an attempt, or a call past the gateway
    duplicate: int = 0  # known before
    corrected: int = 0  # rows that a report changed
    waiting: int = 0
    unmatched: int = 0

    def add(self, other: "Taken") -> None:
        for name in ("new", "duplicate", "corrected", "waiting", "unmatched"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class _Batch:
    """Calls on their way through one transaction, and what was written of them."""

    calls: dict[UUID, Call]
    postings: Postings = field(default_factory=Postings)
    taken: Taken = field(default_factory=Taken)
    new_rows: list[UsageEvent] = field(default_factory=list)
    corrected_rows: list[UsageEvent] = field(default_factory=list)

    def correct(self, changed: Mapping[UUID, tuple[UsageEvent, int]]) -> None:
        """Write corrected rows, each with its new revision."""
        update_rows(changed)
        self.corrected_rows += [event for event, _ in changed.values()]
        self.taken.corrected += len(changed)


def take(
    reports: Iterable[Report],
    *,
    redis: "Redis | None" = None,
    prefix: str = "",
    owner: ApiKey | None = None,
) -> Taken:
    """Resolve and write some reports, at best a few hundred. Raises what PostgreSQL raises; then nothing was taken.

    Without `redis`, requests that are still running are unknown, and its counters are left to reconciliation. `owner`
    is the operator's decision on the owner of these calls.
    """
    with transaction.atomic():
        batch = _Batch({call.digest: call for call in _open(reports)})
        found = resolve(list(batch.calls.values()), redis=redis, prefix=prefix, owner=owner)
        _write_attempts(batch, _those(found, AttemptOf))
        _write_new_calls(batch, _those(found, NewCall))
        _write_known_calls(batch, {digest: each.request_id for digest, each in _those(found, KnownCall).items()})
        _write_unmatched(batch, _those(found, Unmatched))
        batch.postings.write()
    _count(batch, redis, prefix)
    if redis is not None:
        transaction.on_commit(partial(_publish, batch, prefix))
    return batch.taken


def retry(redis: "Redis", prefix: str, *, also_unmatched: bool = False, limit: int = 500) -> Taken:
    """Retry reports that wait for their request; with `also_unmatched` all others, too, `limit` at a time."""
    if also_unmatched:
        rows = _next_unmatched(redis, f"{prefix}:unmatched:retried", limit)
    else:
        rows = list(UnmatchedReport.objects.filter(state=State.WAITING).order_by("pk")[:limit])
    total = Taken()
    reports = [decode_delivery(bytes(row.report)).reports for row in rows]
    for start in range(0, len(reports), 100):
        total.add(take(chain.from_iterable(reports[start : start + 100]), redis=redis, prefix=prefix))
    return total


def _next_unmatched(redis: "Redis", cursor: str, limit: int) -> list[UnmatchedReport]:
    """Next rows to retry, the newest first, by a cursor in Redis, so that newer ones do not block older ones."""
    left_at: Any = redis.get(cursor)
    rows = UnmatchedReport.objects.order_by("-pk")
    found = list((rows.filter(pk__lt=int(left_at)) if left_at else rows)[:limit])
    if len(found) == limit:
        redis.set(cursor, found[-1].pk)
    else:
        redis.delete(cursor)
    return found


def delete_unmatched(*, days: int) -> int:
    """Delete reports that have been unmatched for so many days. Returns how many."""
    too_old = UnmatchedReport.objects.filter(received_at__lt=clock.now() - timedelta(days=days))
    deleted, _ = too_old.delete()
    if deleted:
        logger.warning("litellm.unmatched_deleted", extra={"count": deleted, "days": days})
    return deleted


def delete_identities(before: date) -> int:
    """Delete identities of calls whose day was dropped: further reports of them are too old for a row."""
    midnight = datetime(before.year, before.month, before.day, tzinfo=UTC)
    deleted, _ = ReportIdentity.objects.filter(request_id__lt=uuid7_floor(midnight)).delete()
    return deleted


def _open(reports: Iterable[Report]) -> list[Call]:
    """Group reports by call, together with unmatched reports of the same calls, in the order of their digests."""
    found: dict[UUID, list[Report]] = {}
    for report in reports:
        found.setdefault(report.digest, []).append(report)
    received_at = dict.fromkeys(found, clock.now())
    for row in UnmatchedReport.objects.select_for_update().filter(digest__in=found).order_by("digest"):
        found[row.digest] += decode_delivery(bytes(row.report)).reports
        received_at[row.digest] = row.received_at
    return [Call(distinct(found[digest]), received_at[digest]) for digest in sorted(found)]


def _those(found: Mapping[UUID, Resolution], kind: type[Kind]) -> dict[UUID, Kind]:
    return {digest: each for digest, each in found.items() if isinstance(each, kind)}


def _write_attempts(batch: _Batch, attempts: Mapping[UUID, AttemptOf]) -> None:
    """Store the usage that LiteLLM reports of our attempts, and correct their requests' rows."""
    if not attempts:
        return
    inferred = {digest: each.request_id for digest, each in attempts.items() if each.is_inferred}
    if inferred:
        remember(inferred, {digest: batch.calls[digest].report for digest in inferred})
    ids = sorted({each.request_id for each in attempts.values()})
    rows, known = stored_rows(ids), reported_attempts(ids)
    news: dict[tuple[UUID, int], AttemptReport] = {}
    for digest, attempt in attempts.items():
        call = batch.calls[digest]
        reported = known.setdefault(attempt.request_id, ReportedAttempts()).reported
        old = reported.get(attempt.n)
        batch.taken.new += old is None
        batch.taken.duplicate += old is not None
        merged = _merge_usage(old, call)
        if merged != old:
            reported[attempt.n] = merged
            report = call.report
            news[attempt.request_id, attempt.n] = AttemptReport(
                model=report.model, response_id=report.response_id, usage=merged
            )
    write_reported(news)
    changed: dict[UUID, tuple[UsageEvent, int]] = {}
    for request_id in sorted({request_id for request_id, _ in news}):
        row, revision = rows[request_id]
        better_row = corrected(row, known[request_id].reported, known[request_id].winner)
        if better_row != row:
            batch.postings.correct(row, better_row, revision=revision + 1)
            changed[request_id] = (better_row, revision + 1)
    batch.correct(changed)


def _merge_usage(old: ReportedUsage | None, call: Call) -> ReportedUsage:
    """Combine all reports of the call with what is stored of its attempt."""
    merged = old
    for report in call.reports:
        new = ReportedUsage(
            usage=_believed(report),
            cost_nanos=report.cost_nanos,
            is_success=report.is_success,
            ended_ms=report.ended_ms,
        )
        if merged is not None and merged.has_usage and new.has_usage and merged.usage != new.usage:
            logger.warning("litellm.usage_conflict", extra={"call": report.call_id or report.response_id})
        merged = better(merged, new)
    assert merged is not None  # noqa: S101 - a call has at least one report
    return merged


def _believed(report: Report) -> Usage:
    """Return the usage of a report; none when it is more than its model can read or write in a call.

    How often the call had its model read is not known here: once for each use of a tool, and for a compaction twice as
    often; of several texts each may fill the context.
    """
    usage = report.usage
    if usage.total_tokens <= USUAL_TOKENS:
        return usage
    try:
        entries = directory.in_force().entries
    except CatalogueError:
        entries = {}
    entry = entries.get(report.model) or entries.get(report.model.rpartition("/")[2])
    context_tokens = (entry and entry.context_tokens) or MOST_CONTEXT_TOKENS
    most = MOST_CONTEXT_TOKENS
    if report.surface in CONVERSATIONS:
        uses = sum(count for name, count in (usage.details or {}).items() if name in TOOL_UNITS)
        most = context_tokens * 2 * (1 + uses)
    if is_possible(usage, prompt_tokens=most, completion_tokens=most):
        return usage
    logger.error(
        "usage.impossible",
        extra={
            "call": report.call_id or report.response_id,
            "model": report.model,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "most_prompt_tokens": most,
            "most_completion_tokens": most,
            "units": most_units(usage),
        },
    )
    return Usage()


def _write_new_calls(batch: _Batch, calls: Mapping[UUID, NewCall]) -> None:
    """Insert rows of calls past the gateway, count and charge them."""
    if not calls:
        return
    reports = {digest: batch.calls[digest].report for digest in calls}
    requests = remember({digest: each.request_id for digest, each in calls.items()}, reports)
    events: dict[UUID, UsageEvent] = {}
    for digest, request_id in sorted(requests.items(), key=lambda item: item[1]):
        owner = calls[digest].owner
        event, *others = (direct_event(report, request_id, owner) for report in batch.calls[digest].reports)
        for other in others:
            event = merge_direct(event, other) or event
        events[request_id] = event
    new_ids = insert_rows(list(events.values()))
    for request_id in new_ids:
        batch.postings.add(events[request_id])
        batch.new_rows.append(events[request_id])
    batch.taken.new += len(new_ids)
    _write_known_calls(batch, {digest: each for digest, each in requests.items() if each not in new_ids})


def _write_known_calls(batch: _Batch, requests: Mapping[UUID, UUID]) -> None:
    """Merge further reports of calls past the gateway into their rows."""
    if not requests:
        return
    batch.taken.duplicate += len(requests)
    rows = stored_rows(sorted(set(requests.values())))
    changed: dict[UUID, tuple[UsageEvent, int]] = {}
    for digest, request_id in sorted(requests.items()):
        if request_id not in rows:
            continue  # dropped with its day
        row, revision = changed.get(request_id) or rows[request_id]
        if row.source not in DIRECT:
            continue  # a request of the gateway, resolved by response id or tokens before
        owner = CallOwner(row.organization_id, row.key_id, row.user_id)
        merged = row
        for report in batch.calls[digest].reports:
            merged = merge_direct(merged, direct_event(report, request_id, owner)) or merged
        if merged != row:
            batch.postings.correct(row, merged, revision=revision + 1)
            changed[request_id] = (merged, revision + 1)
    batch.correct(changed)


def direct_event(report: Report, request_id: UUID, owner: CallOwner) -> UsageEvent:
    """Return a call past the gateway as a usage event."""
    rates = owner.rates.get(report.model) or owner.rates.get(report.model.rpartition("/")[2]) or _FREE
    started_ms, usage = min(report.started_ms, clock.now_ms()), _believed(report)
    return UsageEvent(
        request_id=request_id,
        organization_id=owner.organization_id,
        key_id=owner.key_id,
        user_id=owner.user_id,
        day=started_ms // MS_PER_DAY,
        minute=started_ms // 60_000,
        started_ms=started_ms,
        surface=report.surface,
        endpoint=report.endpoint,
        stage=DIRECT_STAGE,
        stage_reason=PAST_GATEWAY,
        requested_model=report.model,
        model=report.model,
        status=report.status,
        error_code=report.error_code,
        usage=usage,
        rank=RANK_LITELLM,
        rates=rates,
        cost_nanos=cost_nanos(usage, rates),
        upstream_cost_nanos=report.cost_nanos,
        latency_ms=report.latency_ms,
        ttft_ms=report.ttft_ms,
        is_stream=report.is_stream,
        is_disconnected=report.status == 499,
        source=report.source,
        client_address=report.client_address,
        user_agent=report.user_agent,
    )


def _write_unmatched(batch: _Batch, unmatched: Mapping[UUID, Unmatched]) -> None:
    """Store unmatched reports, and delete those of calls that are resolved now."""
    UnmatchedReport.objects.filter(digest__in=[each for each in batch.calls if each not in unmatched]).delete()
    rows = [_unmatched_row(batch.calls[digest], unmatched[digest]) for digest in sorted(unmatched)]
    alarming = [row for row in rows if row.state == State.UNMATCHED]
    alarmed_before = set(
        UnmatchedReport.objects.filter(digest__in=[row.digest for row in alarming], state=State.UNMATCHED).values_list(
            "digest", flat=True
        )
    )
    UnmatchedReport.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["digest"],
        update_fields=[
            "state", "reason", "source", "started_at", "call", "litellm_key", "model", "prompt_tokens",
            "completion_tokens", "upstream_cost_nanos", "report",
        ],
    )  # fmt: skip
    for row in alarming:
        if row.digest not in alarmed_before:
            logger.warning("litellm.unmatched", extra={"call": row.call, "reason": row.reason, "model": row.model})
    batch.taken.waiting += len(rows) - len(alarming)
    batch.taken.unmatched += len(alarming)


def _unmatched_row(call: Call, unmatched: Unmatched) -> UnmatchedReport:
    report = call.report
    return UnmatchedReport(
        digest=call.digest,
        state=unmatched.state,
        reason=unmatched.reason,
        source=report.source,
        received_at=call.received_at,
        started_at=moment_of(report.started_ms),
        call=report.call_id or report.identities[0].partition(":")[2],
        litellm_key=report.owner.litellm_key[:128],
        model=report.model,
        prompt_tokens=report.usage.prompt_tokens,
        completion_tokens=report.usage.completion_tokens,
        upstream_cost_nanos=report.cost_nanos,
        report=encode(Delivery(reports=call.reports)),
    )


def _count(batch: _Batch, redis: "Redis | None", prefix: str) -> None:
    """Count calls past the gateway toward the limits in Redis; PostgreSQL has them already."""
    mark_used({event.key_id for event in batch.new_rows} - {NO_KEY})
    if redis is None:
        return
    try:
        lineages = lineages_of({event.key_id for event in batch.new_rows})
        for event in batch.new_rows:
            payer = Payer.of(prefix, event.organization_id, lineages.get(event.key_id, event.key_id))
            count_sync(redis, payer, day=event.day, requests=1, cost_nanos=event.cost_nanos)
    except RedisError:
        logger.warning("litellm.count_failed", exc_info=True)


def _publish(batch: _Batch, prefix: str) -> None:
    """Publish recent rows to the live tail. Older ones, as of an import, are left out."""
    since_ms = clock.now_ms() - LIVE_TAIL_MS
    new, changed = (
        [event for event in events if event.started_ms >= since_ms] for events in (batch.new_rows, batch.corrected_rows)
    )
    TailPublisher(sync_client(settings.ENV.redis_shared_url), prefix).publish(new, changed)
