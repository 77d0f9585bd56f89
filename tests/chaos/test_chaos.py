"""Kills at random, and an audit that must find nothing. Every run has a new seed; a failure prints it."""

import subprocess
import sys
from pathlib import Path

import pytest

from codexflow.env import REPOSITORY

pytestmark = [pytest.mark.chaos, pytest.mark.xdist_group("chaos")]
WITHIN_S = 600


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
