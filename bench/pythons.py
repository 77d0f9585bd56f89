"""`python -m bench.pythons [NAME=PATH ...] [--rounds 5] [--seconds 3] [--quick]`: this tree on several interpreters.

Each interpreter serves this tree as `manage.py up` starts it, all on one mock upstream, and nginx stands beside. They
are loaded in turn, while all processes of the others are stopped. Without names: the interpreter that runs this, and
Debian's of `tests.support.pythons`, which are unpacked first.
"""

import argparse
import contextlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO

from bench import tools
from bench.contenders import MODEL, Contender, body, start_mock, start_nginx, words
from bench.sides import Checkout, CompareError, Measured, Side, check, started
from bench.tools import Shape
from codexflow.dev.errors import DevError
from codexflow.dev.supervisor import StopRequested, Supervisor
from codexflow.dev.valkey import free_port
from codexflow.env import REPOSITORY
from tests.support import pythons

# Sentences as people write them, whose stage is told from the text: code.
TOLD = (
    "The importer reads orders from a CSV file and stores them one by one, which takes minutes for a large file. "
    "Please change it so that it stores them in batches of five hundred, and keeps the order of the lines. If a line "
    "cannot be parsed, it should be skipped and reported at the end with its number and the reason. The tests of the "
    "importer are in the folder beside it; add one for an empty file and one for a file whose last line is cut. Do not "
    "touch the exporter, which another team is about to replace. I would like to see the whole function again."
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of load."""

    name: str
    goal: float  # the most that it may cost, in CPU of nginx's
    sent: bytes
    is_stream: bool = False


KINDS = (
    Kind("whole responses", 7.5, body(is_stream=False)),
    Kind("20 KB bodies", 8.5, body(is_stream=False, user=words(2_500))),
    Kind("told from the text", 10, body(is_stream=False, model="cfx-auto", user=TOLD)),
    Kind("streams", 1.8, body(is_stream=True), is_stream=True),
)
ADDED_P99_MS = 4.0  # the most
RATE = 100.0  # requests a second, for the p99


@dataclass(frozen=True, slots=True)
class Figures:
    """One round: CPU seconds a request and the kernel's share of them, by contender and kind; added p99."""

    cpu_s: dict[tuple[str, str], float] = field(default_factory=dict)
    kernel_share: dict[tuple[str, str], float] = field(default_factory=dict)
    added_p99_ms: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, kind: Kind, measured: Measured) -> None:
        web = measured.cpu["web"]
        self.cpu_s[name, kind.name] = web.total_s / measured.load.ok_all
        self.kernel_share[name, kind.name] = web.kernel_s / web.total_s


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.pythons", description=__doc__)
    parser.add_argument("interpreters", nargs="*", metavar="NAME=PATH", help="with the requirements of `up`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--quick", action="store_true", help="one round of one second each")
    options = parser.parse_args()
    try:
        found = named(options.interpreters) if options.interpreters else available()
        rounds, seconds = (1, 1.0) if options.quick else (options.rounds, options.seconds)
        _write(f"{platform.platform()}, {os.cpu_count()} cores; {rounds} rounds of {seconds:g} s each, interleaved\n")
        for name, python in found.items():
            _write(f"{name}: {_version(python)}\n")
        figures = _rounds(found, rounds, seconds)
    except (CompareError, DevError) as exc:
        sys.stderr.write(f"bench.pythons: {exc}\n")
        return 2
    except StopRequested:
        return 130
    _write(f"\n{table(figures, list(found))}\n")
    return 0


def named(words: Sequence[str]) -> dict[str, str]:
    """Read NAME=PATH. Raises CompareError."""
    found = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or not Path(path).is_file():
            raise CompareError(f"{word} is not a name, = and an interpreter")
        found[name] = str(Path(path).absolute())
    return found


def available() -> dict[str, str]:
    """This interpreter, and all of Debian's that can be unpacked and get the requirements."""
    found = {"this": sys.executable}
    for each in pythons.KNOWN:
        if (program := pythons.with_requirements(each)) is None:
            _write(f"{each.name} is left out: it is not to be had from apt-get\n")
        else:
            found[each.name] = str(program)
    return found


