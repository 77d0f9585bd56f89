"""Process supervisor: starts children, restarts those that die, ends them in order. One thread, one loop, no Django.

Everything about a child (PostgreSQL, the web) is in its `ChildSpec`.
"""

import collections
import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

from codexflow.dev.errors import DevError, ServiceFailed
from codexflow.dev.processes import Process, die_with_parent, process
from codexflow.lib.clock import monotonic_s

BACKOFF_FIRST_S, BACKOFF_LIMIT_S, BACKOFF_SLOW_S = 0.2, 5.0, 15.0
QUICK_DEATH_S = 10.0  # a life shorter than this counts as a failed start
QUICK_DEATHS_BEFORE_REPORT = 5
# During startup no request is served yet, so give up sooner than in operation.
QUICK_DEATHS_WHILE_STARTING = 3
TAIL_LINES = 15

Output = Callable[[str, str], None]


class StopRequested(Exception):
    """A signal asked to end during a wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An operating system user, by number."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """Command, environment and ending of one child."""

    name: str
    argv: Sequence[str]
    environ: Mapping[str, str]
    cwd: Path
    account: Account | None = None  # None: the supervisor's own
    before_start: Callable[[], None] = lambda: None  # removes leftovers of an earlier run; runs before every start
    stop_signal: signal.Signals = signal.SIGTERM
    stop_grace_s: float = 10.0
    is_restarted: bool = True


@dataclass(slots=True, eq=False)
class Child:
    """A child and its restarts so far."""

    spec: ChildSpec
    popen: subprocess.Popen[bytes] | None = None
    identity: Process | None = None
    pidfd: int = -1
    pipe: IO[bytes] | None = None
    partial: bytes = b""
    started_s: float = 0.0
    restart_at_s: float | None = None
    backoff_s: float = BACKOFF_FIRST_S
    quick_deaths: int = 0
    returncode: int | None = None
    tail: collections.deque[str] = field(default_factory=lambda: collections.deque(maxlen=TAIL_LINES))

    @property
    def is_running(self) -> bool:
        return self.popen is not None

    def exit_summary(self) -> str:
        lines = "\n".join(f"    {line}" for line in self.tail)
        return (
            f"{_ending(self.returncode)}. Its last lines:\n{lines}"
            if lines
            else f"{_ending(self.returncode)}, without output."
        )


class Supervisor:
    """Context manager; leaving it ends every child, stage by stage."""

    def __init__(self, output: Output, *, on_change: Callable[[], None] = lambda: None) -> None:
        self.children: list[Child] = []
        self.output = output
        self.on_change = on_change  # a child has a new pid
        self.stops_requested = 0
        self._is_stopping = False
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._drain_wakeups)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()
        signal.set_wakeup_fd(-1)
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()

    def watch(self, file: IO[bytes] | int, on_readable: Callable[[], None]) -> None:
        """Call `on_readable` from the loop; it must read, or `unwatch` the file."""
        self._selector.register(file, selectors.EVENT_READ, on_readable)

    def unwatch(self, file: IO[bytes] | int) -> None:
        self._selector.unregister(file)

    def start(self, spec: ChildSpec) -> Child:
        """Start a child; when it dies it is restarted."""
        child = Child(spec)
        self.children.append(child)
        self._spawn(child)
        return child

    def run_once(self, spec: ChildSpec) -> Child:
        """Run a child to its end, the others being looked after meanwhile."""
        child = self.start(spec)
        while child.is_running:
            self.pump(1.0)
            if self.stops_requested:
                raise StopRequested
        self.children.remove(child)
        return child

    def wait_until(self, is_ready: Callable[[], bool], child: Child, *, within_s: float) -> None:
        """Wait until the probe succeeds. Raises ServiceFailed, with the child's last lines, when it never does."""
        deadline_s = monotonic_s() + within_s
        while not is_ready():
            if child.quick_deaths >= QUICK_DEATHS_WHILE_STARTING:
                raise ServiceFailed(f"{child.spec.name} could not be started: it {child.exit_summary()}")
            if monotonic_s() > deadline_s:
                raise ServiceFailed(f"{child.spec.name} was not ready within {within_s:g} s; it {child.exit_summary()}")
            self.pump(0.03)
            if self.stops_requested:
                raise StopRequested

    def run(self) -> None:
        """Look after the children until a signal asks to end."""
        while not self.stops_requested:
            self.pump(60.0)

    def pump(self, timeout_s: float) -> None:
        """Run one turn of the loop: pass output on, notice deaths, restart children that are due."""
        now = monotonic_s()
        due = [child.restart_at_s for child in self.children if child.restart_at_s is not None]
        wait_s = max(0.0, min([timeout_s, *(at - now for at in due)]))
        for key, _ in self._selector.select(wait_s):
            key.data()
        if self._is_stopping:
            return
        now = monotonic_s()
        for child in self.children:
            if child.restart_at_s is not None and child.restart_at_s <= now:
                self._spawn(child)

    def stop(self) -> None:
        """End all children, the last started first; names sharing a `stage` end together. Bounded: grace, then kill."""
        self._is_stopping = True
        for child in self.children:
            child.restart_at_s = None
        for stage in self._stages():
            for child in stage:
                self._signal(child, child.spec.stop_signal)
            deadline_s = monotonic_s() + max(child.spec.stop_grace_s for child in stage)
            asked = self.stops_requested
            # A second Ctrl-C while waiting means: now.
            while (
                any(child.is_running for child in stage)
                and monotonic_s() < deadline_s
                and self.stops_requested <= max(asked, 1)
            ):
                self.pump(0.1)
            for child in stage:
                if child.is_running:
                    self.output("up", f"{child.spec.name} did not end in time and is killed")
                    self._signal(child, signal.SIGKILL)
            while any(child.is_running for child in stage):
                self.pump(0.1)
        self.children.clear()

    # Which children end together; the others end one by one. Web and worker need the same servers and not each other.
    together: tuple[frozenset[str], ...] = (
        frozenset({"web", "worker"}),
        frozenset({"beat"}),
        frozenset({"demo"}),
        frozenset({"valkey"}),
    )

    def _stages(self) -> list[list[Child]]:
        named = [[child for child in self.children if child.spec.name in names] for names in self.together]
        taken = {id(child) for stage in named for child in stage}
        rest = [[child] for child in reversed(self.children) if id(child) not in taken]
        return [stage for stage in (*named, *rest) if stage]

    def _spawn(self, child: Child) -> None:
        child.restart_at_s = None
        child.started_s = monotonic_s()
        spec = child.spec
        try:
            spec.before_start()
            child.popen = self._open(spec)
        except DevError as exc:
            self._not_started(child, str(exc))
            return
        except OSError as exc:
            self._not_started(child, f"{spec.argv[0]} cannot be run: {exc.strerror}")
            return
        child.returncode = None
        child.identity = process(child.popen.pid)
        child.pidfd = os.pidfd_open(child.popen.pid)
        child.pipe = child.popen.stdout
        assert child.pipe is not None  # noqa: S101 - we asked for a pipe
        os.set_blocking(child.pipe.fileno(), False)
        self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._on_death(child))
        self._selector.register(child.pipe, selectors.EVENT_READ, lambda: self._on_output(child))
        self.on_change()

    def _open(self, spec: ChildSpec) -> subprocess.Popen[bytes]:
        as_account = {"user": spec.account.uid, "group": spec.account.gid, "extra_groups": []} if spec.account else {}
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return] # noqa: S603 - argv is ours
            list(spec.argv),
            env=dict(spec.environ),
            cwd=spec.cwd,  # entered before the account changes, so its parents may be closed to the account
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the terminal's Ctrl-C reaches only us; we end the children in order
            preexec_fn=die_with_parent(spec.stop_signal),
            **as_account,
        )

    def _not_started(self, child: Child, why: str) -> None:
        child.tail.append(why)
        self._schedule(child)

    def _on_death(self, child: Child) -> None:
        popen = child.popen
        if popen is None:
            return
        # While the dead leader is not reaped its group's number cannot be given away: end the rest of the group now.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(popen.pid, signal.SIGKILL)
        child.returncode = popen.wait()
        self._on_output(child)
        self._close(child)
        if not self._is_stopping and child.spec.is_restarted:
            self._schedule(child)

    def _schedule(self, child: Child) -> None:
        lived_s = monotonic_s() - child.started_s
        if lived_s >= QUICK_DEATH_S:
            child.quick_deaths, child.backoff_s = 0, BACKOFF_FIRST_S
        child.quick_deaths += 1
        is_hopeless = child.quick_deaths >= QUICK_DEATHS_BEFORE_REPORT
        delay_s = BACKOFF_SLOW_S if is_hopeless else child.backoff_s
        child.backoff_s = min(child.backoff_s * 2, BACKOFF_LIMIT_S)
        child.restart_at_s = monotonic_s() + delay_s
        if child.quick_deaths == QUICK_DEATHS_BEFORE_REPORT:
            self.output(
                "up",
                f"{child.spec.name} died {child.quick_deaths} times right after its start; it {child.exit_summary()}",
            )
            self.output("up", f"{child.spec.name} will be tried again every {BACKOFF_SLOW_S:g} s")
        elif not is_hopeless:
            self.output("up", f"{child.spec.name} {_ending(child.returncode)}; starting it again in {delay_s:g} s")

    def _on_output(self, child: Child) -> None:
        if child.pipe is None:
            return
        try:
            chunk = child.pipe.read()
        except OSError:
            chunk = b""
        if chunk is None:  # nothing at the moment
            return
        if not chunk:
            self._close_pipe(child)
            return
        *lines, child.partial = (child.partial + chunk).split(b"\n")
        for line in lines:
            self._say(child, line)

    def _say(self, child: Child, raw: bytes) -> None:
        line = raw.decode(errors="replace").rstrip()
        child.tail.append(line)
        self.output(child.spec.name, line)

    def _close_pipe(self, child: Child) -> None:
        if child.pipe is None:
            return
        if child.partial:
            self._say(child, child.partial)
            child.partial = b""
        self._selector.unregister(child.pipe)
        child.pipe.close()
        child.pipe = None

    def _close(self, child: Child) -> None:
        self._close_pipe(child)
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        child.popen, child.identity, child.pidfd = None, None, -1

    def _signal(self, child: Child, number: signal.Signals) -> None:
        if child.popen is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.popen.pid, number)  # not reaped yet, so the pid is still its own

    def _on_signal(self, _number: int, _frame: object) -> None:
        self.stops_requested += 1

    def _drain_wakeups(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_read.recv(1024)


def _ending(returncode: int | None) -> str:
    if returncode is None:
        return "is not running"
    if returncode < 0:
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"ended with code {returncode}"


def to_terminal(name: str, line: str) -> None:
    """Print each line after the name of its child. A closed terminal must not end the servers."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(f"{name:<8} | {line}\n")
        sys.stdout.flush()
