"""The house: servers, demo upstream, gateway, worker and beat as real processes in a folder of their own."""

import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from uuid import UUID

from codexflow.dev import services, valkey
from codexflow.dev.home import RUNTIME_PREFIX, Home
from codexflow.dev.supervisor import Child, ChildSpec, Supervisor
from codexflow.env import REPOSITORY, Env
from codexflow.lib.clock import monotonic_s
from codexflow.programs import argv_of
from tests.chaos.traffic import Caller

TARGETS = ("web", "worker", "beat", "valkey", "postgres")
READY_WITHIN_S = 60.0
# Shorter than in production by the same factor, so that a run settles within a minute.
_SETTINGS = {"CFX_LEASE_MS": "5000", "CFX_HEARTBEAT_S": "1", "CFX_JOURNAL_SHIP_AFTER_S": "2", "LOG_LEVEL": "INFO"}
# What survives a power cut is at least a second old; so old must a remembered length of the file be.
CUT_S = 1.0


class House:
    """Use `a_house()`. All work happens in `pump`, on the thread that made it."""

    def __init__(self, home: Home, supervisor: Supervisor) -> None:
        self.home = home
        self.port = valkey.free_port()
        self.upstream_url = ""
        self.upstream_key = secrets.token_urlsafe(24)
        self.database_url = ""
        self.redis_url = ""
        self.callers: list[Caller] = []
        self.cuts_tail = False
        self.empties_next = False
        self.bytes_cut = 0
        self._supervisor = supervisor
        self._children: dict[str, Child] = {}
        self._lengths: list[tuple[float, Path, int]] = []

    @property
    def journal(self) -> Path:
        return self.home.path / "journal"

    @property
    def environ(self) -> dict[str, str]:
        kept = ("PATH", "HOME", "LANG", "VIRTUAL_ENV")
        inherited = {name: value for name, value in os.environ.items() if name in kept}  # noqa: TID251 - a clean copy
        ours = {"CFX_HOME": str(self.home.path), "PORT": str(self.port), "CFX_ENV": "development"}
        return {**inherited, **ours, **_SETTINGS, "DJANGO_SETTINGS_MODULE": "codexflow.settings"}

    def start(self) -> None:
        """Everything, ready to serve."""
        home, supervisor = self.home, self._supervisor
        settings: dict[str, Any] = self._start_upstream()
        settings |= services.start(supervisor, home, frozenset({services.POSTGRES, services.VALKEY}))
        self.database_url, self.redis_url = settings["database_url"], settings["redis_url"]
        supervisor.on_change = lambda: services.publish(home, supervisor, settings)
        supervisor.on_change()
        tenants = home.path / "tenants.json"
        for argv in (["codexflow.dev.prepare"], ["tests.chaos.tenants", str(tenants)]):
            done = supervisor.run_once(self._spec(argv[0], [sys.executable, "-m", *argv], is_restarted=False))
            if done.returncode != 0:
                raise RuntimeError(f"{argv[0]} {done.last_words()}")
        self.callers = [caller_of(each) for each in json.loads(tenants.read_text())]
        env = Env.read(self.environ)
        for name in ("web", "worker", "beat"):
            supervisor.start(self._spec(name, argv_of(name, env)))
        self._children = {child.spec.name: child for child in supervisor.children}
        cache = self._children["valkey"]
        cache.spec = replace(cache.spec, before_start=self._before_valkey(cache.spec))
        supervisor.wait_until(self.answers, self._children["web"], within_s=READY_WITHIN_S)

    def _start_upstream(self) -> dict[str, Any]:
        port = valkey.free_port()
        self.upstream_url = f"http://{valkey.LOOPBACK}:{port}"
        argv = [sys.executable, "-m", "codexflow.dev.demo_upstream", "--port", str(port), "--gap-ms", "0"]
        self._supervisor.start(self._spec("demo", [*argv, "--api-key", self.upstream_key]))
        return {"litellm_url": self.upstream_url, "litellm_api_key": self.upstream_key, "is_demo_upstream": True}

    def _spec(self, name: str, argv: list[str], *, is_restarted: bool = True) -> ChildSpec:
        return ChildSpec(name=name, argv=argv, environ=self.environ, cwd=REPOSITORY, is_restarted=is_restarted)

    def answers(self) -> bool:
        """Whether the gateway is there."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/health/live", timeout=1) as answer:  # noqa: S310 - loopback
                return bool(answer.status == 200)
        except OSError:
            return False

    def pump(self, seconds: float) -> None:
        """Look after the children for so long."""
        ends_s = monotonic_s() + seconds
        while True:
            self._remember_length()
            left_s = ends_s - monotonic_s()
            self._supervisor.pump(min(max(left_s, 0.0), 0.1))
            if left_s <= 0:
                return

    def kill(self, name: str, *, down_s: float) -> None:
        """kill -9 the whole process group, and start it again after `down_s`. Waits first until there is one."""
        child = self._children[name]
        while child.identity is None:
            self.pump(0.05)
        pid = child.identity.pid
        os.killpg(pid, signal.SIGKILL)
        while child.is_running:
            self._supervisor.pump(0.05)
        # Dying is what it is here for: no back-off.
        child.quick_deaths, child.backoff_s = 0, 0.2
        child.restart_at_s = monotonic_s() + down_s

    def is_whole(self) -> bool:
        """Whether every process runs and the gateway answers."""
        return all(child.is_running for child in self._children.values()) and self.answers()

    def tail_of(self, name: str) -> str:
        return self._children[name].last_words()

    def _remember_length(self) -> None:
        if not self.cuts_tail:
            return
        newest = max(self.home.valkey.glob("appendonlydir/*.incr.aof"), default=None, key=lambda each: each.name)
        if newest is not None:
            now_s = monotonic_s()
            self._lengths.append((now_s, newest, newest.stat().st_size))
            # Keep the youngest that is old enough, and everything younger.
            while len(self._lengths) > 1 and self._lengths[1][0] <= now_s - CUT_S:
                del self._lengths[0]

    def _before_valkey(self, spec: ChildSpec) -> Any:
        def before_start() -> None:
            spec.before_start()
            if self.empties_next:
                self.empties_next = False
                shutil.rmtree(self.home.valkey / "appendonlydir", ignore_errors=True)
            elif self.cuts_tail and self._lengths:
                _, path, length = self._lengths[0]
                if path.exists() and path.stat().st_size > length:
                    self.bytes_cut += path.stat().st_size - length
                    os.truncate(path, length)
            self._lengths.clear()

        return before_start


def caller_of(told: dict[str, Any]) -> Caller:
    return Caller(**{**told, "key_id": UUID(told["key_id"]), "organization_id": UUID(told["organization_id"])})


@contextmanager
def a_house(log: Path) -> Iterator[House]:
    """A house in a temporary folder, gone at the end; what its processes say goes to `log`."""
    home = Home(Path(tempfile.mkdtemp(prefix=f"{RUNTIME_PREFIX}chaos-")))
    home.create()
    home.ensure_secrets()
    try:
        with log.open("w") as file:

            def note(name: str, line: str) -> None:
                file.write(f"{name:<8} | {line}\n")
                file.flush()

            with services.holding(home, "chaos"), Supervisor(note) as supervisor:
                yield House(home, supervisor)
    finally:
        shutil.rmtree(home.path, ignore_errors=True)
