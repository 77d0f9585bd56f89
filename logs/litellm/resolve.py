"""Resolve each call that LiteLLM reports to exactly one known thing. Reads only.

A call is resolved in one of four ways, tried in this order.
1. Its call id names an attempt of ours (`AttemptOf`). A customer of LiteLLM may send any call id, so the key must be
   ours.
2. It was reported before under one of its identities (`KnownCall`).
3. It was made with the gateway's own key but lost its call id: an attempt with its response id, or one of the same
   model and tokens in the same minute, is the one it means (`AttemptOf`).
4. Its key or user is known here: a call past the gateway (`NewCall`).
Whatever is left is `Unmatched`, with the reason; so is an attempt whose request has no row yet, which may still be
running or not stored yet.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TypeAlias
from uuid import UUID

from django.conf import settings
from django.db import connection
from redis import Redis, RedisError

from accounts.selectors import personal_organizations_of
from billing.limiter.intents import running
from billing.models import Account
from billing.pricing import FrozenRates, frozen
from codexflow.catalogue import directory
from codexflow.catalogue.schema import CatalogueError
from codexflow.lib import clock
from codexflow.lib.ids import uuid7_floor
from keys.models import ApiKey
from keys.selectors import keys_by_digest, keys_by_litellm_name
from logs.litellm.mapping import MASTER_KEY
from logs.litellm.report import Report, attempt_of, digest_of, id_of
from logs.models import ReportIdentity, RequestLog, UnmatchedReport
from logs.pipeline.partitions import DAYS_BACK
from logs.pipeline.rollups import NO_KEY

logger = logging.getLogger(__name__)

# A gateway's event is in PostgreSQL a second after the call's end; a journal that a sibling adopts takes longer.
PATIENCE = timedelta(minutes=15)
SAME_MINUTE = timedelta(seconds=60)
# A call is reported by its start, and its response id comes with its end.
SAME_RESPONSE = timedelta(minutes=15)
MS_PER_DAY = 86_400_000

Reason: TypeAlias = UnmatchedReport.Reason
State: TypeAlias = UnmatchedReport.State


@dataclass(frozen=True, slots=True)
class Call:
    """All reports of one call, the most informative first, and when the first of them was received."""

    reports: tuple[Report, ...]
    received_at: datetime

    @property
    def report(self) -> Report:
        return self.reports[0]

    @property
    def digest(self) -> UUID:
        return self.report.digest

    @property
    def may_still_match(self) -> bool:
        """True while the request that it belongs to may still arrive."""
        return clock.now() - self.received_at < PATIENCE


@dataclass(frozen=True, slots=True)
class CallOwner:
    """The organization, key and user of a call past the gateway, with the prices it is charged at; none: free."""

    organization_id: UUID
    key_id: UUID = NO_KEY
    user_id: int | None = None
    rates: Mapping[str, FrozenRates] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AttemptOf:
    """The call is attempt `n` of a request of the gateway. `is_inferred`: found by its content, not by its call id."""

    request_id: UUID
    n: int
    is_inferred: bool = False


@dataclass(frozen=True, slots=True)
class KnownCall:
    """The call was reported before; `request_id` is the request that was made of it."""

    request_id: UUID


@dataclass(frozen=True, slots=True)
class NewCall:
    """The call went past the gateway and is reported for the first time; `request_id` is the one to give it."""

    request_id: UUID
    owner: CallOwner


@dataclass(frozen=True, slots=True)
class Unmatched:
    """Nothing is known of the call, for `reason`. WAITING is tried again soon, UNMATCHED alarms the operator."""

    reason: Reason
    state: State


Resolution = AttemptOf | KnownCall | NewCall | Unmatched


def resolve(
    calls: Sequence[Call], *, redis: "Redis | None" = None, prefix: str = "", owner: ApiKey | None = None
) -> dict[UUID, Resolution]:
    """Resolve each call once, by its digest. Raises what PostgreSQL raises.

    `owner` is the operator's decision on whose calls these are. Without `redis`, requests that are still
    running are unknown.
    """
    found: dict[UUID, Resolution] = {}

    def open_calls() -> list[Call]:
        return [call for call in calls if call.digest not in found]

    found |= _named_attempts(calls)
    found |= _known_calls(open_calls())
    found |= _inferred_attempts([call for call in open_calls() if is_own_key(call.report.owner.litellm_key)])
    found |= _new_calls(open_calls(), owner)
    found |= _without_a_row(calls, found, redis, prefix)
    return found


def is_own_key(litellm_key: str) -> bool:
    """Return whether LiteLLM's id of a key is that of the gateway's own key."""
    env = settings.ENV
    own = {hashlib.sha256(key.encode()).hexdigest() for key in (env.litellm_api_key, env.litellm_admin_key) if key}
    return litellm_key in own or litellm_key == MASTER_KEY


def requests_of(reports: Sequence[Report]) -> dict[UUID, tuple[UUID, UUID]]:
    """Return request and organization of each report by its digest, as far as both are known now."""
    ours = {report.digest: attempt[0] for report in reports if (attempt := _named_attempt(report)) is not None}
    logged = dict(
        RequestLog.objects.filter(request_id__in=set(ours.values())).values_list("request_id", "organization_id")
    )
    found = {digest: (request_id, logged[request_id]) for digest, request_id in ours.items() if request_id in logged}
    past = [each for each in reports if each.digest not in ours and not is_own_key(each.owner.litellm_key)]
    known = _requests_by_identity(past)
    owners = _owners_of(past, None)
    for report in past:
        if report.digest in owners:
            request_id = known.get(report.digest) or new_id_of(report)
            found[report.digest] = (request_id, owners[report.digest].organization_id)
    return found


def remember(requests: Mapping[UUID, UUID], reports: Mapping[UUID, Report]) -> dict[UUID, UUID]:
    """Note under all identities of each report which request it is, by digest.

    Returns what is noted now, which another worker may have noted first.
    """
    rows = [
        ReportIdentity(digest=digest_of(identity), request_id=request_id)
        for digest, request_id in requests.items()
        for identity in reports[digest].identities
    ]
    ReportIdentity.objects.bulk_create(sorted(rows, key=lambda row: row.digest), ignore_conflicts=True)
    return _requests_by_identity([reports[digest] for digest in requests])


def new_id_of(report: Report) -> UUID:
    """Return the deterministic request id of a call past the gateway."""
    return id_of(report.identities[0], min(report.started_ms, clock.now_ms()))


def _named_attempts(calls: Iterable[Call]) -> dict[UUID, AttemptOf]:
    named = {call.digest: _named_attempt(call.report) for call in calls}
    return {digest: AttemptOf(*attempt) for digest, attempt in named.items() if attempt is not None}


def _named_attempt(report: Report) -> tuple[UUID, int] | None:
    is_ours = not report.owner.litellm_key or is_own_key(report.owner.litellm_key)
    return attempt_of(report.call_id) if is_ours else None


def _known_calls(calls: Sequence[Call]) -> dict[UUID, KnownCall]:
    known = _requests_by_identity([call.report for call in calls])
    return {digest: KnownCall(request_id) for digest, request_id in known.items()}


def _requests_by_identity(reports: Iterable[Report]) -> dict[UUID, UUID]:
    """Return the request that was made of each report's call before, by the report's digest."""
    digests = {digest_of(identity): report.digest for report in reports for identity in report.identities}
    rows = ReportIdentity.objects.filter(digest__in=digests).order_by("digest").values_list("digest", "request_id")
    return {digests[found]: request_id for found, request_id in rows}


def _inferred_attempts(calls: Sequence[Call]) -> dict[UUID, Resolution]:
    """Resolve calls of the gateway's own key that lost their call id on the way."""
    by_response_id = _attempts_by_response_id([call.report for call in calls])
    found: dict[UUID, Resolution] = {}
    for call in calls:
        attempt = by_response_id.get(call.report.response_id) or _attempt_by_tokens(call.report)
        if attempt is not None:
            found[call.digest] = AttemptOf(*attempt, is_inferred=True)
        else:
            is_early = call.may_still_match and attempt_of(call.report.call_id) is None
            found[call.digest] = Unmatched(Reason.OWN_KEY, State.WAITING if is_early else State.UNMATCHED)
    return found


