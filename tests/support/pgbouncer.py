"""PgBouncer in front of PostgreSQL: Debian's package, unpacked below build/ where it is not installed."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg

from codexflow.dev.home import RUNTIME_PREFIX
from codexflow.dev.valkey import LOOPBACK, free_port
from codexflow.env import REPOSITORY
from tests.support.waiting import until

BUILD = REPOSITORY / "build" / "pgbouncer"
# libc-ares2 is what a Debian without PgBouncer may lack of its libraries.
PACKAGES = ("pgbouncer", "libc-ares2")
# So few that a client gets another one's connection all the time.
SERVER_CONNECTIONS = 4
NOBODY = 65534
# The test session's own connections send options, which it would refuse.
_CONF = """
[databases]
* = host={host} {port} user={user} {password}
[pgbouncer]
listen_addr = {loopback}
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 500
server_lifetime = 60
ignore_startup_parameters = options
log_connections = 0
log_disconnections = 0
"""


def program() -> Path | None:
    """PgBouncer: the installed one, or the one that `fetch` has unpacked."""
    if found := shutil.which("pgbouncer"):
        return Path(found)
    unpacked = BUILD / "usr" / "sbin" / "pgbouncer"
    return unpacked if unpacked.exists() else None


def fetch() -> Path | None:
    """Unpack the packages unless it is there. None where it is not to be had."""
    if program() is None and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        BUILD.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", *PACKAGES], cwd=BUILD, capture_output=True, check=False)
        for package in BUILD.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(BUILD)], check=False)
    return program()


@contextmanager
def running_pgbouncer(server: Mapping[str, Any]) -> Iterator[str]:
    """Run PgBouncer in front of a server that Django's settings describe; yields the URL of the same database.

    Raises FileNotFoundError.
    """
    found = program()
    if found is None:
        raise FileNotFoundError("PgBouncer is not there: run `make pgbouncer`")
    listen = free_port()
    with tempfile.TemporaryDirectory(prefix=RUNTIME_PREFIX) as name:
        folder = Path(name)
        (folder / "pgbouncer.ini").write_text(
            _CONF.format(
                host=server["HOST"],
                port=f"port={server['PORT']}" if server["PORT"] else "",
                user=server["USER"],
                password=f"password={server['PASSWORD']}" if server["PASSWORD"] else "",
                loopback=LOOPBACK,
                listen=listen,
                connections=SERVER_CONNECTIONS,
            )
        )
        # It refuses to run as root, and another user may not come as far as our folder.
        for each in (found, *BUILD.glob("usr/lib/*-linux-gnu*/libcares.so*")):
            shutil.copy(each, folder)
        process = subprocess.Popen(
            [f"./{found.name}", "pgbouncer.ini"],
            cwd=folder,
            env={"PATH": os.defpath, "LC_ALL": "C", "LD_LIBRARY_PATH": name},
            stderr=subprocess.DEVNULL,
            **_account(Path(server["HOST"]), folder),
        )
        url = f"postgresql://{LOOPBACK}:{listen}/{server['NAME']}?{urlencode({'user': server['USER']})}"
        try:
            until(lambda: _answers(url), what="PgBouncer")
            yield url
        finally:
            process.kill()  # at once, and with it its connections to the server
            process.wait(timeout=60)


def _account(socket: Path, folder: Path) -> dict[str, Any]:
    """Options of a process that reaches the server, whose socket only its owner may use."""
    if os.geteuid() != 0:
        return {}
    owner = socket.stat() if socket.is_absolute() else None
    uid, gid = (owner.st_uid, owner.st_gid) if owner is not None else (NOBODY, NOBODY)
    os.chown(folder, uid, gid)
    return {"user": uid, "group": gid, "extra_groups": []}


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.Error:
        return False
    return True


if __name__ == "__main__":
    sys.exit(fetch() is None)
