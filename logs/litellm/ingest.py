"""Reports into the books: what LiteLLM says about a call meets what we know of it. One transaction a batch.

Each report goes one of four ways.
1. Its call id names an attempt of ours: what it tells is kept beside the attempt and corrects the row (logs/merge.py).
   A request that has no row yet may still be running or on its way: the report waits for it.
2. It was made with the gateway's own key but has no call id of ours: an attempt with its response id, or one of the
   same model and tokens in the same minute, is the one it tells of. Otherwise it is kept as unmatched.
3. Its key or user is known here: a call past the gateway. It gets a row of its own, counts toward limits, and costs
   the customer nothing unless the account says otherwise.
4. Nobody knows it: kept for the operator.

Redelivery is harmless: every way ends in the same rows however often and in whatever order reports come.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any, TypeAlias
from uuid import UUID

import msgspec
from django.conf import settings
from django.db import connection, transaction
from redis import Redis, RedisError

from accounts.selectors import personal_organizations_of
from billing.limits import Payer, ShardKeys, count_sync
from billing.models import Account
from billing.pricing import FrozenRates, cost_nanos, frozen
from codexflow.catalogue import directory, schema
from codexflow.catalogue.reasons import PAST_GATEWAY
from codexflow.catalogue.schema import CatalogueError
from codexflow.lib import clock
from codexflow.lib.ids import uuid7_floor
from codexflow.lib.redis import SHARDS
from keys.models import ApiKey
from keys.selectors import keys_by_digest, keys_by_litellm_name
from keys.services import mark_used
from logs.drain import AttemptsTold, Books, attempts_told, insert_rows, stored_rows, update_rows
from logs.events import RANK_LITELLM, UsageEvent
from logs.litellm.mapping import MASTER_KEY
from logs.litellm.report import Delivery, Report, attempt_of, decode_delivery, digest_of, distinct, encode, id_of
from logs.live import Announcer
from logs.merge import DIRECT, Told, better, corrected, merge_direct
from logs.models import ReportIdentity, RequestLog, UnmatchedReport
from logs.partitions import DAYS_BACK
from logs.rollups import NOBODY

logger = logging.getLogger(__name__)

# A gateway's event is in PostgreSQL a second after the call's end; a journal that a sibling adopts takes longer.
PATIENCE = timedelta(minutes=15)
SAME_MINUTE = timedelta(seconds=60)
# A call is reported by its start, and its response id comes with its end.
SAME_RESPONSE = timedelta(minutes=15)
MS_PER_DAY = 86_400_000
# A live tail hears of calls that began so lately.
WATCHED_MS = 3_600_000
Reason: TypeAlias = UnmatchedReport.Reason
State: TypeAlias = UnmatchedReport.State


@dataclass(slots=True)
class Taken:
    """What became of a batch."""

    new: int = 0  # told for the first time: an attempt, or a call past the gateway
    duplicate: int = 0  # known before
    corrected: int = 0  # rows that a report changed
    waiting: int = 0
    unmatched: int = 0

    def add(self, other: "Taken") -> None:
        for name in ("new", "duplicate", "corrected", "waiting", "unmatched"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class _Batch:
    """Reports on their way through one transaction."""

    # All that is told of each call, what tells most first.
    told: dict[UUID, tuple[Report, ...]]
    received: dict[UUID, datetime]
    reports: dict[UUID, Report] = field(init=False)
    books: Books = field(default_factory=Books)
    taken: Taken = field(default_factory=Taken)
    parked: dict[UUID, UnmatchedReport] = field(default_factory=dict)
    counted: list[UsageEvent] = field(default_factory=list)
    changed: list[UsageEvent] = field(default_factory=list)
    used_keys: set[UUID] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.reports = {digest: told[0] for digest, told in self.told.items()}

    def correct(self, changed: dict[UUID, tuple[UsageEvent, int]]) -> None:
        """Write rows that are told otherwise now, each with its new revision."""
        update_rows(changed)
        self.changed += [event for event, _ in changed.values()]
        self.taken.corrected += len(changed)

    def park(self, digest: UUID, reason: Reason, state: State) -> None:
        report = self.reports[digest]
        self.parked[digest] = UnmatchedReport(
            digest=digest,
            state=state,
            reason=reason,
            source=report.source,
            received_at=self.received[digest],
            started_at=_moment(report.started_ms),
            call=report.call_id or report.identities[0].partition(":")[2],
            litellm_key=report.owner.litellm_key[:128],
            model=report.model,
            prompt_tokens=report.usage.prompt_tokens,
            completion_tokens=report.usage.completion_tokens,
            upstream_cost_nanos=report.cost_nanos,
            report=encode(Delivery(reports=self.told[digest])),
        )


def take(
    reports: Iterable[Report],
    *,
    redis: "Redis | None" = None,
    prefix: str = "",
    owner: ApiKey | None = None,
) -> Taken:
    """Take in some reports, at best a few hundred. Raises what PostgreSQL raises; then nothing was taken.

    Without `redis` nobody can be asked whether a request is still running, and nothing is added to its counters; they
    are put right by reconciliation. `owner` is the operator's word on whose calls these are.
    """
    with transaction.atomic():
        batch = _opened(reports)
        attempts = _named_attempts(batch)
        rest = [digest for digest in sorted(batch.reports) if digest not in attempts]
        known = _known(batch, rest)
        nameless = [digest for digest in rest if digest not in known]
        attempts |= _same_calls(
            batch, [digest for digest in nameless if _is_own(batch.reports[digest].owner.litellm_key)]
        )
        missing = _tell(batch, {digest: attempts[digest] for digest in sorted(attempts)})
        _park_missing(batch, missing, redis, prefix)
        direct = {digest: known[digest] for digest in rest if digest in known}
        _take_direct(batch, direct, [digest for digest in nameless if digest not in attempts], owner)
        batch.books.write()
        _file(batch)
    _count(batch, redis, prefix)
    if redis is not None:
        transaction.on_commit(partial(_announce, batch, redis, prefix))
    return batch.taken


def retry(redis: "Redis", prefix: str, *, also_unmatched: bool = False, limit: int = 500) -> Taken:
    """Try once more what waits for its request; with `also_unmatched` what else is kept, so many each time in turn."""
    if also_unmatched:
        rows = _next_unmatched(redis, f"{prefix}:unmatched:retried", limit)
    else:
        rows = list(UnmatchedReport.objects.filter(state=State.WAITING).order_by("pk")[:limit])
    total = Taken()
    kept = [decode_delivery(bytes(row.report)).reports for row in rows]
    for start in range(0, len(kept), 100):
        total.add(take(chain.from_iterable(kept[start : start + 100]), redis=redis, prefix=prefix))
    return total


def _next_unmatched(redis: "Redis", cursor: str, limit: int) -> list[UnmatchedReport]:
    """The newest first, then on from where it was left: what stays unknown must not keep the older from its turn."""
    left_at: Any = redis.get(cursor)
    rows = UnmatchedReport.objects.order_by("-pk")
    found = list((rows.filter(pk__lt=int(left_at)) if left_at else rows)[:limit])
    if len(found) == limit:
        redis.set(cursor, found[-1].pk)
    else:
        redis.delete(cursor)
    return found


def forget_unmatched(*, days: int) -> int:
    """Delete what nobody has known for so long since it was received. Returns how many reports."""
    too_old = UnmatchedReport.objects.filter(received_at__lt=clock.now() - timedelta(days=days))
    deleted, _ = too_old.delete()
    if deleted:
        logger.warning("litellm.unmatched_forgotten", extra={"count": deleted, "days": days})
    return deleted


def forget_identities(before: date) -> int:
    """Delete the names of calls whose day is no longer kept: what comes of them now is too old for a row."""
    midnight = datetime(before.year, before.month, before.day, tzinfo=UTC)
    deleted, _ = ReportIdentity.objects.filter(request_id__lt=uuid7_floor(midnight)).delete()
    return deleted


# Opening and filing


def _opened(reports: Iterable[Report]) -> _Batch:
    """The reports, one a call, together with what is kept of the same calls from before."""
    told: dict[UUID, list[Report]] = {}
    for report in reports:
        told.setdefault(report.digest, []).append(report)
    received = dict.fromkeys(told, clock.now())
    for row in UnmatchedReport.objects.select_for_update().filter(digest__in=told).order_by("digest"):
        told[row.digest] += decode_delivery(bytes(row.report)).reports
        received[row.digest] = row.received_at
    return _Batch({digest: distinct(found) for digest, found in told.items()}, received)


def _file(batch: _Batch) -> None:
    """Keep what nobody knows; forget what has found its place."""
    settled = [digest for digest in batch.reports if digest not in batch.parked]
    UnmatchedReport.objects.filter(digest__in=settled).delete()
    rows = [batch.parked[digest] for digest in sorted(batch.parked)]
    alarming = [row for row in rows if row.state == State.UNMATCHED]
    before = set(
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
        if row.digest not in before:
            logger.warning("litellm.unmatched", extra={"call": row.call, "reason": row.reason, "model": row.model})
    batch.taken.waiting += len(rows) - len(alarming)
    batch.taken.unmatched += len(alarming)


# 1. Attempts of ours


def _is_own(litellm_key: str) -> bool:
    """Whether the gateway called with this key, going by LiteLLM's id of it."""
    env = settings.ENV
    own = {hashlib.sha256(key.encode()).hexdigest() for key in (env.litellm_api_key, env.litellm_admin_key) if key}
    return litellm_key in own or litellm_key == MASTER_KEY


