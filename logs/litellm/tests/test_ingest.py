"""Ingest of reports: attempts reported, charges corrected, never created; nothing counted twice or lost."""

import hashlib
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from django.conf import settings
from redis import Redis

from accounts.services import create_personal_organization
from accounts.tests.factories import a_user
from billing.limiter.limits import Payer, ShardKeys
from billing.models import Account, LedgerEntry, SpendDaily
from billing.pricing import Usage, cost_nanos
from billing.tests.factories import an_organization
from codexflow.catalogue import directory
from codexflow.lib import clock
from codexflow.lib.ids import new_id, random_id
from codexflow.lib.redis import sync_client
from keys import secret
from keys.tests.factories import a_key
from logs.litellm.ingest import delete_identities, delete_unmatched, retry, take
from logs.litellm.resolve import PATIENCE
from logs.litellm.tests.factories import a_mapped_key, a_payload, a_spend_row, mapped
from logs.models import ReportIdentity, RequestLog, UnmatchedReport, UpstreamAttempt
from logs.pipeline.drain import store
from logs.pipeline.events import RANK_COUNTED, RANK_LITELLM, RANK_NONE, RANK_PROVIDER, AttemptFact, UsageEvent, orphaned
from logs.pipeline.verify import verify_rollups
from logs.tests.factories import RATES, an_event, entries

pytestmark = pytest.mark.django_db(transaction=True)
REPORTED = Usage(prompt_tokens=120, completion_tokens=60)


@pytest.fixture
def redis() -> Redis:
    return sync_client(settings.ENV.redis_url)


@pytest.fixture
def prefix() -> str:
    return f"ingest_{random_id().hex}"


def a_request(rank: int = RANK_COUNTED, **facts: Any) -> UsageEvent:
    """A stored request."""
    event = an_event(an_organization().id, random_id(), rank=rank, **facts)
    store(entries([event]))
    return event


def row_of(event: UsageEvent) -> RequestLog:
    return RequestLog.objects.get(request_id=event.request_id)


def charged(request_id: UUID) -> int:
    return -sum(LedgerEntry.objects.filter(request_id=request_id).values_list("amount_nanos", flat=True))


# Attempts of ours


def test_a_report_corrects_usage_that_the_gateway_counted_itself() -> None:
    event = a_request()
    done = take(mapped(a_payload(f"{event.request_id}.1")))
    row = row_of(event)
    assert (done.new, done.corrected) == (1, 1)
    assert (row.usage_rank, row.prompt_tokens, row.completion_tokens) == (RANK_LITELLM, 120, 60)
    assert row.cost_nanos == cost_nanos(REPORTED, RATES) == charged(event.request_id)
    assert (row.upstream_cost_nanos, row.source, row.model) == (54_000, "gateway", event.model)
    assert Account.objects.get(organization_id=event.organization_id).spent_nanos == row.cost_nanos
    assert SpendDaily.objects.get(organization_id=event.organization_id).requests == 1
    assert verify_rollups() == []


def test_a_report_only_adds_the_upstream_cost_to_the_providers_usage() -> None:
    event = a_request(RANK_PROVIDER)
    take(mapped(a_payload(f"{event.request_id}.1")))
    row = row_of(event)
    assert (row.usage_rank, row.cost_nanos, row.upstream_cost_nanos) == (RANK_PROVIDER, event.cost_nanos, 54_000)
    attempt = UpstreamAttempt.objects.get(request_id=event.request_id)
    assert (attempt.reported_prompt_tokens, attempt.reported_cost_nanos, attempt.status) == (120, 54_000, 200)
    assert verify_rollups() == []


@pytest.mark.parametrize("source", ["webhook", "sync"])
def test_a_repeated_report_changes_nothing(source: str) -> None:
    event = a_request()
    payload = a_payload(f"{event.request_id}.1")
    take(mapped(payload))
    before = (RequestLog.objects.values().get(request_id=event.request_id), charged(event.request_id))
    done = take(mapped(payload if source == "webhook" else a_spend_row(payload), source=source))
    assert (done.new, done.duplicate, done.corrected) == (0, 1, 0)
    assert (RequestLog.objects.values().get(request_id=event.request_id), charged(event.request_id)) == before


