"""CFX_HOME: the folder of one development installation's state, and its locks.

lock            held by the one supervisor of this folder, for as long as it lives
users.lock      shared by the commands that use its servers
secrets.json    AUTH_SECRET and HASH_SALT, made once
services.json   addresses and pids of what runs now; absent when nothing runs
quickstart.json addresses, login and API key for the first call
postgres/ valkey/ journal/ logs/
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codexflow.dev.errors import HomeUnusable
from codexflow.dev.processes import Process, is_alive

# Socket paths end at 107 bytes, so the socket cannot lie under CFX_HOME.
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - a fresh private folder is made inside
RUNTIME_PREFIX = "cfx-"


@dataclass(frozen=True, slots=True)
class Home:
    """One CFX_HOME."""

    path: Path

    @property
    def services_file(self) -> Path:
        return self.path / "services.json"

    @property
    def secrets_file(self) -> Path:
        return self.path / "secrets.json"

    @property
    def quickstart_file(self) -> Path:
        return self.path / "quickstart.json"

    @property
    def postgres(self) -> Path:
        return self.path / "postgres"

    @property
    def valkey(self) -> Path:
        return self.path / "valkey"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def create(self) -> None:
        """Make the folder, private to its owner, unless it is there. Parents keep their modes."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.logs.mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            raise HomeUnusable(f"CFX_HOME {self.path} cannot be created: {exc.strerror}.") from exc
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise HomeUnusable(f"CFX_HOME {self.path} is not writable for this user.")

    def ensure_secrets(self) -> None:
        """Generate the secrets that are missing. Existing ones never change: they protect stored keys."""
        known = self.read(self.secrets_file)
        missing = {name: secrets.token_urlsafe(36) for name in ("auth_secret", "hash_salt") if not known.get(name)}
        if not missing:
            return
        with Lock(self.path / "secrets.lock") as lock:
            lock.acquire(shared=False, wait=True)
            self.write(self.secrets_file, {**missing, **self.read(self.secrets_file)})

    def read(self, path: Path) -> dict[str, Any]:
        """A JSON object of this folder; empty when absent."""
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError:
            return {}
        except PermissionError as exc:
            raise HomeUnusable(f"{path} belongs to another user: run as that user, or set another CFX_HOME.") from exc
        except (OSError, ValueError) as exc:
            raise HomeUnusable(f"{path} cannot be read ({exc.__class__.__name__}); repair or remove it.") from exc
        if not isinstance(content, dict):
            raise HomeUnusable(f"{path} is not a JSON object; repair or remove it.")
        return content

    def write(self, path: Path, content: Mapping[str, Any]) -> None:
        """Replace a JSON file in one step, readable by its owner only, safe on disk when this returns."""
        try:
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
            with os.fdopen(handle, "w") as file:
                json.dump(dict(content), file, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except OSError as exc:
            raise HomeUnusable(f"{path} cannot be written: {exc.strerror}.") from exc

    def running(self) -> dict[str, Any] | None:
        """Read services.json; None unless the supervisor that wrote it is alive."""
        try:
            content = self.read(self.services_file)
            supervisor = Process(**content["supervisor"])
        except (HomeUnusable, KeyError, TypeError):
            return None
        return content if is_alive(supervisor) else None

    def remove_services_file(self) -> None:
        """Remove services.json, so that no command finds addresses of ended servers."""
        self.services_file.unlink(missing_ok=True)

    def make_runtime_folder(self) -> Path:
        """Make a private folder with a short path, for sockets. Its name is stored: the next start can remove it."""
        self.remove_runtime_folder()
        for parent in (*SHORT_FOLDERS, tempfile.gettempdir()):
            with contextlib.suppress(OSError):
                made = Path(tempfile.mkdtemp(prefix=RUNTIME_PREFIX, dir=parent))
                (self.path / "runtime_folder").write_text(str(made))
                return made
        raise HomeUnusable(f"No folder for sockets can be made in {', '.join(SHORT_FOLDERS)}.")

    def remove_runtime_folder(self) -> None:
        """Remove the folder of an earlier run. A symbolic link, or a path we would not choose, is left alone."""
        note = self.path / "runtime_folder"
        with contextlib.suppress(OSError):
            folder = Path(note.read_text())
            if folder.name.startswith(RUNTIME_PREFIX) and folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)
        note.unlink(missing_ok=True)


class Lock:
    """An flock on a file; the kernel releases it when the holder dies, however it dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Not inherited by children (PEP 446), so none of them can keep it after us.
            self._file = path.open("a+")
        except OSError as exc:
            raise HomeUnusable(f"{path} cannot be opened: {exc.strerror}.") from exc

    def acquire(self, *, shared: bool, wait: bool = False) -> bool:
        """Try to take the lock; returns whether it was taken."""
        try:
            fcntl.flock(self._file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def describe(self, text: str) -> None:
        """Write the holder's name into the file, for the message of those refused."""
        self._file.truncate(0)
        self._file.write(text)
        self._file.flush()

    def holder(self) -> str:
        """Read the holder's name."""
        self._file.seek(0)
        return self._file.read().strip()

    def release(self) -> None:
        self._file.close()

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_exc: object) -> None:
        self.release()
