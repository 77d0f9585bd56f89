"""`python -m bench.compare BASE [--pairs 12] [--seconds 4] [--bound 1.02]`: CPU of this tree against an older commit.

Both checkouts run at once, each as `manage.py up` starts it, on one mock upstream, and are loaded in turn, while all
processes of the other are stopped: what it does by itself must not cost this one its caches. Each pair of measurements
gives one ratio, new to base; the verdict is on the 95 % interval of their median. Exit code 1 only when a whole
interval lies above the bound; 2 when nothing could be compared.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.contenders import MODEL, body, start_mock
from bench.intervals import Interval, interval, typical
from bench.sides import PARTS, Checkout, CompareError, started
from bench.tools import Shape
from codexflow.dev.errors import DevError
from codexflow.dev.supervisor import StopRequested, Supervisor
from codexflow.dev.valkey import free_port
from codexflow.env import REPOSITORY

KINDS = {"whole responses": False, "streams": True}  # name -> is_stream
# As many streams as keep a process busy: in one that mostly waits, a wake-up costs as much as several events, and how
# many of them share one is a matter of how the streams happen to have started.
CONNECTIONS = {False: 32, True: 256}  # by is_stream
REQUIREMENTS = ("requirements/base.txt", "requirements/embedded.txt")  # what `manage.py up` runs on


@dataclass(slots=True)
class Ratios:
    """Ratios of CPU per answered request, new to base, by kind of load and by part; one entry a pair."""

    of: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, kind: str, *, new: Mapping[str, float], base: Mapping[str, float]) -> None:
        for part in PARTS:
            if new[part] and base[part]:  # a part that did nothing within the kernel's ticks has no ratio
                self.of.setdefault((kind, part), []).append(new[part] / base[part])


def main() -> int:
    options = _options()
    try:
        with (
            _checkouts(options.base, options.base_python, options.base_model) as (base, new),
            tempfile.TemporaryDirectory() as folder,
        ):
            _write(
                f"base {base.commit}\nnew  {new.commit}\n{options.pairs} pairs of {options.seconds:g} s, interleaved\n"
            )
            ratios = _measured(base, new, options, Path(folder) / "compare.log")
    except (CompareError, DevError) as exc:
        sys.stderr.write(f"bench-compare: {exc}\n")
        return 2
    except StopRequested:
        return 130
    _write(f"\n{table(ratios, bound=options.bound)}\n")
    return 1 if is_slower(ratios, bound=options.bound) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("base", help="a commit, branch or tag")
    parser.add_argument("--pairs", type=int, default=12, help="fewer than ten only show that it works")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--bound", type=float, default=1.02, help="largest ratio that is no regression")
    parser.add_argument("--base-python", default="", help="interpreter with the base's requirements, where they differ")
    parser.add_argument("--base-model", default=MODEL, help="a model of the base's catalogue, where it lacks this one")
    return parser.parse_args()


def table(ratios: Ratios, *, bound: float) -> str:
    """Render medians and intervals; Valkey and the worker stand beside, without a verdict."""
    lines = [
        "| CPU, new / base | pairs | median | estimate | 95 % interval | range | |",
        "|---|---|---|---|---|---|---|",
    ]
    for (kind, part), found in sorted(ratios.of.items(), key=lambda item: PARTS.index(item[0][1])):
        verdict = _verdict(interval(found), bound) if part == "web" else "not judged"
        lines.append(
            f"| {kind}, {part} | {len(found)} | {median(found):.3f} | {typical(found):.3f} | {_shown(interval(found))}"
            f" | {min(found):.3f}-{max(found):.3f} | {verdict} |"
        )
    return "\n".join(lines)


def is_slower(ratios: Ratios, *, bound: float) -> bool:
    """Return whether the web process's whole interval lies above the bound, for any kind of load."""
    found = [interval(values) for (_, part), values in ratios.of.items() if part == "web"]
    return any(each is not None and each.low > bound for each in found)


def _verdict(found: Interval | None, bound: float) -> str:
    if found is None:
        return "no verdict: six pairs are the least"
    if found.low > bound:
        return f"SLOWER: all of it above {bound:g}"
    return f"not above {bound:g}" if found.high <= bound else f"undecided: {bound:g} lies within"


