"""manage.py migrate, under a lock of its own: of several at once one works and the others wait for it.

Each migration is a transaction, so one that was interrupted leaves nothing behind, and the next run goes on with it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.commands.migrate import Command as Migrate
from django.db import connections
from typing_extensions import override

from codexflow.lib import clock
from codexflow.lib.db import connect_directly

# Any number that nothing else in this database uses for an advisory lock.
_LOCK = 0x6D696772  # "migr"
ASKED_AGAIN_S = 0.5
TOLD_AGAIN_S = 10.0


class Command(Migrate):
    @override
    def handle(self, *args: Any, **options: Any) -> None:
        connect_directly()
        with self._locked(options["database"]):
            super().handle(*args, **options)

    @contextmanager
    def _locked(self, database: str) -> Iterator[None]:
        """Hold the lock in this session; PostgreSQL gives it back when the process dies."""
        connection = connections[database]
        began_s = told_s = clock.monotonic_s()
        while not self._try(connection):
            if clock.monotonic_s() - told_s >= TOLD_AGAIN_S or told_s == began_s:
                waited = round(clock.monotonic_s() - began_s)
                self.stderr.write(f"Another migrate is at work on this database; waiting for it ({waited} s).")
                told_s = clock.monotonic_s()
            time.sleep(ASKED_AGAIN_S)
        try:
            yield
        finally:
            if connection.connection is not None and connection.is_usable():
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])

    def _try(self, connection: Any) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK])
            return bool(cursor.fetchone()[0])
