"""PostgreSQL and Valkey for `up`, one `manage.py` command, or one test session.

A command does not run them itself. It starts `python -m codexflow.dev.services`, a small supervisor in a session
of its own, and holds the write end of a pipe to it. When the command ends, in whatever way, the pipe closes and
the supervisor ends the servers in order; Ctrl-C in the terminal never reaches them.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from codexflow.dev import postgres, valkey
from codexflow.dev.errors import DevError, HomeBusy, HomeUnusable, ServiceFailed
from codexflow.dev.home import Home, Lock
from codexflow.dev.processes import PROC, process
from codexflow.dev.supervisor import StopRequested, Supervisor
from codexflow.env import REPOSITORY, home_of
from codexflow.lib.clock import monotonic_s

POSTGRES, VALKEY = "postgres", "valkey"
READY_WITHIN_S = 60.0  # a large crash recovery may take this long
LOCK_WITHIN_S = 2.0  # others only peek at the lock
ATTACH_WITHIN_S = 90.0
RELEASE_WITHIN_S = 40.0
URL_KEYS = {POSTGRES: "database_url", VALKEY: "redis_url"}


def needed(environ: Mapping[str, str]) -> frozenset[str]:
    """List the servers that no variable names and that are therefore run here. In production: none, ever."""
    mode = environ.get("CFX_ENV", "").strip()
    database, redis = environ.get("DATABASE_URL", "").strip(), environ.get("REDIS_URL", "").strip()
    # A database named by hand means production unless CFX_ENV is set; `Env` decides the same way.
    if mode == "production" or (database and not mode):
        return frozenset()
    return frozenset(name for name, url in ((POSTGRES, database), (VALKEY, redis)) if not url)


def start(supervisor: Supervisor, home: Home, needs: frozenset[str], *, is_ephemeral: bool = False) -> dict[str, str]:
    """Start the servers and return their addresses, keyed as in services.json, once they respond. The lock is ours."""
    if not PROC.joinpath("self", "stat").exists():
        raise ServiceFailed("The embedded servers need Linux with /proc: set DATABASE_URL and REDIS_URL.")
    addresses: dict[str, str] = {}
    waiting = []
    runtime_folder = home.make_runtime_folder()
    if VALKEY in needs:
        cache = valkey.prepare(home, is_ephemeral=is_ephemeral)
        waiting.append((cache.is_ready, supervisor.start(cache.spec)))
        addresses[URL_KEYS[VALKEY]] = cache.url
    if POSTGRES in needs:
        database = postgres.prepare(home, runtime_folder, is_ephemeral=is_ephemeral)
        waiting.append((database.is_ready, supervisor.start(database.spec)))
        addresses[URL_KEYS[POSTGRES]] = database.url
    for is_ready, child in waiting:
        supervisor.wait_until(is_ready, child, within_s=READY_WITHIN_S)
    return addresses


def publish(home: Home, supervisor: Supervisor, settings: Mapping[str, Any]) -> None:
    """Write services.json: the settings, and the pids of the children."""
    own = process(os.getpid())
    assert own is not None  # noqa: S101 - we are alive
    pids = {child.spec.name: child.identity.pid for child in supervisor.children if child.identity is not None}
    home.write(
        home.services_file,
        {**settings, "pids": pids, "supervisor": {"pid": own.pid, "started_ticks": own.started_ticks}},
    )


@contextlib.contextmanager
def holding(home: Home, who: str, *, within_s: float = LOCK_WITHIN_S) -> Iterator[Lock]:
    """Hold the lock of this folder as its only supervisor. Raises HomeBusy, naming the holder."""
    home.create()
    with Lock(home.path / "lock") as lock:
        deadline_s = monotonic_s() + within_s
        while not lock.acquire(shared=False):
            if monotonic_s() > deadline_s or lock.holder().startswith("up "):
                raise HomeBusy(
                    f"{home.path} is in use by {lock.holder() or 'another process'}: end it, or set another CFX_HOME."
                )
            time.sleep(0.05)
        lock.describe(f"{who} (pid {os.getpid()})")
        home.remove_services_file()
        try:
            yield lock
        finally:
            home.remove_services_file()
            home.remove_runtime_folder()
            lock.describe("")


@dataclass(slots=True)
class Services:
    """Running servers, as a command sees them. `close` ends them when this command had started them."""

    database_url: str
    redis_url: str
    supervisor: subprocess.Popen[str] | None = None  # None: another process runs them
    users: Lock | None = None

    def close(self) -> None:
        if self.users is not None:
            self.users.release()
        if self.supervisor is not None:
            _release(self.supervisor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def connect(environ: Mapping[str, str]) -> Services | None:
    """The servers this environment needs, or None when it names them all.

    Those that run already, or new ones for the caller's duration.
    """
    needs = needed(environ)
    if not needs:
        return None
    home = Home(home_of(environ))
    home.create()
    home.ensure_secrets()
    deadline_s = monotonic_s() + ATTACH_WITHIN_S
    while True:
        if attached := _attach(home, needs):
            return attached
        with Lock(home.path / "lock") as lock:
            is_free = lock.acquire(shared=False)
            holder = lock.holder()
        if is_free:
            with contextlib.suppress(HomeBusy):  # another process was faster: use its servers
                return own(home, needs)
        elif monotonic_s() > deadline_s:
            raise HomeBusy(
                f"{home.path} is held by {holder or 'another process'}, which offers no {' and '.join(sorted(needs))}."
            )
        time.sleep(0.1)


def own(home: Home, needs: frozenset[str], *, is_ephemeral: bool = False) -> Services:
    """Start a supervisor of our own and wait for its servers."""
    argv = [
        sys.executable,
        "-m",
        "codexflow.dev.services",
        "--home",
        str(home.path),
        "--need",
        ",".join(sorted(needs)),
    ]
    if is_ephemeral:
        argv.append("--ephemeral")
    supervisor = subprocess.Popen(  # noqa: S603 - argv is ours
        argv, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert supervisor.stdout is not None  # noqa: S101 - we asked for a pipe
    try:
        said = supervisor.stdout.readline()
    except BaseException:
        _release(supervisor)
        raise
    reply = (
        json.loads(said)
        if said
        else {
            "error": "The supervisor of the embedded servers ended without output.",
            "kind": "ServiceFailed",
        }
    )
    if "error" in reply:
        _release(supervisor)
        raise _ERRORS.get(reply["kind"], ServiceFailed)(reply["error"])
    return Services(reply.get("database_url", ""), reply.get("redis_url", ""), supervisor)


_ERRORS: dict[str, type[DevError]] = {kind.__name__: kind for kind in (HomeBusy, HomeUnusable, ServiceFailed)}


def _attach(home: Home, needs: frozenset[str]) -> Services | None:
    """Use the servers that run already. Our shared lock keeps their owner, if it is a command, from ending them."""
    users = Lock(home.path / "users.lock")
    if users.acquire(shared=True):
        running = home.running()
        if running is not None and all(running.get(URL_KEYS[name]) for name in needs):
            return Services(running.get("database_url", ""), running.get("redis_url", ""), users=users)
    users.release()
    return None


def _release(supervisor: subprocess.Popen[str]) -> None:
    """Close the pipe, which ends the supervisor, and wait, so that the next command finds the folder free."""
    assert supervisor.stdin is not None  # noqa: S101 - we asked for pipes
    assert supervisor.stdout is not None  # noqa: S101
    with contextlib.suppress(OSError):
        supervisor.stdin.write("done\n")  # sent as well: a forked child of ours may hold the pipe open
        supervisor.stdin.flush()
    with contextlib.suppress(OSError):
        supervisor.stdin.close()
    supervisor.stdout.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        supervisor.wait(RELEASE_WITHIN_S)


def main(argv: list[str]) -> int:
    """Run the supervisor behind `own`. Prints one JSON line when ready or failed; ends when its standard input does."""
    parser = argparse.ArgumentParser(prog="python -m codexflow.dev.services")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--need", required=True)
    parser.add_argument("--ephemeral", action="store_true")
    options = parser.parse_args(argv)
    home = Home(options.home)
    try:
        with holding(home, "a command") as _lock, (home.logs / "services.log").open("w") as log:
            _serve(home, frozenset(options.need.split(",")), log, is_ephemeral=options.ephemeral)
    except DevError as exc:
        _answer({"error": str(exc), "kind": exc.__class__.__name__})
        return exc.exit_code
    except StopRequested:
        return 0
    finally:
        if options.ephemeral:
            shutil.rmtree(home.path, ignore_errors=True)
    return 0


def _serve(home: Home, needs: frozenset[str], log: IO[str], *, is_ephemeral: bool) -> None:
    def to_log(name: str, line: str) -> None:
        log.write(f"{name:<8} | {line}\n")
        log.flush()

    addresses: dict[str, str] = {}
    supervisor = Supervisor(to_log)
    with supervisor, Lock(home.path / "users.lock") as users:
        owner_is_done = False

        def on_owner() -> None:
            nonlocal owner_is_done
            owner_is_done = True
            os.read(sys.stdin.fileno(), 64)
            supervisor.unwatch(sys.stdin.fileno())

        supervisor.watch(sys.stdin.fileno(), on_owner)
        addresses = start(supervisor, home, needs, is_ephemeral=is_ephemeral)
        supervisor.on_change = lambda: publish(home, supervisor, addresses)
        supervisor.on_change()
        _answer(addresses)
        while not (owner_is_done or supervisor.stops_requested):
            supervisor.pump(60.0)
        # Other processes may use these servers: stay while they do, and refuse new ones once shutdown is decided.
        while not (supervisor.stops_requested or users.acquire(shared=False)):
            supervisor.pump(0.2)
        home.remove_services_file()


def _answer(content: Mapping[str, str]) -> None:
    with contextlib.suppress(OSError):
        sys.stdout.write(json.dumps(dict(content)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