def _named_attempts(batch: _Batch) -> dict[UUID, tuple[UUID, int]]:
    found = {digest: _named_attempt(report) for digest, report in batch.reports.items()}
    return {digest: attempt for digest, attempt in found.items() if attempt is not None}


def _named_attempt(report: Report) -> tuple[UUID, int] | None:
    """The attempt that the call id names. A customer of LiteLLM may send any call id, so the key must be ours."""
    is_ours = not report.owner.litellm_key or _is_own(report.owner.litellm_key)
    return attempt_of(report.call_id) if is_ours else None


def _tell(batch: _Batch, attempts: Mapping[UUID, tuple[UUID, int]]) -> dict[UUID, UUID]:
    """Keep what LiteLLM tells of attempts and correct their rows. Returns the reports whose request has no row."""
    ids = sorted({request_id for request_id, _ in attempts.values()})
    if not ids:
        return {}
    rows, heard = stored_rows(ids), attempts_told(ids)
    told: dict[tuple[UUID, int], tuple[Report, Told]] = {}
    missing: dict[UUID, UUID] = {}
    for digest, (request_id, n) in attempts.items():
        if request_id not in rows:
            missing[digest] = request_id
            continue
        if _hear(heard.setdefault(request_id, AttemptsTold()), batch, digest, n):
            told[request_id, n] = (batch.told[digest][0], heard[request_id].told[n])
    _write_told(told)
    changed: dict[UUID, tuple[UsageEvent, int]] = {}
    for request_id in sorted({request_id for request_id, _ in told}):
        row, revision = rows[request_id]
        merged = corrected(row, heard[request_id].told, heard[request_id].winner)
        if merged != row:
            batch.books.change(row, merged, revision=revision + 1)
            changed[request_id] = (merged, revision + 1)
    batch.correct(changed)
    return missing


