"""Prompts and answers: off unless wanted, bounded, over when they are over, and nobody else's."""

import os
from datetime import timedelta
from typing import Any

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
from logs.content.store import FIELD, content_of, delete_expired, has_content, keep, name_of, take_waiting
from logs.models import RequestContent
from logs.tasks import delete_content, take_content
from tests.support.cast import Cast, an_event_of, happened, keeps

SIDES = (pack(b"a prompt"), pack(b"an answer"))


# What is kept


def test_what_is_short_comes_back_whole() -> None:
    packed = pack('{"words": "günaydın"}'.encode())
    assert (text_of(packed.packed), packed.is_cut) == ('{"words": "günaydın"}', False)


@pytest.mark.parametrize("raw", [os.urandom(300_000), b"a" * 10_000_000, os.urandom(MAX_PACKED_BYTES)])
def test_what_is_long_is_cut_and_says_so(raw: bytes) -> None:
    packed = pack(raw)
    assert packed.is_cut
    assert len(packed.packed) <= MAX_PACKED_BYTES
    assert raw.decode(errors="replace").startswith(text_of(packed.packed).rstrip("\ufffd")[:1000])
    assert len(text_of(packed.packed)) <= MAX_BYTES


def test_what_was_cut_before_stays_cut() -> None:
    assert pack(b"the beginning", is_cut=True).is_cut
    assert not pack(b"a" * MAX_BYTES).is_cut


def test_an_entry_says_itself_and_nonsense_is_not_repeated() -> None:
    content = Content(new_id(), new_id(), *SIDES)
    assert decode(encode(content)) == content
    with pytest.raises(BadContent) as caught:
        decode(b"a secret prompt")
    assert "secret" not in str(caught.value)


# Whether it is kept


@pytest.fixture
def redis() -> Redis:
    return sync_client(settings.ENV.redis_url)


@pytest.mark.django_db
def test_only_what_is_wanted_is_kept_and_only_once(cast: Cast) -> None:
    before, request_id = new_id(), new_id()
    assert keep([Content(request_id, cast.organization.pk, *SIDES)]) == 0  # off
    set_content_retention(cast.organization, days=7)
    assert keep([Content(before, cast.organization.pk, *SIDES)]) == 0  # began before it was turned on
    request_id = new_id()
    assert keep([Content(request_id, cast.organization.pk, *SIDES)] * 2) == 1
    assert keep([Content(request_id, cast.organization.pk, pack(b"another"), SIDES[1])]) == 0
    texts = content_of(cast.organization, request_id)
    assert texts is not None
    assert (texts.request, texts.answer) == ("a prompt", "an answer")
    assert timedelta(days=6, hours=23) < texts.kept_until - now() <= timedelta(days=7)
    set_content_retention(cast.organization, days=0)
    assert keep([Content(new_id(), cast.organization.pk, *SIDES)]) == 0
    assert keep([Content(new_id(), random_id(), *SIDES)]) == 0  # nobody's


@pytest.mark.django_db
def test_the_stream_is_taken_in_and_nonsense_in_it_stops_nothing(cast: Cast, redis: Redis, caplog: Any) -> None:
    prefix = f"content_{random_id().hex}"
    assert take_waiting(redis, prefix, consumer="a") == 0
    assert not redis.exists(name_of(prefix))
    set_content_retention(cast.organization, days=1)
    request_id = new_id()
    for payload in (b"nonsense-prompt", encode(Content(request_id, cast.organization.pk, *SIDES))):
        redis.xadd(name_of(prefix), {FIELD: payload})
    assert take_waiting(redis, prefix, consumer="a") == 1
    assert (redis.xlen(name_of(prefix)), has_content(cast.organization, request_id)) == (0, True)
    assert "content.unreadable" in caplog.text
    assert "nonsense-prompt" not in caplog.text


@pytest.mark.django_db
def test_what_a_worker_died_with_is_taken_by_the_next(cast: Cast, redis: Redis, monkeypatch: Any) -> None:
    monkeypatch.setattr("logs.pipeline.streams.CLAIM_IDLE_MS", 0)
    prefix = f"content_{random_id().hex}"
    set_content_retention(cast.organization, days=1)
    redis.xadd(name_of(prefix), {FIELD: encode(Content(new_id(), cast.organization.pk, *SIDES))})
    with monkeypatch.context() as patch:
        patch.setattr("logs.content.store.keep", _dies)
        with pytest.raises(KeyboardInterrupt):
            take_waiting(redis, prefix, consumer="dead")
    assert take_waiting(redis, prefix, consumer="next") == 1


def _dies(_contents: Any) -> int:
    raise KeyboardInterrupt


# When it is over


@pytest.fixture
def kept(cast: Cast) -> Any:
    """A request of Ada's organization of two hours ago with prompt and answer."""
    event = an_event_of(cast, request_id=_id_before(timedelta(hours=2)))
    happened(cast, event)
    keeps(cast, event.request_id, days=30)
    return event.request_id


