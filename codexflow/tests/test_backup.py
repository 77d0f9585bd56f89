"""Backups: what is written can be restored, anything less is refused, and the exit code is the truth."""

import io
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from adminpanel.models import BackupRun
from codexflow.backup.dump import MANIFEST
from codexflow.backup.load import BackupUnusable, read_manifest, refuse_unless_empty
from codexflow.backup.manifest import Manifest, Table, differences, encode, fingerprint
from codexflow.management.commands.restore import _connect_to
from logs.models import RequestLog
from tests.support.cast import Cast, an_event_of, happened
from tests.support.databases import drop_database

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def backup(cast: Cast, tmp_path: Path) -> Path:
    """A backup of an installation with a paid request."""
    happened(cast, an_event_of(cast))
    path = tmp_path / "codexflow.backup"
    call_command("backup", str(path))
    return path


@pytest.fixture
def scratch() -> Iterator[str]:
    """An empty database on the session's server, connected to."""
    own = str(connection.settings_dict["NAME"])
    name = f"{own}_restored"
    with connection.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{name}"')
    _connect_to(name)
    yield name
    _connect_to(own)
    with connection.cursor() as cursor:
        drop_database(cursor.execute, name)


def test_a_backup_is_verified_in_a_scratch_database_that_is_removed(backup: Path, capsys: Any) -> None:
    call_command("restore", str(backup), "--verify")
    assert "all as in the manifest" in capsys.readouterr().out
    with connection.cursor() as cursor:
        # Other databases of the server belong to tests that run beside this one.
        cursor.execute("SELECT count(*) FROM pg_database WHERE starts_with(datname, current_database() || '_verify')")
        assert cursor.fetchone()[0] == 0
    assert RequestLog.objects.count() == 1
    noted = BackupRun.objects.get()
    assert noted.size_bytes == backup.stat().st_size
    assert noted.rows > 10
    assert noted.verified_at is not None


def test_a_backup_is_restored_with_its_rows_and_goes_on(backup: Path, scratch: str) -> None:
    manifest = read_manifest(str(backup))
    call_command("restore", str(backup), verbosity=0)
    assert RequestLog.objects.count() == manifest.tables["request_log"].rows == 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM ONLY request_log_default")
        assert cursor.fetchone()[0] == 0, "the request is in its day's partition"
    call_command("audit_ledger")
    call_command("seed")
    with pytest.raises(BackupUnusable, match="has data already"):
        refuse_unless_empty()


def test_a_restore_over_data_is_refused(backup: Path) -> None:
    with pytest.raises(CommandError, match="overwrites nothing") as caught:
        call_command("restore", str(backup))
    assert caught.value.returncode == 2


def changed(backup: Path, **changes: Any) -> Path:
    """Copy a backup with another manifest."""
    path = backup.with_name("changed.backup")
    manifest = msgspec.structs.replace(read_manifest(str(backup)), **changes)
    with zipfile.ZipFile(backup) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, encode(manifest) if name == MANIFEST else old.read(name))
    return path


def refused(path: Path) -> str:
    with pytest.raises(CommandError) as caught:
        call_command("restore", str(path), "--verify")
    assert caught.value.returncode == 2
    return str(caught.value)


def test_other_secrets_are_refused_by_name(backup: Path, settings: Any) -> None:
    settings.ENV = replace(settings.ENV, hash_salt="another-salt-that-made-no-key-of-this-backup")
    assert refused(backup).startswith("HASH_SALT differ from the secrets of this backup")
    assert settings.ENV.hash_salt not in backup.read_bytes().decode("latin-1")


def test_what_is_not_whole_is_refused(backup: Path, tmp_path: Path) -> None:
    manifest = read_manifest(str(backup))
    assert "There is no file" in refused(tmp_path / "nowhere")
    for size in (0, 100, backup.stat().st_size - 10):
        cut = tmp_path / "cut"
        cut.write_bytes(backup.read_bytes()[:size])
        assert "is no whole backup" in refused(cut)
    newer = {**manifest.migrations, "billing": [*manifest.migrations["billing"], "9999_future"]}
    assert "A newer release made this backup" in refused(changed(backup, migrations=newer))
    empty = {**manifest.tables, "accounts_user": Table(columns=["id"], rows=0, sha256="")}
    assert "accounts_user has no rows" in refused(changed(backup, tables=empty))


def test_a_restore_that_is_not_what_the_manifest_says_fails(backup: Path) -> None:
    manifest = read_manifest(str(backup))
    assert "spent_nanos" in refused(changed(backup, sums={**manifest.sums, "spent_nanos": -1}))
    table = manifest.tables["request_log"]
    more = {**manifest.tables, "request_log": msgspec.structs.replace(table, rows=2)}
    assert "request_log: 1 rows, and 2 in the backup" in refused(changed(backup, tables=more))
    other = {**manifest.tables, "request_log": msgspec.structs.replace(table, sha256="0" * 64)}
    assert "are not those that were written" in refused(changed(backup, tables=other))


def test_a_backup_that_was_interrupted_has_no_name(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_args: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("codexflow.backup.dump.sums_of", fails)
    with pytest.raises(KeyboardInterrupt):
        call_command("backup", str(tmp_path / "second"))
    assert not (tmp_path / "second").exists()
    with pytest.raises(CommandError, match="exists already"):
        call_command("backup", str(backup))


def test_a_backup_can_go_through_a_pipe(cast: Cast, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        """Accepts bytes, and nothing else."""

        def __init__(self) -> None:
            self.received = b""

        @override
        def writable(self) -> bool:
            return True

        @override
        def write(self, data: Any) -> int:
            self.received += bytes(data)
            return len(data)

    from codexflow.backup.dump import dump

    pipe = Pipe()
    dump(pipe, secrets={})  # type: ignore[arg-type] # as unseekable as a pipe
    (tmp_path / "piped").write_bytes(pipe.received)
    assert read_manifest(str(tmp_path / "piped")).tables["accounts_user"].rows


@given(
    rows=st.dictionaries(st.sampled_from("abc"), st.integers(0, 3)),
    loaded=st.dictionaries(st.sampled_from("abc"), st.integers(0, 3)),
)
def test_only_the_same_rows_are_no_difference(rows: dict[str, int], loaded: dict[str, int]) -> None:
    tables = {name: Table(columns=[], rows=count, sha256="") for name, count in rows.items()}
    manifest = Manifest(
        format=1, version="", taken_at="", migrations={}, tables=tables, sequences={}, sums={}, fingerprints={}
    )
    assert (not differences(manifest, rows=loaded, sums={})) == all(loaded.get(name) == rows[name] for name in rows)


def test_a_fingerprint_tells_secrets_apart_and_nothing_of_them() -> None:
    assert fingerprint("A", "one") != fingerprint("A", "two") != fingerprint("B", "two")
    assert fingerprint("A", "") == ""