def _hear(attempts: AttemptsTold, batch: _Batch, digest: UUID, n: int) -> bool:
    """Whether the reports say of the attempt what was not known."""
    old = attempts.told.get(n)
    if old is None:
        batch.taken.new += 1
    else:
        batch.taken.duplicate += 1
    for report in batch.told[digest]:
        new = Told(
            usage=report.usage, cost_nanos=report.cost_nanos, is_success=report.is_success, ended_ms=report.ended_ms
        )
        known = attempts.told.get(n)
        if known is not None and known.says_usage and new.says_usage and known.usage != new.usage:
            logger.warning("litellm.usage_conflict", extra={"call": report.call_id or report.response_id})
        attempts.told[n] = better(known, new)
    return attempts.told[n] != old


def _write_told(told: Mapping[tuple[UUID, int], tuple[Report, Told]]) -> None:
    if not told:
        return
    rows = [
        {
            "request_id": request_id, "n": n, "model": report.model, "status": 0, "error_code": "", "started_ms": 0,
            "duration_ms": 0, "response_id": report.response_id, "told_model": report.model,
            "told_prompt_tokens": each.usage.prompt_tokens, "told_cached_tokens": each.usage.cached_tokens,
            "told_cache_write_tokens": each.usage.cache_write_tokens,
            "told_cache_write_1h_tokens": each.usage.cache_write_1h_tokens,
            "told_completion_tokens": each.usage.completion_tokens,
            "told_reasoning_tokens": each.usage.reasoning_tokens, "told_cost_nanos": each.cost_nanos,
            "told_is_success": each.is_success, "told_ended_ms": each.ended_ms,
        }
        for (request_id, n), (report, each) in sorted(told.items(), key=lambda item: item[0])
    ]  # fmt: skip
    names = [name for name in rows[0] if name.startswith("told_")]
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO upstream_attempt SELECT * FROM json_populate_recordset(NULL::upstream_attempt, %s::json)"  # noqa: S608 - constants
            f" ON CONFLICT (request_id, n) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in names)}",
            [msgspec.json.encode(rows).decode()],
        )


