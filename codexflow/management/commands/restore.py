"""manage.py restore: load a backup into an empty database, or prove that it could be."""

import argparse
import os
from datetime import datetime
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection
from typing_extensions import override

from adminpanel.services import note_verified
from billing.ledger_audit import audit_ledger
from codexflow.backup.load import (
    BackupUnusable,
    load,
    migrate_to,
    read_manifest,
    refuse_unless_empty,
    refuse_unless_restorable,
)
from codexflow.backup.manifest import Manifest
from codexflow.backup.secrets import secrets_in_force
from codexflow.lib.db import connect_directly


class Command(BaseCommand):
    help = "Load a backup into the empty database of DATABASE_URL. With --verify: into a scratch one, which is removed."
    requires_system_checks = []

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", help="what `manage.py backup` wrote")
        parser.add_argument("--verify", action="store_true", help="restore into a scratch database, compare, remove it")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        path: str = options["file"]
        connect_directly()
        try:
            manifest = read_manifest(path)
            refuse_unless_restorable(manifest, secrets=secrets_in_force())
            if options["verify"]:
                self._verify(path, manifest)
                note_verified(datetime.fromisoformat(manifest.taken_at))
            else:
                refuse_unless_empty()
                self._restore(path, manifest)
        except BackupUnusable as exc:
            raise CommandError(str(exc), returncode=2) from exc
        rows = sum(table.rows for table in manifest.tables.values())
        self.stdout.write(
            f"{rows} rows of {len(manifest.tables)} tables, as of {manifest.taken_at}: all as in the manifest."
        )

    def _restore(self, path: str, manifest: Manifest) -> None:
        migrate_to(manifest)
        if found := load(path, manifest):
            raise BackupUnusable("What was loaded is not what the backup says:\n" + "\n".join(found))
        call_command("migrate", verbosity=0)
        if findings := audit_ledger():
            raise BackupUnusable("The ledger does not add up:\n" + "\n".join(map(str, findings)))

    def _verify(self, path: str, manifest: Manifest) -> None:
        """Restore into a database of its own on the same server, and remove it whatever comes of it."""
        own = str(connection.settings_dict["NAME"])
        scratch = f"{own}_verify_{os.getpid()}"
        with connection.cursor() as cursor:
            try:
                cursor.execute(f'CREATE DATABASE "{scratch}"')
            except DatabaseError as exc:
                user = connection.settings_dict["USER"] or "codexflow"
                reason = str(exc).partition("\n")[0]
                raise CommandError(
                    f"No scratch database can be made ({reason}). As an administrator: ALTER ROLE {user} CREATEDB;"
                ) from exc
        try:
            _connect_to(scratch)
            self._restore(path, manifest)
        finally:
            _connect_to(own)
            with connection.cursor() as cursor:
                # Not WITH (FORCE), which needs a right over autovacuum; otherwise the server ends that by itself.
                cursor.execute(f'DROP DATABASE "{scratch}"')


def _connect_to(name: str) -> None:
    connection.close()
    connection.settings_dict["NAME"] = name
