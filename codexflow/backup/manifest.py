"""Manifest of a backup: what it has, so that a restore can be compared with it. Pure."""

import hashlib
from collections.abc import Mapping

import msgspec

FORMAT = 1
# A backup without rows in one of these is not one of an installation.
NEVER_EMPTY = ("accounts_user", "accounts_organization", "billing_plan", "billing_account", "django_migrations")


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One table: its columns in the order of the file, its rows, and a digest of the bytes that COPY wrote."""

    columns: list[str]
    rows: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Facts of a backup."""

    format: int
    version: str  # of CodexFlow
    taken_at: str  # PostgreSQL's time of the snapshot, ISO 8601
    migrations: dict[str, list[str]]  # app -> names, all that were applied
    tables: dict[str, Table]
    sequences: dict[str, int]  # last value
    sums: dict[str, int]  # of money, in nano-USD
    fingerprints: dict[str, str]  # variable -> fingerprint of its secret


def fingerprint(name: str, secret: str) -> str:
    """Return what tells a secret from another without telling it. The secrets are random and long."""
    return hashlib.sha256(f"codexflow backup {name} {secret}".encode()).hexdigest()[:16] if secret else ""


def differing_secrets(manifest: Manifest, secrets: Mapping[str, str]) -> list[str]:
    """Return the variables whose secret is not the one that the backup was made with."""
    return [name for name, known in manifest.fingerprints.items() if fingerprint(name, secrets.get(name, "")) != known]


def unknown_migrations(manifest: Manifest, known: set[tuple[str, str]]) -> list[str]:
    """Return the migrations of the backup that this release does not have: it is an older one."""
    return sorted(
        f"{app} {name}" for app, names in manifest.migrations.items() for name in names if (app, name) not in known
    )


def problems_of(manifest: Manifest) -> list[str]:
    """Return why a manifest cannot be one of a whole installation."""
    found = [f"{table} has no rows" for table in NEVER_EMPTY if not manifest.tables.get(table, _NONE).rows]
    if not manifest.migrations:
        found.append("it names no migrations")
    return found


def differences(manifest: Manifest, *, rows: Mapping[str, int], sums: Mapping[str, int]) -> list[str]:
    """Compare what was loaded with the manifest."""
    found = [
        f"{name}: {rows.get(name, 0)} rows, and {table.rows} in the backup"
        for name, table in manifest.tables.items()
        if rows.get(name) != table.rows
    ]
    return found + [
        f"{name}: {sums.get(name)}, and {value} in the backup"
        for name, value in manifest.sums.items()
        if sums.get(name) != value
    ]


def decode(text: bytes) -> Manifest:
    """Read a manifest. Raises ValueError."""
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError as exc:
        raise ValueError(f"the manifest cannot be read: {exc}") from exc
    if manifest.format != FORMAT:
        raise ValueError(f"its format is {manifest.format}, and this release reads {FORMAT}")
    return manifest


def encode(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1)


_NONE = Table(columns=[], rows=0, sha256="")
