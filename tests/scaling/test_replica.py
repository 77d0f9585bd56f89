"""A real streaming replica: read while it is near, left alone while it is away or behind; the role holds there, too."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import httpx
import psycopg
import pytest
from django.db import connection, connections
from hypothesis import given
from hypothesis import strategies as st

from codexflow.lib import isolation
from codexflow.lib import replica as lib
from codexflow.lib.replica import Lag, is_reading, may_be_old, reading
from keys.models import ApiKey
from keys.tests.factories import a_key
from tests.support.installation import Installation
from tests.support.replica import Replica, running_replica
from tests.support.waiting import until

pytestmark = pytest.mark.xdist_group("replica")


@pytest.fixture(scope="module")
def server(installation: Installation, django_db_blocker: Any) -> Iterator[Replica]:
    with django_db_blocker.unblock(), running_replica(connection.settings_dict) as running:
        yield running


@pytest.fixture
def near(server: Replica, settings: Any, monkeypatch: pytest.MonkeyPatch, django_db_blocker: Any) -> Iterator[Replica]:
    """The replica, as this process's settings name it."""
    settings.HAS_REPLICA = True
    settings.ENV = replace(settings.ENV, replica_lag_s=1.0)
    settings.DATABASE_ROUTERS = ["codexflow.lib.replica.Router"]
    monkeypatch.setitem(connections.settings, "replica", server.settings)
    monkeypatch.setattr(lib, "watch", lib._Watch())
    monkeypatch.setattr(lib, "CHECK_INTERVAL_S", 0.0)
    monkeypatch.setattr(lib, "RETRY_AFTER_S", 0.0)
    with django_db_blocker.unblock():
        yield server
        connections["replica"].close()


@may_be_old
def where() -> tuple[bool, str, bool]:
    """Return whether the replica was read, as which user, and whether it could be written to."""
    with reading().cursor() as cursor:
        cursor.execute("SELECT current_user, current_setting('transaction_read_only') = 'on'")
        user, is_read_only = cursor.fetchone()
    return is_reading(), user, is_read_only


@may_be_old
def keys_seen() -> set[UUID]:
    """Read every key that there is, as a selector that forgets its organization."""
    assert is_reading()
    return set(ApiKey.objects.values_list("pk", flat=True))


def test_a_replica_that_is_near_is_read(near: Replica) -> None:
    key = a_key()
    until(lambda: where()[0], what="the replica")
    assert where() == (True, connection.settings_dict["USER"], True)
    until(lambda: key.row.pk in keys_seen(), what="the key on the replica")


def test_the_role_of_the_page_holds_on_the_replica(near: Replica) -> None:
    own, other = a_key(), a_key()
    until(lambda: where()[0] and {own.row.pk, other.row.pk} <= keys_seen(), what="both keys on the replica")
    with isolation.within(own.row.organization_id, person_id=own.row.created_by_id):
        assert where()[:2] == (True, isolation.ROLE)
        assert keys_seen() == {own.row.pk}
    assert {own.row.pk, other.row.pk} <= keys_seen()


def test_rows_of_the_replica_are_written_to_the_primary(near: Replica) -> None:
    key = a_key()
    until(lambda: where()[0] and key.row.pk in keys_seen(), what="the key on the replica")
    row = may_be_old(lambda: ApiKey.objects.get(pk=key.row.pk))()
    assert row._state.db == "replica"
    row.name = "written"
    row.save()
    assert row.organization.pk == key.row.organization_id
    key.row.refresh_from_db()
    assert key.row.name == "written"


def test_a_replica_that_is_behind_is_left_alone(near: Replica) -> None:
    until(lambda: where()[0], what="the replica")
    near.pause()
    try:
        a_key()  # something that it lacks
        until(lambda: not where()[0], what="the primary")
    finally:
        near.resume()
    until(lambda: where()[0], what="the replica again")


def test_a_record_that_is_written_in_half_keeps_no_replica_away(near: Replica, settings: Any) -> None:
    """A transaction that stays open on a primary where nothing else is written."""
    settings.ENV = replace(settings.ENV, replica_lag_s=0.0)
    until(lambda: where()[0], what="the replica")
    server = connection.settings_dict
    url = f"postgresql:///{server['NAME']}?{urlencode({'host': server['HOST'], 'user': server['USER']})}"
    with psycopg.connect(url) as writer:
        rounds = 0

        def is_near_again() -> bool:
            nonlocal rounds
            if where()[0]:
                rounds += 1
                before = written()
                writer.execute("SELECT pg_logical_emit_message(true, 'test', repeat('x', 20000))")  # over two pages
                until(lambda: written() > before, what="its first page")
            return rounds > 4  # PostgreSQL completes its log by itself, every quarter of a minute

        until(is_near_again, what="the replica")
        writer.rollback()


def written() -> int:
    """Position up to which the primary's log is written."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint")
        return int(cursor.fetchone()[0])


def test_what_fails_on_the_replica_is_read_from_the_primary(near: Replica) -> None:
    until(lambda: where()[0], what="the replica")
    near.kill()
    try:
        assert [where()[0] for _ in range(3)] == [False] * 3
    finally:
        near.start()
    until(lambda: where()[0], what="the replica again")


def test_a_log_is_read_whatever_becomes_of_the_replica(running: Installation, server: Replica) -> None:
    gateway = running.new_gateway(clock_off_s=0, DATABASE_REPLICA_URL=server.url, CFX_REPLICA_LAG_S="2")
    key = a_key().plain

    def listed() -> set[str]:
        response = httpx.get(f"{gateway.url}/api/v1/requests", headers={"Authorization": f"Bearer {key}"}, timeout=20)
        assert response.status_code == 200, response.text
        return {each["id"] for each in response.json()["data"]}

    first = str(running.row_of(running.post(key, url=gateway.url)).request_id)
    until(lambda: listed() == {first} and '"replica.used"' in gateway.log.read_text(), what="the row on the replica")
    server.pause()
    second = str(running.row_of(running.post(key, url=gateway.url)).request_id)
    until(lambda: listed() == {first, second}, what="the row on the primary")
    server.resume()
    server.kill()
    try:
        assert all(listed() == {first, second} for _ in range(5))
    finally:
        server.start()
        gateway.stop()


@given(st.lists(st.tuples(st.floats(0.1, 5), st.integers(0, 50), st.floats(0, 1)), min_size=1, max_size=40))
def test_the_replica_is_never_further_behind_than_the_lag_says(steps: list[tuple[float, int, float]]) -> None:
    """Against a primary whose every position has a known time."""
    lag, now_s, primary, replica = Lag(), 0.0, 0, 0
    written: list[tuple[float, int]] = [(0.0, 0)]
    for pause_s, more, share in steps:
        now_s += pause_s
        primary += more
        written.append((now_s, primary))
        replica += int((primary - replica) * share)
        lag.saw(now_s, primary, replica)
        lacking = [at_s for at_s, position in written if position > replica]
        truth_s = now_s - min(lacking) if lacking else 0.0
        assert lag.behind_s(now_s) >= truth_s
