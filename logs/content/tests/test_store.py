"""Stored prompts and responses: off by default, bounded, deleted in time, and only for their organization."""

import os
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.urls import reverse
from redis import Redis

from accounts.deletion import delete_organization
from accounts.models import AuditEntry, Membership, Organization, User
from accounts.services import set_content_retention
from codexflow.lib.clock import now
from codexflow.lib.ids import new_id, random_id, uuid7_floor
from codexflow.lib.redis import sync_client
from keys.selectors import principal_of
from logs.content.codec import MAX_BYTES, MAX_PACKED_BYTES, BadContent, Content, decode, encode, pack, text_of
from logs.content.store import FIELD, content_of, delete_expired, has_content, name_of, save, save_waiting
from logs.models import RequestContent
from logs.tasks import delete_content, take_content
from tests.support.cast import Cast, an_event_of, happened, keeps

SIDES = (pack(b"a prompt"), pack(b"an answer"))


# Encoding


def test_a_short_text_is_stored_whole() -> None:
    packed = pack('{"words": "günaydın"}'.encode())
    assert (text_of(packed.packed), packed.is_cut) == ('{"words": "günaydın"}', False)


@pytest.mark.parametrize("raw", [os.urandom(300_000), b"a" * 10_000_000, os.urandom(MAX_PACKED_BYTES)])
def test_a_long_text_is_cut_and_marked(raw: bytes) -> None:
    packed = pack(raw)
    assert packed.is_cut
    assert len(packed.packed) <= MAX_PACKED_BYTES
    assert raw.decode(errors="replace").startswith(text_of(packed.packed).rstrip("\ufffd")[:1000])
    assert len(text_of(packed.packed)) <= MAX_BYTES


def test_a_text_that_was_cut_before_stays_marked() -> None:
    assert pack(b"the beginning", is_cut=True).is_cut
    assert not pack(b"a" * MAX_BYTES).is_cut


def test_an_entry_round_trips_and_an_error_repeats_no_payload() -> None:
    content = Content(new_id(), new_id(), *SIDES)
    assert decode(encode(content)) == content
    with pytest.raises(BadContent) as caught:
        decode(b"a secret prompt")
    assert "secret" not in str(caught.value)


# Storing


@pytest.fixture
def redis() -> Redis:
    return sync_client(settings.ENV.redis_url)


@pytest.mark.django_db
def test_content_is_stored_once_and_only_while_the_organization_stores_it(cast: Cast) -> None:
    # Ids tell milliseconds: one of the moment itself would not have begun before it.
    before = _id_before(timedelta(seconds=1))
    assert save([Content(before, cast.organization.pk, *SIDES)]) == 0  # off
    set_content_retention(cast.organization, days=7)
    assert save([Content(before, cast.organization.pk, *SIDES)]) == 0  # began before it was turned on
    request_id = new_id()
    assert save([Content(request_id, cast.organization.pk, *SIDES)] * 2) == 1
    assert save([Content(request_id, cast.organization.pk, pack(b"another"), SIDES[1])]) == 0
    texts = content_of(cast.organization, request_id)
    assert texts is not None
    assert (texts.request, texts.response) == ("a prompt", "an answer")
    assert timedelta(days=6, hours=23) < texts.kept_until - now() <= timedelta(days=7)
    set_content_retention(cast.organization, days=0)
    assert save([Content(new_id(), cast.organization.pk, *SIDES)]) == 0
    assert save([Content(new_id(), random_id(), *SIDES)]) == 0  # no such organization


@pytest.mark.django_db
def test_the_stream_is_stored_and_an_unreadable_entry_stops_no_other(cast: Cast, redis: Redis, caplog: Any) -> None:
    prefix = f"content_{random_id().hex}"
    assert save_waiting(redis, prefix, consumer="a") == 0
    assert not redis.exists(name_of(prefix))
    set_content_retention(cast.organization, days=1)
    request_id = new_id()
    for payload in (b"nonsense-prompt", encode(Content(request_id, cast.organization.pk, *SIDES))):
        redis.xadd(name_of(prefix), {FIELD: payload})
    assert save_waiting(redis, prefix, consumer="a") == 1
    assert (redis.xlen(name_of(prefix)), has_content(cast.organization, request_id)) == (0, True)
    assert "content.unreadable" in caplog.text
    assert "nonsense-prompt" not in caplog.text


