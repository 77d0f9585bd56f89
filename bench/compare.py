"""`python -m bench.compare BASE [--pairs 12] [--seconds 4] [--bound 1.02]`: CPU of this tree against an older commit.

Both checkouts run at once, each as `manage.py up` starts it, on one mock upstream, and are loaded in turn. Each pair
of measurements gives one ratio, new to base; the verdict is on the 95 % interval of their median. Exit code 1 only when
a whole interval lies above the bound; 2 when nothing could be compared.

The base runs its own code, of which only what is stable from outside is used: `manage.py up`, CFX_HOME, PORT and
LITELLM_URL, and the files services.json and quickstart.json that `up` writes.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench import tools
from bench.contenders import MODEL, READY_WITHIN_S, STREAM_CHUNKS, answers_chat, body, start_mock
from bench.intervals import Interval, interval, typical
from bench.tools import Load, Shape
from codexflow.dev.errors import DevError
from codexflow.dev.supervisor import ChildSpec, StopRequested, Supervisor
from codexflow.dev.valkey import LOOPBACK, free_port
from codexflow.env import REPOSITORY

KINDS = {"whole responses": False, "streams": True}  # name -> is_stream
PARTS = ("web", "valkey", "worker")  # names in services.json; only web is judged
REQUIREMENTS = ("requirements/base.txt", "requirements/embedded.txt")  # what `manage.py up` runs on
STOP_WITHIN_S = 40.0
MAX_FAILED_SHARE = 0.01
_INHERITED = ("PATH", "HOME", "LANG")


class CompareError(Exception):
    """Nothing can be compared; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """One of the two trees, where it runs."""

    name: str  # "base" or "new"
    commit: str
    folder: Path
    python: str
    home: Path
    port: int
    model: str


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
            python = base_python or sys.executable
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
        sides = [_started(supervisor, each, port) for each in (base, new)]
        for number in range(options.pairs + 1):
            # The first pair only warms everything up.
            seconds = options.seconds if number else min(1.0, options.seconds)
            order = sides if number % 2 else sides[::-1]
            for kind, is_stream in KINDS.items():
                shape = Shape(seconds=seconds, is_stream=is_stream)
                used = {side.checkout.name: side.cpu_per_request(supervisor, shape) for side in order}
                if number:
                    ratios.add(kind, new=used["new"], base=used["base"])
            if number:
                _write(f"pair {number} of {options.pairs}: {_last(ratios)}; load average {os.getloadavg()[0]:.1f}\n")
    return ratios


def _last(ratios: Ratios) -> str:
    return ", ".join(f"{kind} {ratios.of[kind, 'web'][-1]:.3f}" for kind in KINDS)


@dataclass(frozen=True, slots=True)
class Side:
    """A checkout that serves."""

    checkout: Checkout
    api_key: str

    def cpu_per_request(self, supervisor: Supervisor, shape: Shape) -> dict[str, float]:
        """Load it once; returns CPU seconds per answered request, by part. Raises CompareError when it failed."""
        pids = self._pids()
        before = {part: tools.cpu_s(pid) for part, pid in pids.items()}
        found = tools.load(
            self.checkout.port,
            self.api_key,
            body(is_stream=shape.is_stream, model=self.checkout.model),
            shape,
            meanwhile=lambda: supervisor.pump(0.2),
        )
        after = {part: tools.cpu_s(pid) for part, pid in pids.items()}
        if supervisor.stops_requested:
            raise StopRequested
        if self._pids() != pids:
            raise CompareError(f"a process of {self.checkout.name} ended while it was measured")
        self._check(found, shape)
        return {part: (after[part] - before[part]) / found.ok_all for part in PARTS}

    def _pids(self) -> dict[str, int]:
        found = _json(self.checkout.home / "services.json").get("pids", {})
        if not set(PARTS) <= set(found):
            raise CompareError(f"{self.checkout.name} ended")
        return {part: int(found[part]) for part in PARTS}

    def _check(self, found: Load, shape: Shape) -> None:
        failed = found.bad + found.err
        if not found.ok_all or failed > found.ok_all * MAX_FAILED_SHARE:
            raise CompareError(f"{self.checkout.name}: {failed} of {found.ok_all + failed} requests failed")
        if shape.is_stream and found.chunks < found.ok * (STREAM_CHUNKS - 2):
            raise CompareError(f"{self.checkout.name}: streams came with chunks missing")


def _started(supervisor: Supervisor, checkout: Checkout, upstream: int) -> Side:
    """Run `manage.py up` in the checkout and wait for its first answered request."""
    environ = {name: value for name, value in os.environ.items() if name in _INHERITED}  # noqa: TID251 - a clean copy
    environ |= {
        "CFX_ENV": "development",
        "CFX_HOME": str(checkout.home),
        "PORT": str(checkout.port),
        "LOG_LEVEL": "WARNING",
        "LITELLM_URL": f"http://{LOOPBACK}:{upstream}",
        "LITELLM_API_KEY": "sk-bench",
    }
    child = supervisor.start(
        ChildSpec(
            name=checkout.name,
            argv=[checkout.python, "manage.py", "up"],
            environ=environ,
            cwd=checkout.folder,
            stop_grace_s=STOP_WITHIN_S,
            is_restarted=False,
        )
    )

    def is_serving() -> bool:
        if not child.is_running:
            raise CompareError(f"{checkout.name}: `manage.py up` {child.exit_summary()}")
        key = _json(checkout.home / "quickstart.json").get("api_key", "")
        return bool(key) and answers_chat(checkout.port, key, checkout.model)()

    supervisor.wait_until(is_serving, child, within_s=READY_WITHIN_S)
    return Side(checkout, _json(checkout.home / "quickstart.json")["api_key"])


def _json(path: Path) -> dict[str, Any]:
    """Read one of the files that `up` replaces in one step; empty while it is not there."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return found


def _log(write: Any, name: str, line: str) -> None:
    write(f"{name:<8} | {line}\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
