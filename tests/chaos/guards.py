"""`python -m tests.chaos.guards`: take away each guard of the books once, and see that the audit notices.

For each guard the source is copied, one piece of code is replaced, and a chaos run of the copy must fail for
the expected reason. Random kills would rarely meet the hole that a guard covers, so each run provokes it; a control run
with all guards in place and all provocations must be clean.
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

# Of a run of its own; the control run has the same.
QUIET_WITHIN_S = 40
RUN_WITHIN_S = 300
_NO_SOURCE = (".*", "__pycache__", "artifacts", "build", "node_modules", "staticfiles")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """A piece of code that keeps the books right, how to do without, and what the audit then has to say."""

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
        finding="FAILED a complete answer has its row",
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
        finding="FAILED a complete answer is billed as seen",
    ),
)


class GuardGone(Exception):
    """The code to replace is not there exactly once: the mutation must follow the code."""


def mutate(guard: Guard, tree: Path) -> None:
    """Take the guard away in a copy. Raises GuardGone."""
    path = tree / guard.file
    text = path.read_text()
    if (times := text.count(guard.old)) != 1:
        raise GuardGone(f"{guard.name}: {guard.file} has {guard.old!r} {times} times")
    path.write_text(text.replace(guard.old, guard.new))


def copy_tree(tree: Path) -> None:
    """The source as it is now, and the environment."""
    shutil.copytree(REPOSITORY, tree, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_NO_SOURCE))
    (tree / ".venv").symlink_to(sys.prefix)


def try_guard(guard: Guard | None, *, seed: int) -> tuple[bool, str]:
    """Whether the audit judged as it should, and what it said. Without a guard: the control run. Raises GuardGone."""
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
    said = f"{done.stdout}{done.stderr}"
    if guard is None:
        return done.returncode == 0 and "audit: clean" in done.stdout, said
    return done.returncode == 1 and guard.finding in done.stdout, said


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.guards", description=__doc__)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", help="a guard's name")
    options = parser.parse_args(argv)
    tried = [None, *GUARDS] if options.only is None else [each for each in GUARDS if each.name == options.only]
    is_all_right = True
    for guard in tried:
        is_right, said = try_guard(guard, seed=options.seed)
        is_all_right &= is_right
        name = f"without {guard.name}" if guard else "with every guard"
        verdict = "the audit noticed" if guard else "clean"
        sys.stdout.write(f"{name}: {verdict if is_right else 'NOT AS IT SHOULD BE'}\n")
        if not is_right:
            sys.stdout.write(f"{said}\n")
    return 0 if is_all_right else 1


if __name__ == "__main__":
    sys.exit(main())