def _id_before(span: timedelta) -> Any:
    return type(new_id())(int=uuid7_floor(now() - span).int | new_id().int & (1 << 80) - 1)


@pytest.mark.django_db
def test_its_time_ends_it_for_readers_and_in_the_table(cast: Cast, kept: Any) -> None:
    assert delete_expired() == 0
    RequestContent.objects.update(kept_until=now() - timedelta(seconds=1))
    assert content_of(cast.organization, kept) is None
    assert delete_content() == "deleted 1"
    assert not RequestContent.objects.exists()


@pytest.mark.django_db
def test_a_shorter_time_hides_at_once_and_for_good(cast: Cast) -> None:
    old, young = _id_before(timedelta(days=3)), _id_before(timedelta(hours=2))
    keeps(cast, old, days=30)
    assert keep([Content(young, cast.organization.pk, *SIDES)]) == 1
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
def test_off_hides_at_once_and_on_again_brings_nothing_back(cast: Cast, kept: Any) -> None:
    set_content_retention(cast.organization, days=0)
    assert content_of(cast.organization, kept) is None
    set_content_retention(cast.organization, days=30)
    assert content_of(cast.organization, kept) is None
    assert delete_expired() == 1


@pytest.mark.django_db
def test_closing_the_organization_deletes_it_and_leaves_others(cast: Cast, kept: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("logs.content.store.DELETED_AT_ONCE", 2)
    eves = Organization.objects.get(memberships__user=cast.eve)
    set_content_retention(eves, days=1)
    assert keep([Content(new_id(), eves.pk, *SIDES)]) == 1
    assert keep([Content(new_id(), cast.organization.pk, *SIDES) for _ in range(4)]) == 4
    delete_organization(cast.organization, actor=cast.ada)
    assert delete_expired() == 5
    assert RequestContent.objects.get().organization_id == eves.pk


@pytest.mark.django_db
def test_no_more_than_thirty_days_are_possible(cast: Cast) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Organization.objects.filter(pk=cast.organization.pk).update(content_retention_days=31)


# Who sets it


@pytest.mark.django_db
def test_the_owner_turns_it_on_and_off_and_the_trail_tells(cast: Cast, client: Client) -> None:
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
def test_gateways_hear_of_it(cast: Cast, monkeypatch: Any) -> None:
    heard: list[bool] = []
    monkeypatch.setattr("keys.invalidation.invalidate_all", lambda: heard.append(True))

    def told() -> bool:
        principal = principal_of(cast.key.public_id)
        assert principal is not None
        return principal.keeps_content

    assert not told()
    set_content_retention(cast.organization, days=1)
    assert (told(), heard) == (True, [True])
    set_content_retention(cast.organization, days=1)
    assert heard == [True]


# Who reads it


def _joined(cast: Cast, role: str) -> User:
    user = User.objects.create_user(f"{role}@example.org")
    Membership.objects.create(organization=cast.organization, user=user, role=role)
    return user


@pytest.mark.django_db
def test_it_is_shown_to_the_right_roles_alone(cast: Cast, client: Client) -> None:
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
        answers = [client.get(where), client.get(where, headers={"HX-Request": "true"}), client.get(endpoint)]
        assert [each.status_code for each in answers] == [status] * 3, user
        assert (where in client.get(page).content.decode()) == (status == 200), user
        for each in answers:
            text = each.content.decode()
            assert ("prompt-words" in text) == ("answer-words" in text) == (status == 200), user
            assert "<b>" not in text or each is answers[2]
            assert status != 200 or "no-store" in each["Cache-Control"]
    client.force_login(cast.ada)
    told = client.get(endpoint).json()
    assert (told["request"], told["answer"]) == ('{"p": "<b>prompt-words</b>"}', "answer-words")
    assert (told["is_request_cut"], told["is_answer_cut"]) == (False, False)


@pytest.mark.django_db
def test_what_is_not_kept_is_not_there(cast: Cast, client: Client) -> None:
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
def test_a_cut_side_says_so_on_the_page(cast: Cast, client: Client) -> None:
    event = an_event_of(cast)
    happened(cast, event)
    keeps(cast, event.request_id, request="p" * (MAX_BYTES + 1), answer="")
    client.force_login(cast.ada)
    text = client.get(reverse("request-content", args=[cast.slug, event.request_id])).content.decode()
    assert "The prompt was longer" in text
    assert "The answer was longer" not in text
    assert "There was no answer." in text


@pytest.mark.django_db
def test_the_worker_keeps_and_deletes(cast: Cast) -> None:
    set_content_retention(cast.organization, days=1)
    redis, request_id = sync_client(settings.ENV.redis_url), new_id()
    payload = encode(Content(request_id, cast.organization.pk, *SIDES))
    redis.xadd(name_of(settings.ENV.redis_prefix), {FIELD: payload})
    assert take_content() == "kept 1"
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM request_content WHERE request_id = %s", [request_id])
        assert cursor.fetchone() == (1,)