def _version(python: str) -> str:
    return subprocess.run([python, "-VV"], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603


def _rounds(found: Mapping[str, str], rounds: int, seconds: float) -> list[Figures]:
    program = tools.nginx()
    if program is None:
        raise CompareError("nginx is neither installed nor to be had from apt-get")
    with (
        tempfile.TemporaryDirectory(prefix="cfx-pythons-") as name,
        (Path(name) / "log").open("w") as log,
        Supervisor(lambda child, line: _log(log, child, line)) as supervisor,
    ):
        folder = Path(name)
        mock = start_mock(supervisor)
        nginx = start_nginx(supervisor, program, mock.port, folder)
        sides = []
        for each, python in found.items():
            checkout = Checkout(
                name=each,
                commit="",
                folder=REPOSITORY,
                python=python,
                home=folder / each,
                port=free_port(),
                model=MODEL,
            )
            sides.append(started(supervisor, checkout, mock.port))
        made = []
        for number in range(rounds + 1):
            # The first one only warms everything up. Every other goes through them backwards.
            figures = _round(supervisor, mock, nginx, sides[:: 1 if number % 2 else -1], seconds if number else 1.0)
            if number:
                made.append(figures)
                _write(f"round {number} of {rounds} done, load average {os.getloadavg()[0]:.1f}\n")
        return made


def _round(supervisor: Supervisor, mock: Contender, nginx: Contender, sides: Sequence[Side], seconds: float) -> Figures:
    figures = Figures()
    for kind in KINDS:
        shape = Shape(seconds=seconds, is_stream=kind.is_stream)
        with _stopped(sides):
            figures.add("nginx", kind, _of_nginx(supervisor, nginx, shape, kind.sent))
        for side in sides:
            with _stopped(sides, but=side):
                figures.add(side.checkout.name, kind, side.measured(supervisor, shape, kind.sent))
    shape, sent = Shape(seconds=seconds, connections=64, rate=RATE), KINDS[0].sent
    with _stopped(sides):
        direct = tools.load(mock.port, mock.key, sent, shape, meanwhile=lambda: supervisor.pump(0.2))
    for side in sides:
        with _stopped(sides, but=side):
            found = side.measured(supervisor, shape, sent).load
        figures.added_p99_ms[side.checkout.name] = (found.lat_p99 - direct.lat_p99) / 1e3
    return figures


@contextlib.contextmanager
def _stopped(sides: Sequence[Side], *, but: Side | None = None) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for side in sides:
            if side is not but:
                stack.enter_context(side.stopped())
        yield


def _of_nginx(supervisor: Supervisor, nginx: Contender, shape: Shape, sent: bytes) -> Measured:
    identity = nginx.parts["nginx"].identity
    if identity is None:
        raise CompareError("nginx ended")
    before = tools.cpu(identity.pid)
    found = tools.load(nginx.port, nginx.key, sent, shape, meanwhile=lambda: supervisor.pump(0.2))
    check("nginx", found, shape)
    return Measured(found, {"web": tools.cpu(identity.pid) - before})


def table(rounds: Sequence[Figures], names: Sequence[str]) -> str:
    """Render CPU and the kernel's share, ratios to nginx with their goals, and ratios to the first interpreter."""
    kinds = [kind.name for kind in KINDS]
    lines = _heading("CPU s / 1,000 (of it the kernel's)", kinds)
    for name in ("nginx", *names):
        cells = [
            f"{median(each.cpu_s[name, kind] for each in rounds) * 1000:.3f}"
            f" ({median(each.kernel_share[name, kind] for each in rounds):.0%})"
            for kind in kinds
        ]
        lines.append(_line(name, cells))
    goals = [*(f"{kind.name}, at most {kind.goal:g}" for kind in KINDS), f"added p99 (ms), at most {ADDED_P99_MS:g}"]
    lines += ["", *_heading("CPU / nginx's", goals)]
    for name in names:
        ratios = [_shown([each.cpu_s[name, kind] / each.cpu_s["nginx", kind] for each in rounds]) for kind in kinds]
        lines.append(_line(name, [*ratios, _shown([each.added_p99_ms[name] for each in rounds])]))
    lines += ["", *_heading(f"CPU / that of {names[0]}", kinds)]
    for name in names[1:]:
        ratios = [_shown([each.cpu_s[name, kind] / each.cpu_s[names[0], kind] for each in rounds]) for kind in kinds]
        lines.append(_line(name, ratios))
    return "\n".join(lines)


def _heading(first: str, columns: Sequence[str]) -> list[str]:
    return [_line(first, columns), "|---" * (len(columns) + 1) + "|"]


def _line(first: str, cells: Sequence[str]) -> str:
    return f"| {first} | " + " | ".join(cells) + " |"


def _shown(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def _log(log: IO[str], child: str, line: str) -> None:
    log.write(f"{child:<8} | {line}\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