def test_only_the_attempt_that_won_is_billed_and_every_attempt_keeps_its_upstream_cost() -> None:
    failed = AttemptFact(n=1, model="deepseek-v3", status=503, error_code="upstream_error")
    won = AttemptFact(n=2, model="gpt-4o-mini", status=200, first_byte_ms=5)
    event = a_request(attempts=(failed, won))
    take(mapped(a_payload(f"{event.request_id}.1", status="failure", completion_tokens=900, response_cost=0.5)))
    assert charged(event.request_id) == event.cost_nanos
    take(mapped(a_payload(f"{event.request_id}.2")))
    assert charged(event.request_id) == cost_nanos(REPORTED, RATES)
    costs = UpstreamAttempt.objects.filter(request_id=event.request_id).order_by("n").values_list("reported_cost_nanos")
    assert [each[0] for each in costs] == [500_000_000, 54_000]


def test_a_report_never_creates_a_charge() -> None:
    failed = AttemptFact(n=1, model="gpt-4o-mini", status=503, error_code="upstream_error")
    for event in (
        a_request(RANK_NONE, usage=Usage(), status=503, attempts=(failed,)),
        a_request(RANK_NONE, usage=Usage(), status=499, is_disconnected=True),
        a_request(RANK_NONE, usage=Usage(), status=500, attempts=(), source="sweeper"),
    ):
        take(mapped(a_payload(f"{event.request_id}.1")))
        assert (row_of(event).cost_nanos, charged(event.request_id)) == (0, 0)
    take(mapped(a_payload(f"{new_id()}.1")))
    assert LedgerEntry.objects.exclude(amount_nanos=0).filter(kind="settle").count() == 0


def test_zeros_are_unknown_usage() -> None:
    event = a_request()
    take(mapped(a_payload(f"{event.request_id}.1", prompt_tokens=0, completion_tokens=0, total_tokens=0)))
    assert (row_of(event).usage_rank, row_of(event).cost_nanos) == (RANK_COUNTED, event.cost_nanos)


def test_a_dead_gateways_call_is_billed_by_litellms_count_until_its_journal_is_shipped() -> None:
    whole = an_event(an_organization().id, random_id(), rank=RANK_COUNTED)
    store(entries([orphaned(whole, progress=3, now_ms=whole.started_ms + 9)]))
    take(mapped(a_payload(f"{whole.request_id}.1")))
    assert (row_of(whole).usage_rank, row_of(whole).source) == (RANK_LITELLM, "sweeper")
    # The journal is shipped later: the second attempt had responded.
    won = AttemptFact(n=2, model="gpt-4o-mini", status=200, first_byte_ms=1)
    second = (AttemptFact(n=1, model="a", status=503), won)
    store(entries([msgspec.structs.replace(whole, attempts=second)]))
    row = row_of(whole)
    assert (row.usage_rank, row.source, row.cost_nanos) == (RANK_COUNTED, "gateway", whole.cost_nanos)
    take(mapped(a_payload(f"{whole.request_id}.2", completion_tokens=77)))
    assert (row_of(whole).completion_tokens, row_of(whole).usage_rank) == (77, RANK_LITELLM)
    assert charged(whole.request_id) == row_of(whole).cost_nanos
    assert verify_rollups() == []


def test_a_foreign_key_cannot_report_our_call_ids() -> None:
    event = a_request()
    stranger = hashlib.sha256(b"sk-strangers-virtual-key").hexdigest()
    done = take(mapped(a_payload(f"{event.request_id}.1", key_hash=stranger)))
    assert done.unmatched == 1
    assert row_of(event).cost_nanos == event.cost_nanos
    assert UnmatchedReport.objects.get().reason == "no_owner"


# Requests without a row yet


def test_a_report_that_comes_first_waits_for_its_request(redis: Redis, prefix: str) -> None:
    event = an_event(an_organization().id, random_id(), rank=RANK_COUNTED)
    report = mapped(a_payload(f"{event.request_id}.1"))
    assert take(report, redis=redis, prefix=prefix).waiting == 1
    assert take(report, redis=redis, prefix=prefix).waiting == 1
    assert UnmatchedReport.objects.get().state == "waiting"
    store(entries([event]))
    assert retry(redis, prefix).corrected == 1
    assert row_of(event).usage_rank == RANK_LITELLM
    assert UnmatchedReport.objects.count() == 0


