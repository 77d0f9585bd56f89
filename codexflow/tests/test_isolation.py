"""Row-level security: PostgreSQL hides other organizations' rows, even if a selector forgets its filter."""

import contextlib
from collections.abc import Iterator
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


@contextlib.contextmanager
def as_user(name: str, *, owns: str = "") -> Iterator[None]:
    """Act as another user of the server, who has no rights but those given."""
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {name} {owns}")
        cursor.execute(f"GRANT {name} TO CURRENT_USER")
        cursor.execute(f"SET ROLE {name}")
    isolation._role_usable.clear()
    try:
        yield
    finally:
        isolation._role_usable.clear()


@pytest.mark.parametrize("rights", ["NOCREATEROLE", "CREATEROLE"])
def test_a_migration_fails_where_pages_would_run_without_row_level_security(rights: str) -> None:
    """Another database of the server has the role: its user alone may give it on, which no right to create roles is."""
    with as_user("other_installation", owns=rights):
        assert isolation.is_missing()
        with pytest.raises(isolation.IsolationMissing, match="GRANT cfx_tenant TO other_installation;") as caught:
            isolation.build()
        assert caught.value.returncode == 2


def test_a_table_without_its_policy_is_noticed() -> None:
    assert not isolation.is_missing()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE keys_apikey DISABLE ROW LEVEL SECURITY")
    assert isolation.is_missing()


def role() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        return str(cursor.fetchone()[0])


@pytest.mark.django_db(transaction=True)
def test_behind_a_pooler_a_page_is_one_transaction_that_keeps_what_was_written(cast: Cast, settings: Any) -> None:
    """As without a pooler: what a view has written before it fails stays."""
    settings.HAS_POOLER = True
    key, owner = cast.key, role()
    with contextlib.suppress(LookupError), isolation.within(cast.organization.pk, person_id=cast.ada.pk):
        assert (role(), connection.in_atomic_block) == (isolation.ROLE, True)
        ApiKey.objects.filter(pk=key.pk).update(name="written")
        raise LookupError
    assert (role(), connection.in_atomic_block) == (owner, False)
    key.refresh_from_db()
    assert key.name == "written"


@pytest.mark.django_db(transaction=True)
def test_behind_a_pooler_a_failed_statement_leaves_no_transaction(cast: Cast, settings: Any) -> None:
    settings.HAS_POOLER = True
    owner = role()
    with pytest.raises(DatabaseError), isolation.within(cast.organization.pk, person_id=cast.ada.pk):
        DeadLetter.objects.count()
    assert (role(), connection.in_atomic_block) == (owner, False)


@pytest.mark.django_db(transaction=True)
def test_behind_a_pooler_a_lost_connection_leaves_no_transaction(
    cast: Cast, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.HAS_POOLER = True
    owner = role()

    def fails(*_args: str) -> None:
        connection.connection.close()
        raise DatabaseError

    monkeypatch.setattr(isolation, "_set", fails)
    with pytest.raises(DatabaseError), isolation.within(cast.organization.pk, person_id=cast.ada.pk):
        pytest.fail("never entered")
    assert not connection.in_atomic_block
    assert role() == owner
