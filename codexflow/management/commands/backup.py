"""manage.py backup: write the whole database to one file."""

import argparse
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from typing_extensions import override

from adminpanel.services import note_backup
from codexflow.backup.dump import dump
from codexflow.backup.secrets import secrets_in_force
from codexflow.lib.db import connect_directly


class Command(BaseCommand):
    help = "Write a backup of the database, taken at one moment, to a new file, or to a pipe with `-`."

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", help="a file that does not exist yet, or - for the standard output")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        name: str = options["file"]
        connect_directly()
        if name == "-":
            manifest = dump(sys.stdout.buffer, secrets=secrets_in_force())
        else:
            # Named when it is whole, so that nobody takes a part of a backup for one.
            part = Path(f"{name}.part")
            try:
                if Path(name).exists():
                    raise CommandError(f"{name} exists already.")
                with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                    manifest = dump(file, secrets=secrets_in_force())
                    file.flush()
                    os.fsync(file.fileno())
                part.rename(name)
            except OSError as exc:
                raise CommandError(f"{name} cannot be written: {exc.strerror}.") from exc
        rows = sum(table.rows for table in manifest.tables.values())
        size_bytes = None if name == "-" else Path(name).stat().st_size
        note_backup(datetime.fromisoformat(manifest.taken_at), rows=rows, size_bytes=size_bytes)
        self.stderr.write(f"{rows} rows of {len(manifest.tables)} tables, as of {manifest.taken_at}.")
        self.stderr.write("Secrets are not in it: keep HASH_SALT and AUTH_SECRET apart from it.")
