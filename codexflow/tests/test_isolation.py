"""Row-level security: PostgreSQL hides other organizations' rows, even if a selector forgets its filter."""

from typing import Any

import pytest
from django.db import DatabaseError, connection
from django.test import Client
from django.urls import reverse

from accounts.models import Membership, Organization
from billing.models import Account, LedgerEntry, Order
from billing.payments.orders import open_order
from codexflow.lib import isolation
from codexflow.lib.money import NANOS_PER_USD
from keys.models import ApiKey
from keys.tests.factories import a_key
from logs.models import DeadLetter, ExportJob, RequestContent, RequestLog, UpstreamAttempt
from tests.support.cast import Cast, an_event_of, happened, keeps

pytestmark = pytest.mark.django_db
TENANT_ROWS = (ApiKey, RequestLog, UpstreamAttempt, LedgerEntry, Account, Order, ExportJob, RequestContent)


@pytest.fixture
def populated(cast: Cast) -> Any:
    """Rows of every kind in Ada's organization; Eve's has only its own."""
    event = an_event_of(cast)
    happened(cast, event)
    keeps(cast, event.request_id)
    ExportJob.objects.create(organization=cast.organization, created_by=cast.ada, format="csv")
    open_order(cast.organization, provider="manual", amount_nanos=25 * NANOS_PER_USD)
    return cast


def tables(where: str) -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class"  # noqa: S608 - constants
            f" WHERE relkind IN ('r', 'p', 'v', 'm') AND relnamespace = 'public'::regnamespace AND ({where})"
        )
        return {row[0] for row in cursor.fetchall()}


def with_privilege(privilege: str) -> set[str]:
    return tables(f"has_table_privilege('{isolation.ROLE}', oid, '{privilege}')")


def test_every_table_is_declared_by_an_app() -> None:
    there, declared = tables("NOT relispartition"), set(isolation.declared_tables())
    assert not there - declared, f"say in tenant_tables of an AppConfig who may read {there - declared}"
    assert not declared - there, f"{declared - there}: declared in tenant_tables, but no such table"


def test_the_tenant_role_may_access_exactly_the_declared_tables() -> None:
    open_tables = {table for table, rule in isolation.declared_tables().items() if rule != isolation.CLOSED}
    for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE"):
        assert with_privilege(privilege) == open_tables, privilege
    assert not with_privilege("TRUNCATE")


def test_every_table_with_an_organization_has_a_policy() -> None:
    wanted = tables(
        "NOT relispartition AND oid IN (SELECT attrelid FROM pg_attribute"
        " WHERE attname = 'organization_id' AND NOT attisdropped)"
    )
    secured = tables("relrowsecurity AND oid IN (SELECT polrelid FROM pg_policy WHERE polname LIKE 'tenant_________')")
    assert {"keys_apikey", "request_log", "billing_ledgerentry"} <= wanted
    assert secured == wanted | {"upstream_attempt", "accounts_organization"}


def test_an_undeclared_table_is_closed() -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE operators_notes (id int)")
        cursor.execute(f"GRANT ALL ON operators_notes TO {isolation.ROLE}")  # as earlier releases did
    isolation.build()
    assert "operators_notes" not in with_privilege("SELECT, INSERT, UPDATE, DELETE, TRUNCATE")


def test_only_one_organization_is_visible_inside_and_all_outside(populated: Cast) -> None:
    own = Organization.objects.get(memberships__user=populated.eve)
    a_key(own)
    with isolation.within(own.pk, person_id=populated.eve.pk):
        assert [key.organization_id for key in ApiKey.objects.all()] == [own.pk]
        assert [each.pk for each in Organization.objects.all()] == [own.pk]
        assert not Membership.objects.exclude(user=populated.eve).exists()
        assert not any(
            model.objects.exists() for model in (RequestLog, UpstreamAttempt, Order, ExportJob, RequestContent)
        )
        assert set(LedgerEntry.objects.values_list("organization_id", flat=True)) <= {own.pk}
        assert ApiKey.objects.filter(pk=populated.key.pk).update(name="taken over") == 0
        assert ApiKey.objects.filter(pk=populated.key.pk).delete()[0] == 0
    assert all(model.objects.exists() for model in TENANT_ROWS)
    with isolation.within(populated.organization.pk, person_id=populated.ada.pk):
        assert all(model.objects.exists() for model in TENANT_ROWS)


@pytest.mark.django_db(transaction=True)
def test_rows_of_other_organizations_cannot_be_written(populated: Cast) -> None:
    own = Organization.objects.get(memberships__user=populated.eve)
    row = ExportJob(organization=populated.organization, created_by=populated.eve, format="csv")
    with isolation.within(own.pk, person_id=populated.eve.pk), pytest.raises(DatabaseError, match="row-level security"):
        row.save()
    assert ExportJob.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_tables_of_operators_are_closed(populated: Cast) -> None:
    with (
        isolation.within(populated.organization.pk, person_id=populated.ada.pk),
        pytest.raises(DatabaseError, match="permission denied"),
    ):
        DeadLetter.objects.exists()
    assert not DeadLetter.objects.exists()


def test_a_page_whose_selector_forgets_its_filter_shows_no_other_rows(
    populated: Cast, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keys.views.keys_of", lambda _organization: ApiKey.objects.all())
    client.force_login(populated.eve)
    own = Organization.objects.get(memberships__user=populated.eve)
    key = a_key(own).row
    shown = client.get(reverse("keys", args=[own.slug])).content.decode()
    assert key.public_id in shown
    assert populated.key.public_id not in shown
    assert ApiKey.objects.filter(pk=populated.key.pk).exists()  # unrestricted again after the page


def test_a_second_migration_changes_nothing() -> None:
    def policies() -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT oid, polname FROM pg_policy ORDER BY oid")
            return list(cursor.fetchall())

    before = policies()
    isolation.build()
    assert policies() == before
