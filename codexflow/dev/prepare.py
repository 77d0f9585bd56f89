"""Migrate, seed and write the quickstart, in one process: loading Django once is most of the time it takes."""

import sys

import django
from django.core.management import call_command, get_commands
from django.core.management.base import CommandError
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from codexflow.dev import quickstart
from codexflow.dev.errors import DevError
from codexflow.env import Env


def has_pending_migrations() -> bool:
    """Asking is cheap; `migrate` also renders every model and syncs permissions, which takes a second."""
    executor = MigrationExecutor(connection)
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def prepare(env: Env) -> None:
    """Bring the database up to date. Safe to repeat."""
    if has_pending_migrations():
        call_command("migrate", interactive=False, verbosity=0)
        sys.stdout.write("migrated\n")
    if "seed" in get_commands():
        call_command("seed")
    if env.is_production:
        return
    try:
        quickstart.ensure(env)
    except quickstart.QuickstartUnavailable as exc:
        sys.stdout.write(f"{exc}\n")


def main() -> int:
    """Exit code 1, with the reason as the last line, when the database cannot be prepared."""
    django.setup()
    from codexflow.settings import ENV

    try:
        prepare(ENV)
    except (CommandError, DatabaseError, DevError) as exc:
        sys.stdout.write(f"{exc.__class__.__name__}: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