@pytest.mark.django_db
def test_entries_of_a_dead_worker_are_taken_by_the_next(cast: Cast, redis: Redis, monkeypatch: Any) -> None:
    monkeypatch.setattr("logs.pipeline.streams.CLAIM_IDLE_MS", 0)
    prefix = f"content_{random_id().hex}"
    set_content_retention(cast.organization, days=1)
    redis.xadd(name_of(prefix), {FIELD: encode(Content(new_id(), cast.organization.pk, *SIDES))})
    with monkeypatch.context() as patch:
        patch.setattr("logs.content.store.save", _dies)
        with pytest.raises(KeyboardInterrupt):
            save_waiting(redis, prefix, consumer="dead")
    assert save_waiting(redis, prefix, consumer="next") == 1


def _dies(_contents: Any) -> int:
    raise KeyboardInterrupt


# Retention


@pytest.fixture
def kept(cast: Cast) -> Any:
    """A request of Ada's organization, two hours old, with stored content."""
    event = an_event_of(cast, request_id=_id_before(timedelta(hours=2)))
    happened(cast, event)
    keeps(cast, event.request_id, days=30)
    return event.request_id


def _id_before(span: timedelta) -> Any:
    return type(new_id())(int=uuid7_floor(now() - span).int | new_id().int & (1 << 80) - 1)


@pytest.mark.django_db
def test_expired_content_is_hidden_and_deleted(cast: Cast, kept: Any) -> None:
    assert delete_expired() == 0
    RequestContent.objects.update(kept_until=now() - timedelta(seconds=1))
    assert content_of(cast.organization, kept) is None
    assert delete_content() == "deleted 1"
    assert not RequestContent.objects.exists()


@pytest.mark.django_db
def test_a_shorter_retention_hides_at_once_and_for_good(cast: Cast) -> None:
    old, young = _id_before(timedelta(days=3)), _id_before(timedelta(hours=2))
    keeps(cast, old, days=30)
    assert save([Content(young, cast.organization.pk, *SIDES)]) == 1
    set_content_retention(cast.organization, days=1)
    assert [has_content(cast.organization, each) for each in (old, young)] == [False, True]
    texts = content_of(cast.organization, young)
    assert texts is not None
    assert texts.kept_until <= now() + timedelta(hours=22)
    set_content_retention(cast.organization, days=30)
    assert [has_content(cast.organization, each) for each in (old, young)] == [False, True]
    assert delete_expired() == 1
    assert RequestContent.objects.get().pk == young


@pytest.mark.django_db
def test_turning_it_off_hides_at_once_and_turning_it_on_again_shows_nothing_old(cast: Cast, kept: Any) -> None:
    set_content_retention(cast.organization, days=0)
    assert content_of(cast.organization, kept) is None
    set_content_retention(cast.organization, days=30)
    assert content_of(cast.organization, kept) is None
    assert delete_expired() == 1


