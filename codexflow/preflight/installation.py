"""Checks that need Django: the schema against this release, row-level security, configuration, folders and mail."""

from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core import checks
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from accounts.encryption import count_secrets
from accounts.models import User
from adminpanel.models import HealthCheck
from billing.models import Plan
from codexflow.catalogue import directory
from codexflow.catalogue.schema import CatalogueError
from codexflow.lib import isolation
from codexflow.lib.disk import try_folder
from codexflow.preflight.findings import Finding, error, ok, warning
from keys.selectors import count_salts

LOW_DISK_BYTES = 1 << 30
MIGRATE = "Run `manage.py migrate` of this release (docker/entrypoint.sh setup), once, before its programs start."
SEED = "Run `manage.py seed`."


def check_installation(*, serves_pages: bool) -> Iterator[Finding]:
    """Run all of them; the later ones need what the earlier ones find in order."""
    yield from check_files()
    if serves_pages:
        yield from check_static_files()
    schema = list(check_schema())
    yield from schema
    if any(each.level == "error" for each in schema):
        return
    yield from check_isolation()
    yield from check_configuration()
    yield from check_seed()
    yield from check_secrets()
    yield from check_salts()


def has_worked() -> bool:
    """Return whether a worker of this installation has ever checked its health: then every address was right once."""
    return HealthCheck.objects.exists()


def check_schema() -> Iterator[Finding]:
    """Compare the migrations of the database with those of this release, and name both heads."""
    loader = MigrationLoader(connection)
    known, applied = set(loader.disk_migrations), set(loader.applied_migrations)
    for migration in loader.replacements:  # squashed: applied under the names of those that it replaces
        known -= {migration} - applied
    missing = known - applied
    newer = {each for each in applied - known if each[0] in loader.migrated_apps and each not in loader.disk_migrations}
    if missing:
        yield error("schema", f"migrations are missing: {_heads(missing, applied)}", MIGRATE)
    if newer:
        said = f"the database was migrated by a newer release: {_heads(newer, known)}"
        if settings.ENV.newer_schema == "accept":
            yield warning("schema", said, "CFX_NEWER_SCHEMA=accept is meant for going back one release.")
        else:
            yield error(
                "schema",
                said,
                "Start that release. To go back by one, set CFX_NEWER_SCHEMA=accept for as long as that lasts;"
                " to go back further, restore the backup made before the upgrade.",
            )
    if not missing and not newer:
        yield ok("schema", f"{len(applied)} migrations, as in this release")


def _heads(wanted: set[tuple[str, str]], others: set[tuple[str, str]]) -> str:
    """Name, for each app, the newest of the wanted migrations, and the newest that the other side has."""
    newest = {app: max(name for each, name in wanted if each == app) for app, _ in sorted(wanted)}
    other = {app: max((name for each, name in others if each == app), default="none") for app in newest}
    return ", ".join(f"{app} {name} (the other side ends at {other[app]})" for app, name in newest.items())


def check_isolation() -> Iterator[Finding]:
    if isolation.is_missing():
        user = str(connection.settings_dict["USER"] or "codexflow")
        yield error(
            "schema",
            "row-level security is missing: pages would show rows that a mistake in our code lets through",
            f"As an administrator of the server, then migrate again:\n{isolation.remedy(user)}",
        )
    else:
        yield ok("schema", "row-level security is in force")


def check_configuration() -> Iterator[Finding]:
    try:
        directory.load(settings.ENV.config_path)
    except CatalogueError as exc:
        yield error("configuration", f"{settings.ENV.config_path} cannot be used:\n{exc}", "Correct the file.")
        return
    if problems := directory.problems():
        listed = "\n".join(problems)
        yield warning("configuration", f"an earlier version is in force, because of:\n{listed}", "Correct the file.")
    else:
        yield ok("configuration", f"version {directory.current().version} of the models")


def check_seed() -> Iterator[Finding]:
    if not Plan.objects.exists() or not User.objects.filter(role=User.Role.SUPER_ADMIN).exists():
        yield warning("configuration", "there is no administrator or no plan yet", SEED)


def check_secrets() -> Iterator[Finding]:
    """Decrypt the secrets of all authenticator apps and webhooks."""
    found = count_secrets()
    if found.unreadable:
        yield warning(
            "secrets",
            f"{found.unreadable} secrets of authenticator apps and webhooks were encrypted under another AUTH_SECRET",
            "Set it as AUTH_SECRET_PREVIOUS; otherwise enrol the apps again and rotate the webhooks.",
        )
    if found.previous:
        yield warning(
            "secrets", f"{found.previous} secrets are encrypted under an older key", "Run `manage.py rotate_secrets`."
        )


def check_salts() -> Iterator[Finding]:
    """Count usable API keys by the HASH_SALT under which they are stored, for a rotation of it."""
    found = count_salts(settings.ENV.salts)
    counted = f"{found.current} keys under HASH_SALT"
    if settings.ENV.hash_salt_previous:
        counted += f", {found.previous} under HASH_SALT_PREVIOUS, which can be removed once they are rotated"
    if found.unknown:
        counted += f", {found.unknown} that were not used since an older release"
    yield ok("secrets", counted)
    if found.foreign:
        yield warning(
            "secrets",
            f"{found.foreign} keys are stored under a salt that is not set, and refused",
            "Set it as HASH_SALT_PREVIOUS; otherwise issue them again.",
        )


def check_files() -> Iterator[Finding]:
    """Try the folders that must be written to."""
    for name, folder in (("CFX_JOURNAL_DIR", settings.ENV.journal_dir), ("CFX_EXPORT_DIR", settings.ENV.export_dir)):
        try:
            free_bytes = try_folder(folder)
        except OSError as exc:
            remedy = "Give it to the user that the programs run as (10001 in the image), on a disk with room."
            yield error("files", f"{folder} ({name}) cannot be written to: {exc.strerror}", remedy)
            continue
        if free_bytes < LOW_DISK_BYTES:
            yield warning("files", f"{folder} ({name}) has {free_bytes >> 20} MiB left", "Make room on that disk.")


def check_static_files() -> Iterator[Finding]:
    manifest = Path(str(settings.STATIC_ROOT)) / "staticfiles.json"
    if settings.ENV.is_production and not manifest.exists():
        yield error(
            "files",
            f"{manifest.parent} has no collected files: every page would be 500",
            "Run `manage.py collectstatic`.",
        )


def check_settings() -> Iterator[Finding]:
    """Django's own checks of a deployment."""
    for found in checks.run_checks(include_deployment_checks=True):
        if not found.is_silenced():
            make = error if found.is_serious() else warning
            yield make("settings", f"{found.msg} ({found.id})", str(found.hint or ""))
