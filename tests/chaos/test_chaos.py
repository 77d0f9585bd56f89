"""Random incidents, and an audit that must find nothing: under five minutes of what `make chaos-nightly` does.

The run's seed chooses the incidents, the outage and the guard that is removed; a failure prints it.
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

OUTAGES = {
    # Valkey's last second and all its data are lost; PostgreSQL is away for over a minute, and callers do not notice.
    "losses": (
        *("--events", "5", "--kinds", "kill", "--targets", "valkey,web", "--longest-s", "5"),
        *("--cut-tail", "--empty-once", "--postgres-down-s", "75"),
    ),
    # The replica lacks two seconds: gateways notice it, and their journals make up for it.
    "failover": ("--events", "0", "--failovers", "1", "--lag-s", "2"),
    # Two primaries die, the first with a replica that lacks two seconds; then a shard moves to another primary.
    "cluster": ("--events", "0", "--cluster", "--failovers", "2", "--lag-s", "2"),
}


@pytest.fixture
def seed(pytestconfig: pytest.Config) -> int:
    return seed_of(pytestconfig)


def chaos(log: Path, *options: str, module: str = "tests.chaos", verdict: str = "audit: clean") -> None:
    """Run chaos in a process of its own, which must end with a clean audit. Its output names the seed."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--log", str(log), *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{_last_of(log)}"
    assert verdict in done.stdout


def _last_of(log: Path, lines: int = 60) -> str:
    """The last lines of the processes' log, for the failure message."""
    text = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(line for line in text if '"level": "info"' not in line)[-200 * lines :]


def test_random_incidents_lose_nothing_charge_nothing_twice_and_pass_no_limit(tmp_path: Path, seed: int) -> None:
    chaos(tmp_path / "chaos.log", "--events", "18", "--longest-s", "5", "--seed", str(seed))


@pytest.mark.cut(1)
@pytest.mark.parametrize("outage", OUTAGES)
def test_a_long_outage_is_survived(tmp_path: Path, seed: int, outage: str) -> None:
    """Longer ones of each kind are part of `make chaos-nightly`."""
    chaos(tmp_path / "chaos.log", *OUTAGES[outage], "--seed", str(seed))


def test_every_payment_is_credited_once_whatever_dies(tmp_path: Path, seed: int) -> None:
    options = ("--events", "6", "--seed", str(seed))
    chaos(tmp_path / "money.log", *options, module="tests.chaos.money", verdict="money: clean")


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
        for change in guard.changes:
            (tmp_path / change.file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / change.file).write_text((REPOSITORY / change.file).read_text())
        mutate(guard, tmp_path)
        with pytest.raises(GuardNotFound, match=guard.name):
            mutate(guard, tmp_path)