def _park_missing(batch: _Batch, missing: Mapping[UUID, UUID], redis: "Redis | None", prefix: str) -> None:
    """What no row is there for waits: for the call's end as long as it runs, else a quarter of an hour."""
    running = _running(redis, prefix, set(missing.values())) if redis is not None and missing else set()
    for digest, request_id in missing.items():
        is_early = clock.now() - batch.received[digest] < PATIENCE or request_id in running
        batch.park(digest, Reason.NO_REQUEST, State.WAITING if is_early else State.UNMATCHED)


def _running(redis: "Redis", prefix: str, ids: set[UUID]) -> set[UUID]:
    """Those that still have an intent. The report does not say whose they are, so every shard is asked."""
    pipe = redis.pipeline(transaction=False)
    ordered = sorted(ids)
    for shard in range(SHARDS):
        pipe.hmget(ShardKeys.of(prefix, shard).intents.decode(), [str(each) for each in ordered])
    try:
        replies: list[Any] = pipe.execute()
    except RedisError:
        return ids
    return {each for reply in replies for each, intent in zip(ordered, reply, strict=True) if intent is not None}


def requests_told_of(reports: Sequence[Report]) -> dict[UUID, tuple[UUID, UUID]]:
    """The request and the organization that each report tells of, as far as both are known now. Changes nothing."""
    ours = {report.digest: attempt[0] for report in reports if (attempt := _named_attempt(report)) is not None}
    logged = dict(
        RequestLog.objects.filter(request_id__in=set(ours.values())).values_list("request_id", "organization_id")
    )
    found = {digest: (request_id, logged[request_id]) for digest, request_id in ours.items() if request_id in logged}
    past = [each for each in reports if each.digest not in ours and not _is_own(each.owner.litellm_key)]
    known = _ids_of({digest_of(name): each.digest for each in past for name in each.identities})
    owned = _owned(past, None)
    for report in past:
        if report.digest in owned:
            request_id = known.get(report.digest) or _new_id_of(report)
            found[report.digest] = (request_id, owned[report.digest].organization_id)
    return found


# 2. Calls of the gateway that lost their id on the way


def _same_calls(batch: _Batch, digests: Sequence[UUID]) -> dict[UUID, tuple[UUID, int]]:
    """The attempts that reports without a call id of ours tell of; parks those that find none."""
    if not digests:
        return {}
    found = _by_response_id([batch.reports[digest] for digest in digests])
    attempts: dict[UUID, tuple[UUID, int]] = {}
    for digest in digests:
        report = batch.reports[digest]
        attempt = found.get(report.response_id) or _by_tokens(report)
        if attempt is not None:
            attempts[digest] = attempt
            continue
        is_early = clock.now() - batch.received[digest] < PATIENCE and attempt_of(report.call_id) is None
        batch.park(digest, Reason.OWN_KEY, State.WAITING if is_early else State.UNMATCHED)
    _remember(batch, {digest: attempt[0] for digest, attempt in attempts.items()})
    return attempts


def _by_response_id(reports: Sequence[Report]) -> dict[str, tuple[UUID, int]]:
    """Attempts by the provider's response id, in one look over the time of all reports."""
    wanted = {report.response_id for report in reports if report.response_id}
    starts = [report.started_ms for report in reports]
    if not wanted:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT response_id, request_id, n FROM upstream_attempt"
            " WHERE request_id BETWEEN %s AND %s AND response_id = ANY(%s) ORDER BY request_id DESC, n DESC",
            [
                uuid7_floor(_moment(min(starts)) - SAME_RESPONSE),
                uuid7_floor(_moment(max(starts)) + SAME_MINUTE),
                list(wanted),
            ],
        )
        return {response_id: (request_id, n) for response_id, request_id, n in cursor.fetchall()}


def _by_tokens(report: Report) -> tuple[UUID, int] | None:
    """The answered attempt of the same model and tokens that began nearest, within a minute."""
    if not report.usage.total_tokens:
        return None
    moment = _moment(report.started_ms)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT r.request_id, a.n FROM request_log r JOIN upstream_attempt a USING (request_id)"
            " WHERE r.request_id BETWEEN %s AND %s AND a.request_id BETWEEN %s AND %s"
            " AND r.prompt_tokens = %s AND r.completion_tokens = %s AND a.model IN (%s, %s)"
            " AND a.first_byte_ms IS NOT NULL AND r.source IN ('gateway', 'sweeper')"
            " ORDER BY abs(extract(epoch FROM r.started_at - %s)), r.request_id LIMIT 1",
            [
                *(uuid7_floor(moment - SAME_MINUTE), uuid7_floor(moment + SAME_MINUTE)) * 2,
                report.usage.prompt_tokens,
                report.usage.completion_tokens,
                report.model,
                report.model.rpartition("/")[2],
                moment,
            ],
        )
        row = cursor.fetchone()
    return (row[0], row[1]) if row else None


