"""The tools of the bench: load generator and mock upstream in C, nginx, and CPU time as the kernel counts it."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from codexflow.dev.errors import DevError
from codexflow.env import REPOSITORY

BUILD = REPOSITORY / "build" / "bench"
SOURCES = REPOSITORY / "bench"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
LAST_ANSWERS_S = 12


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Result of the load generator. Times in microseconds."""

    ok: int
    ok_all: int
    bad: int
    err: int
    rps: float
    lat_p50: float
    lat_p99: float
    chunk_p50: float
    chunks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Kind of load: closed loop without a rate, open loop (Poisson) with one."""

    seconds: float
    connections: int = 32
    rate: float = 0.0
    is_stream: bool = False


def compiled(name: str) -> Path:
    """Compile bench/<name>.c when it is newer than its program; returns the program."""
    source, program = SOURCES / f"{name}.c", BUILD / name
    BUILD.mkdir(parents=True, exist_ok=True)
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(source), "-lm"]
        subprocess.run(command, check=True)  # noqa: S603 - our own words
    return program


def installed_nginx() -> Path | None:
    """Debian's nginx: the installed one, or the package that `nginx` has unpacked. None where there is neither."""
    if found := shutil.which("nginx"):
        return Path(found)
    program = BUILD / "nginx" / "usr" / "sbin" / "nginx"
    return program if program.exists() else None


def nginx() -> Path | None:
    """Debian's nginx, unpacked below build/ where it is not installed. None where it is not to be had."""
    if (program := installed_nginx()) is None and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        BUILD.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "nginx"], cwd=BUILD, capture_output=True, check=False)  # noqa: S607
        for package in BUILD.glob("nginx_*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(BUILD / "nginx")], check=False)  # noqa: S603, S607
        program = installed_nginx()
    return program


class LoadFailed(DevError):
    """The load generator ended without its result."""


def load(port: int, key: str, body: bytes, shape: Shape, *, meanwhile: Callable[[], None]) -> Load:
    """Run the load generator, calling `meanwhile` until it ends. `key` may be "@" and a file of keys.

    Raises LoadFailed.
    """
    (BUILD / "body.json").write_bytes(body)
    command = [str(compiled("loadgen")), "-p", str(port), "-k", key, "-b", f"@{BUILD / 'body.json'}"]
    command += ["-c", str(shape.connections), "-d", str(shape.seconds), "-w", "0.5", "-x", str(LAST_ANSWERS_S)]
    command += ["-r", str(shape.rate)] if shape.rate else []
    command += ["-s"] if shape.is_stream else []
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603 - our own words
        while process.poll() is None:
            meanwhile()
        assert process.stdout is not None  # noqa: S101 - we asked for a pipe
        try:
            return msgspec.json.decode(process.stdout.read(), type=Load)
        except msgspec.DecodeError as exc:
            raise LoadFailed(f"the load generator was cut off (exit code {process.returncode})") from exc


def scheduled_s(pid: int) -> float:
    """CPU seconds of a process and its living descendants, to the nanosecond: for what takes less than a tick."""
    total_ns = 0
    for each in with_descendants(pid):
        for task in Path(f"/proc/{each}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total_ns += int(task.read_text().split()[0])
    return total_ns / 1e9


def proportional_mb(pid: int) -> float:
    """Proportional set size of a process and its descendants: of a page that n share, each has an nth."""
    total_kb = 0
    for each in with_descendants(pid):
        with contextlib.suppress(OSError):
            found = Path(f"/proc/{each}/smaps_rollup").read_text().partition("\nPss:")[2]
            total_kb += int(found.split()[0])
    return total_kb / 1024


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU time of a process and all its descendants, ended ones included."""

    user_s: float
    kernel_s: float  # system calls, and what the kernel does on their behalf

    @property
    def total_s(self) -> float:
        return self.user_s + self.kernel_s

    def __sub__(self, before: "Cpu") -> "Cpu":
        return Cpu(self.user_s - before.user_s, self.kernel_s - before.kernel_s)


def cpu(pid: int) -> Cpu:
    """CPU time that a process and its descendants have used."""
    user = kernel = 0
    for each in with_descendants(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        utime, stime, of_reaped_utime, of_reaped_stime = map(int, fields[11:15])
        user, kernel = user + utime + of_reaped_utime, kernel + stime + of_reaped_stime
    return Cpu(user / TICKS_PER_S, kernel / TICKS_PER_S)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and all its descendants, ended ones included."""
    return cpu(pid).total_s


def with_descendants(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [pid]
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found += with_descendants(int(child))
    except OSError:
        pass
    return found


def resident_mb(pid: int) -> float:
    """Resident memory of a process and its descendants, in MB."""
    total = 0
    for each in with_descendants(pid):
        for line in Path(f"/proc/{each}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total / 1024
