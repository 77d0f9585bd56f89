"""The second wall between organizations: PostgreSQL itself refuses the rows of another one.

Selectors always name the organization. Pages and management API of an organization also run as a role under row-level
security, so that a selector that forgets finds nothing. Gateway, workers and operators are above organizations and run
as the owner of the tables, to whom the policies do not apply.

The policies follow from the tables: whatever has an `organization_id` is closed to others. `build` runs after every
migration.
"""

import contextlib
import hashlib
import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.utils import ProgrammingError

logger = logging.getLogger(__name__)

ROLE = "cfx_tenant"
# In a SELECT of their own they are looked up once a query instead of once a row.
_ORGANIZATION = "(SELECT NULLIF(current_setting('cfx.organization', true), '')::uuid)"
_PERSON = "(SELECT NULLIF(current_setting('cfx.person', true), '')::bigint)"
_OWN = f"organization_id = {_ORGANIZATION}"
# Tables whose rows are also somebody's, or say in another way whose they are.
_SPECIAL = {
    "accounts_membership": f"{_OWN} OR user_id = {_PERSON}",
    "accounts_organization": f"id = {_ORGANIZATION} OR id IN (SELECT organization_id FROM accounts_membership)",  # noqa: S608 - constants
    "upstream_attempt": "EXISTS (SELECT FROM request_log log WHERE log.request_id = upstream_attempt.request_id)",
}
# What only operators and workers see.
_CLOSED = ("litellm_identity", "litellm_unmatched", "litellm_sync_run", "litellm_reconciled", "usage_dead_letter")

_TABLES_SQL = """
SELECT c.relname, ARRAY(SELECT polname::text FROM pg_policy WHERE polrelid = c.oid AND polname LIKE 'tenant%%')
FROM pg_class c
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace
    AND (c.relname = ANY(%s) OR EXISTS (
        SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'organization_id' AND NOT a.attisdropped
    ))
ORDER BY c.relname
"""
_ENTER_SQL = (
    "SELECT set_config('role', %s, false), set_config('cfx.organization', %s, false),"
    " set_config('cfx.person', %s, false)"
)

# Database -> whether its role is there and may be taken. Asked once a process.
_is_built: dict[str, bool] = {}


@contextlib.contextmanager
def within(organization_id: UUID, *, person_id: int) -> Iterator[None]:
    """Everything on this thread's connection sees this organization only, and the person's own memberships."""
    enter(organization_id, person_id=person_id)
    try:
        yield
    finally:
        leave()


def enter(organization_id: UUID, *, person_id: int) -> None:
    """As `within`, until `leave`."""
    if _has_role():
        _set(ROLE, str(organization_id), str(person_id))


def leave() -> None:
    """Back above organizations. A connection that cannot be brought back is closed."""
    if connection.connection is None or not _has_role():
        return
    try:
        _set("none", "", "")
    except DatabaseError:
        logger.exception("isolation.not_left")
        connection.close()


def _set(role: str, organization: str, person: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_ENTER_SQL, [role, organization, person])


def _has_role() -> bool:
    name = str(connection.settings_dict["NAME"])
    if name not in _is_built:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT coalesce((SELECT pg_has_role(oid, 'MEMBER') FROM pg_roles WHERE rolname = %s), false)", [ROLE]
            )
            _is_built[name] = cursor.fetchone()[0]
    return _is_built[name]


def build(**_signal: Any) -> None:
    """Make the role and the policies that are missing. Without the right to make roles the second wall is not there.

    Then an administrator of the server makes it (`CREATE ROLE cfx_tenant; GRANT cfx_tenant TO <user>`) and migrates
    again.
    """
    try:
        _make_role()
    except ProgrammingError as exc:
        logger.warning("isolation.no_role", extra={"reason": str(exc).partition("\n")[0]})
        return
    _is_built.clear()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"GRANT USAGE ON SCHEMA public TO {ROLE}")
        cursor.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {ROLE}")
        cursor.execute(f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {ROLE}")
        cursor.execute(_TABLES_SQL, [[*_SPECIAL, *_CLOSED]])
        for table, known in cursor.fetchall():
            if table in _CLOSED:
                cursor.execute(f"REVOKE ALL ON {table} FROM {ROLE}")
            else:
                _secure(cursor, table, known)


def _make_role() -> None:
    # Databases of one server share their roles: another one may be migrated at this moment.
    with contextlib.suppress(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE])
        if cursor.fetchone() is None:
            cursor.execute(f"CREATE ROLE {ROLE} NOLOGIN")
            cursor.execute(f"GRANT {ROLE} TO CURRENT_USER")


def _secure(cursor: Any, table: str, known: list[str]) -> None:
    """Put the policy of a table in force unless it is: its name tells its wording."""
    rule = _SPECIAL.get(table, _OWN)
    name = f"tenant_{hashlib.sha256(rule.encode()).hexdigest()[:8]}"
    if known == [name]:
        return
    for old in known:
        cursor.execute(f"DROP POLICY {old} ON {table}")
    cursor.execute(f"CREATE POLICY {name} ON {table} TO {ROLE} USING ({rule})")
    cursor.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
