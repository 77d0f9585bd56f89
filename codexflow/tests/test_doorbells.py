"""A doorbell rings when its task would find something: what beat reads is what the tasks read."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from celery.beat import Scheduler as BeatScheduler
from django.conf import settings
from django.db import connection, transaction
from redis import RedisError

from accounts.models import WebhookDelivery
from billing.limiter.limits import ShardKeys
from billing.models import PaperFile, PaperMail, PaymentEvent, Refund
from billing.papers.files import MAX_ATTEMPTS
from codexflow import doorbells
from codexflow.beat import AT_LEAST_EVERY_S, Scheduler, app
from codexflow.doorbells import JOBS, Doorbells, Queue
from codexflow.lib.clock import now
from codexflow.lib.ids import random_id
from codexflow.lib.redis import SHARDS, database_url, sync_client
from codexflow.schedule import SCHEDULE
from logs.content import store
from logs.exports.jobs import ACTIVE
from logs.litellm import stream
from logs.models import ExportJob
from logs.refusals.store import hash_of
from tests.support.cast import Cast, gather

LATER = timedelta(hours=1)
NOBODY = UUID(int=1)


class TestConnection:
    """The test's own connection, which sees what its transaction has written."""

    closed = False

    def execute(self, statement: str) -> Any:
        cursor = connection.cursor()
        cursor.execute(statement)
        return cursor


@pytest.fixture
def bells() -> Doorbells:
    made = Doorbells(settings.ENV, dict.fromkeys(JOBS, 0.0))
    made._connection = TestConnection()  # type: ignore[assignment]
    return made


@pytest.fixture
def empty() -> Iterator[None]:
    """A Redis of this test alone."""
    redis = sync_client(settings.ENV.redis_url)

    def delete() -> None:
        for key in redis.scan_iter(match=f"{settings.ENV.redis_prefix}:*"):
            redis.delete(key)

    delete()
    yield
    delete()


def an_export(cast: Cast, *, state: str = "queued") -> None:
    ExportJob.objects.create(organization=cast.organization, created_by=cast.ada, format="csv", state=state)


def a_file(cast: Cast, **facts: Any) -> None:
    PaperFile.objects.create(organization=cast.organization, month=date(2026, 1, 1), language="en", **facts)


def a_mail(cast: Cast) -> None:
    PaperMail.objects.create(paper_id=1, organization=cast.organization)


def a_delivery(cast: Cast, **facts: Any) -> None:
    WebhookDelivery.objects.create(organization=cast.organization, endpoint_id=NOBODY, **facts)


def an_event(_cast: Cast, **facts: Any) -> None:
    PaymentEvent.objects.create(provider="stripe", event_id="1", **facts)


def a_refund(_cast: Cast, **facts: Any) -> None:
    Refund.objects.create(order_id=1, key=random_id(), amount_nanos=1, **facts)


WAITING: list[tuple[str, Callable[[Cast], None]]] = [
    *(("exports", lambda cast, state=state: an_export(cast, state=state)) for state in ACTIVE),
    ("papers", a_file),
    ("papers", lambda cast: a_file(cast, attempts=MAX_ATTEMPTS - 1)),
    ("papers", a_mail),
    ("webhooks", a_delivery),
    ("payment-events", an_event),
    ("payment-events", a_refund),
]
NOT_WAITING: list[Callable[[Cast], None]] = [
    lambda cast: an_export(cast, state=ExportJob.State.DONE),
    lambda cast: a_file(cast, made_at=now()),
    lambda cast: a_file(cast, attempts=MAX_ATTEMPTS),
    lambda cast: a_delivery(cast, due_at=now() + LATER),
    lambda cast: a_delivery(cast, state=WebhookDelivery.State.DELIVERED),
    lambda cast: an_event(cast, due_at=now() + LATER),
    lambda cast: an_event(cast, state=PaymentEvent.State.FAILED),
    lambda cast: a_refund(cast, due_at=now() + LATER),
    lambda cast: a_refund(cast, state=Refund.State.DONE),
]


def rung_after(bells: Doorbells, make: Callable[[Cast], None]) -> set[str]:
    """Bells of PostgreSQL that ring once a row is there. It is taken back: it names others that are not."""
    cast = gather()
    with transaction.atomic():
        make(cast)
        found = set(bells.ringing()) - set(doorbells._IN_REDIS)
        transaction.set_rollback(True)
    return found


