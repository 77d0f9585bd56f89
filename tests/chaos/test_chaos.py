"""Random kills, and an audit that must find nothing: about five minutes of what `make chaos-nightly` does.

The run's seed chooses the kills and the guard that is removed; a failure prints it.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from codexflow.env import REPOSITORY
from tests.chaos.guards import GUARDS, GuardNotFound, mutate
from tests.seeds import seed_of

pytestmark = [pytest.mark.chaos, pytest.mark.xdist_group("chaos")]
WITHIN_S = 900


@pytest.fixture
def seed(pytestconfig: pytest.Config) -> int:
    return seed_of(pytestconfig)


def chaos(log: Path, *options: str) -> None:
    """Run chaos in a process of its own, which must end with a clean audit. Its output names the seed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--log", str(log), *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{_last_of(log)}"
    assert "audit: clean" in done.stdout


def _last_of(log: Path, lines: int = 60) -> str:
    """The last lines of the processes' log, for the failure message."""
    text = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(line for line in text if '"level": "info"' not in line)[-200 * lines :]


def test_random_kills_lose_nothing_and_charge_nothing_twice(tmp_path: Path, seed: int) -> None:
    chaos(tmp_path / "chaos.log", "--kills", "15", "--seed", str(seed))


def test_losing_valkeys_last_second_or_all_its_data_is_survived(tmp_path: Path, seed: int) -> None:
    losses = ("--targets", "valkey,web", "--cut-tail", "--empty-once")
    chaos(tmp_path / "chaos.log", "--kills", "6", "--seed", str(seed), *losses)


def test_callers_do_not_notice_minutes_without_postgres(tmp_path: Path, seed: int) -> None:
    """A little over one minute here; ten in `make chaos-nightly`."""
    chaos(tmp_path / "chaos.log", "--kills", "0", "--seed", str(seed), "--postgres-down-s", "75")


def test_the_audit_notices_a_removed_guard(seed: int) -> None:
    """One guard, chosen by the seed; `make chaos-nightly` removes each once."""
    guard = GUARDS[seed % len(GUARDS)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.guards", "--only", guard.name, "--seed", str(seed)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stdout}\n{done.stderr}"
    assert f"without {guard.name}: the audit noticed" in done.stdout


def test_the_code_of_every_guard_is_found_exactly_once(tmp_path: Path) -> None:
    for guard in GUARDS:
        (tmp_path / guard.file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / guard.file).write_text((REPOSITORY / guard.file).read_text())
        mutate(guard, tmp_path)
        with pytest.raises(GuardNotFound, match=guard.name):
            mutate(guard, tmp_path)
