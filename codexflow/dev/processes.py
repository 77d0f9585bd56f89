"""Process identity by /proc: state, start time, executable, working directory. Never by a pid alone.

A pid in a file proves nothing: it may be a zombie, or have been given to another process.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from codexflow.lib.clock import monotonic_s

PROC = Path("/proc")
_PR_SET_PDEATHSIG = 1
# Looked up before any fork: between fork and exec nothing may be imported or allocated needlessly.
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Process:
    """A live process. The start time makes the pair unique until the next boot."""

    pid: int
    started_ticks: int


def process(pid: int) -> Process | None:
    """Find the live process with this pid; None when there is none or it is a zombie."""
    try:
        # The name in parentheses may contain anything, so count from the last one.
        fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    state, started_ticks = fields[0], int(fields[19])
    return None if state in "ZXx" else Process(pid, started_ticks)


def is_alive(candidate: Process) -> bool:
    """Return whether exactly this process still runs."""
    return process(candidate.pid) == candidate


def running_in(folder: Path, executable: str) -> list[Process]:
    """Live processes of an executable (by file name) whose working directory is `folder`.

    PostgreSQL and Valkey both stay in their data folder, so this finds every server that could
    write to it, whoever started it and whatever its pid file says.
    """
    try:
        wanted = folder.stat()
    except OSError:
        return []
    found = []
    for candidate in _all():
        base = PROC / str(candidate.pid)
        with contextlib.suppress(OSError):
            # A reinstalled wheel leaves "/path/postgres (deleted)".
            name = (base / "exe").readlink().name.removesuffix(" (deleted)")
            if name == executable and os.path.samestat((base / "cwd").stat(), wanted):
                found.append(candidate)
    return found


def started_with(name: str, value: str) -> list[Process]:
    """Live processes, ourselves excepted, that were started with `name=value` in their environment."""
    mark = f"{name}={value}".encode()
    found = []
    for candidate in _all():
        with contextlib.suppress(OSError):
            if mark in (PROC / str(candidate.pid) / "environ").read_bytes().split(b"\0"):
                found.append(candidate)
    return found


def _all() -> Iterator[Process]:
    own = os.getpid()
    for entry in PROC.iterdir():
        if entry.name.isdecimal() and int(entry.name) != own:
            found = process(int(entry.name))
            if found is not None:
                yield found


def end(processes: Iterable[Process], *, with_signal: signal.Signals, grace_s: float) -> None:
    """Ask these processes to end, wait, then kill what is left. Returns when none is alive."""
    remaining = [candidate for candidate in processes if _send(candidate, with_signal)]
    deadline_s = monotonic_s() + grace_s
    while remaining and monotonic_s() < deadline_s:
        time.sleep(0.02)
        remaining = [candidate for candidate in remaining if is_alive(candidate)]
    for candidate in remaining:
        _send(candidate, signal.SIGKILL)
    deadline_s = monotonic_s() + 5
    while any(is_alive(candidate) for candidate in remaining) and monotonic_s() < deadline_s:
        time.sleep(0.02)


def _send(candidate: Process, number: signal.Signals) -> bool:
    """Signal exactly this process: the pidfd pins it, so its pid cannot change hands after the check."""
    try:
        handle = os.pidfd_open(candidate.pid)
    except OSError:
        return False
    try:
        if not is_alive(candidate):
            return False
        signal.pidfd_send_signal(handle, number)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def die_with_parent(number: signal.Signals) -> Callable[[], None]:
    """A `preexec_fn`: the kernel sends `number` to the child when this process is gone, even by kill -9.

    The kernel ties this to the forking *thread*, so only the main thread may start children.
    """
    parent = os.getpid()

    def between_fork_and_exec() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return between_fork_and_exec
