"""Tenant isolation by row-level security: PostgreSQL itself hides the rows of other organizations.

Selectors always filter by organization. Pages and management API of an organization also run as a role under row-level
security, so a selector that forgets the filter finds nothing. Gateway, workers and operators serve all organizations
and run as the owner of the tables, to which the policies do not apply.

A table is closed to the role until an app declares it: `tenant_tables` of its AppConfig maps tables to OWN, SHARED or a
condition of their own, or to CLOSED; a test names undeclared tables. `build` runs after every migration.
"""

import contextlib
import hashlib
import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.utils import ProgrammingError

logger = logging.getLogger(__name__)

ROLE = "cfx_tenant"
# As a subquery, evaluated once per query instead of once per row.
ORGANIZATION = "(SELECT NULLIF(current_setting('cfx.organization', true), '')::uuid)"
PERSON = "(SELECT NULLIF(current_setting('cfx.person', true), '')::bigint)"

# Rules of `tenant_tables`; any other text is the condition for reading and writing a row.
OWN = f"organization_id = {ORGANIZATION}"  # rows of the organization
SHARED = "true"  # all rows: they belong to no organization
CLOSED = "false"  # no rows: for operators and workers only

# Partitions stay closed: they are read through their parent, whose policy does not apply to direct access.
_TABLES_SQL = """
SELECT c.relname,
    has_table_privilege(%s, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE'),
    ARRAY(SELECT polname::text FROM pg_policy WHERE polrelid = c.oid AND polname LIKE 'tenant%%')
FROM pg_class c
WHERE c.relkind IN ('r', 'p', 'v', 'm') AND c.relnamespace = 'public'::regnamespace
ORDER BY c.relname
"""
_ENTER_SQL = (
    "SELECT set_config('role', %s, false), set_config('cfx.organization', %s, false),"
    " set_config('cfx.person', %s, false)"
)

# Database -> True when the role exists and may be assumed. Queried once per process.
_role_usable: dict[str, bool] = {}


@contextlib.contextmanager
def within(organization_id: UUID, *, person_id: int) -> Iterator[None]:
    """Restrict this thread's connection to one organization and to the user's own memberships, for the block."""
    enter(organization_id, person_id=person_id)
    try:
        yield
    finally:
        leave()


def enter(organization_id: UUID, *, person_id: int) -> None:
    """Restrict the connection as `within` does, until `leave`."""
    if _has_role():
        _set(ROLE, str(organization_id), str(person_id))


def leave() -> None:
    """Lift the restriction. A connection that cannot be reset is closed."""
    if connection.connection is None or not _has_role():
        return
    try:
        _set("none", "", "")
    except DatabaseError:
        logger.exception("isolation.reset_failed")
        connection.close()


def _set(role: str, organization: str, person: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_ENTER_SQL, [role, organization, person])


def _has_role() -> bool:
    name = str(connection.settings_dict["NAME"])
    if name not in _role_usable:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT coalesce((SELECT pg_has_role(oid, 'MEMBER') FROM pg_roles WHERE rolname = %s), false)", [ROLE]
            )
            _role_usable[name] = cursor.fetchone()[0]
    return _role_usable[name]


def build(**_signal: Any) -> None:
    """Create the missing role, grants and policies. Without the right to create roles, there is no row-level security.

    Then a server administrator creates it (`CREATE ROLE cfx_tenant; GRANT cfx_tenant TO <user>`) and migrates again.
    """
    try:
        _create_role()
    except ProgrammingError as exc:
        logger.warning("isolation.no_role", extra={"reason": str(exc).partition("\n")[0]})
        return
    _role_usable.clear()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"GRANT USAGE ON SCHEMA public TO {ROLE}")
        cursor.execute(f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {ROLE}")
        cursor.execute(_TABLES_SQL, [ROLE])
        rules = declared_tables()
        for table, is_granted, known in cursor.fetchall():
            rule = rules.get(table, CLOSED)
            if rule != CLOSED:
                _open(cursor, table, rule, known)
            elif is_granted:
                cursor.execute(f"REVOKE ALL ON {table} FROM {ROLE}")


def declared_tables() -> dict[str, str]:
    """Collect the rules of all tables from `tenant_tables` of every app."""
    return {table: rule for app in apps.get_app_configs() for table, rule in getattr(app, "tenant_tables", {}).items()}


def _create_role() -> None:
    # Databases of one server share roles, and another one may be migrated at this moment.
    with contextlib.suppress(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE])
        if cursor.fetchone() is None:
            cursor.execute(f"CREATE ROLE {ROLE} NOLOGIN")
            cursor.execute(f"GRANT {ROLE} TO CURRENT_USER")


def _open(cursor: Any, table: str, rule: str, known: list[str]) -> None:
    """Grant a table under its policy. The policy's name has the hash of its condition, to detect changes."""
    name = f"tenant_{hashlib.sha256(rule.encode()).hexdigest()[:8]}"
    if rule != SHARED and known != [name]:
        for old in known:
            cursor.execute(f"DROP POLICY {old} ON {table}")
        cursor.execute(f"CREATE POLICY {name} ON {table} TO {ROLE} USING ({rule})")
        cursor.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    cursor.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {ROLE}")
