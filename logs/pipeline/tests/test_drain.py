"""The drain: any order and any number of deliveries end in the same rows, money and rollups."""

import random
import re
from datetime import UTC, date, datetime, time, timedelta
from unittest.mock import patch
from uuid import UUID

import msgspec
import pytest
from django.conf import settings as django_settings
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.ledger import first_open_day
from billing.limiter.limits import ShardKeys
from billing.models import Account, LedgerEntry, SpendDaily
from billing.pricing import FrozenRates, Usage, cost_nanos
from billing.selectors import key_totals
from billing.tests.factories import an_organization
from codexflow.lib import clock
from codexflow.lib.clock import now
from codexflow.lib.ids import random_id, uuid7_floor
from codexflow.lib.redis import sync_client
from keys.models import ApiKey
from keys.tests.factories import a_key
from logs.models import DeadLetter, RequestLog, UpstreamAttempt, UsageDaily, UsageHourly
from logs.pipeline import partitions
from logs.pipeline.drain import Drained, Entry, drain, store, store_all
from logs.pipeline.events import (
    RANK_COUNTED,
    RANK_LITELLM,
    RANK_NONE,
    RANK_PROGRESS,
    RANK_PROVIDER,
    encode,
    orphaned,
)
from logs.pipeline.rows import stored_rows
from logs.pipeline.settlement import unreported_requests
from logs.pipeline.verify import verify_rollups
from logs.tests.factories import RATES, SHARD, an_event, another_report, entries, written_by_drain
from tests.support.examples import examples


@pytest.mark.django_db(transaction=True)
@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(1, 30), max_size=4))
def test_any_order_and_number_of_deliveries_writes_the_same(seed: int, cuts: list[int]) -> None:
    dice = random.Random(seed)  # noqa: S311 - shuffling
    organization = an_organization()
    events = [an_event(organization.id, random_id(), model=dice.choice(["a", "b"])) for _ in range(4)]
    counted = [
        another_report(event, RANK_COUNTED, prompt_tokens=5, completion_tokens=dice.randrange(9)) for event in events
    ]
    store(entries(events))
    expected = written_by_drain(organization.id)
    for model in (RequestLog, UsageHourly, UsageDaily, SpendDaily, UpstreamAttempt):
        model.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE billing_ledgerentry CASCADE")
    Account.objects.update(spent_nanos=0)

    delivered = (events + counted) * 3
    dice.shuffle(delivered)
    start = 0
    for cut in [*cuts, len(delivered)]:
        store(entries(delivered[start : start + cut]))
        start += cut
    assert written_by_drain(organization.id) == expected
    assert verify_rollups() == []


@pytest.mark.django_db(transaction=True)
def test_a_better_report_writes_the_difference_to_ledger_and_rollups() -> None:
    organization = an_organization()
    event = an_event(organization.id, random_id())
    store(entries([another_report(event, RANK_PROGRESS, prompt_tokens=10, completion_tokens=2)]))
    done = store(entries([event]))
    assert (done.corrected, done.stored) == (1, 0)
    row = RequestLog.objects.get(request_id=event.request_id)
    assert (row.usage_rank, row.cost_nanos, row.source, row.revision) == (RANK_PROVIDER, event.cost_nanos, "gateway", 2)
    lines = LedgerEntry.objects.filter(request_id=event.request_id).order_by("revision")
    assert [line.kind for line in lines] == ["settle", "adjustment"]
    assert -sum(line.amount_nanos for line in lines) == event.cost_nanos
    assert Account.objects.get(organization=organization).spent_nanos == event.cost_nanos
    assert SpendDaily.objects.get(organization=organization).requests == 1
    assert verify_rollups() == []


@pytest.mark.parametrize(
    ("at", "first"),
    [
        ("2026-11-30T23:59:59", "2026-11-01"), ("2026-12-01T23:59:59", "2026-11-01"),
        ("2026-12-02T00:00:00", "2026-12-01"), ("2027-01-01T12:00:00", "2026-12-01"),
    ],
)  # fmt: skip
def test_a_month_closes_a_day_after_its_end(at: str, first: str) -> None:
    assert first_open_day(datetime.fromisoformat(f"{at}+00:00")).isoformat() == first