def test_a_report_waits_while_its_call_runs_and_is_then_unmatched(redis: Redis, prefix: str) -> None:
    event = an_event(an_organization().id, random_id(), rank=RANK_COUNTED)
    take(mapped(a_payload(f"{event.request_id}.1")), redis=redis, prefix=prefix)
    UnmatchedReport.objects.update(received_at=clock.now() - PATIENCE - timedelta(seconds=1))
    intents = ShardKeys.of(prefix, event.organization_id.int & 15).intents
    redis.hset(intents.decode(), str(event.request_id), b"0:0:")
    assert retry(redis, prefix).waiting == 1
    redis.delete(intents)
    assert retry(redis, prefix).unmatched == 1
    assert UnmatchedReport.objects.get().state == "unmatched"
    # Days later the journal is shipped.
    store(entries([event]))
    assert retry(redis, prefix, also_unmatched=True).corrected == 1
    assert UnmatchedReport.objects.count() == 0


# The gateway's key without our id


@pytest.mark.parametrize("version", ["1.80.8", "1.90.0"])
def test_a_row_without_call_id_is_found_by_its_response_id(version: str) -> None:
    won = AttemptFact(n=1, model="gpt-4o-mini", status=200, first_byte_ms=1, response_id="chatcmpl-7")
    event = a_request(attempts=(won,))
    payload = a_payload("lost", id="chatcmpl-7")
    done = take(mapped(a_spend_row(payload, version=version), source="sync"))
    assert (done.new, done.corrected, done.unmatched) == (1, 1, 0)
    assert row_of(event).usage_rank == RANK_LITELLM
    assert take(mapped(a_spend_row(payload, version=version), source="sync")).duplicate == 1
    assert RequestLog.objects.count() == 1


def test_a_row_without_our_ids_is_found_by_model_and_tokens_within_a_minute() -> None:
    event = a_request(RANK_PROVIDER, usage=REPORTED)
    done = take(mapped(a_payload("unknown")))
    assert (done.new, done.waiting, done.unmatched) == (1, 0, 0)
    assert row_of(event).upstream_cost_nanos == 54_000
    others = (
        a_payload("later", started_s=clock.now_s() + 200),
        a_payload("more", completion_tokens=61),
        a_payload("other", model_group="gpt-4o"),
    )
    assert take(mapped(*others)).waiting == 3
    assert (RequestLog.objects.count(), LedgerEntry.objects.filter(kind="settle").count()) == (1, 1)
    assert set(UnmatchedReport.objects.values_list("reason", flat=True)) == {"own_key"}


# Past the gateway


def direct_rows(organization_id: UUID) -> list[RequestLog]:
    return list(RequestLog.objects.filter(organization_id=organization_id))


def test_a_call_with_a_mapped_key_is_logged_and_counted_and_costs_nothing(redis: Redis, prefix: str) -> None:
    key = a_mapped_key("cf_abc123def456")
    payer = Payer.of(prefix, key.organization_id, key.pk)
    today = clock.now_ms() // 86_400_000
    for scope in payer.scopes:
        redis.hset(scope.decode(), mapping={"d": today, "n": 4, "ds": 0, "mo": 0, "ms": 0, "spent": 0, "held": 0})
    simple = {
        "user_id": "cf_abc123def456", "id": "one", "model": "gpt-4o-mini", "cost": 0.0015, "response_time": 1.25,
        "usage": {"prompt_tokens": 100, "completion_tokens": 50}, "status": "success",
    }  # fmt: skip
    for _ in range(3):
        take(mapped(simple), redis=redis, prefix=prefix)
    (row,) = direct_rows(key.organization_id)
    assert (row.source, row.key_id, row.user_id) == ("webhook", key.pk, key.created_by_id)
    assert (row.cost_nanos, row.upstream_cost_nanos, row.latency_ms, row.status) == (0, 1_500_000, 1250, 200)
    assert (row.prompt_tokens, row.completion_tokens, row.request_id.version) == (100, 50, 7)
    assert SpendDaily.objects.get(organization_id=key.organization_id).requests == 1
    assert [redis.hget(scope.decode(), "n") for scope in payer.scopes] == [b"5", b"5"]
    assert charged(row.request_id) == 0
    assert verify_rollups() == []


