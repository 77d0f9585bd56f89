"""Operators' pages: health, customers, the editor of models.yaml, announcements, and viewing as a member."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from accounts.models import AuditEntry, Organization, User
from adminpanel import checks
from adminpanel.conditions import lines_of
from adminpanel.models import Announcement, HealthCheck, Incident
from adminpanel.overview import CACHE_KEY
from adminpanel.tasks import check_health
from adminpanel.tests.factories import a_version, an_announcement, facts
from billing.limiter.limits import ShardKeys
from codexflow.catalogue.models import ConfigVersion
from codexflow.lib.clock import now
from keys.models import ApiKey
from logs.models import DeadLetter, RequestLog
from logs.pipeline.events import encode
from logs.services import retry_dead_letters
from tests.support.cast import Cast, an_event_of, happened, keeps


@pytest.fixture
def root(db: None) -> User:
    return User.objects.create_superuser("root@example.org")


@pytest.fixture
def ops(client: Client, root: User) -> Client:
    client.force_login(root)
    return client


# Health


@pytest.mark.django_db
def test_an_incident_opens_once_gets_worse_and_ends() -> None:
    at = now()
    late = lines_of(facts(samples={("usage_oldest_event_seconds", ()): 61}))
    stuck = lines_of(facts(samples={("usage_oldest_event_seconds", ()): 601}))
    assert checks.note_incidents(late, at) == {"events": at}
    assert checks.note_incidents(late, at + timedelta(minutes=1)) == {"events": at}
    assert checks.note_incidents(stuck, at + timedelta(minutes=2)) == {"events": at}
    assert checks.note_incidents(lines_of(facts()), at + timedelta(minutes=3)) == {}
    incident = Incident.objects.get()
    assert (incident.level, incident.began_at, incident.ended_at) == ("error", at, at + timedelta(minutes=3))


def test_the_start_page_shows_what_is_wrong_since_when_and_the_next_command(ops: Client, cast: Cast) -> None:
    happened(cast, an_event_of(cast))
    cache.delete(CACHE_KEY)  # what another test has left
    check_health()
    assert (now() - HealthCheck.objects.get().ran_at).total_seconds() < 60
    page = ops.get("/ops/").content.decode()
    # No LiteLLM listens in this test.
    assert "cannot be reached" in page
    assert "docker compose ps litellm" in page
    assert "Analytical Engines" in page
    assert Incident.objects.filter(key="litellm", ended_at=None).count() == 1


def test_what_keeps_calls_from_being_right_is_found(cast: Cast, settings: Any, tmp_path: Any) -> None:
    found = checks.read_facts(now())
    assert {str(settings.ENV.journal_dir), str(settings.ENV.export_dir)} == set(found.room_bytes)
    assert min(found.room_bytes.values()) > 0
    assert abs(found.clock_off_s) < 30
    assert (found.keys_known > 0, found.keys_foreign) == (True, 0)
    blocked = tmp_path / "file"
    blocked.touch()
    changes = {"journal_dir": blocked / "journal", "hash_salt": "set-by-mistake-instead-of-the-one-of-all-keys"}
    settings.ENV = replace(settings.ENV, **changes, hash_salt_previous="")
    mistaken = checks.read_facts(now())
    assert mistaken.room_bytes[str(blocked / "journal")] == 0
    assert (mistaken.keys_known, mistaken.keys_foreign) == (0, found.keys_known)
    wrong = {line.key for line in lines_of(mistaken) if line.level == "error"}
    assert {"disk", "keys"} <= wrong


# Customers


def test_a_customer_is_found_by_what_a_person_has_at_hand(ops: Client, cast: Cast) -> None:
    event = an_event_of(cast)
    happened(cast, event)
    digits = str(event.request_id).replace("-", "")
    terms = [
        "ada@exam",
        "Analytical",
        cast.slug,
        str(cast.organization.pk),
        str(cast.key.pk),
        f"cfx_{cast.key.public_id}",
        str(event.request_id),
        str(event.request_id)[:13],
        digits[-8:],
        digits[14:24],
    ]
    for term in terms:
        found = ops.post("/ops/customers/", {"q": term})
        assert found["Location"].endswith(f"/{cast.organization.pk}/"), term
    assert "No results" in ops.post("/ops/customers/", {"q": "nobody@example.org"}, follow=True).content.decode()


def test_a_key_that_is_searched_for_never_gets_into_an_address(ops: Client, cast: Cast) -> None:
    found = ops.post("/ops/customers/", {"q": f"cfx_{cast.key.public_id[:4]}zzzz_secretsecretsecret"})
    assert "secret" not in found["Location"]


def test_a_customer_page_shows_plan_credit_keys_people_and_requests(ops: Client, cast: Cast) -> None:
    event = an_event_of(cast, model="gpt-4o-mini")
    happened(cast, event)
    page = ops.get(f"/ops/customers/{cast.organization.pk}/").content.decode()
    for text in ("Analytical Engines", "prod-web", "ada@example.org", "gpt-4o-mini", "Included in the plan"):
        assert text in page, text
    keeps(cast, event.request_id, request="a secret prompt")
    detail = ops.get(f"/ops/customers/{cast.organization.pk}/requests/{event.request_id}/").content.decode()
    assert str(event.request_id) in detail
    assert "secret prompt" not in detail
    other = Organization.objects.get(name="Elsewhere")
    assert ops.get(f"/ops/customers/{other.pk}/requests/{event.request_id}/").status_code == 404


def test_suspending_needs_a_reason_and_can_be_lifted(ops: Client, cast: Cast) -> None:
    where = f"/ops/customers/{cast.organization.pk}"
    assert ops.post(f"{where}/suspend/", {"reason": ""}).status_code == 422
    ops.post(f"{where}/suspend/", {"reason": "Charged back"})
    assert not Organization.objects.get(pk=cast.organization.pk).is_active
    assert AuditEntry.objects.get(action="organization.suspended").facts == {"reason": "Charged back"}
    again = ops.post(f"{where}/suspend/", {"reason": "Once more"}, follow=True)
    assert "already suspended" in again.content.decode()
    ops.post(f"{where}/reactivate/", {"reason": "Paid"})
    assert Organization.objects.get(pk=cast.organization.pk).is_active


def test_a_key_is_mapped_to_litellms_and_a_secret_is_kept_as_its_hash(ops: Client, cast: Cast) -> None:
    where = f"/ops/customers/{cast.organization.pk}/keys/{cast.key.pk}/litellm/"
    ops.post(where, {"litellm_key_id": "cf_abc123"})
    assert ApiKey.objects.get(pk=cast.key.pk).litellm_key_id == "cf_abc123"
    ops.post(where, {"litellm_key_id": "sk-1234567890"})
    stored = ApiKey.objects.get(pk=cast.key.pk).litellm_key_id
    assert len(stored) == 64
    assert "sk-" not in stored
    assert [each.facts["after"] for each in AuditEntry.objects.filter(action="key.litellm_mapped")][-1] == stored


def test_an_administrator_revokes_a_key_and_books_nothing(client: Client, cast: Cast) -> None:
    client.force_login(User.objects.create_user("admin@example.org", role=User.Role.ADMIN))
    page = client.get(f"/ops/customers/{cast.organization.pk}/").content.decode()
    assert "Book credit" not in page
    client.post(f"/ops/customers/{cast.organization.pk}/keys/{cast.key.pk}/revoke/")
    assert ApiKey.objects.get(pk=cast.key.pk).revoked_at is not None


# Second factor


def test_operators_need_a_second_factor_where_the_settings_say_so(ops: Client, settings: Any) -> None:
    settings.OPERATORS_NEED_SECOND_FACTOR = True
    assert ops.get("/ops/")["Location"] == "/accounts/2fa/"


# Viewing as a member


@pytest.fixture
def viewing(ops: Client, cast: Cast) -> Client:
    facts_given = {"member": cast.ben.pk, "reason": "Ticket 4711"}
    response = ops.post(f"/ops/customers/{cast.organization.pk}/view/", facts_given)
    assert response["Location"] == f"/o/{cast.slug}/"
    return ops


def test_an_operator_sees_what_a_member_sees_under_a_banner(viewing: Client, cast: Cast) -> None:
    page = viewing.get(f"/o/{cast.slug}/keys/").content.decode()
    assert "prod-web" in page
    assert "root@example.org views the pages of ben@example.org" in page
    entry = AuditEntry.objects.get(action="impersonation.started")
    assert (entry.actor, entry.object_id, entry.organization) == (
        User.objects.get(email="root@example.org"),
        str(cast.ben.pk),
        cast.organization,
    )
    assert entry.facts["reason"] == "Ticket 4711"


def test_nothing_can_be_changed_and_no_prompt_read_while_viewing(viewing: Client, cast: Cast) -> None:
    event = an_event_of(cast)
    happened(cast, event)
    keeps(cast, event.request_id, request="a secret prompt")
    viewing.post(f"/o/{cast.slug}/keys/{cast.key.pk}/revoke/")
    assert ApiKey.objects.get(pk=cast.key.pk).revoked_at is None
    for path in (f"logs/{event.request_id}/content/", "playground/"):
        response = viewing.get(f"/o/{cast.slug}/{path}", follow=True)
        assert "secret prompt" not in response.content.decode()
        assert "Nothing can be changed" in response.content.decode()
    api = viewing.get(f"/api/v1/keys?organization={cast.slug}")
    assert api.status_code == 403


def test_viewing_ends_by_the_button_by_time_and_with_the_permission(viewing: Client, cast: Cast) -> None:
    viewing.post("/ops/viewing/end/")
    assert viewing.get(f"/o/{cast.slug}/").status_code == 404
    assert AuditEntry.objects.filter(action="impersonation.ended").count() == 1


def test_viewing_is_over_after_half_an_hour(viewing: Client, cast: Cast) -> None:
    session = viewing.session
    session["viewing_as"] = {**session["viewing_as"], "until": (now() - timedelta(seconds=1)).timestamp()}
    session.save()
    assert viewing.get(f"/o/{cast.slug}/")["Location"] == "/ops/"
    assert viewing.get(f"/o/{cast.slug}/").status_code == 404


def test_nobody_views_as_an_operator_or_as_a_stranger_to_the_organization(ops: Client, cast: Cast) -> None:
    for person in (User.objects.get(email="root@example.org"), cast.eve):
        given = {"member": person.pk, "reason": "Curious"}
        assert ops.post(f"/ops/customers/{cast.organization.pk}/view/", given).status_code == 422


def test_a_user_who_forges_the_session_key_sees_nothing(client: Client, cast: Cast) -> None:
    client.force_login(cast.eve)
    session = client.session
    until = (now() + timedelta(minutes=5)).timestamp()
    session["viewing_as"] = {"member": cast.ada.pk, "organization": str(cast.organization.pk), "until": until}
    session.save()
    assert client.get(f"/o/{cast.slug}/").status_code == 302
    assert client.get(f"/o/{cast.slug}/").status_code == 404


# Models and prices


def test_an_edit_is_checked_compared_and_put_in_force(ops: Client, cast: Cast) -> None:
    first = a_version()
    text = first.text.replace("max_tokens: 16384", "max_tokens: 8192", 1)
    assert text != first.text
    typed = {"text": text.replace("\n", "\r\n"), "base_id": first.pk, "note": "Shorter plans"}
    checked = ops.post("/ops/models/", {**typed, "check": "1"}).content.decode()
    assert "+    max_tokens: 8192" in checked
    assert "textarea w-full mono" in checked, "columns of YAML stand below each other"
    assert '\n  <span class="block' not in checked, "no empty lines between those of a comparison"
    assert ConfigVersion.objects.latest("pk") == first
    ops.post("/ops/models/", {**typed, "apply": "1"})
    made = ConfigVersion.objects.latest("pk")
    assert (made.text, made.author, made.note) == (text, "root@example.org", "Shorter plans")
    assert AuditEntry.objects.filter(action="catalogue.applied").exists()
    ops.post(f"/ops/models/{first.pk}/rollback/")
    assert ConfigVersion.objects.latest("pk").text == first.text


def test_a_text_with_problems_is_kept_on_the_page_and_nowhere_else(ops: Client, cast: Cast) -> None:
    first = a_version()
    typed = {"text": first.text + "\nnonsense: 1\n", "base_id": first.pk, "apply": "1"}
    response = ops.post("/ops/models/", typed)
    assert response.status_code == 422
    assert "nonsense" in response.content.decode()
    assert ConfigVersion.objects.latest("pk") == first


def test_a_faster_edit_of_somebody_else_is_shown_and_not_lost(ops: Client, cast: Cast) -> None:
    first = a_version()
    ours = first.text.replace("max_tokens: 16384", "max_tokens: 8192", 1)
    theirs = first.text.replace("max_tokens: 32768", "max_tokens: 4096", 1)
    ops.post("/ops/models/", {"text": theirs, "base_id": first.pk, "apply": "1"})
    late = ops.post("/ops/models/", {"text": ours, "base_id": first.pk, "apply": "1"})
    assert late.status_code == 409
    page = late.content.decode()
    assert "max_tokens: 4096" in page
    assert "max_tokens: 8192" in page
    newest = ConfigVersion.objects.latest("pk")
    assert newest.text == theirs
    ops.post("/ops/models/", {"text": ours, "base_id": newest.pk, "apply": "1"})
    assert ConfigVersion.objects.latest("pk").text == ours


def test_an_administrator_cannot_edit_models_and_prices(client: Client, cast: Cast) -> None:
    client.force_login(User.objects.create_user("admin@example.org", role=User.Role.ADMIN))
    first = a_version()
    client.post("/ops/models/", {"text": first.text, "base_id": first.pk, "apply": "1"})
    assert client.post(f"/ops/models/{first.pk}/rollback/").status_code == 403
    assert ConfigVersion.objects.latest("pk") == first


# Announcements


def test_an_announcement_is_shown_in_the_readers_language_to_whom_it_is_for(client: Client, cast: Cast) -> None:
    an_announcement()
    assert "Maintenance on Sunday" not in client.get("/").content.decode()
    client.force_login(cast.ada)
    assert "Maintenance on Sunday" in client.get(f"/o/{cast.slug}/keys/").content.decode()
    User.objects.filter(pk=cast.ada.pk).update(language="tr")
    assert "Pazar günü bakım var" in client.get(f"/o/{cast.slug}/keys/").content.decode()
    client.logout()
    Announcement.objects.update(audience="everybody")
    assert "Maintenance on Sunday" in client.get("/", headers={"accept-language": "en"}).content.decode()
    Announcement.objects.update(ends_at=now())
    assert "Maintenance on Sunday" not in client.get("/").content.decode()


def test_an_announcement_is_made_and_ended(ops: Client, cast: Cast) -> None:
    soon = timezone.localtime(now() + timedelta(hours=2))
    typed = {
        "text_en": "New models",
        "text_tr": "Yeni modeller",
        "level": "info",
        "audience": "users",
        "starts_at": f"{now():%Y-%m-%dT%H:%M}",
        "ends_at": f"{soon:%Y-%m-%dT%H:%M}",
    }
    past = {**typed, "ends_at": f"{now() - timedelta(hours=2):%Y-%m-%dT%H:%M}"}
    assert ops.post("/ops/announcements/", past).status_code == 422
    ops.post("/ops/announcements/", typed)
    made = Announcement.objects.get()
    ops.post(f"/ops/announcements/{made.pk}/end/")
    assert Announcement.objects.get().state(now()) == "over"


# Dead letters


def test_a_dead_letter_is_stored_again_once_its_cause_is_mended(ops: Client, cast: Cast) -> None:
    event = an_event_of(cast)
    stream = ShardKeys.of(settings.ENV.redis_prefix, 0).usage.decode()
    good = DeadLetter.objects.create(stream_id=f"{stream}/1-1", payload=encode(event), reason="disk full")
    bad = DeadLetter.objects.create(stream_id=f"{stream}/1-2", payload=b"nonsense", reason="unknown")
    chosen = {"action": "store_again", "_selected_action": [str(good.pk), str(bad.pk)]}
    page = ops.post("/ops/logs/deadletter/", chosen, follow=True).content.decode()
    assert "1 stored, 1 failed again." in page
    assert RequestLog.objects.filter(request_id=event.request_id).count() == 1
    assert [each.pk for each in DeadLetter.objects.all()] == [bad.pk]
    assert DeadLetter.objects.get().reason != "unknown"
    # The same event once more changes nothing.
    again = DeadLetter.objects.create(stream_id=f"{stream}/1-3", payload=encode(event), reason="twice")
    assert retry_dead_letters([again]).stored == 1
    assert RequestLog.objects.filter(request_id=event.request_id).count() == 1