def _attempts_by_response_id(reports: Sequence[Report]) -> dict[str, tuple[UUID, int]]:
    """Return attempts by the provider's response id, read in one query over the time of all reports."""
    wanted = {report.response_id for report in reports if report.response_id}
    starts = [report.started_ms for report in reports]
    if not wanted:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT response_id, request_id, n FROM upstream_attempt"
            " WHERE request_id BETWEEN %s AND %s AND response_id = ANY(%s) ORDER BY request_id DESC, n DESC",
            [
                uuid7_floor(moment_of(min(starts)) - SAME_RESPONSE),
                uuid7_floor(moment_of(max(starts)) + SAME_MINUTE),
                list(wanted),
            ],
        )
        return {response_id: (request_id, n) for response_id, request_id, n in cursor.fetchall()}


def _attempt_by_tokens(report: Report) -> tuple[UUID, int] | None:
    """Return the attempt with a response of the same model and tokens that began nearest, within a minute."""
    if not report.usage.total_tokens:
        return None
    moment = moment_of(report.started_ms)
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


def _new_calls(calls: Sequence[Call], owner: ApiKey | None) -> dict[UUID, Resolution]:
    """Resolve calls past the gateway to their owners."""
    owners = _owners_of([call.report for call in calls], owner)
    oldest_ms = clock.now_ms() - (DAYS_BACK - 1) * MS_PER_DAY
    found: dict[UUID, Resolution] = {}
    for call in calls:
        if call.digest not in owners:
            found[call.digest] = Unmatched(Reason.NO_OWNER, State.UNMATCHED)
        elif call.report.started_ms < oldest_ms:
            found[call.digest] = Unmatched(Reason.TOO_OLD, State.UNMATCHED)
        else:
            found[call.digest] = NewCall(new_id_of(call.report), owners[call.digest])
    return found


