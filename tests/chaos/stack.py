"""A stack whose processes are killed and paused, whose connections stall, whose disks fill and whose clock is wrong."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Collection
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from typing_extensions import override

from codexflow.dev.processes import process, running_in
from codexflow.dev.supervisor import ChildSpec
from codexflow.dev.valkey import free_port
from codexflow.env import Env
from codexflow.lib.clock import monotonic_s, now_ms
from codexflow.programs import argv_of
from tests.chaos import clock
from tests.chaos.links import Links
from tests.chaos.plan import TARGETS, Incident, Strike
from tests.chaos.traffic import Bounds, Caller
from tests.support.stack import READY_WITHIN_S, Stack

# Intervals and timeouts are shorter than in production by this factor, so that a run settles within a minute and a
# ten-minute outage takes two.
FASTER = 5
_SCALED = ("lease_ms", "heartbeat_s", "journal_ship_after_s", "key_cache_fresh_s", "key_cache_stale_s")
_DEFAULTS: dict[str, Any] = {each.name: each.default for each in fields(Env)}
_SETTINGS = {f"CFX_{name.upper()}": f"{_DEFAULTS[name] / FASTER:g}" for name in _SCALED}
# A power cut loses writes younger than this: Valkey syncs its file every second.
CUT_S = 1.0
NODE_PROGRAMS = ("web", "worker")
_EXECUTABLES = {"valkey": "valkey-server", "postgres": "postgres"}


class ChaosStack(Stack):
    """A stack that can do all of that to itself, and cut or empty Valkey's file."""

    def __init__(
        self,
        log: Path,
        *,
        kinds: Collection[str] = tuple(TARGETS),
        cuts_tail: bool = False,
        web_processes: int = 1,
        nodes: int = 1,
    ) -> None:
        """`nodes` machines, each with a gateway, a journal and a worker of its own."""
        self.webhook_key = secrets.token_urlsafe(32)
        own = {
            "LITELLM_WEBHOOK_KEY": self.webhook_key,
            "CFX_WEB_PROCESSES": str(web_processes),
            "CFX_LIMITER_PROCESSES": str(web_processes * nodes),
        }
        super().__init__(log, settings={**_SETTINGS, **own})
        self.ports = [self.port, *(free_port() for _ in range(nodes - 1))]
        self._serving = [self.port]
        self._turns = dict.fromkeys(NODE_PROGRAMS, 0)
        self.callers: list[Caller] = []
        self.incidents: list[Incident] = []
        self.cuts_tail = cuts_tail
        self.empties_next = False
        self.bytes_cut = 0
        self.direct: dict[str, str] = {}  # addresses of the servers themselves
        self._lengths: list[tuple[float, Path, int]] = []
        self._has_links = bool({"slow", "stall", "reset"} & set(kinds))
        self._links: Links | None = None
        self._healing: dict[tuple[str, str], Callable[[], None]] = {}

    def start(self) -> None:
        """Start everything; returns once the gateway serves."""
        self.start_servers()
        self.read_callers("make")
        cache = self.children["valkey"]
        spec, found = cache.spec, clock.library()
        cache.spec = replace(
            spec,
            before_start=self._before_valkey(spec),
            argv=_survives_xfsz(spec),
            environ={**spec.environ, **(clock.environ(found, self._clock_file) if found is not None else {})},
        )
        # A file size limit would end a Valkey that does not ignore its signal.
        self.kill("valkey", down_s=0.0, is_recorded=False)
        self.start_programs()

    @property
    def journals(self) -> list[Path]:
        return [self.home.path / f"journal{node or ''}" for node in range(len(self.ports))]

    @override
    def start_programs(self) -> None:
        super().start_programs()
        for node, port in enumerate(self.ports[1:], start=1):
            environ = {**self.environ, "PORT": str(port), "CFX_JOURNAL_DIR": str(self.journals[node])}
            for name in NODE_PROGRAMS:
                argv = argv_of(name, Env.read(environ))
                self.supervisor.start(replace(self._spec(f"{name}{node}", argv), environ=environ))
            self._serving.append(port)
            self.supervisor.wait_until(self.is_live, self.children[f"web{node}"], within_s=READY_WITHIN_S)

    @override
    def is_live(self) -> bool:
        return all(self.responds(port) for port in self._serving)

    def _one_of(self, name: str) -> str:
        """Name of the child whose turn it is: the nodes take turns."""
        if name not in self._turns or len(self.ports) == 1:
            return name
        self._turns[name] = (self._turns[name] + 1) % len(self.ports)
        return f"{name}{self._turns[name] or ''}"

    def read_callers(self, verb: str) -> None:
        """Make the callers, raise what money they have, or read their limits once more. Raises RuntimeError."""
        tenants = self.home.path / "tenants.json"
        self.run_module("tests.chaos.tenants", verb, str(tenants))
        self.callers = [caller_of(each) for each in json.loads(tenants.read_text())]

    @override
    def between_servers_and_programs(self) -> None:
        self.direct = {name: self.addresses[name] for name in ("redis_url", "database_url")}
        if self._has_links:
            folder = Path((self.home.path / "runtime_folder").read_text()) / "links"
            self._links = self._resources.enter_context(Links(folder, **self.direct))
            self.addresses |= {"redis_url": self._links.redis_url, "database_url": self._links.database_url}

    @override
    def __exit__(self, *exc: object) -> None:
        # A stopped process takes no SIGTERM.
        self.heal_all()
        super().__exit__(*exc)

    def pump(self, seconds: float) -> None:
        """Supervise the children for this long."""
        ends_s = monotonic_s() + seconds
        while True:
            self._remember_length()
            left_s = ends_s - monotonic_s()
            self.supervisor.pump(min(max(left_s, 0.0), 0.1))
            if left_s <= 0:
                return

    def strike(self, strike: Strike) -> None:
        """Carry out an incident. A killed process is restarted later; all else is over when this returns."""
        if strike.kind == "kill":
            self.kill(strike.target, down_s=strike.seconds)
        elif strike.kind == "lose":
            self.lose_one(strike.target)
        else:
            self.hurt(strike)
            self.pump(strike.seconds)
            self.heal(strike.kind, strike.target)

    def hurt(self, strike: Strike) -> None:
        """Begin an incident that is no kill; `heal` ends it. Waits first until the process runs."""
        self._until_running(strike.target)
        self.incidents.append(Incident(strike.target, now_ms(), strike.seconds, kind=strike.kind))
        begin = {
            "pause": self._pause,
            "slow": self._slow,
            "stall": self._stall,
            "reset": self._reset,
            "full": self._fill,
            "clock": self._step,
        }[strike.kind]
        self._healing[strike.kind, strike.target] = begin(strike)

    def heal(self, kind: str, target: str) -> None:
        if (undo := self._healing.pop((kind, target), None)) is not None:
            undo()

    def heal_all(self) -> None:
        for kind, target in list(self._healing):
            self.heal(kind, target)

    def kill(self, name: str, *, down_s: float, is_recorded: bool = True) -> None:
        """kill -9 the process group and restart it after `down_s`. Waits first until the process runs."""
        of_node = self._one_of(name)
        child = self._until_running(of_node)
        if is_recorded:
            is_emptied = self.empties_next and name == "valkey"
            self.incidents.append(Incident(name, now_ms(), down_s, is_emptied=is_emptied))
        os.killpg(child, signal.SIGKILL)
        self._bury(of_node, down_s)

    def lose_one(self, name: str) -> None:
        """kill -9 one of the processes of the gateway, whose parent starts another. A single process is all of it."""
        leader = self._until_running(name)
        workers = [pid for pid in self._pids(name) if pid != leader and b"spawn_main" in _command_of(pid)]
        self.incidents.append(Incident(name, now_ms(), 0.0))
        self._signal(workers[:1] or [leader], signal.SIGKILL)
        if not workers:
            self._bury(name, 0.0)

    def _until_running(self, name: str) -> int:
        child = self.children[name]
        while child.identity is None:
            self.pump(0.05)
        return child.identity.pid

    def _bury(self, name: str, down_s: float) -> None:
        child = self.children[name]
        while child.is_running:
            self.supervisor.pump(0.05)
        # Deaths are intended here: no restart back-off.
        child.quick_deaths, child.backoff_s = 0, 0.2
        child.restart_at_s = monotonic_s() + down_s

    def _pids(self, name: str) -> list[int]:
        """Every process of a child. PostgreSQL's have groups of their own."""
        if name in _EXECUTABLES:
            return [each.pid for each in running_in(getattr(self.home, name), _EXECUTABLES[name])]
        if (leader := self.children[name].identity) is None:
            return []
        members = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
        return [pid for pid in members if process(pid) is not None and _group_of(pid) == leader.pid]

    def _signal(self, pids: Collection[int], number: signal.Signals) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _pause(self, strike: Strike) -> Callable[[], None]:
        pids = self._pids(strike.target)
        self._signal(pids, signal.SIGSTOP)
        return lambda: self._signal(pids, signal.SIGCONT)

    def _slow(self, strike: Strike) -> Callable[[], None]:
        assert self._links is not None
        links = self._links
        links.delay(strike.target, strike.amount_s)
        return lambda: links.heal(strike.target)

    def _stall(self, strike: Strike) -> Callable[[], None]:
        assert self._links is not None
        links = self._links
        links.stall(strike.target)
        return lambda: links.heal(strike.target)

    def _reset(self, strike: Strike) -> Callable[[], None]:
        assert self._links is not None
        links = self._links
        links.reset(strike.target)
        return lambda: links.heal(strike.target)

    def _fill(self, strike: Strike) -> Callable[[], None]:
        """Let no file grow: what a full disk does, without the right to mount one. Pipes and sockets go on."""
        self._limit_files(strike.target, "0")
        # Children that were born meanwhile have inherited it.
        return lambda: self._limit_files(strike.target, "unlimited")

    def _limit_files(self, name: str, most_bytes: str) -> None:
        account = self.children[name].spec.account
        # A process may change the limits of those of its own account only.
        as_account = {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}
        each = 'for pid in "$@"; do prlimit --pid "$pid" --fsize="$0": || true; done'
        argv = ["/bin/sh", "-c", each, most_bytes, *map(str, self._pids(name))]
        subprocess.run(argv, check=True, stderr=subprocess.DEVNULL, **as_account)  # type: ignore[call-overload]

    def _step(self, strike: Strike) -> Callable[[], None]:
        """Step Valkey's clock, which takes a second to be noticed."""
        clock.set_clock(self._clock_file, strike.amount_s)
        return lambda: clock.set_clock(self._clock_file, 0)

    @property
    def _clock_file(self) -> Path:
        return self.home.path / "clock"

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


def _survives_xfsz(spec: ChildSpec) -> list[str]:
    """The command, with the signal of a file size limit ignored: writing then fails, as on a full disk."""
    return ["/bin/sh", "-c", 'trap "" XFSZ; exec "$@"', "sh", *spec.argv]


def _command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def caller_of(stored: dict[str, Any]) -> Caller:
    """Build a caller from its JSON form, as tenants.py writes it."""
    ids = {name: UUID(stored[name]) for name in ("key_id", "organization_id")}
    bounds = {name: Bounds(**stored[name]) for name in ("bounds", "organization_bounds")}
    return Caller(**{**stored, **ids, **bounds})
