"""A stack whose processes are killed: `kill -9`, and the loss of Valkey's last second as in a power cut."""

import json
import os
import secrets
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from codexflow.dev.supervisor import ChildSpec
from codexflow.env import Env
from codexflow.lib.clock import monotonic_s, now_ms
from tests.chaos.traffic import Caller
from tests.support.stack import Stack

TARGETS = ("web", "worker", "beat", "valkey", "postgres")
# Intervals and timeouts are shorter than in production by this factor, so that a run settles within a minute and a
# ten-minute outage takes two.
FASTER = 5
_SCALED = ("lease_ms", "heartbeat_s", "journal_ship_after_s", "key_cache_fresh_s", "key_cache_stale_s")
_DEFAULTS: dict[str, Any] = {each.name: each.default for each in fields(Env)}
_SETTINGS = {f"CFX_{name.upper()}": f"{_DEFAULTS[name] / FASTER:g}" for name in _SCALED}
# A power cut loses writes younger than this: Valkey syncs its file every second.
CUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Death:
    """A kill: the process, the time (Unix), and the downtime."""

    name: str
    at_ms: int
    down_s: float
    is_emptied: bool = False


class ChaosStack(Stack):
    """A stack that can kill its own processes and cut or empty Valkey's file."""

    def __init__(self, log: Path, *, cuts_tail: bool = False) -> None:
        self.webhook_key = secrets.token_urlsafe(32)
        super().__init__(log, settings={**_SETTINGS, "LITELLM_WEBHOOK_KEY": self.webhook_key})
        self.callers: list[Caller] = []
        self.deaths: list[Death] = []
        self.cuts_tail = cuts_tail
        self.empties_next = False
        self.bytes_cut = 0
        self._lengths: list[tuple[float, Path, int]] = []

    def start(self) -> None:
        """Start everything; returns once the gateway serves."""
        self.start_servers()
        tenants = self.home.path / "tenants.json"
        self.run_module("tests.chaos.tenants", str(tenants))
        self.callers = [caller_of(each) for each in json.loads(tenants.read_text())]
        cache = self.children["valkey"]
        cache.spec = replace(cache.spec, before_start=self._before_valkey(cache.spec))
        self.start_programs()

    def pump(self, seconds: float) -> None:
        """Supervise the children for this long."""
        ends_s = monotonic_s() + seconds
        while True:
            self._remember_length()
            left_s = ends_s - monotonic_s()
            self.supervisor.pump(min(max(left_s, 0.0), 0.1))
            if left_s <= 0:
                return

    def kill(self, name: str, *, down_s: float) -> None:
        """kill -9 the process group and restart it after `down_s`. Waits first until the process runs."""
        child = self.children[name]
        while child.identity is None:
            self.pump(0.05)
        self.deaths.append(Death(name, now_ms(), down_s, is_emptied=self.empties_next and name == "valkey"))
        os.killpg(child.identity.pid, signal.SIGKILL)
        while child.is_running:
            self.supervisor.pump(0.05)
        # Deaths are intended here: no restart back-off.
        child.quick_deaths, child.backoff_s = 0, 0.2
        child.restart_at_s = monotonic_s() + down_s

    @property
    def killed(self) -> Counter[str]:
        """Kills by process name."""
        return Counter(death.name for death in self.deaths)

    def is_whole(self) -> bool:
        """True when every process runs and the gateway responds."""
        return all(child.is_running for child in self.supervisor.children) and self.is_live()

    def _remember_length(self) -> None:
        if not self.cuts_tail:
            return
        newest = max(self.home.valkey.glob("appendonlydir/*.incr.aof"), default=None, key=lambda each: each.name)
        if newest is not None:
            now_s = monotonic_s()
            self._lengths.append((now_s, newest, newest.stat().st_size))
            # Keep the youngest length that is old enough, and all younger ones.
            while len(self._lengths) > 1 and self._lengths[1][0] <= now_s - CUT_S:
                del self._lengths[0]

    def _before_valkey(self, spec: ChildSpec) -> Callable[[], None]:
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


def caller_of(stored: dict[str, Any]) -> Caller:
    """Build a caller from its JSON form, as tenants.py writes it."""
    return Caller(**{**stored, "key_id": UUID(stored["key_id"]), "organization_id": UUID(stored["organization_id"])})
