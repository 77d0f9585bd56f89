"""Read a backup into a database that has nothing of its own, and compare it with the manifest."""

import hashlib
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader

from codexflow.backup.dump import MANIFEST, sums_of, tables_of
from codexflow.backup.manifest import Manifest, decode, differences, differing_secrets, problems_of, unknown_migrations

BLOCK_BYTES = 1 << 20
# Tables in which migrations themselves leave rows.
MADE_BY_MIGRATIONS = frozenset({"django_migrations", "django_content_type", "auth_permission", "accounts_sitesettings"})


class BackupUnusable(Exception):
    """The backup cannot be restored here; the message says why and what to do."""


def read_manifest(path: str) -> Manifest:
    """Read and judge the manifest of a file. Raises BackupUnusable."""
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = decode(archive.read(MANIFEST))
    except FileNotFoundError:
        raise BackupUnusable(f"There is no file {path}.") from None
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as exc:
        raise BackupUnusable(f"{path} is no whole backup: {exc}. Use another one.") from exc
    if problems := problems_of(manifest):
        raise BackupUnusable(f"{path} is no backup of an installation: {'; '.join(problems)}.")
    return manifest


def refuse_unless_restorable(manifest: Manifest, *, secrets: Mapping[str, str]) -> None:
    """Raise BackupUnusable if this release is too old for the backup, or other secrets are set."""
    known = set(MigrationLoader(None, ignore_no_migrations=True).disk_migrations)
    if unknown := unknown_migrations(manifest, known):
        newer = ", ".join(unknown[:5])
        raise BackupUnusable(
            f"A newer release made this backup ({manifest.version}: {newer}). Restore it with that one."
        )
    if names := differing_secrets(manifest, secrets):
        raise BackupUnusable(
            f"{', '.join(names)} differ from the secrets of this backup: keys and authenticator apps in it would not"
            " work. Set those that it was made with."
        )


def refuse_unless_empty() -> None:
    """Raise BackupUnusable if the database has data of its own."""
    with connection.cursor() as cursor:
        for name, _ in tables_of(cursor):
            cursor.execute(f'SELECT EXISTS (SELECT FROM "{name}")')  # noqa: S608 - names of the catalogue
            if cursor.fetchone()[0] and name not in MADE_BY_MIGRATIONS:
                raise BackupUnusable(
                    f"The database has data already ({name}): a restore overwrites nothing. Use a new, empty one."
                )


def load(path: str, manifest: Manifest) -> list[str]:
    """Load a backup in one transaction. Returns how the result differs from the manifest; then nothing is kept.

    The schema is first brought to the backup's migrations, and to this release's afterwards, by the caller.
    """
    with zipfile.ZipFile(path) as archive, transaction.atomic():
        with connection.cursor() as cursor:
            there = tables_of(cursor)
            for name, _ in there:
                if name in manifest.tables:
                    _empty(cursor, name)
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")
            _make_partitions(cursor, archive, manifest)
            for name in manifest.tables:
                _copy(cursor, archive, manifest, name)
            for name, value in manifest.sequences.items():
                cursor.execute("SELECT setval(format('public.%%I', %s::text)::regclass, %s)", [name, value])
            found = differences(manifest, rows=counts_of(cursor), sums=sums_of(cursor))
        if found:
            transaction.set_rollback(True)
    return found


def migrate_to(manifest: Manifest) -> None:
    """Bring an empty database to the schema of the backup."""
    executor = MigrationExecutor(connection)
    leaves = executor.loader.graph.leaf_nodes()
    wanted = {(app, name) for app, names in manifest.migrations.items() for name in names}
    plan = [step for step in executor.migration_plan(leaves) if (step[0].app_label, step[0].name) in wanted]
    executor.migrate(leaves, plan=plan)


def counts_of(cursor: Any) -> dict[str, int]:
    found = {}
    for name, _ in tables_of(cursor):
        cursor.execute(f'SELECT count(*) FROM "{name}"')  # noqa: S608 - names of the catalogue
        found[name] = int(cursor.fetchone()[0])
    return found


def _empty(cursor: Any, name: str) -> None:
    # What migrations have left; append-only tables have no rows, and refuse only a DELETE that meets one.
    cursor.execute(f'DELETE FROM "{name}"')  # noqa: S608 - names of the catalogue


def _make_partitions(cursor: Any, archive: zipfile.ZipFile, manifest: Manifest) -> None:
    """Make a partition for every day between the first and the last request of the backup."""
    column = manifest.tables["request_log"].columns.index("request_id")
    first, last = "", ""
    with archive.open("tables/request_log.copy") as member:
        for line in member:
            request_id = line.split(b"\t", column + 1)[column].strip().decode()
            first, last = min(first or request_id, request_id), max(last, request_id)
    if last:  # UUIDv7: the time in ms is in the first twelve digits
        times_s = [int(each.replace("-", "")[:12], 16) / 1000 for each in (first, last)]
        days = [datetime.fromtimestamp(time_s, UTC).date() for time_s in times_s]
        cursor.execute("SELECT cfx_make_partitions(%s, %s)", days)


def _copy(cursor: Any, archive: zipfile.ZipFile, manifest: Manifest, name: str) -> None:
    table = manifest.tables[name]
    digest = hashlib.sha256()
    sql = f'COPY "{name}" ({", ".join(table.columns)}) FROM STDIN'
    with archive.open(f"tables/{name}.copy") as member, cursor.copy(sql) as rows:
        while block := member.read(BLOCK_BYTES):
            digest.update(block)
            rows.write(block)
    if digest.hexdigest() != table.sha256:
        raise BackupUnusable(f"The rows of {name} are not those that were written. Use another backup.")
