"""The tools of the bench: load generator and mock upstream in C, nginx, and CPU time as the kernel counts it."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

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


def load(port: int, key: str, body: bytes, shape: Shape, *, meanwhile: Callable[[], None]) -> Load:
    """Run the load generator, calling `meanwhile` until it ends."""
    (BUILD / "body.json").write_bytes(body)
    command = [str(compiled("loadgen")), "-p", str(port), "-k", key, "-b", f"@{BUILD / 'body.json'}"]
    command += ["-c", str(shape.connections), "-d", str(shape.seconds), "-w", "0.5", "-x", str(LAST_ANSWERS_S)]
    command += ["-r", str(shape.rate)] if shape.rate else []
    command += ["-s"] if shape.is_stream else []
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603 - our own words
        while process.poll() is None:
            meanwhile()
        assert process.stdout is not None  # noqa: S101 - we asked for a pipe
        return msgspec.convert(json.loads(process.stdout.read()), Load)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and all its descendants, ended ones included."""
    total = 0.0
    for each in (pid, *_descendants(pid)):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15])) / TICKS_PER_S  # utime, stime and those of reaped children
    return total


def _descendants(pid: int) -> list[int]:
    found = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found += [int(child), *_descendants(int(child))]
    except OSError:
        pass
    return found


def resident_mb(pid: int) -> float:
    """Resident memory of a process and its descendants, in MB."""
    total = 0
    for each in (pid, *_descendants(pid)):
        for line in Path(f"/proc/{each}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total / 1024
