"""Shipping, sweeping and reconciling on real PostgreSQL and Valkey."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from django.conf import settings
from redis import Redis

from accounts.models import User
from accounts.services import create_organization
from billing.limiter.intents import expired_leases, give_leases, is_settled_lately
from billing.limiter.limits import LOAD, Payer, ShardKeys, month_of
from billing.models import Account
from billing.pricing import Usage
from codexflow.lib import clock
from codexflow.lib.ids import new_id, uuid7_floor
from codexflow.lib.redis import SHARDS, shard_of, sync_client
from logs.models import RequestLog
from logs.pipeline.drain import drain
from logs.pipeline.events import UsageEvent, encode, orphaned
from logs.pipeline.journal import Journal
from logs.pipeline.reconcile import reconcile
from logs.pipeline.settlement import settle_event
from logs.pipeline.shipper import JournalShipper
from logs.pipeline.sweeper import sweep_orphans
from logs.pipeline.verify import verify_rollups
from logs.tests.factories import an_event
from tests.support.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
PREFIX = f"{settings.ENV.redis_prefix}_logs"


@pytest.fixture
def redis() -> Iterator["Redis"]:
    client = sync_client(settings.ENV.redis_url)
    yield client
    for key in client.scan_iter(match=f"{PREFIX}:*"):
        client.delete(key)


@pytest.fixture
def organization_id() -> UUID:
    owner = User.objects.create_user("ada@example.org")
    return create_organization(name="Ada", owner=owner, plan="internal").id


def drain_all(redis: "Redis") -> None:
    for _ in range(2):  # the first call finds no group and creates it
        drain(redis, prefix=PREFIX, consumer="test")


def journalled(folder: Path, *events: UsageEvent) -> None:
    """Journal of a gateway that died between journal and settlement."""
    journal = Journal(folder, segment_s=60)
    for event in events:
        journal.append(encode(event))
    journal.close()


def in_stream(redis: "Redis") -> int:
    return sum(redis.xlen(ShardKeys.of(PREFIX, number).usage) for number in range(SHARDS))


def ship_twice(shipper: JournalShipper) -> int:
    """Ship a second time, which acts on the segments that the first one saw."""
    assert shipper.ship() == 0
    first_ms = clock.now_ms()
    until(lambda: clock.now_ms() > first_ms)
    return shipper.ship()


def an_intent(organization_id: UUID) -> UsageEvent:
    """A call that was admitted while Redis was away."""
    return an_event(
        organization_id, new_id(), status=0, usage=Usage(), rank=0, attempts=(), is_degraded=True
    )  # fmt: skip


def test_a_journal_shipped_after_the_sweeper_corrects_its_estimate(
    redis: "Redis", organization_id: UUID, tmp_path: Path
) -> None:
    event = an_event(organization_id, new_id())
    journalled(tmp_path, event)
    # The gateway stayed away for longer than the sweeper's patience.
    settle_event(redis, PREFIX, orphaned(event, progress=3, now_ms=clock.now_ms()))
    drain_all(redis)
    assert RequestLog.objects.get().source == "sweeper"

    shipper = JournalShipper(redis, PREFIX, tmp_path)
    assert ship_twice(shipper) == 0
    drain_all(redis)

    row = RequestLog.objects.get()
    assert (row.source, row.status, row.cost_nanos, row.usage_rank) == ("gateway", 200, event.cost_nanos, event.rank)
    assert Account.objects.get(organization_id=organization_id).spent_nanos == event.cost_nanos
    assert verify_rollups() == []
    assert shipper.ship() == 1
    assert list(tmp_path.iterdir()) == []


def test_events_that_wait_for_the_drain_are_not_settled_again(
    redis: "Redis", organization_id: UUID, tmp_path: Path
) -> None:
    waiting, lost = (an_event(organization_id, new_id()) for _ in range(2))
    settle_event(redis, PREFIX, waiting)
    journalled(tmp_path, waiting, lost)
    shipper = JournalShipper(redis, PREFIX, tmp_path)
    assert ship_twice(shipper) == 0
    assert in_stream(redis) == 1

    drain_all(redis)
    assert shipper.ship() == 0
    assert in_stream(redis) == 1  # the lost one
    drain_all(redis)
    assert RequestLog.objects.count() == 2
    assert shipper.ship() == 1
    assert list(tmp_path.iterdir()) == []


def test_a_clock_that_went_back_does_not_hold_up_the_journal(
    redis: "Redis", organization_id: UUID, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journalled(tmp_path, an_event(organization_id, new_id()))
    shipper = JournalShipper(redis, PREFIX, tmp_path)
    tomorrow_ms = clock.now_ms() + 86_400_000
    with monkeypatch.context() as patched:
        patched.setattr(shipper, "_progress", lambda: (tomorrow_ms, tomorrow_ms))
        assert shipper.ship() == 0
    assert ship_twice(shipper) == 0
    assert in_stream(redis) == 1


def test_a_call_known_only_from_a_dead_processs_journal_is_recorded(
    redis: "Redis", organization_id: UUID, tmp_path: Path
) -> None:
    intent = an_intent(organization_id)
    journalled(tmp_path, intent)

    assert ship_twice(JournalShipper(redis, PREFIX, tmp_path)) == 0
    drain_all(redis)

    row = RequestLog.objects.get()
    assert (row.request_id, row.source, row.status, row.error_code) == (
        intent.request_id, "sweeper", 500, "gateway_lost",
    )  # fmt: skip
    assert (row.cost_nanos, row.is_degraded) == (0, True)
    assert ship_twice(JournalShipper(redis, PREFIX, tmp_path)) == 1
    assert verify_rollups() == []


def test_an_intent_is_left_to_its_process_while_it_lives(redis: "Redis", organization_id: UUID, tmp_path: Path) -> None:
    intent = an_intent(organization_id)
    journal = Journal(tmp_path, segment_s=0)
    journal.append(encode(intent))
    close_old = journal.rotate()
    assert close_old is not None
    close_old()

    assert ship_twice(JournalShipper(redis, PREFIX, tmp_path)) == 0
    drain_all(redis)
    assert not RequestLog.objects.exists()

    journal.close()  # its process ends without the call's event
    assert ship_twice(JournalShipper(redis, PREFIX, tmp_path)) == 0
    drain_all(redis)
    assert RequestLog.objects.get().error_code == "gateway_lost"


def test_an_intent_that_redis_has_is_left_to_the_sweeper(redis: "Redis", organization_id: UUID, tmp_path: Path) -> None:
    intent = an_intent(organization_id)
    journalled(tmp_path, intent)
    shard = Payer.of(PREFIX, organization_id, intent.key_id).shard
    redis.hset(shard.intents.decode(), str(intent.request_id), b"0:0:%b" % encode(intent))
    redis.hset(shard.progress.decode(), str(intent.request_id), b"5")
    redis.zadd(shard.alive.decode(), {str(intent.request_id): 1})

    assert ship_twice(JournalShipper(redis, PREFIX, tmp_path)) == 0
    assert sweep_orphans(redis, PREFIX) == 1
    drain_all(redis)

    assert RequestLog.objects.get().completion_tokens == 5
    assert ship_twice(JournalShipper(redis, PREFIX, tmp_path)) == 1


def test_a_calls_event_takes_precedence_over_its_intent(redis: "Redis", organization_id: UUID, tmp_path: Path) -> None:
    intent = an_intent(organization_id)
    event = an_event(organization_id, intent.key_id, request_id=intent.request_id)
    journalled(tmp_path, intent, event)

    assert ship_twice(JournalShipper(redis, PREFIX, tmp_path)) == 0
    drain_all(redis)

    row = RequestLog.objects.get()
    assert (row.source, row.cost_nanos, row.revision) == ("gateway", event.cost_nanos, 1)


def test_an_intent_that_a_restarted_redis_still_has_counts_once(redis: "Redis", organization_id: UUID) -> None:
    event = an_event(organization_id, new_id(), hold_nanos=9)
    payer = Payer.of(PREFIX, organization_id, event.key_id)
    for scope in payer.scopes:
        LOAD.run(redis, [scope], [event.day, 0, 0, month_of(event.day), 0, 0])
    settle_event(redis, PREFIX, event)
    drain_all(redis)
    # Valkey restarts without its last second: settled and drained, but the intent is there again.
    redis.hset(payer.shard.intents, str(event.request_id), b"%d:0:%b" % (event.day, encode(event)))

    reconcile(redis, PREFIX)

    for scope in payer.scopes:
        assert redis.hmget(scope, "n", "spent", "held") == [b"1", b"%d" % event.cost_nanos, b"9"]


def test_leases_end_by_redis_clock_and_not_by_the_sweepers(
    redis: "Redis", organization_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = an_event(organization_id, new_id())
    shard = Payer.of(PREFIX, organization_id, event.key_id).shard
    lease_ends_ms = clock.now_ms() + 15_000
    redis.hset(shard.intents.decode(), str(event.request_id), b"0:0:%b" % encode(event))
    redis.zadd(shard.alive.decode(), {str(event.request_id): lease_ends_ms})
    monkeypatch.setattr(clock, "now_ms", lambda: lease_ends_ms + 3_600_000)
    assert sweep_orphans(redis, PREFIX) == 0


@pytest.mark.parametrize("is_alive", [False, True])
def test_a_lease_of_a_clock_that_went_back_ends(redis: "Redis", organization_id: UUID, is_alive: bool) -> None:
    """Its process would otherwise have to be dead for a day before the sweeper settles its calls."""
    event = an_event(organization_id, new_id())
    shard, name = Payer.of(PREFIX, organization_id, event.key_id).shard, str(event.request_id)
    lease_ends_ms = clock.now_ms() + 86_400_000
    redis.hset(shard.intents.decode(), name, b"0:0:%b" % encode(event))
    redis.zadd(shard.alive.decode(), {name: lease_ends_ms})
    assert expired_leases(redis, shard, patience_s=20) == []  # a process that lives has time to renew it
    if is_alive:
        redis.zadd(shard.alive.decode(), {name: clock.now_ms() + 15_000})
    found = expired_leases(redis, shard, patience_s=-1)
    assert [each.request_id for each in found] == ([] if is_alive else [name])


LEASE_MS = 15_000


def is_given_a_lease(redis: "Redis", organization_id: UUID, *, age_ms: int, minutes_ago: int) -> bool:
    """A call without heartbeats, of this age by its process's clock, that Redis's clock admitted in that minute."""
    moment = datetime.fromtimestamp((clock.now_ms() - age_ms) / 1000, UTC)
    event = an_event(organization_id, new_id(), request_id=uuid7_floor(moment))
    shard, name = Payer.of(PREFIX, organization_id, event.key_id).shard, str(event.request_id)
    minute = int(clock.now_s()) // 60 - minutes_ago
    redis.hset(shard.intents.decode(), name, b"%d:%d:%b" % (event.day, minute, encode(event)))
    give_leases(redis, shard, lease_ms=LEASE_MS)
    if redis.zscore(shard.alive, name) is None:
        return False
    # It ends now: its process still has the sweeper's patience to renew it.
    assert expired_leases(redis, shard, patience_s=20) == []
    assert [each.request_id for each in expired_leases(redis, shard, patience_s=-1)] == [name]
    return True


@pytest.mark.parametrize(
    ("age_ms", "minutes_ago", "expected"),
    [
        (1_000, 0, False),  # no heartbeat was due
        (LEASE_MS + 1_000, 0, True),
        (LEASE_MS + 1_000, 1, True),
        (-3_600_000, 0, False),  # its process's clock is ahead: Redis's minute decides
        (-3_600_000, 2, True),
    ],
)
def test_a_call_whose_first_heartbeat_is_overdue_gets_a_lease(
    redis: "Redis", organization_id: UUID, age_ms: int, minutes_ago: int, expected: bool
) -> None:
    assert is_given_a_lease(redis, organization_id, age_ms=age_ms, minutes_ago=minutes_ago) is expected


def test_a_lease_that_a_heartbeat_gave_is_left_as_it_is(redis: "Redis", organization_id: UUID) -> None:
    event = an_event(organization_id, new_id(), request_id=uuid7_floor(datetime(2026, 1, 1, tzinfo=UTC)))
    shard, name = Payer.of(PREFIX, organization_id, event.key_id).shard, str(event.request_id)
    redis.hset(shard.intents.decode(), name, b"0:0:%b" % encode(event))
    redis.zadd(shard.alive.decode(), {name: clock.now_ms() + LEASE_MS})
    give_leases(redis, shard, lease_ms=LEASE_MS)
    assert expired_leases(redis, shard, patience_s=-1) == []


def test_what_was_settled_is_remembered_also_of_the_release_before(redis: "Redis", organization_id: UUID) -> None:
    event = an_event(organization_id, new_id())
    settle_event(redis, PREFIX, event)
    shard, before = ShardKeys.of(PREFIX, shard_of(organization_id)), new_id()
    redis.hset(f"{shard.prefix}settled:{int(clock.now_s()) // 60}", str(before), str(organization_id))
    for request_id, expected in ((event.request_id, True), (before, True), (new_id(), False)):
        assert is_settled_lately(redis, PREFIX, organization_id, request_id) is expected
    other = UUID(int=organization_id.int ^ 1 << 100)  # of the same shard
    assert not is_settled_lately(redis, PREFIX, other, event.request_id)