def test_webhook_and_sync_of_every_version_make_one_row_of_a_call() -> None:
    digest = hashlib.sha256(b"sk-customers-virtual-key").hexdigest()
    key = a_mapped_key(digest)
    payload = a_payload("x1", key_hash=digest)
    reports = [mapped(payload)] + [
        mapped(a_spend_row(payload, version=version), source="sync") for version in ("1.80.8", "1.90.0", "1.109.1")
    ]
    for report in [*reversed(reports), *reports]:
        take(report)
    (row,) = direct_rows(key.organization_id)
    assert (row.source, row.is_stream, row.upstream_cost_nanos) == ("webhook", True, 54_000)
    assert SpendDaily.objects.get(organization_id=key.organization_id).requests == 1
    assert ReportIdentity.objects.values("request_id").distinct().count() == 1
    assert verify_rollups() == []


def test_a_call_with_one_of_our_keys_finds_it_without_storing_the_key() -> None:
    issued = a_key()
    row = {"user_id": issued.plain, "model": "gpt-4o-mini", "usage": {"total_tokens": 9}}
    (report,) = mapped(row)
    own = msgspec.structs.replace(
        report.owner, digests=tuple(secret.digest(issued.plain, salt) for salt in settings.ENV.salts)
    )
    take([msgspec.structs.replace(report, owner=own)])
    assert [each.key_id for each in direct_rows(issued.row.organization_id)] == [issued.row.pk]
    # Under another salt it has no owner, and the unmatched report does not contain the key either.
    take([msgspec.structs.replace(report, identities=("row:2",))])
    kept = UnmatchedReport.objects.get()
    assert issued.plain.encode() not in bytes(kept.report)
    assert issued.plain not in (kept.call, kept.litellm_key)


def test_a_laravel_user_is_resolved_to_the_personal_organization() -> None:
    user = a_user()
    organization = create_personal_organization(user)
    take(mapped({"model": "gpt-4", "usage": {"total_tokens": 5}, "metadata": {"laravel_user_id": user.pk}}))
    (row,) = direct_rows(organization.pk)
    assert (row.key_id, row.user_id) == (None, user.pk)
    assert verify_rollups() == []
    take(mapped({"model": "gpt-4", "usage": {"total_tokens": 5}, "metadata": {"laravel_user_id": 987_654}}))
    assert UnmatchedReport.objects.count() == 1


def test_an_object_without_identity_counts_once_per_delivery() -> None:
    key = a_mapped_key("cf_anonymous")
    nameless = {"user_id": "cf_anonymous", "model": "gpt-4", "usage": {"total_tokens": 5}}
    first = mapped(nameless, delivery="a")
    for report in (first, first, mapped(nameless, delivery="b")):
        take(report)
    assert len(direct_rows(key.organization_id)) == 2


def test_a_repeated_object_without_a_time_keeps_its_first_time() -> None:
    key = a_mapped_key("cf_abc123")
    untimed = {"id": "call-17", "user_id": "cf_abc123", "model": "gpt-4", "usage": {"prompt_tokens": 100}}
    now_ms = clock.now_ms()
    for later_ms in (0, 5_000, 86_400_000):
        take(mapped(untimed, now_ms=now_ms + later_ms))
    (row,) = direct_rows(key.organization_id)
    assert (row.revision, round(row.started_at.timestamp() * 1000)) == (1, now_ms)


