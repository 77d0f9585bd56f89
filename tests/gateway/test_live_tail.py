"""Live tail: members see new requests when they are committed, strangers see nothing."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from accounts.models import Membership, Organization, User
from accounts.tests.factories import a_member, a_user
from billing.tests.factories import an_organization
from codexflow.lib.clock import monotonic_s
from codexflow.lib.ids import random_id
from keys.models import ApiKey
from keys.tests.factories import a_key
from logs.litellm.ingest import take
from logs.litellm.tests.factories import a_payload, mapped
from logs.pipeline.drain import store
from logs.pipeline.events import RANK_COUNTED
from logs.tail import publisher
from logs.tail.consumer import MAX_CLIENTS_PER_USER
from logs.tests.factories import an_event, entries
from tests.support.installation import Gateway, Installation
from tests.support.waiting import until


def cookie_of(user: User) -> str:
    client = Client()
    client.force_login(user)
    return client.cookies["sessionid"].value


@contextmanager
def tail(
    running: Installation | Gateway,
    slug: str,
    user: User | None,
    *,
    query: str = "",
    origin: str | None = "",
    path: str = "",
) -> Iterator[ClientConnection]:
    where = urlsplit(running.url).netloc
    headers = {"Cookie": f"sessionid={cookie_of(user)}"} if user else {}
    with connect(
        f"ws://{where}{path or f'/ws/o/{slug}/logs/'}{query}",
        additional_headers=headers,
        origin=f"http://{where}" if origin == "" else origin,  # type: ignore[arg-type] # a new type of strings
        open_timeout=60,
    ) as connection:
        yield connection


def receive(connection: ClientConnection, kind: str, *, within_s: float = 15) -> Any:
    """Receive the next message of a kind."""
    deadline_s = monotonic_s() + within_s
    while True:
        message = json.loads(connection.recv(timeout=deadline_s - monotonic_s()))
        if message["type"] == kind:
            return message


def begun(connection: ClientConnection) -> None:
    receive(connection, "ready")


def test_the_first_message_states_the_filters(running: Installation) -> None:
    organization = an_organization()
    with tail(running, organization.slug, owner_of(organization)) as connection:
        assert json.loads(connection.recv(timeout=60))["type"] == "ready"


def ids(message: Any) -> list[str]:
    return [row["id"] for row in message["rows"]]


def owner_of(organization: Organization) -> User:
    return organization.memberships.get(role="owner").user


def test_a_member_sees_a_request_as_the_list_has_it(running: Installation) -> None:
    key = a_key()
    organization = key.row.organization
    with tail(running, organization.slug, a_member(organization, "viewer")) as connection:
        begun(connection)
        response = running.post(key.plain, model="cfx-review")
        message = receive(connection, "rows")
    assert ids(message) == [response.headers["x-cfx-request-id"]]
    headers = {"Authorization": f"Bearer {key.plain}"}
    (listed,) = httpx.get(f"{running.url}/api/v1/requests", headers=headers).json()["data"]
    (row,) = message["rows"]
    assert {**row, "started_at": ""} == {**listed, "started_at": ""}


def test_a_corrected_row_is_sent_again(running: Installation) -> None:
    key = a_key().row
    event = an_event(key.organization_id, key.id, rank=RANK_COUNTED)
    store(entries([event]))
    name = random_id().hex * 2  # as long as LiteLLM's hash of a key
    ApiKey.objects.filter(pk=key.pk).update(litellm_key_id=name)
    with tail(running, key.organization.slug, owner_of(key.organization)) as connection:
        begun(connection)
        take(mapped(a_payload(f"{event.request_id}.1")), redis=running.redis, prefix=running.prefix)
        (row,) = receive(connection, "rows")["rows"]
        assert (row["id"], row["revision"], row["tokens"]["is_estimated"]) == (str(event.request_id), 2, False)
        assert (row["tokens"]["completion"], row["attempts"]) == (60, 1)
        take(mapped(a_payload(str(random_id()), key_hash=name)), redis=running.redis, prefix=running.prefix)
        (row,) = receive(connection, "rows")["rows"]
        assert (row["key_id"], row["source"], row["revision"]) == (str(key.pk), "webhook", 1)


def refused(running: Installation, *args: Any, **kwargs: Any) -> int:
    with pytest.raises(InvalidStatus) as caught, tail(running, *args, **kwargs):
        pass
    body = caught.value.response.body
    assert body is None or b"not_found" in body
    return caught.value.response.status_code


def test_strangers_get_404(running: Installation) -> None:
    organization, eve = an_organization(), a_user("eve")
    an_organization(owner=eve)
    assert refused(running, organization.slug, eve) == 404
    assert refused(running, organization.slug, None) == 404
    assert refused(running, "no-such-organization", eve) == 404
    assert refused(running, "", eve, path="/ws/o/../logs/") == 404
    assert refused(running, "", eve, path="/ws/nothing") == 404


def test_eves_own_tail_shows_nothing_of_adas(running: Installation) -> None:
    ada, eve = a_key(), a_key()
    with tail(running, eve.row.organization.slug, owner_of(eve.row.organization)) as connection:
        begun(connection)
        running.row_of(running.post(ada.plain))
        mine = running.post(eve.plain).headers["x-cfx-request-id"]
        assert ids(receive(connection, "rows")) == [mine]


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:1", "null", "http://[", ""])
def test_only_our_own_pages_may_connect(running: Installation, origin: str) -> None:
    organization = an_organization()
    if origin:
        assert refused(running, organization.slug, owner_of(organization), origin=origin) == 404
    else:
        with tail(running, organization.slug, owner_of(organization), origin=None) as connection:
            begun(connection)


def test_filters_are_applied_on_the_server_and_may_change(running: Installation) -> None:
    key = a_key()
    organization = key.row.organization
    with tail(running, organization.slug, owner_of(organization), query="?stage=plan") as connection:
        assert receive(connection, "ready")["filter"]["stage"] == "plan"
        running.row_of(running.post(key.plain, model="cfx-code"))
        wanted = running.post(key.plain, model="cfx-plan").headers["x-cfx-request-id"]
        assert ids(receive(connection, "rows")) == [wanted]
        connection.send(json.dumps({"type": "filter", "status": "errors"}))
        assert receive(connection, "ready")["filter"]["status"] == "errors"
        running.row_of(running.post(key.plain, model="cfx-plan"))
        failed = running.say(key.plain, "[[fault:400]]", model="cfx-code").headers["x-cfx-request-id"]
        assert ids(receive(connection, "rows")) == [failed]


def test_a_client_resumes_after_the_last_request_it_saw(running: Installation) -> None:
    key = a_key()
    organization = key.row.organization
    rows = [running.row_of(running.post(key.plain)) for _ in range(4)]
    with tail(running, organization.slug, owner_of(organization), query=f"?after={rows[1].request_id}") as connection:
        message = receive(connection, "rows")
    assert (message["resumed"], message["has_more"]) == (True, False)
    assert set(ids(message)) >= {str(row.request_id) for row in rows[2:]}
    assert str(rows[1].request_id) not in ids(message)
    assert ids(message) == sorted(ids(message))


@pytest.mark.parametrize("after", [UUID(int=2**128 - 1), UUID(int=0)], ids=str)
def test_an_unknown_request_to_resume_from_is_accepted(running: Installation, after: UUID) -> None:
    key = a_key()
    organization = key.row.organization
    with tail(running, organization.slug, owner_of(organization), query=f"?after={after}") as connection:
        assert ids(receive(connection, "rows")) == []
        made = running.post(key.plain).headers["x-cfx-request-id"]
        assert ids(receive(connection, "rows")) == [made]


@pytest.mark.parametrize("text", ["no json", '{"type": "delete"}', '{"stage": 5}'])
def test_an_invalid_message_ends_the_connection(running: Installation, text: str) -> None:
    organization = an_organization()
    with tail(running, organization.slug, owner_of(organization)) as connection:
        begun(connection)
        connection.send(text)
        with pytest.raises(ConnectionClosed) as caught:
            receive(connection, "never")
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 4400


def test_a_flood_of_messages_ends_the_connection(running: Installation) -> None:
    organization = an_organization()
    with tail(running, organization.slug, owner_of(organization)) as connection:
        with suppress(ConnectionClosed):  # the server may have had enough before the last
            for _ in range(100):
                connection.send("{}")
        with pytest.raises(ConnectionClosed) as caught:
            receive(connection, "never")
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1008


def test_a_flood_of_rows_is_cut_to_the_rate_limit_and_counted(running: Installation) -> None:
    organization, key_id = an_organization(), random_id()
    with tail(running, organization.slug, owner_of(organization)) as connection:
        begun(connection)
        started_s = monotonic_s()
        for _ in range(10):
            events = [an_event(organization.pk, key_id) for _ in range(50)]
            assert publisher.TailPublisher(running.redis, running.prefix).publish(events) == 1
        shown, skipped, messages = 0, 0, 0
        while shown + skipped < 500:
            message = receive(connection, "rows")
            assert len(message["rows"]) <= 20
            shown, skipped, messages = shown + len(message["rows"]), skipped + message["skipped"], messages + 1
        assert (shown + skipped, skipped > 0) == (500, True)
        assert messages - 1 <= (monotonic_s() - started_s) / 0.99


def test_nothing_is_published_without_subscribers(running: Installation) -> None:
    organization, key_id = an_organization(), random_id()
    assert publisher.TailPublisher(running.redis, running.prefix).publish([an_event(organization.pk, key_id)]) == 0
    with tail(running, organization.slug, owner_of(organization)) as connection:
        begun(connection)
        assert publisher.TailPublisher(running.redis, running.prefix).publish([an_event(organization.pk, key_id)]) == 1
    key = publisher.watched_key(running.prefix, organization.pk)
    assert 0 < int(running.redis.ttl(key)) <= publisher.WATCHED_TTL_S


def test_the_tail_ends_with_the_membership_and_with_the_session(running: Installation) -> None:
    organization = an_organization()
    ben, vic, tom = a_member(organization), a_member(organization, "viewer"), a_member(organization)
    gateway = running.new_gateway(CFX_LIVE_HEARTBEAT_S="0.5")
    where = urlsplit(gateway.url).netloc
    for user, end in (
        (ben, lambda: Membership.objects.filter(user=ben).delete()),
        (vic, lambda: [each.delete() for each in Session.objects.all() if _is_of(each, vic)]),
        (tom, lambda: _change_password(tom)),
    ):
        headers = {"Cookie": f"sessionid={cookie_of(user)}"}
        with connect(f"ws://{where}/ws/o/{organization.slug}/logs/", additional_headers=headers) as connection:
            receive(connection, "ping")
            end()
            with pytest.raises(ConnectionClosed) as caught:
                receive(connection, "never")
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 4404


def _is_of(session: Session, user: User) -> bool:
    return session.get_decoded().get("_auth_user_id") == str(user.pk)


def _change_password(user: User) -> None:
    """End the session without deleting its row, as when it was stolen."""
    user.set_password("another horse battery")
    user.save()


def test_connections_are_limited_per_person(running: Installation) -> None:
    organization = an_organization()
    ben, vic = a_member(organization), a_member(organization, "viewer")
    gateway = running.new_gateway()
    with ExitStack() as stack:
        for _ in range(MAX_CLIENTS_PER_USER):
            begun(stack.enter_context(tail(gateway, organization.slug, ben)))
        with pytest.raises(ConnectionClosed) as caught, tail(gateway, organization.slug, ben) as connection:
            begun(connection)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1013
        begun(stack.enter_context(tail(gateway, organization.slug, vic)))
    # Who leaves makes room.
    until(lambda: _may_watch(gateway, organization.slug, ben), what="room")


def _may_watch(gateway: Gateway, slug: str, user: User) -> bool:
    try:
        with tail(gateway, slug, user) as connection:
            begun(connection)
    except ConnectionClosed:
        return False
    return True


def test_the_gateway_serves_calls_while_many_watch(running: Installation) -> None:
    key = a_key()
    organization, user = key.row.organization, owner_of(key.row.organization)
    with tail(running, organization.slug, user) as one, tail(running, organization.slug, user) as two:
        begun(one)
        begun(two)
        answered = [running.post(key.plain).status_code for _ in range(5)]
        assert answered == [200] * 5
        seen: dict[int, set[str]] = {0: set(), 1: set()}

        def both() -> bool:
            for n, connection in enumerate((one, two)):
                if len(seen[n]) < 5:
                    seen[n] |= set(ids(receive(connection, "rows")))
            return all(len(each) == 5 for each in seen.values())

        until(both, what="five rows each")