def _owners_of(reports: Sequence[Report], owner: ApiKey | None) -> dict[UUID, CallOwner]:
    """Return owners by the reports' digests: LiteLLM's key first, then a key of ours, then a user."""
    names = {name for report in reports for name in report.owner.names}
    by_name = keys_by_litellm_name(names) if names else {}
    digests = {report.owner.public_id: report.owner.digests for report in reports if report.owner.public_id}
    by_digest = keys_by_digest(digests) if digests else {}
    users = {report.owner.user_id for report in reports if report.owner.user_id}
    by_user = personal_organizations_of([each for each in users if each]) if users else {}
    found: dict[UUID, CallOwner] = {}
    for report in reports:
        named = report.owner
        candidates = [by_name.get(named.litellm_key), *(by_name.get(name) for name in named.names)]
        key = owner or next((each for each in candidates if each), None) or by_digest.get(named.public_id)
        if key is not None:
            found[report.digest] = CallOwner(key.organization_id, key.pk, key.created_by_id)
        elif named.user_id in by_user:
            found[report.digest] = CallOwner(by_user[named.user_id], NO_KEY, named.user_id)
    return _with_rates(found)


def _with_rates(owners: dict[UUID, CallOwner]) -> dict[UUID, CallOwner]:
    """Add today's prices for accounts that charge such calls."""
    organizations = {owner.organization_id for owner in owners.values()}
    charging = dict(
        Account.objects.filter(organization_id__in=organizations, charges_direct_traffic=True).values_list(
            "organization_id", "plan__margin_bp"
        )
    )
    if not charging:
        return owners
    rates = {organization: _rates(margin_bp) for organization, margin_bp in charging.items()}
    return {digest: replace(owner, rates=rates.get(owner.organization_id, {})) for digest, owner in owners.items()}


def _rates(margin_bp: int) -> dict[str, FrozenRates]:
    try:
        directory.in_force()
        directory.refresh()
        prices = directory.current().prices
    except CatalogueError:
        logger.exception("litellm.no_prices")
        return {}
    return {model: frozen(price, margin_bp=margin_bp) for model, price in prices.items()}


def _without_a_row(
    calls: Sequence[Call], found: Mapping[UUID, Resolution], redis: "Redis | None", prefix: str
) -> dict[UUID, Unmatched]:
    """Return the attempts whose request has no row: they wait for the request's end, at least as long as PATIENCE."""
    requests = {digest: each.request_id for digest, each in found.items() if isinstance(each, AttemptOf)}
    if not requests:
        return {}
    missing = _missing_rows(set(requests.values()))
    in_flight = _running(redis, prefix, missing) if redis is not None else set()
    unmatched = {}
    for call in calls:
        request_id = requests.get(call.digest)
        if request_id in missing:
            is_early = call.may_still_match or request_id in in_flight
            unmatched[call.digest] = Unmatched(Reason.NO_REQUEST, State.WAITING if is_early else State.UNMATCHED)
    return unmatched


def _missing_rows(ids: set[UUID]) -> set[UUID]:
    # Bounded on both sides, so that only the partitions of these days are read.
    rows = RequestLog.objects.filter(request_id__in=ids, request_id__gte=min(ids), request_id__lte=max(ids))
    return ids - set(rows.values_list("request_id", flat=True))


def _running(redis: "Redis", prefix: str, ids: set[UUID]) -> set[UUID]:
    """Return the requests that are still running; all of them when Redis cannot tell."""
    try:
        return running(redis, prefix, ids)
    except RedisError:
        return ids


def moment_of(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