def test_an_account_may_charge_traffic_past_the_gateway() -> None:
    directory.load(settings.ENV.config_path)
    key = a_mapped_key("cf_charged")
    Account.objects.filter(organization_id=key.organization_id).update(charges_direct_traffic=True)
    call = {"user_id": "cf_charged", "id": "1", "model": "openai/gpt-4o-mini", "usage": {"prompt_tokens": 100_000}}
    take(mapped(call))
    take(mapped(call))
    (row,) = direct_rows(key.organization_id)
    assert row.cost_nanos == 15_000_000 == charged(row.request_id)
    assert Account.objects.get(organization_id=key.organization_id).spent_nanos == 15_000_000
    assert verify_rollups() == []
    # More than twice the model's context cannot be: an alarm, and no charge.
    take(mapped({**call, "id": "2", "usage": {"prompt_tokens": 300_000}}))
    assert sorted(row.cost_nanos for row in direct_rows(key.organization_id)) == [0, 15_000_000]


def test_an_unmatched_report_is_taken_once_its_key_is_mapped(redis: Redis, prefix: str) -> None:
    digest = hashlib.sha256(b"sk-unknown-virtual-key").hexdigest()
    payload = a_payload("u1", key_hash=digest)
    assert take(mapped(payload), redis=redis, prefix=prefix).unmatched == 1
    assert retry(redis, prefix).unmatched == 0  # only waiting reports are retried soon
    kept = UnmatchedReport.objects.get()
    assert (kept.state, kept.reason, kept.litellm_key, kept.prompt_tokens) == ("unmatched", "no_owner", digest, 120)
    key = a_mapped_key(digest)
    retry(redis, prefix, also_unmatched=True)
    assert UnmatchedReport.objects.count() == 0
    assert len(direct_rows(key.organization_id)) == 1


def test_newer_unmatched_reports_do_not_block_older_ones(redis: Redis, prefix: str) -> None:
    name = random_id().hex * 2
    take(mapped(a_payload("ours", key_hash=name)))
    take(mapped(*(a_payload(f"unknown{n}", key_hash="0" * 64) for n in range(5))))
    key = a_mapped_key(name)
    for _ in range(3):
        retry(redis, prefix, also_unmatched=True, limit=2)
    assert [row.key_id for row in direct_rows(key.organization_id)] == [key.pk]
    assert UnmatchedReport.objects.count() == 5
    retry(redis, prefix, also_unmatched=True, limit=2)  # from the newest on again
    assert UnmatchedReport.objects.count() == 5


def test_a_report_older_than_the_log_is_unmatched() -> None:
    key = a_mapped_key("cf_old")
    old = {"user_id": "cf_old", "id": "o", "model": "m", "usage": {"total_tokens": 5}}
    take(mapped({**old, "created_at": "2020-01-01T00:00:00Z"}))
    assert direct_rows(key.organization_id) == []
    assert UnmatchedReport.objects.get().reason == "too_old"


def test_old_unmatched_reports_are_deleted() -> None:
    take(mapped(a_payload("x", key_hash=hashlib.sha256(b"sk-nobody").hexdigest())))
    take(mapped(a_payload("y", key_hash=hashlib.sha256(b"sk-nobody").hexdigest())))
    first = UnmatchedReport.objects.order_by("pk")[0]
    UnmatchedReport.objects.filter(pk=first.pk).update(received_at=clock.now() - timedelta(days=90, minutes=1))
    assert delete_unmatched(days=91) == 0
    assert delete_unmatched(days=90) == 1
    assert not UnmatchedReport.objects.filter(pk=first.pk).exists()
    assert UnmatchedReport.objects.count() == 1


def test_a_failed_call_past_the_gateway_is_an_error_in_the_rollups() -> None:
    key = a_mapped_key("cf_fails")
    take(mapped(a_payload("f1", key_hash="cf_fails", status="failure", error_information={"error_code": "429"})))
    (row,) = direct_rows(key.organization_id)
    assert (row.status, row.error_code) == (429, "litellm_failure")
    assert verify_rollups() == []


def test_identities_are_deleted_with_their_day() -> None:
    digest = hashlib.sha256(b"sk-customers-virtual-key").hexdigest()
    key = a_mapped_key(digest)
    take(mapped(a_payload("x1", key_hash=digest)))
    made = ReportIdentity.objects.count()
    assert made > 0
    today = clock.now().date()
    assert delete_identities(today) == 0
    assert delete_identities(today + timedelta(days=1)) == made
    assert len(direct_rows(key.organization_id)) == 1