# 3. Calls past the gateway


def _known(batch: _Batch, digests: Sequence[UUID]) -> dict[UUID, UUID]:
    """What was made of these calls before: report -> request."""
    return _ids_of({digest_of(name): digest for digest in digests for name in batch.reports[digest].identities})


def _ids_of(names: Mapping[UUID, UUID]) -> dict[UUID, UUID]:
    """Of reports by the names of their calls: report -> request."""
    rows = ReportIdentity.objects.filter(digest__in=names).order_by("digest").values_list("digest", "request_id")
    return {names[found]: request_id for found, request_id in rows}


def _remember(batch: _Batch, made: Mapping[UUID, UUID]) -> dict[UUID, UUID]:
    """Note under all names of each report which request it is. Returns what holds: another worker may be first."""
    rows = [
        ReportIdentity(digest=digest_of(name), request_id=request_id)
        for digest, request_id in made.items()
        for name in batch.reports[digest].identities
    ]
    ReportIdentity.objects.bulk_create(sorted(rows, key=lambda row: row.digest), ignore_conflicts=True)
    return _known(batch, list(made))


def _take_direct(batch: _Batch, known: Mapping[UUID, UUID], nameless: Sequence[UUID], owner: ApiKey | None) -> None:
    """Rows of calls that went past the gateway: new ones, and further reports of known ones."""
    open_ones = [digest for digest in nameless if digest not in batch.parked]
    owned = _owned([batch.reports[digest] for digest in open_ones], owner)
    oldest_ms = clock.now_ms() - (DAYS_BACK - 1) * MS_PER_DAY
    made: dict[UUID, UUID] = {}
    for digest in open_ones:
        report = batch.reports[digest]
        if digest not in owned:
            batch.park(digest, Reason.NO_OWNER, State.UNMATCHED)
        elif report.started_ms < oldest_ms:
            batch.park(digest, Reason.TOO_OLD, State.UNMATCHED)
        else:
            made[digest] = _new_id_of(report)
    made = _remember(batch, made)
    _add_direct(batch, made, owned)
    _change_direct(batch, known)


def _new_id_of(report: Report) -> UUID:
    return id_of(report.identities[0], min(report.started_ms, clock.now_ms()))


@dataclass(frozen=True, slots=True)
class _Whose:
    organization_id: UUID
    key_id: UUID = NOBODY
    user_id: int | None = None
    rates: Mapping[str, FrozenRates] = field(default_factory=dict)


_FREE = FrozenRates(input_nanos=0, cached_nanos=0, output_nanos=0)


def _owned(reports: Sequence[Report], owner: ApiKey | None) -> dict[UUID, _Whose]:
    """Whose calls these are: LiteLLM's key first, then a key of ours, then a user."""
    names = {name for report in reports for name in report.owner.names}
    by_name = keys_by_litellm_name(names) if names else {}
    digests = {report.owner.public_id: report.owner.digests for report in reports if report.owner.public_id}
    by_digest = keys_by_digest(digests) if digests else {}
    users = {report.owner.user_id for report in reports if report.owner.user_id}
    by_user = personal_organizations_of([each for each in users if each]) if users else {}
    found: dict[UUID, _Whose] = {}
    for report in reports:
        told = report.owner
        candidates = [by_name.get(told.litellm_key), *(by_name.get(name) for name in told.names)]
        key = owner or next((each for each in candidates if each), None) or by_digest.get(told.public_id)
        if key is not None:
            found[report.digest] = _Whose(key.organization_id, key.pk, key.created_by_id)
        elif told.user_id in by_user:
            found[report.digest] = _Whose(by_user[told.user_id], NOBODY, told.user_id)
    return _priced(found)


def _priced(found: dict[UUID, _Whose]) -> dict[UUID, _Whose]:
    """With today's prices for accounts that charge such calls."""
    organizations = {whose.organization_id for whose in found.values()}
    charging = dict(
        Account.objects.filter(organization_id__in=organizations, charges_direct_traffic=True).values_list(
            "organization_id", "plan__margin_bp"
        )
    )
    if not charging:
        return found
    rates = {organization: _rates(margin_bp) for organization, margin_bp in charging.items()}
    return {digest: replace(whose, rates=rates.get(whose.organization_id, {})) for digest, whose in found.items()}