def _shown(found: Interval | None) -> str:
    return f"{found.low:.3f}-{found.high:.3f}" if found else "-"


@contextlib.contextmanager
def _checkouts(base: str, base_python: str = "", base_model: str = MODEL) -> Iterator[tuple[Checkout, Checkout]]:
    """This tree, and a worktree of `base` in a temporary folder that is removed however the block ends."""
    commit = _git("rev-parse", "--verify", "--quiet", f"{base}^{{commit}}", otherwise=f"there is no commit {base!r}")
    with tempfile.TemporaryDirectory(prefix="cfx-compare-") as name:
        folder = Path(name)
        tree = folder / "base"
        _git("worktree", "prune")
        try:
            _git("worktree", "add", "--detach", "--quiet", str(tree), commit)
            _check_requirements(tree, base_python)
            python = str(Path(base_python).absolute()) if base_python else sys.executable  # it runs in another folder
            yield _checkout("base", _named(commit), tree, python, folder, base_model), _new_checkout(folder)
        finally:
            subprocess.run(  # noqa: S603 - our own words
                ["git", "worktree", "remove", "--force", str(tree)],  # noqa: S607
                cwd=REPOSITORY,
                capture_output=True,
                check=False,
            )


def _new_checkout(folder: Path) -> Checkout:
    changed = " with uncommitted changes" if _git("status", "--porcelain", "--untracked-files=no") else ""
    return _checkout("new", _named("HEAD") + changed, REPOSITORY, sys.executable, folder, MODEL)


def _checkout(name: str, commit: str, tree: Path, python: str, folder: Path, model: str) -> Checkout:
    home = folder / f"{name}-home"
    return Checkout(name=name, commit=commit, folder=tree, python=python, home=home, port=free_port(), model=model)


def _check_requirements(tree: Path, base_python: str) -> None:
    """Refuse to run the base on libraries that it did not ask for: the ratio would be theirs."""
    differing = [name for name in REQUIREMENTS if (tree / name).read_bytes() != (REPOSITORY / name).read_bytes()]
    if differing and not base_python:
        raise CompareError(
            f"{' and '.join(differing)} differ between the two: make an environment of the base's requirements and name"
            ' its interpreter, as in BENCH_ARGS="--base-python /path/to/bin/python"'
        )


def _git(*words: str, otherwise: str = "") -> str:
    done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False)  # noqa: S603, S607
    if done.returncode:
        raise CompareError(otherwise or f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def _named(commit: str) -> str:
    return _git("log", "-1", "--format=%h %s", commit)


def _measured(base: Checkout, new: Checkout, options: argparse.Namespace, log: Path) -> Ratios:
    ratios = Ratios()
    with log.open("w") as file, Supervisor(lambda name, line: _log(file.write, name, line)) as supervisor:
        port = start_mock(supervisor).port
        sides = [started(supervisor, each, port) for each in (base, new)]
        for number in range(options.pairs + 1):
            # The first pair only warms everything up.
            seconds = options.seconds if number else min(1.0, options.seconds)
            order = sides if number % 2 else sides[::-1]
            for kind, is_stream in KINDS.items():
                shape = Shape(seconds=seconds, connections=CONNECTIONS[is_stream], is_stream=is_stream)
                used = {}
                for side, other in (order, order[::-1]):
                    with other.stopped():
                        sent = body(is_stream=is_stream, model=side.checkout.model)
                        used[side.checkout.name] = side.measured(supervisor, shape, sent).cpu_per_request()
                if number:
                    ratios.add(kind, new=used["new"], base=used["base"])
            if number:
                _write(f"pair {number} of {options.pairs}: {_last(ratios)}; load average {os.getloadavg()[0]:.1f}\n")
    return ratios


def _last(ratios: Ratios) -> str:
    return ", ".join(f"{kind} {ratios.of[kind, 'web'][-1]:.3f}" for kind in KINDS)


def _log(write: Any, name: str, line: str) -> None:
    write(f"{name:<8} | {line}\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
