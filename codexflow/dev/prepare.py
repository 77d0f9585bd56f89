"""Migrate, seed and write the quickstart, in one process: loading Django once is most of the time it takes."""

import io
import secrets
import sys

import django
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError, connection, transaction
from django.db.migrations.executor import MigrationExecutor

from codexflow.dev import quickstart
from codexflow.dev.errors import DevError
from codexflow.dev.quickstart import Quickstart
from codexflow.env import Env
from codexflow.lib.addresses import api_url, site_url

KEY_NAME = "Quickstart"


def has_pending_migrations() -> bool:
    """Asking is cheap; `migrate` also renders every model and syncs permissions, which takes a second."""
    executor = MigrationExecutor(connection)
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def prepare(env: Env) -> None:
    """Bring the database up to date. Safe to repeat."""
    if has_pending_migrations():
        call_command("migrate", interactive=False, verbosity=0)
        sys.stdout.write("migrated\n")
    # Its output would show a password that the quickstart replaces at once.
    call_command("seed", stdout=sys.stdout if env.is_production else io.StringIO())
    if not env.is_production:
        quickstart.ensure(env, issue=issue)


def issue(env: Env) -> Quickstart:
    """A new demo key and admin password; the ones issued before stop working. One transaction, after `seed`."""
    # Models can be imported only once Django is set up.
    from accounts.models import Organization
    from codexflow.management.commands.seed import ADMIN_ORGANIZATION, administrator
    from keys.selectors import keys_of
    from keys.services import issue_key, revoke_key

    with transaction.atomic():
        admin = administrator()
        assert admin is not None  # noqa: S101 - seeded just now
        password = env.admin_password or secrets.token_urlsafe(15)
        admin.set_password(password)
        admin.must_change_password = False  # only readers of quickstart.json know it
        admin.save(update_fields=["password", "must_change_password"])
        organization = Organization.objects.get(slug=ADMIN_ORGANIZATION)
        for old in keys_of(organization).filter(name=KEY_NAME, revoked_at=None):
            revoke_key(old, actor_label="up")
        issued = issue_key(organization, name=KEY_NAME, created_by=admin, actor_label="up")
    return Quickstart(
        base_url=api_url(env),
        dashboard_url=site_url(env),
        organization=organization.slug,
        admin_email=admin.email,
        admin_password=password,
        api_key=issued.plain,
    )


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