@pytest.mark.django_db
def test_deleting_the_organization_deletes_its_content_and_no_other(cast: Cast, kept: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("logs.content.store.DELETE_BATCH", 2)
    eves = Organization.objects.get(memberships__user=cast.eve)
    set_content_retention(eves, days=1)
    assert save([Content(new_id(), eves.pk, *SIDES)]) == 1
    assert save([Content(new_id(), cast.organization.pk, *SIDES) for _ in range(4)]) == 4
    delete_organization(cast.organization, actor=cast.ada)
    assert delete_expired() == 5
    assert RequestContent.objects.get().organization_id == eves.pk


@pytest.mark.django_db
def test_the_retention_is_at_most_thirty_days(cast: Cast) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Organization.objects.filter(pk=cast.organization.pk).update(content_retention_days=31)


# The setting


@pytest.mark.django_db
def test_the_owner_turns_it_on_and_off_with_audit_entries(cast: Cast, client: Client) -> None:
    client.force_login(cast.ada)
    page, where = reverse("organization-settings", args=[cast.slug]), reverse("organization-content", args=[cast.slug])
    assert "being kept" not in client.get(page).content.decode()
    for days in ("7", "1", "0"):
        assert client.post(where, {"days": days}).status_code == 302
        assert (f"being kept, for {days} day" in client.get(page).content.decode()) == (days != "0")
    for wrong in ("31", "-1", "", "x"):
        assert client.post(where, {"days": wrong}).status_code == 422
    trail = AuditEntry.objects.filter(action="organization.content_retention").order_by("pk")
    assert [(each.facts["from_days"], each.facts["to_days"]) for each in trail] == [(0, 7), (7, 1), (1, 0)]
    assert {each.actor for each in trail} == {cast.ada}
    client.force_login(cast.ben)
    assert client.post(where, {"days": "7"}).status_code == 403


@pytest.mark.django_db(transaction=True)
def test_a_change_invalidates_the_gateways_key_caches(cast: Cast, monkeypatch: Any) -> None:
    invalidated: list[UUID] = []
    monkeypatch.setattr("keys.invalidation.invalidate_organization", invalidated.append)

    def keeps_content() -> bool:
        principal = principal_of(cast.key.public_id)
        assert principal is not None
        return principal.keeps_content

    assert not keeps_content()
    set_content_retention(cast.organization, days=1)
    assert (keeps_content(), invalidated) == (True, [cast.organization.pk])
    set_content_retention(cast.organization, days=1)
    assert invalidated == [cast.organization.pk]


# Access


def _joined(cast: Cast, role: str) -> User:
    user = User.objects.create_user(f"{role}@example.org")
    Membership.objects.create(organization=cast.organization, user=user, role=role)
    return user


@pytest.mark.django_db
def test_content_is_shown_only_to_its_roles(cast: Cast, client: Client) -> None:
    event = an_event_of(cast)
    happened(cast, event)
    keeps(cast, event.request_id, request='{"p": "<b>prompt-words</b>"}', answer="answer-words")
    page = reverse("request", args=[cast.slug, event.request_id])
    where = reverse("request-content", args=[cast.slug, event.request_id])
    endpoint = f"/api/v1/requests/{event.request_id}/content?organization={cast.slug}"
    people = dict.fromkeys((cast.ada, cast.ben, _joined(cast, "admin")), 200)
    people |= dict.fromkeys((cast.vic, _joined(cast, "billing")), 403) | {cast.eve: 404}
    for user, status in people.items():
        client.force_login(user)
        responses = [client.get(where), client.get(where, headers={"HX-Request": "true"}), client.get(endpoint)]
        assert [each.status_code for each in responses] == [status] * 3, user
        assert (where in client.get(page).content.decode()) == (status == 200), user
        for each in responses:
            text = each.content.decode()
            assert ("prompt-words" in text) == ("answer-words" in text) == (status == 200), user
            assert "<b>" not in text or each is responses[2]
            assert status != 200 or "no-store" in each["Cache-Control"]
    client.force_login(cast.ada)
    content = client.get(endpoint).json()
    assert (content["request"], content["answer"]) == ('{"p": "<b>prompt-words</b>"}', "answer-words")
    assert (content["is_request_cut"], content["is_answer_cut"]) == (False, False)


@pytest.mark.django_db
def test_content_that_is_not_stored_is_not_found(cast: Cast, client: Client) -> None:
    event = an_event_of(cast)
    happened(cast, event)
    client.force_login(cast.ada)
    where = reverse("request-content", args=[cast.slug, event.request_id])
    assert client.get(where).status_code == 404
    assert where not in client.get(reverse("request", args=[cast.slug, event.request_id])).content.decode()
    codes = [
        client.get(f"/api/v1/requests/{each}/content?organization={cast.slug}").json()["error"]["code"]
        for each in (event.request_id, new_id())
    ]
    assert codes == ["content_not_kept", "not_found"]


@pytest.mark.django_db
def test_the_page_marks_a_cut_side(cast: Cast, client: Client) -> None:
    event = an_event_of(cast)
    happened(cast, event)
    keeps(cast, event.request_id, request="p" * (MAX_BYTES + 1), answer="")
    client.force_login(cast.ada)
    text = client.get(reverse("request-content", args=[cast.slug, event.request_id])).content.decode()
    assert "The prompt was longer" in text
    assert "The answer was longer" not in text
    assert "There was no answer." in text


@pytest.mark.django_db
def test_the_task_stores_content(cast: Cast) -> None:
    set_content_retention(cast.organization, days=1)
    redis, request_id = sync_client(settings.ENV.redis_url), new_id()
    payload = encode(Content(request_id, cast.organization.pk, *SIDES))
    redis.xadd(name_of(settings.ENV.redis_prefix), {FIELD: payload})
    assert take_content() == "kept 1"
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM request_content WHERE request_id = %s", [request_id])
        assert cursor.fetchone() == (1,)
