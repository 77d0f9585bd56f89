"""Kills at random, and an audit that must find nothing. Every run has a new seed; a failure prints it."""

import subprocess
import sys
from pathlib import Path

import pytest

from codexflow.env import REPOSITORY
from tests.chaos.guards import GUARDS, GuardGone, mutate

pytestmark = [pytest.mark.chaos, pytest.mark.xdist_group("chaos")]
WITHIN_S = 900


def chaos(log: Path, *options: str) -> None:
    """A run of its own process: it must end by itself, with a clean audit."""
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
    """The end of what the processes said, for the failure's report."""
    said = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(line for line in said if '"level": "info"' not in line)[-200 * lines :]


def test_forty_kills_lose_nothing_and_charge_nothing_twice(tmp_path: Path) -> None:
    chaos(tmp_path / "chaos.log", "--kills", "40")


def test_valkeys_last_second_and_all_of_its_data_may_be_lost(tmp_path: Path) -> None:
    chaos(tmp_path / "chaos.log", "--kills", "9", "--targets", "valkey,web", "--cut-tail", "--empty-once")


def test_ten_minutes_without_postgres_are_not_noticed(tmp_path: Path) -> None:
    """A quarter of them here; `make chaos-nightly` takes them all."""
    chaos(tmp_path / "chaos.log", "--kills", "0", "--postgres-down-s", "150")


def test_the_audit_notices_every_guard_that_is_taken_away() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.guards"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_every_guard_is_where_its_mutation_looks_for_it(tmp_path: Path) -> None:
    for guard in GUARDS:
        (tmp_path / guard.file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / guard.file).write_text((REPOSITORY / guard.file).read_text())
        mutate(guard, tmp_path)
        with pytest.raises(GuardGone, match=guard.name):
            mutate(guard, tmp_path)