@pytest.mark.django_db
def test_a_correction_of_a_closed_month_is_booked_today() -> None:
    organization, key_id = an_organization(), random_id()
    today = now().date()
    past = (today.replace(day=1) - timedelta(days=1)).replace(day=1) - timedelta(days=1)  # closed also on a first
    noon = datetime.combine(past, time(12), UTC)
    number = (past - date(1970, 1, 1)).days
    event = an_event(organization.id, key_id, day=number, request_id=UUID(int=uuid7_floor(noon).int + 1))
    estimate = another_report(event, RANK_PROGRESS, prompt_tokens=10, completion_tokens=2)
    with patch.object(clock, "now", lambda: noon):
        store(entries([estimate]))  # while the month was open

    store(entries([event]))

    difference = event.cost_nanos - estimate.cost_nanos
    first, second = LedgerEntry.objects.filter(request_id=event.request_id).order_by("revision")
    assert (first.day, first.note, -first.amount_nanos) == (past, "", estimate.cost_nanos)
    assert (second.day, second.kind, -second.amount_nanos) == (today, "adjustment", difference)
    assert str(past) in second.note
    days = SpendDaily.objects.filter(organization=organization).order_by("day")
    assert list(days.values_list("day", "requests", "cost_nanos")) == [
        (past, 1, estimate.cost_nanos),
        (today, 0, difference),
    ]
    # Usage stays on its own day: row, rollups and requests.
    assert RequestLog.objects.get(request_id=event.request_id).day == past
    assert UsageDaily.objects.get(organization_id=organization.id).day == past
    assert UsageDaily.objects.get(organization_id=organization.id).cost_nanos == event.cost_nanos
    assert Account.objects.get(organization=organization).spent_nanos == event.cost_nanos
    # The limiter's counters follow: the present month is charged, and today's count of requests is not raised.
    (totals,) = key_totals([key_id], (today - date(1970, 1, 1)).days).values()
    assert (totals.requests_today, totals.month_nanos) == (0, difference)


@pytest.mark.django_db
def test_the_last_use_of_a_key_is_stored_once_an_hour() -> None:
    key = a_key().row
    assert key.last_used_at is None
    store(entries([an_event(key.organization_id, key.id)]))
    key.refresh_from_db()
    first = key.last_used_at
    assert first is not None
    store(entries([an_event(key.organization_id, key.id)]))
    key.refresh_from_db()
    assert key.last_used_at == first
    ApiKey.objects.update(last_used_at=first - timedelta(hours=2))
    store(entries([an_event(key.organization_id, key.id)]))
    key.refresh_from_db()
    assert key.last_used_at is not None
    assert key.last_used_at >= first


@pytest.mark.django_db
def test_cache_writes_are_stored_with_their_price_and_corrected_by_it() -> None:
    key = a_key().row
    rates = msgspec.structs.replace(RATES, cache_write_nanos=200_000_000, cache_write_1h_nanos=300_000_000)
    reported = Usage(prompt_tokens=100, cache_write_tokens=80, cache_write_1h_tokens=30, completion_tokens=50)
    event = msgspec.structs.replace(an_event(key.organization_id, key.id, rank=RANK_COUNTED), rates=rates)
    event = msgspec.structs.replace(event, cost_nanos=cost_nanos(event.usage, rates))
    store(entries([event]))
    report = {name: getattr(reported, name) for name in Usage.__struct_fields__}
    store(entries([another_report(event, RANK_LITELLM, **report)]))
    (row, _), *_ = stored_rows([event.request_id]).values()
    assert (row.usage, row.rates, row.cost_nanos) == (reported, rates, cost_nanos(reported, rates))
    ledger = LedgerEntry.objects.filter(request_id=event.request_id).values_list("amount_nanos", flat=True)
    assert -sum(ledger) == cost_nanos(reported, rates)


@pytest.mark.django_db
def test_a_worse_report_changes_nothing() -> None:
    organization = an_organization()
    event = an_event(organization.id, random_id())
    store(entries([event]))
    before = written_by_drain(organization.id)
    done = store(entries([another_report(event, RANK_COUNTED, prompt_tokens=999, completion_tokens=999)]))
    assert done.repeated == 1
    assert written_by_drain(organization.id) == before


@pytest.mark.django_db(transaction=True)
def test_a_rejected_event_becomes_a_dead_letter_and_stops_no_other() -> None:
    organization = an_organization()
    good = an_event(organization.id, random_id())
    lying = msgspec.structs.replace(an_event(organization.id, random_id()), cost_nanos=1)
    # PostgreSQL, not the decoder, refuses this one.
    unstorable = an_event(organization.id, random_id(), requested_model="a\0b")
    without_organization = an_event(random_id(), random_id())
    done = store_all(
        [*entries([lying, unstorable, without_organization, good]), Entry(SHARD, b"9-0", b"\xff nonsense")],
    )
    assert (done.stored, done.dead, done.read) == (1, 4, 5)
    assert RequestLog.objects.get().request_id == good.request_id
    rejected = {unstorable.request_id, without_organization.request_id, lying.request_id}
    assert {*DeadLetter.objects.values_list("request_id", flat=True)} == {*rejected, None}
    assert unreported_requests(rejected) == set()  # no journal settles them again
    assert isinstance(done, Drained)


@pytest.mark.django_db(transaction=True)
def test_a_foreign_entry_becomes_a_dead_letter_and_the_next_is_stored() -> None:
    redis, prefix = sync_client(django_settings.ENV.redis_url), f"foreign_{random_id().hex}"
    event = an_event(an_organization().id, random_id())
    stream = ShardKeys.of(prefix, 0).usage
    redis.xadd(stream.decode(), {"x": "y"})
    redis.xadd(stream.decode(), {"e": encode(event)})
    # The first call finds no group yet and creates it.
    drain(redis, prefix=prefix, consumer="test")
    drain(redis, prefix=prefix, consumer="test")
    assert RequestLog.objects.filter(request_id=event.request_id).exists()
    assert DeadLetter.objects.count() == 1
    assert redis.xlen(stream.decode()) == 0


