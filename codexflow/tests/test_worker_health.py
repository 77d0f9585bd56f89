"""Health of a worker is its progress."""

import math
from pathlib import Path

import pytest

from codexflow import worker_health
from codexflow.celery import _note_progress
from codexflow.env import Env


@pytest.mark.parametrize(
    ("age_s", "waiting", "stuck"),
    [(1, 9, False), (500, 0, False), (500, 1, True), (math.inf, 0, False), (math.inf, 3, True)],
)
def test_a_worker_is_stuck_when_tasks_wait_and_none_is_finished(age_s: float, waiting: int, stuck: bool) -> None:
    assert worker_health.is_stuck(age_s=age_s, waiting=waiting) is stuck


def test_every_finished_task_is_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codexflow.celery.ENV", Env.read({"CFX_ENV": "development", "CFX_HOME": str(tmp_path)}))
    _note_progress()
    assert worker_health.progress_file(tmp_path).exists()
    assert worker_health.progress_file(tmp_path / "elsewhere").name.startswith("worker-progress-")
