"""A complete CodexFlow of real processes in a folder of its own, for chaos tests and benchmarks."""

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

import httpx

from codexflow.dev import services, valkey
from codexflow.dev.home import RUNTIME_PREFIX, Home
from codexflow.dev.supervisor import Child, ChildSpec, Supervisor
from codexflow.env import REPOSITORY, Env
from codexflow.programs import argv_of

READY_WITHIN_S = 60.0
_INHERITED = ("PATH", "HOME", "LANG", "VIRTUAL_ENV")


class Stack:
    """A context manager: its processes and files are gone after the block.

    `supervisor.pump` supervises the children; call it on the main thread, the one that created this object.
    """

    def __init__(self, log: Path, *, settings: Mapping[str, str], upstream_url: str = "") -> None:
        """`settings` are environment variables of every child.

        Without an `upstream_url` the demo upstream is started.
        """
        self.home = Home(Path(tempfile.mkdtemp(prefix=f"{RUNTIME_PREFIX}stack-")))
        self.port = valkey.free_port()
        self.upstream_url = upstream_url
        self.upstream_key = secrets.token_hex(24)  # no "-" at its beginning: it is an argument
        self.addresses: dict[str, Any] = {}
        self.supervisor = Supervisor(self._note)
        self._settings = settings
        self._log_path = log
        self._log: IO[str] | None = None
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as resources:
            resources.callback(shutil.rmtree, self.home.path, ignore_errors=True)
            self.home.create()
            self.home.ensure_secrets()
            self._log = resources.enter_context(self._log_path.open("w"))
            resources.enter_context(services.holding(self.home, "stack"))
            resources.enter_context(self.supervisor)
            self._resources = resources.pop_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._resources.close()

    def _note(self, name: str, line: str) -> None:
        if self._log is not None:
            self._log.write(f"{name:<8} | {line}\n")
            self._log.flush()

    @property
    def environ(self) -> dict[str, str]:
        """Environment of every child: of this process's, only what finds programs."""
        inherited = {name: value for name, value in os.environ.items() if name in _INHERITED}  # noqa: TID251 - a clean copy
        own = {"CFX_HOME": str(self.home.path), "PORT": str(self.port), "CFX_ENV": "development"}
        return {**inherited, **own, **self._settings, "DJANGO_SETTINGS_MODULE": "codexflow.settings"}

    @property
    def children(self) -> dict[str, Child]:
        """Children by name: demo, valkey, postgres, web, worker, beat."""
        return {child.spec.name: child for child in self.supervisor.children}

    def start_servers(self) -> None:
        """PostgreSQL and Valkey, migrated and seeded, and an upstream."""
        home, supervisor = self.home, self.supervisor
        if not self.upstream_url:
            self._start_demo_upstream()
        self.addresses = {"litellm_url": self.upstream_url, "litellm_api_key": self.upstream_key}
        self.addresses |= services.start(supervisor, home, frozenset({services.POSTGRES, services.VALKEY}))
        self.between_servers_and_programs()
        supervisor.on_change = lambda: services.publish(home, supervisor, self.addresses)
        supervisor.on_change()
        self.run_module("codexflow.dev.prepare")

    def between_servers_and_programs(self) -> None:
        """For subclasses: the addresses of the servers are known, and not yet published to the programs."""

    def _start_demo_upstream(self) -> None:
        port = valkey.free_port()
        self.upstream_url = f"http://{valkey.LOOPBACK}:{port}"
        argv = [sys.executable, "-m", "codexflow.dev.demo_upstream", "--port", str(port), "--gap-ms", "0"]
        self.supervisor.start(self._spec("demo", [*argv, "--api-key", self.upstream_key]))

    def start_programs(self) -> None:
        """Start gateway, worker and beat; returns once the gateway responds."""
        env = Env.read(self.environ)
        for name in ("web", "worker", "beat"):
            self.supervisor.start(self._spec(name, argv_of(name, env)))
        self.supervisor.wait_until(self.is_live, self.children["web"], within_s=READY_WITHIN_S)

    def run_module(self, *words: str) -> None:
        """Run `python -m ...` with the stack's environment. Raises RuntimeError when it fails."""
        argv = [sys.executable, "-m", *words]
        done = self.supervisor.run_once(self._spec(words[0], argv, is_restarted=False))
        if done.returncode != 0:
            raise RuntimeError(f"{words[0]} {done.exit_summary()}")

    def _spec(self, name: str, argv: Sequence[str], *, is_restarted: bool = True) -> ChildSpec:
        return ChildSpec(name=name, argv=argv, environ=self.environ, cwd=REPOSITORY, is_restarted=is_restarted)

    def is_live(self) -> bool:
        """True when the gateway responds to a liveness probe."""
        return self.responds(self.port)

    def responds(self, port: int) -> bool:
        try:
            return httpx.get(f"http://{valkey.LOOPBACK}:{port}/health/live", timeout=1).status_code == 200
        except httpx.HTTPError:
            return False