@pytest.mark.django_db(transaction=True)
def test_a_dead_workers_batch_is_taken_over_though_redis_clock_has_gone_back() -> None:
    """By that clock it was read in an hour from now, and so would have waited for that long."""
    redis, prefix = sync_client(django_settings.ENV.redis_url), f"back_{random_id().hex}"
    event = an_event(an_organization().id, random_id())
    stream = ShardKeys.of(prefix, 0).usage.decode()
    drain(redis, prefix=prefix, consumer="test")  # creates the groups
    entry = redis.xadd(stream, {"e": encode(event)})
    redis.xreadgroup("drain", "dead", {stream: ">"})
    in_an_hour_ms = clock.now_ms() + 3_600_000
    redis.xclaim(stream, "drain", "dead", 0, [entry], time=in_an_hour_ms)
    drain(redis, prefix=prefix, consumer="test")
    assert not RequestLog.objects.filter(request_id=event.request_id).exists()
    redis.set(f"{ShardKeys.of(prefix, 0).prefix}clock:drain", in_an_hour_ms)
    drain(redis, prefix=prefix, consumer="test")
    assert RequestLog.objects.filter(request_id=event.request_id).exists()


@pytest.mark.django_db
def test_tokens_without_cost_are_logged_as_an_error(caplog: pytest.LogCaptureFixture) -> None:
    organization = an_organization()
    free = FrozenRates(input_nanos=0, cached_nanos=0, output_nanos=0)
    uncharged, priced, empty = (an_event(organization.id, random_id()) for _ in range(3))
    uncharged = msgspec.structs.replace(uncharged, rates=free, cost_nanos=0)
    empty = msgspec.structs.replace(empty, usage=Usage(), cost_nanos=0)
    store(entries([uncharged, priced, empty]))
    (record,) = [each for each in caplog.records if each.getMessage() == "drain.tokens_without_cost"]
    assert (record.levelname, vars(record)["count"], vars(record)["request_id"]) == (
        "ERROR",
        1,
        str(uncharged.request_id),
    )


@pytest.mark.django_db
def test_the_ledger_refuses_changes_and_second_charges() -> None:
    organization = an_organization()
    event = an_event(organization.id, random_id())
    store(entries([event]))
    line = LedgerEntry.objects.get(request_id=event.request_id)
    with pytest.raises(Exception, match="append-only"), transaction.atomic():
        LedgerEntry.objects.filter(pk=line.pk).update(amount_nanos=0)
    with pytest.raises(Exception, match="append-only"), transaction.atomic():
        line.delete()
    line.pk = None
    with pytest.raises(IntegrityError), transaction.atomic():
        line.save()


@pytest.mark.django_db
def test_partitions_are_created_ahead_and_strays_are_counted() -> None:
    partitions.make_ahead()
    assert partitions.make_ahead() == 0
    for days in (-35, 0, 7):
        name = f"request_log_{now().date() + timedelta(days=days):%Y%m%d}"
        with connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass(%s)", [name])
            assert cursor.fetchone()[0] == name
    assert partitions.strays() == 0
    organization = an_organization()
    store(entries([an_event(organization.id, random_id(), request_id=random_id())]))
    assert partitions.strays() == 2  # the row and its attempt: a random id has no day


@pytest.mark.django_db(transaction=True)
def test_a_report_without_attempts_keeps_their_number() -> None:
    event = an_event(an_organization().id, random_id())
    store(entries([another_report(event, RANK_COUNTED, prompt_tokens=5, completion_tokens=2)]))
    report = msgspec.structs.replace(
        another_report(event, RANK_LITELLM, prompt_tokens=9, completion_tokens=3), attempts=()
    )
    assert store(entries([report])).corrected == 1
    assert RequestLog.objects.get(request_id=event.request_id).attempts == 1


@pytest.mark.django_db(transaction=True)
def test_a_gateways_report_after_a_sweepers_adds_its_attempts() -> None:
    event = an_event(an_organization().id, random_id())
    intent = msgspec.structs.replace(event, attempts=(), usage=Usage(), cost_nanos=0, rank=RANK_NONE)
    store(entries([orphaned(intent, progress=None, now_ms=event.started_ms)]))
    assert RequestLog.objects.get().attempts == 0
    store(entries([event]))
    assert RequestLog.objects.get().attempts == UpstreamAttempt.objects.count() == 1


@pytest.mark.django_db
def test_a_correction_reads_only_the_partitions_of_its_requests() -> None:
    event = an_event(an_organization().id, random_id())
    store(entries([another_report(event, RANK_COUNTED, prompt_tokens=5, completion_tokens=2)]))
    with CaptureQueriesContext(connection) as captured:
        store(entries([another_report(event, RANK_PROVIDER, prompt_tokens=9, completion_tokens=3)]))
    (update,) = [each["sql"] for each in captured if each["sql"].startswith("UPDATE request_log")]
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {update}")
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert set(re.findall(r"request_log_[0-9]{8}|request_log_default", plan)) == {f"request_log_{now():%Y%m%d}"}
