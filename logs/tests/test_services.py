"""Shipping, sweeping and reconciling on real PostgreSQL and Valkey."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from django.conf import settings
from redis import Redis

from accounts.models import User
from accounts.services import create_organization
from billing.limits import WARM, Payer, month_of
from billing.models import Account
from billing.services import open_account, seed_plans
from codexflow.lib import clock
from codexflow.lib.ids import new_id
from codexflow.lib.redis import sync_client
from logs.drain import drain
from logs.events import UsageEvent, encode, orphaned
from logs.intake import Journal
from logs.models import RequestLog
from logs.reconcile import reconcile
from logs.services import settle_event, ship_journals, verify_rollups
from logs.tests.factories import an_event

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
    seed_plans()
    organization = create_organization(name="Ada", owner=User.objects.create_user("ada@example.org"))
    open_account(organization, plan="internal")
    return organization.id


def drained(redis: "Redis") -> None:
    for _ in range(2):  # the first one finds no group and makes it
        drain(redis, prefix=PREFIX, consumer="test")


def journalled(folder: Path, event: UsageEvent) -> None:
    """What a gateway leaves that died between journal and settlement."""
    journal = Journal(folder, segment_s=60)
    journal.append(encode(event))
    journal.close()


def test_a_journal_that_comes_after_the_sweeper_still_counts(
    redis: "Redis", organization_id: UUID, tmp_path: Path
) -> None:
    event = an_event(organization_id, new_id())
    journalled(tmp_path, event)
    # The gateway stayed away for longer than the sweeper's patience.
    settle_event(redis, PREFIX, orphaned(event, delivered_tokens=3, now_ms=clock.now_ms()))
    drained(redis)
    assert RequestLog.objects.get().source == "sweeper"

    assert ship_journals(redis, PREFIX, tmp_path) == 0
    drained(redis)

    row = RequestLog.objects.get()
    assert (row.source, row.status, row.cost_nanos, row.usage_rank) == ("gateway", 200, event.cost_nanos, event.rank)
    assert Account.objects.get(organization_id=organization_id).spent_nanos == event.cost_nanos
    assert verify_rollups() == []
    assert ship_journals(redis, PREFIX, tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_intent_that_came_back_from_the_dead_counts_once(redis: "Redis", organization_id: UUID) -> None:
    event = an_event(organization_id, new_id(), hold_nanos=9)
    payer = Payer.of(PREFIX, organization_id, event.key_id)
    for scope in payer.scopes:
        WARM.run(redis, [scope], [event.day, 0, 0, month_of(event.day), 0, 0])
    settle_event(redis, PREFIX, event)
    drained(redis)
    # Valkey restarts without its last second: settled and drained, but the intent is there again.
    redis.hset(payer.shard.intents, str(event.request_id), b"%d:0:%b" % (event.day, encode(event)))

    reconcile(redis, PREFIX)

    for scope in payer.scopes:
        assert redis.hmget(scope, "n", "spent", "held") == [b"1", b"%d" % event.cost_nanos, b"9"]
