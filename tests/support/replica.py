"""A streaming replica of the test session's PostgreSQL, made by pg_basebackup."""

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg

from codexflow.dev.home import RUNTIME_PREFIX
from codexflow.dev.postgres import EPHEMERAL_SETTINGS, SETTINGS, SUPERUSER, _installed
from tests.support.waiting import until


class Replica:
    """A running replica of a server that Django's settings describe."""

    def __init__(self, server: Mapping[str, Any], folder: Path) -> None:
        self._sockets = folder / "sockets"
        self._data = folder / "data"
        self._program = _installed() / "bin"
        self._account = _account(Path(server["HOST"]))
        for each in (folder, self._sockets, self._data):
            each.mkdir(mode=0o700, exist_ok=True)
            if self._account:
                os.chown(each, self._account["user"], self._account["group"])
        self._primary = f"postgresql:///postgres?host={quote(server['HOST'])}&user={SUPERUSER}"
        # Other tests write much: the slot keeps what a killed replica still lacks.
        self._slot = f"replica_{secrets.token_hex(4)}"
        source = ["-h", server["HOST"], "-U", SUPERUSER, "-D", str(self._data), "-R", "-X", "stream", "-c", "fast"]
        source += ["-C", "-S", self._slot]
        subprocess.run([str(self._program / "pg_basebackup"), *source], check=True, env=_ENVIRON, **self._account)
        query = urlencode({"user": server["USER"]})
        self.url = f"postgresql:///{quote(server['NAME'])}?host={quote(str(self._sockets))}&{query}"
        self.settings = {**server, "HOST": str(self._sockets), "PORT": ""}
        self.start()

    def start(self) -> None:
        # A replica needs as many connections as its primary has; and one that waits for a disk never comes near it.
        settings = [
            word for name, value in (SETTINGS | EPHEMERAL_SETTINGS).items() for word in ("-c", f"{name}={value}")
        ]
        argv = [str(self._program / "postgres"), "-D", str(self._data), "-k", str(self._sockets), "-h", "", *settings]
        self._process = subprocess.Popen(argv, env=_ENVIRON, **self._account)
        until(self._answers, what="the replica")

    def kill(self) -> None:
        """Send SIGKILL, as when its machine dies."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(FileNotFoundError):
            (self._data / "postmaster.pid").unlink()

    def remove(self) -> None:
        """End it for good: its primary keeps nothing for it any more."""
        self.kill()
        until(self._slot_is_dropped, what="the end of its slot")

    def _slot_is_dropped(self) -> bool:
        with psycopg.connect(self._primary, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                " WHERE slot_name = %s AND NOT active",
                [self._slot],
            )
            left = connection.execute("SELECT FROM pg_replication_slots WHERE slot_name = %s", [self._slot])
            return left.fetchone() is None

    def pause(self) -> None:
        """Let it receive and not replay: it falls behind."""
        self._as_superuser("SELECT pg_wal_replay_pause()")
        until(lambda: self._as_superuser("SELECT pg_get_wal_replay_pause_state()") == "paused", what="a pause")

    def resume(self) -> None:
        self._as_superuser("SELECT pg_wal_replay_resume()")

    def _as_superuser(self, sql: str) -> Any:
        url = f"postgresql:///postgres?host={quote(str(self._sockets))}&user={SUPERUSER}"
        with psycopg.connect(url, autocommit=True) as connection:
            row = connection.execute(sql).fetchone()
        return row[0] if row is not None else None

    def _answers(self) -> bool:
        try:
            self._as_superuser("SELECT 1")
        except psycopg.Error:
            return False
        return True


_ENVIRON = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def _account(sockets: Path) -> dict[str, Any]:
    """Options of a process that may use the server's socket, as root: it is its owner's only."""
    if os.geteuid() != 0:
        return {}
    owner = sockets.stat()
    return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}


@contextlib.contextmanager
def running_replica(server: Mapping[str, Any]) -> Iterator[Replica]:
    folder = Path(tempfile.mkdtemp(prefix=RUNTIME_PREFIX))
    folder.chmod(0o711)
    try:
        replica = Replica(server, folder)
        try:
            yield replica
        finally:
            replica.remove()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
