"""Write a backup: a zip archive with one COPY file a table, and the manifest last.

One snapshot (REPEATABLE READ) for all of it. The archive is written from front to back, so it can go through a pipe,
and one that was cut off has no directory at its end and cannot be opened.
"""

import hashlib
import zipfile
from collections.abc import Mapping
from typing import IO, Any

from django.db import connection, transaction

from codexflow import __version__
from codexflow.backup.manifest import FORMAT, Manifest, Table, encode, fingerprint

MANIFEST = "manifest.json"
# What each sum is, for messages and the manifest. All are integers.
SUMS_SQL = {
    "ledger_nanos": "SELECT coalesce(sum(amount_nanos), 0)::bigint FROM billing_ledgerentry",
    "credit_nanos": "SELECT coalesce(sum(credit_nanos), 0)::bigint FROM billing_account",
    "spent_nanos": "SELECT coalesce(sum(spent_nanos), 0)::bigint FROM billing_account",
    "daily_spend_nanos": "SELECT coalesce(sum(cost_nanos), 0)::bigint FROM billing_spend_daily",
    # The newest request, as the time of its UUIDv7 in ms: a backup that stops earlier than it says is noticed.
    "newest_request_ms": """
        SELECT coalesce(max(('x' || left(replace(request_id::text, '-', ''), 12))::bit(48)::bigint), 0) FROM request_log
    """,
}
# Tables and partitioned tables; partitions are read through their parent, views and others' tables are not ours.
TABLES_SQL = """
SELECT c.relname, ARRAY(
    SELECT quote_ident(attname) FROM pg_attribute
    WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum
)
FROM pg_class c
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace
ORDER BY c.relname
"""
SEQUENCES_SQL = """
SELECT sequencename, last_value FROM pg_sequences
WHERE schemaname = 'public' AND last_value IS NOT NULL ORDER BY sequencename
"""


def dump(file: IO[bytes], *, secrets: Mapping[str, str]) -> Manifest:
    """Write the whole database to a file, which need not be seekable. `secrets`: whose fingerprints are kept."""
    with (
        transaction.atomic(),
        connection.cursor() as cursor,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        cursor.execute("SELECT to_json(clock_timestamp())#>>'{}'")
        taken_at = str(cursor.fetchone()[0])
        tables = {}
        for name, columns in tables_of(cursor):
            tables[name] = _copy(cursor, archive, name, columns)
        cursor.execute(SEQUENCES_SQL)
        sequences = {name: int(value) for name, value in cursor.fetchall()}
        manifest = Manifest(
            format=FORMAT,
            version=__version__,
            taken_at=taken_at,
            migrations=migrations_of(cursor),
            tables=tables,
            sequences=sequences,
            sums=sums_of(cursor),
            fingerprints={name: fingerprint(name, secret) for name, secret in secrets.items()},
        )
        archive.writestr(MANIFEST, encode(manifest))
    return manifest


def tables_of(cursor: Any) -> list[tuple[str, list[str]]]:
    cursor.execute(TABLES_SQL)
    return [(name, list(columns)) for name, columns in cursor.fetchall()]


def migrations_of(cursor: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    cursor.execute("SELECT app, name FROM django_migrations ORDER BY app, name")
    for app, name in cursor.fetchall():
        found.setdefault(app, []).append(name)
    return found


def sums_of(cursor: Any) -> dict[str, int]:
    """Add up the money, by what it is."""
    found = {}
    for name, sql in SUMS_SQL.items():
        cursor.execute(sql)
        found[name] = int(cursor.fetchone()[0])
    return found


def _copy(cursor: Any, archive: zipfile.ZipFile, name: str, columns: list[str]) -> Table:
    digest = hashlib.sha256()
    sql = f'COPY (SELECT {", ".join(columns)} FROM "{name}") TO STDOUT'  # noqa: S608 - names of the catalogue
    with archive.open(f"tables/{name}.copy", "w", force_zip64=True) as member:
        with cursor.copy(sql) as rows:
            for block in rows:
                digest.update(block)
                member.write(block)
        count = cursor.rowcount
    return Table(columns=columns, rows=count, sha256=digest.hexdigest())
