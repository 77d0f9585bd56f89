"""`make nightly`: run every suite that is too long for CI, one after the other (hours).

    make nightly NIGHTLY_ARGS="--only chaos,fuzz --seed 7"

A failed suite does not keep the next from running. Each has a log, and all have one summary, below artifacts/nightly/.
The exit code is 1 when a suite failed, and the last line names it. The seed, printed first and last, repeats the run. A
new suite is one line in `suites_of`.
"""

import argparse
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from codexflow.env import REPOSITORY
from codexflow.lib.clock import monotonic_s, now

FOLDER = Path("artifacts") / "nightly"
SUMMARY = "summary.txt"

POOLED = ("tests/gateway", "accounts", "keys", "billing", "logs", "adminpanel")
# Of all tests.
PROGRAMS = (
    *("make", "chromium", "firefox", "curl", "nginx", "faketime", "pgbouncer", "prometheus", "node", "image-python"),
    "litellm-env",
)
Write = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Suite:
    """Commands that run in order until one fails."""

    name: str
    commands: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one suite."""

    name: str
    returncode: int
    seconds: float
    log: Path

    def line(self) -> str:
        verdict = "passed" if self.returncode == 0 else f"FAILED ({self.returncode})"
        return f"{self.name:<16} {verdict:<12} {self.seconds / 60:6.1f} min  {self.log}"


def suites_of(seed: int) -> list[Suite]:
    """List the suites: the longest first, the one that needs an idle machine last."""
    pytest = (sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup", f"--hypothesis-seed={seed}", "--whole")
    return [
        Suite("chaos", [("make", "chaos-nightly", f"SEED={seed}")]),
        Suite("clients", [("make", "clients")]),
        Suite("clients-litellm", [("make", "litellm-env", "clients", "CLIENTS_ARGS=--litellm")]),
        Suite("clients-own-litellm", [("make", "litellm-env", "clients", "CLIENTS_ARGS=--own-litellm")]),
        Suite("fuzz", [("make", "fuzz", "BODIES=30000", f"SEED={seed}")]),
        Suite("silence", [("make", "silence", "SILENT_S=360")]),
        Suite("worst", [("make", "worst", "ROUNDS=5000", f"SEED={seed}")]),
        Suite("soak", [("make", "soak", "MINUTES=30", f"SEED={seed}")]),
        # All tests are collected before the properties are selected, so every program that a test needs must be there.
        Suite(
            "properties",
            [
                PROGRAMS,
                (*pytest, "--hypothesis-profile=nightly", "-m", "hypothesis"),
            ],
        ),
        # What CI cuts by its seed.
        Suite("whole", [PROGRAMS, (*pytest, "--ignore=tests/browser", "--ignore=tests/chaos")]),
        # What is shipped, where the rest runs on this machine's Python.
        Suite("image-python", [("make", "test-image-python", f"SEED={seed}")]),
        # Pages and gateway as behind a pooler: programs through PgBouncer, pages in a transaction each.
        Suite("pooler", [("make", "pgbouncer"), ("env", "CFX_TEST_POOLER=1", *pytest, *POOLED)]),
        Suite(
            "browser",
            [("make", "chromium", "firefox"), (*pytest, "tests/browser"), ("make", "screenshots")],
        ),
        Suite("timing", [("make", "timing")]),
    ]


def run(suites: Sequence[Suite], folder: Path, *, seed: int, write: Write) -> list[Outcome]:
    """Run the suites in turn and write their logs and the summary to `folder`, which is below the repository."""
    (REPOSITORY / folder).mkdir(parents=True, exist_ok=True)
    head = f"nightly: seed {seed}, {now():%Y-%m-%d %H:%M} UTC, logs in {folder}/"
    write(head)
    outcomes: list[Outcome] = []
    for suite in suites:
        write(f"{suite.name} ...")
        outcomes.append(_outcome(suite, folder))
        write(outcomes[-1].line())
        lines = [head, *(each.line() for each in outcomes), verdict(outcomes, seed=seed)]
        # Written after each suite, so that an interrupted run leaves its results.
        (REPOSITORY / folder / SUMMARY).write_text("\n".join(lines) + "\n")
    write(verdict(outcomes, seed=seed))
    return outcomes


def verdict(outcomes: Sequence[Outcome], *, seed: int) -> str:
    """Name the failed suites and the seed that repeats them."""
    failed = [each.name for each in outcomes if each.returncode]
    again = f'repeat with NIGHTLY_ARGS="--seed {seed} --only {",".join(failed)}"'
    return f"FAILED: {', '.join(failed)}; {again}" if failed else f"{len(outcomes)} suites passed; seed {seed}"


def _outcome(suite: Suite, folder: Path) -> Outcome:
    began_s, log = monotonic_s(), folder / f"{suite.name}.log"
    with (REPOSITORY / log).open("w") as output:
        returncode = next(filter(None, (_returncode(each, output.fileno()) for each in suite.commands)), 0)
    return Outcome(suite.name, returncode, monotonic_s() - began_s, log)


def _returncode(command: Sequence[str], output: int) -> int:
    # With CI=true a missing program (Chromium, LiteLLM) is a failure, not a skipped suite.
    environ = {**os.environ, "CI": "true"}  # noqa: TID251 - passed to the commands
    try:
        return subprocess.run(
            list(command),
            cwd=REPOSITORY,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        ).returncode
    except OSError as exc:
        os.write(output, f"{command[0]}: {exc.strerror}\n".encode())
        return 127


def main(argv: Sequence[str] | None = None, *, suites: Callable[[int], list[Suite]] = suites_of) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.nightly", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="default: random, and printed")
    parser.add_argument("--only", default="", help=f"comma-separated, from {', '.join(s.name for s in suites(0))}")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder for the logs")
    options = parser.parse_args(argv)
    known = suites(options.seed)
    names = options.only.split(",") if options.only else [suite.name for suite in known]
    if unknown := sorted(set(names) - {suite.name for suite in known}):
        parser.error(f"there is no suite {', '.join(unknown)}")
    chosen = [suite for suite in known if suite.name in names]
    outcomes = run(chosen, options.folder, seed=options.seed, write=_write)
    return 1 if any(each.returncode for each in outcomes) else 0


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
