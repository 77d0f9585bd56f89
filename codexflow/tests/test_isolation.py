"""The second wall: PostgreSQL refuses another organization's rows, whatever a selector forgets."""

from typing import Any

import pytest
from django.db import DatabaseError, connection
from django.test import Client
from django.urls import reverse

from accounts.models import Membership, Organization
from billing.models import Account, LedgerEntry
from codexflow.lib import isolation
from keys.models import ApiKey
from keys.tests.factories import a_key
from logs.models import DeadLetter, ExportJob, RequestContent, RequestLog, UpstreamAttempt
from tests.support.cast import Cast, an_event_of, happened, keeps

pytestmark = pytest.mark.django_db
TENANT_ROWS = (ApiKey, RequestLog, UpstreamAttempt, LedgerEntry, Account, ExportJob, RequestContent)


@pytest.fixture
def theirs(cast: Cast) -> Any:
    """Ada's organization has rows of every kind; Eve's has none but its own."""
    event = an_event_of(cast)
    happened(cast, event)
    keeps(cast, event.request_id)
    ExportJob.objects.create(organization=cast.organization, created_by=cast.ada, format="csv")
    return cast


def test_every_table_with_an_organization_is_behind_the_wall() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name FROM information_schema.columns JOIN pg_class ON relname = table_name"
            " WHERE column_name = 'organization_id' AND relkind IN ('r', 'p') AND NOT relispartition"
        )
        wanted = {row[0] for row in cursor.fetchall()}
        cursor.execute(
            "SELECT relname FROM pg_class JOIN pg_policy ON polrelid = pg_class.oid"
            " WHERE relrowsecurity AND polname LIKE 'tenant%'"
        )
        secured = {row[0] for row in cursor.fetchall()}
    assert {"keys_apikey", "request_log", "billing_ledgerentry"} <= wanted
    assert secured == wanted | {"upstream_attempt", "accounts_organization"}


def test_inside_there_is_one_organization_and_outside_all(theirs: Cast) -> None:
    own = Organization.objects.get(memberships__user=theirs.eve)
    a_key(own)
    with isolation.within(own.pk, person_id=theirs.eve.pk):
        assert [key.organization_id for key in ApiKey.objects.all()] == [own.pk]
        assert [each.pk for each in Organization.objects.all()] == [own.pk]
        assert not Membership.objects.exclude(user=theirs.eve).exists()
        assert not any(model.objects.exists() for model in (RequestLog, UpstreamAttempt, ExportJob, RequestContent))
        assert set(LedgerEntry.objects.values_list("organization_id", flat=True)) <= {own.pk}
        assert ApiKey.objects.filter(pk=theirs.key.pk).update(name="taken over") == 0
        assert ApiKey.objects.filter(pk=theirs.key.pk).delete()[0] == 0
    assert all(model.objects.exists() for model in TENANT_ROWS)
    with isolation.within(theirs.organization.pk, person_id=theirs.ada.pk):
        assert all(model.objects.exists() for model in TENANT_ROWS)


@pytest.mark.django_db(transaction=True)
def test_nothing_can_be_written_for_others(theirs: Cast) -> None:
    own = Organization.objects.get(memberships__user=theirs.eve)
    row = ExportJob(organization=theirs.organization, created_by=theirs.eve, format="csv")
    with isolation.within(own.pk, person_id=theirs.eve.pk), pytest.raises(DatabaseError, match="row-level security"):
        row.save()
    assert ExportJob.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_what_operators_see_is_closed(theirs: Cast) -> None:
    with (
        isolation.within(theirs.organization.pk, person_id=theirs.ada.pk),
        pytest.raises(DatabaseError, match="permission denied"),
    ):
        DeadLetter.objects.exists()
    assert not DeadLetter.objects.exists()


def test_a_page_whose_selector_forgets_shows_nothing_of_others(
    theirs: Cast, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keys.views.keys_of", lambda _organization: ApiKey.objects.all())
    client.force_login(theirs.eve)
    own = Organization.objects.get(memberships__user=theirs.eve)
    key = a_key(own).row
    shown = client.get(reverse("keys", args=[own.slug])).content.decode()
    assert key.public_id in shown
    assert theirs.key.public_id not in shown
    assert ApiKey.objects.filter(pk=theirs.key.pk).exists()  # above again after the page


def test_a_second_migration_changes_nothing() -> None:
    def policies() -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT oid, polname FROM pg_policy ORDER BY oid")
            return list(cursor.fetchall())

    before = policies()
    isolation.build()
    assert policies() == before
