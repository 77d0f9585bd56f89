"""`python -m tests.chaos.guards`: mutation test of the code that protects the ledger; the audit must notice.

For each guard the source is copied, one piece of code is replaced, and a chaos run of the copy must fail for the
expected reason. Random kills would rarely reach the case that a guard covers, so each run provokes it; a control run
with all guards and all provocations must be clean.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codexflow.env import REPOSITORY
from tests.chaos.provocations import PROVOCATIONS

# Of each run, the control run included.
QUIET_WITHIN_S = 40
RUN_WITHIN_S = 300
_NO_SOURCE = (".*", "__pycache__", "artifacts", "build", "node_modules", "staticfiles")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """A piece of code that protects the ledger, its mutation, and the finding that the audit must then report."""

    name: str
    file: str
    old: str
    new: str
    provocation: str = ""
    finding: str  # part of a line of the report


GUARDS = (
    Guard(
        name="ON CONFLICT",
        file="logs/pipeline/rows.py",
        old=" ON CONFLICT (request_id) DO NOTHING RETURNING",
        new=" RETURNING",
        provocation="redeliver-events",
        finding="dead letters: ",
    ),
    Guard(
        name="intent removal",
        file="billing/limiter/lua/settle.lua",
        old="if redis.call('HDEL', KEYS[4], ARGV[1]) == 0 then",
        new="if redis.call('HEXISTS', KEYS[4], ARGV[1]) == 0 then",
        finding="intents: ",
    ),
    Guard(
        name="journal",
        file="routing/settler.py",
        old="self._append(settlement.event, event.request_id)",
        new="pass",
        provocation="lose-the-stream",
        finding="FAILED a complete response has its row",
    ),
    Guard(
        name="journal of intents",
        file="routing/settler.py",
        old="self._append(encode(intent), intent.request_id)",
        new="pass",
        provocation="die-without-valkey",
        finding="FAILED no call is forgotten",
    ),
    Guard(
        name="rank",
        file="logs/pipeline/merge.py",
        old="RANK_NONE < row.rank <= RANK_LITELLM",
        new="RANK_NONE < row.rank",
        provocation="report-late",
        finding="FAILED a complete response is billed as seen",
    ),
)


class GuardNotFound(Exception):
    """The code to replace is not there exactly once: update the mutation."""


def mutate(guard: Guard, tree: Path) -> None:
    """Remove the guard from a copy of the source. Raises GuardNotFound."""
    path = tree / guard.file
    text = path.read_text()
    if (times := text.count(guard.old)) != 1:
        raise GuardNotFound(f"{guard.name}: {guard.file} has {guard.old!r} {times} times")
    path.write_text(text.replace(guard.old, guard.new))


def copy_tree(tree: Path) -> None:
    """Copy the source, uncommitted changes included, and link the environment."""
    shutil.copytree(REPOSITORY, tree, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_NO_SOURCE))
    (tree / ".venv").symlink_to(sys.prefix)


def try_guard(guard: Guard | None, *, seed: int) -> tuple[bool, str]:
    """Run chaos without a guard (None: the control run). Returns True if it ended as expected, and its output.

    Raises GuardNotFound.
    """
    provocations = [guard.provocation] if guard else list(PROVOCATIONS)
    with tempfile.TemporaryDirectory(prefix="cfx-guard-") as folder:
        tree = Path(folder, "tree")
        tree.mkdir()
        copy_tree(tree)
        if guard:
            mutate(guard, tree)
        options = ["--kills", "0", "--seed", str(seed), "--quiet-within-s", str(QUIET_WITHIN_S)]
        options += ["--provoke", ",".join(provocations), "--log", f"{folder}/log"]
        done = subprocess.run(
            [sys.executable, "-m", "tests.chaos", *options],
            cwd=tree,
            capture_output=True,
            text=True,
            timeout=RUN_WITHIN_S,
            check=False,
        )
    output = f"{done.stdout}{done.stderr}"
    if guard is None:
        return done.returncode == 0 and "audit: clean" in done.stdout, output
    return done.returncode == 1 and guard.finding in done.stdout, output


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.guards", description=__doc__)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", help="name of a guard")
    options = parser.parse_args(argv)
    tried = [None, *GUARDS] if options.only is None else [each for each in GUARDS if each.name == options.only]
    all_expected = True
    for guard in tried:
        is_expected, output = try_guard(guard, seed=options.seed)
        all_expected &= is_expected
        name = f"without {guard.name}" if guard else "with every guard"
        verdict = "the audit noticed" if guard else "clean"
        sys.stdout.write(f"{name}: {verdict if is_expected else 'NOT AS EXPECTED'}\n")
        if not is_expected:
            sys.stdout.write(f"{output}\n")
    return 0 if all_expected else 1


if __name__ == "__main__":
    sys.exit(main())