def _rates(margin_bp: int) -> dict[str, FrozenRates]:
    try:
        directory.in_force()
        directory.refresh()
        prices = directory.current().prices
    except CatalogueError:
        logger.exception("litellm.no_prices")
        return {}
    return {model: frozen(price, margin_bp=margin_bp) for model, price in prices.items()}


def direct_event(report: Report, request_id: UUID, whose: _Whose) -> UsageEvent:
    """A call past the gateway as an event."""
    rates = whose.rates.get(report.model) or whose.rates.get(report.model.rpartition("/")[2]) or _FREE
    started_ms = min(report.started_ms, clock.now_ms())
    return UsageEvent(
        request_id=request_id,
        organization_id=whose.organization_id,
        key_id=whose.key_id,
        user_id=whose.user_id,
        day=started_ms // MS_PER_DAY,
        minute=started_ms // 60_000,
        started_ms=started_ms,
        surface=report.surface,
        endpoint=report.endpoint,
        stage=schema.DIRECT,
        stage_reason=PAST_GATEWAY,
        requested_model=report.model,
        model=report.model,
        status=report.status,
        error_code=report.error_code,
        usage=report.usage,
        rank=RANK_LITELLM,
        rates=rates,
        cost_nanos=cost_nanos(report.usage, rates),
        upstream_cost_nanos=report.cost_nanos,
        latency_ms=report.latency_ms,
        ttft_ms=report.ttft_ms,
        is_stream=report.is_stream,
        is_disconnected=report.status == 499,
        source=report.source,
        client_address=report.client_address,
        user_agent=report.user_agent,
    )


def _add_direct(batch: _Batch, made: Mapping[UUID, UUID], owned: Mapping[UUID, _Whose]) -> None:
    events: dict[UUID, UsageEvent] = {}
    for digest, request_id in sorted(made.items(), key=lambda item: item[1]):
        first, *others = (direct_event(report, request_id, owned[digest]) for report in batch.told[digest])
        for other in others:
            first = merge_direct(first, other) or first
        events[request_id] = first
    new_ids = insert_rows(list(events.values()))
    for request_id in new_ids:
        batch.books.add(events[request_id])
        batch.counted.append(events[request_id])
        batch.used_keys.add(events[request_id].key_id)
    batch.taken.new += len(new_ids)
    _change_direct(batch, {digest: each for digest, each in made.items() if each not in new_ids})


def _change_direct(batch: _Batch, known: Mapping[UUID, UUID]) -> None:
    """Further reports of calls that have a row."""
    if not known:
        return
    batch.taken.duplicate += len(known)
    rows = stored_rows(sorted(set(known.values())))
    changed: dict[UUID, tuple[UsageEvent, int]] = {}
    for digest, request_id in sorted(known.items()):
        if request_id not in rows:
            continue  # dropped with its day
        row, revision = changed.get(request_id) or rows[request_id]
        if row.source not in DIRECT:
            continue  # a request of the gateway, found by response id or tokens
        whose = _Whose(row.organization_id, row.key_id, row.user_id)
        merged = row
        for report in batch.told[digest]:
            merged = merge_direct(merged, direct_event(report, request_id, whose)) or merged
        if merged != row:
            batch.books.change(row, merged, revision=revision + 1)
            changed[request_id] = (merged, revision + 1)
    batch.correct(changed)


def _count(batch: _Batch, redis: "Redis | None", prefix: str) -> None:
    """Calls past the gateway use up limits like any other; PostgreSQL already counts them."""
    mark_used(batch.used_keys - {NOBODY})
    if redis is None:
        return
    try:
        for event in batch.counted:
            payer = Payer.of(prefix, event.organization_id, event.key_id)
            count_sync(redis, payer, day=event.day, requests=1, cost_nanos=event.cost_nanos)
    except RedisError:
        logger.warning("litellm.not_counted_yet", exc_info=True)


def _announce(batch: _Batch, redis: "Redis", prefix: str) -> None:
    """To whoever watches; an import of last month is nothing that happens."""
    since_ms = clock.now_ms() - WATCHED_MS
    fresh, changed = (
        [event for event in events if event.started_ms >= since_ms] for events in (batch.counted, batch.changed)
    )
    Announcer(redis, prefix).announce(fresh, changed)


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
