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
RUN_WITHIN_S = 450
_NO_SOURCE = (".*", "__pycache__", "artifacts", "build", "node_modules", "staticfiles")


@dataclass(frozen=True, slots=True)
class Change:
    """A piece of code, and its mutation."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Code that protects the books or a limit: its mutations, and the findings that the audit must then report.

    Mutations that do not hide one another share a run.
    """

    name: str
    changes: tuple[Change, ...]
    provocation: str = ""
    findings: tuple[str, ...]  # parts of lines of the report


ADMIT = "billing/limiter/lua/admit.lua"
GUARDS = (
    Guard(
        name="ON CONFLICT",
        changes=(Change("logs/pipeline/rows.py", " ON CONFLICT (request_id) DO NOTHING RETURNING", " RETURNING"),),
        provocation="redeliver-events",
        findings=("dead letters: ",),
    ),
    Guard(
        name="intent removal",
        changes=(
            Change(
                "billing/limiter/lua/settle.lua",
                "if call('HDEL', KEYS[count + 1], id) == 0 then",
                "if call('HEXISTS', KEYS[count + 1], id) == 0 then",
            ),
        ),
        findings=("intents: ",),
    ),
    Guard(
        name="journal",
        changes=(
            Change(
                "routing/settler.py",
                "is_journaled = self._append(settlement.event, event.request_id)",
                "is_journaled = True",
            ),
        ),
        provocation="lose-the-stream",
        findings=("FAILED a complete response has its row",),
    ),
    Guard(
        name="journal of intents",
        changes=(
            Change(
                "routing/settler.py",
                "return self._append(encode(intent), intent.request_id)",
                "return bool(encode(intent))",
            ),
        ),
        provocation="die-without-valkey",
        findings=("FAILED no call is forgotten",),
    ),
    Guard(
        name="rank",
        changes=(Change("logs/pipeline/merge.py", "RANK_NONE < row.rank <= RANK_LITELLM", "RANK_NONE < row.rank"),),
        provocation="report-late",
        findings=("FAILED a complete response is billed as seen",),
    ),
    Guard(
        name="limits",
        changes=(
            Change(ADMIT, "if requests >= 0 and f[2] >= requests then", "if false then"),
            Change(ADMIT, "if rpm >= 0 and f[6] >= rpm then", "if false then"),
            Change(ADMIT, "if tpm >= 0 and f[7] > 0 and", "if false and"),
            Change(ADMIT, "if call('ZCARD', slots) >= streams then", "if false then"),
            Change(ADMIT, "if total >= 0 then", "if false then"),
            Change(ADMIT, "if of_day >= 0 then", "if false then"),
            Change(ADMIT, "if of_month >= 0 then", "if false then"),
        ),
        provocation="reach-limits",
        findings=(
            "FAILED requests a day hold",
            "FAILED requests a minute hold",
            "FAILED tokens a minute hold",
            "FAILED concurrent streams hold",
            "FAILED credit holds",
            "FAILED budgets of a day hold",
            "FAILED budgets of a month hold",
        ),
    ),
    Guard(
        name="authority of keys",
        changes=(
            # Counters of its own for each key of a lineage.
            Change(
                "keys/selectors.py",
                "        key.lineage_id,\n        plan=",
                "        key.id,\n        plan=",
            ),
            Change(
                "keys/services.py",
                "            _require_unlimited(by)\n            terms = terms.within(by)",
                "            terms = terms.within(by)",
            ),
            Change("keys/secret.py", "if hmac.compare_digest(digest(key, salt), stored):", "if digest(key, salt):"),
        ),
        provocation="reach-limits",
        findings=(
            "FAILED requests a day hold",
            "FAILED limited keys make no keys",
            "FAILED wrong keys get nothing",
        ),
    ),
    Guard(
        name="estimates",
        changes=(
            Change("routing/surfaces/output.py", "CHARS_PER_TOKEN = 4", "CHARS_PER_TOKEN = 40"),
            Change("routing/meter.py", "        if not self.has_begun:\n            return Usage(), RANK_NONE\n", ""),
        ),
        provocation="reach-limits",
        findings=("FAILED deliveries are billed", "FAILED a failed call costs nothing"),
    ),
    Guard(
        name="refusals",
        changes=(
            Change(ADMIT, "if deadline > 0 and now_ms > deadline then", "if false then"),
            Change(
                "routing/limiter.py",
                "self._doubts.append(_doubt(principal, intent, self._deadline_ms(ADMIT_STARVED_WITHIN_MS)))",
                "_doubt(principal, intent, self._deadline_ms())",
            ),
        ),
        provocation="pause-valkey",
        findings=("FAILED a refused call has no row",),
    ),
    Guard(
        name="full disk",
        changes=(
            Change(
                "routing/tracker.py",
                "if admission.is_degraded and not self._settler.record_intent(call.intent):",
                "if not (self._settler.record_intent(call.intent) or True):",
            ),
        ),
        provocation="fill-the-journals-disk",
        findings=("FAILED a complete response has its row", "FAILED no call is forgotten"),
    ),
    Guard(
        name="limits without Valkey",
        changes=(
            Change(
                "billing/limiter/fallback.py",
                "        if is_closed or limits[0].has_budget or limits[1].has_budget:",
                "        if is_closed:",
            ),
        ),
        provocation="pause-valkey",
        findings=("FAILED outages are bounded",),
    ),
)


class GuardNotFound(Exception):
    """The code to replace is not there exactly once: update the mutation."""


def mutate(guard: Guard, tree: Path) -> None:
    """Remove the guard from a copy of the source. Raises GuardNotFound."""
    for change in guard.changes:
        path = tree / change.file
        text = path.read_text()
        if (times := text.count(change.old)) != 1:
            raise GuardNotFound(f"{guard.name}: {change.file} has {change.old!r} {times} times")
        path.write_text(text.replace(change.old, change.new))


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
        options = ["--events", "0", "--seed", str(seed), "--quiet-within-s", str(QUIET_WITHIN_S)]
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
    return done.returncode == 1 and all(each in done.stdout for each in guard.findings), output


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
