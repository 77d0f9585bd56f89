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
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.apps import apps
from django.conf import settings
from django.core.management.base import CommandError
from django.db import DatabaseError, IntegrityError, connection, connections, transaction
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
# May the user become the role? PostgreSQL before 16 has no privilege SET, and a member may always.
_MAY_ENTER_SQL = """
SELECT coalesce((
    SELECT pg_has_role(oid, CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)
    FROM pg_roles WHERE rolname = %s
), false)
"""
# For the session, or for the transaction only.
_ENTER_SQL = (
    "SELECT set_config('role', %s, {is_local}), set_config('cfx.organization', %s, {is_local}),"
    " set_config('cfx.person', %s, {is_local})"
)

_SECURED_SQL = """
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relrowsecurity
    AND EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid AND polname LIKE 'tenant%')
"""

_local = threading.local()
# Database -> True when the role exists and may be assumed. Queried once per process.
_role_usable: dict[str, bool] = {}


class IsolationMissing(CommandError):
    """The database's user can not become the role that pages run as."""

    def __init__(self, user: str) -> None:
        super().__init__(
            f"Row-level security is missing: the database's user {user} may not become the role {ROLE}."
            f" As an administrator of the server run:\n{remedy(user)}\nand then migrate again.",
            returncode=2,
        )


def remedy(user: str) -> str:
    """SQL with which an administrator of the server gives a user the role."""
    return f"CREATE ROLE {ROLE} NOLOGIN; -- unless it is there\nGRANT {ROLE} TO {user};"


@contextlib.contextmanager
def within(organization_id: UUID, *, person_id: int) -> Iterator[None]:
    """Restrict this thread's connection to one organization and to the user's own memberships, for the block."""
    try:
        enter(organization_id, person_id=person_id)
        yield
    finally:
        leave()


def enter(organization_id: UUID, *, person_id: int) -> None:
    """Restrict the connection as `within` does, until `leave`.

    Behind a pooler, which hands a connection on after each transaction, this begins one. It is committed by `leave`
    whatever happened in between, as each statement would be without it.
    """
    if not _has_role():
        return
    if settings.HAS_POOLER and connection.alias not in _transactions():
        # Not as a block: what is entered here is left by `leave`.
        block = transaction.atomic()
        block.__enter__()
        _transactions()[connection.alias] = block
    _set(ROLE, str(organization_id), str(person_id))
    _local.entered = (ROLE, str(organization_id), str(person_id))


def take_over(alias: str) -> None:
    """Restrict the transaction that runs on another connection as this thread's is restricted."""
    if (entered := getattr(_local, "entered", None)) is not None:
        with connections[alias].cursor() as cursor:
            cursor.execute(_ENTER_SQL.format(is_local="true"), entered)


def leave() -> None:
    """Lift the restriction. A connection that cannot be reset is closed."""
    block = _transactions().pop(connection.alias, None)
    _local.entered = None
    if block is None and (connection.connection is None or not _has_role()):
        return
    try:
        _set("none", "", "")
    except DatabaseError:
        # A statement has failed that nobody undid: nothing of the transaction is kept, and it ends the restriction.
        if block is None:
            logger.exception("isolation.reset_failed")
            connection.close()
        else:
            transaction.set_rollback(True)
    finally:
        if block is not None:
            block.__exit__(None, None, None)


def _transactions() -> dict[str, Any]:
    """Transactions that `enter` has begun on this thread, by connection."""
    if not hasattr(_local, "transactions"):
        _local.transactions = {}
    found: dict[str, Any] = _local.transactions
    return found


def _set(role: str, organization: str, person: str) -> None:
    with connection.cursor() as cursor:
        is_local = "true" if settings.HAS_POOLER else "false"
        cursor.execute(_ENTER_SQL.format(is_local=is_local), [role, organization, person])


def _has_role() -> bool:
    name = str(connection.settings_dict["NAME"])
    if name not in _role_usable:
        with connection.cursor() as cursor:
            cursor.execute(_MAY_ENTER_SQL, [ROLE])
            _role_usable[name] = cursor.fetchone()[0]
    return _role_usable[name]


def build(**_signal: Any) -> None:
    """Create the missing role, grants and policies.

    Raises IsolationMissing where the database's user may neither create the role nor become it: `migrate` then fails.
    """
    try:
        _create_role()
        _join_role()
    except ProgrammingError as exc:
        raise IsolationMissing(_user()) from exc
    _role_usable.clear()
    if not _has_role():
        raise IsolationMissing(_user())
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


def is_missing() -> bool:
    """Return whether pages would run without row-level security: no role to become, or a table without its policy."""
    with connection.cursor() as cursor:
        cursor.execute(_MAY_ENTER_SQL, [ROLE])
        if not cursor.fetchone()[0]:
            return True
        cursor.execute(_SECURED_SQL)
        secured = {row[0] for row in cursor.fetchall()}
    return not {table for table, rule in declared_tables().items() if rule not in (SHARED, CLOSED)} <= secured


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


def _join_role() -> None:
    """Let the database's user become a role that the user of another database of the server has made."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_MAY_ENTER_SQL, [ROLE])
        if not cursor.fetchone()[0]:
            cursor.execute(f"GRANT {ROLE} TO CURRENT_USER")


def _user() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT quote_ident(current_user)")
        return str(cursor.fetchone()[0])


def _open(cursor: Any, table: str, rule: str, known: list[str]) -> None:
    """Grant a table under its policy. The policy's name has the hash of its condition, to detect changes."""
    name = f"tenant_{hashlib.sha256(rule.encode()).hexdigest()[:8]}"
    if rule != SHARED and known != [name]:
        for old in known:
            cursor.execute(f"DROP POLICY {old} ON {table}")
        cursor.execute(f"CREATE POLICY {name} ON {table} TO {ROLE} USING ({rule})")
        cursor.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    cursor.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {ROLE}")