@pytest.mark.django_db
@pytest.mark.parametrize(("job", "make"), WAITING)
def test_a_row_that_waits_rings(bells: Doorbells, job: str, make: Callable[[Cast], None]) -> None:
    assert rung_after(bells, make) == {job}


@pytest.mark.django_db
@pytest.mark.parametrize("make", NOT_WAITING)
def test_a_row_that_does_not_wait_rings_nothing(bells: Doorbells, make: Callable[[Cast], None]) -> None:
    assert rung_after(bells, make) == set()


@pytest.mark.django_db
@pytest.mark.xdist_group("redis")
@pytest.mark.usefixtures("empty")
def test_what_waits_in_redis_rings(bells: Doorbells) -> None:
    redis, prefix = sync_client(settings.ENV.redis_url), settings.ENV.redis_prefix
    assert bells.ringing() == []
    for shard in range(SHARDS):
        name = ShardKeys.of(prefix, shard).usage.decode()
        redis.xadd(name, {b"e": b""})
        assert bells.ringing() == ["drain"]
        redis.delete(name)
    for job, name in (("reports", stream.name_of(prefix)), ("content", store.name_of(prefix))):
        redis.xadd(name, {b"r": b""})
        assert bells.ringing() == [job]
        redis.delete(name)
    for name in (hash_of(prefix), f"{hash_of(prefix)}:taken"):
        redis.hset(name, "a", "1")
        assert bells.ringing() == ["refusals"]
        redis.delete(name)


def test_what_cannot_be_read_rings(bells: Doorbells, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_with(error: Exception) -> Callable[[Doorbells], set[str]]:
        def fail(_bells: Doorbells) -> set[str]:
            raise error

        return fail

    monkeypatch.setattr(Doorbells, "_look_into_redis", fail_with(RedisError()))
    monkeypatch.setattr(Doorbells, "_look_into_postgresql", fail_with(psycopg.OperationalError()))
    assert bells.ringing() == sorted(JOBS)


def test_a_job_is_looked_at_as_often_as_it_may_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 0.0
    monkeypatch.setattr(Doorbells, "_look_into_redis", lambda _self: {"drain", "refusals"})
    monkeypatch.setattr(Doorbells, "_look_into_postgresql", lambda _self: set())
    bells = Doorbells(settings.ENV, {name: SCHEDULE[name][1] for name in JOBS}, clock=lambda: seconds)
    rung = []
    for tick in range(11):
        seconds = tick - 0.05 * (tick % 2)  # timers are not exact
        rung += bells.ringing()
    assert (rung.count("drain"), rung.count("refusals")) == (11, 3)


@pytest.mark.parametrize("job", JOBS)
def test_a_job_with_a_bell_is_sent_without_it_as_well(job: str) -> None:
    assert app.conf.beat_schedule[job]["schedule"] == AT_LEAST_EVERY_S > SCHEDULE[job][1]


def test_a_queue_without_a_worker_fills_up_to_its_bound_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beat goes on for days while no worker takes anything: the queue must not fill Redis."""
    seconds, sent = 0.0, []
    queue = Queue(replace(settings.ENV, redis_prefix=f"queue-{random_id().hex}"), clock=lambda: seconds)
    redis = sync_client(database_url(settings.ENV.redis_url, 1))
    monkeypatch.setattr(doorbells, "MAX_QUEUED", 3)
    monkeypatch.setattr(BeatScheduler, "apply_entry", lambda _self, entry, producer=None: sent.append(entry))
    scheduler = Scheduler.__new__(Scheduler)
    scheduler._queue = queue
    for seconds in range(5):
        scheduler.apply_entry(f"job {seconds}")
        redis.rpush(queue._name, b"message")
    assert sent == ["job 0", "job 1", "job 2"]
    redis.delete(queue._name)
    seconds = 6
    scheduler.apply_entry("job 6")
    assert sent[-1] == "job 6"


def test_a_queue_that_cannot_be_read_is_not_full() -> None:
    assert not Queue(replace(settings.ENV, redis_shared_url="redis://127.0.0.1:1/0")).is_full()
