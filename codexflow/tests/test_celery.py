"""Periodic jobs: every task is found, and every task is on the schedule or enqueued by somebody."""

import re

import pytest
from kombu import Producer
from kombu.exceptions import OperationalError

from codexflow.celery import app
from codexflow.dev.valkey import free_port
from codexflow.env import REPOSITORY
from codexflow.schedule import SCHEDULE

APPS = ("accounts", "adminpanel", "billing", "keys", "logs", "routing")


def tasks() -> set[str]:
    """Names of the shared tasks in the apps' tasks.py, read from the source: what is not imported is not registered."""
    found = set()
    for app_name in APPS:
        for path in (REPOSITORY / app_name).rglob("tasks.py"):
            module = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
            for name in re.findall(r"^@shared_task[^\n]*\ndef (\w+)\(", path.read_text(), re.MULTILINE):
                found.add(f"{module}.{name}")
    return found


def enqueued() -> set[str]:
    """Functions that production code enqueues by itself."""
    found: set[str] = set()
    for app_name in (*APPS, "codexflow"):
        for path in (REPOSITORY / app_name).rglob("*.py"):
            if "tests" not in path.parts:
                found |= set(re.findall(r"\b(\w+)\.(?:delay|apply_async|si?)\(", path.read_text()))
    return found


def test_tasks_are_found_in_the_source() -> None:
    assert {"logs.tasks.drain_usage", "logs.tasks.sync_litellm"} <= tasks()


@pytest.mark.parametrize("task", sorted(tasks()))
def test_a_task_is_registered_and_somebody_starts_it(task: str) -> None:
    app.loader.import_default_modules()
    assert task in app.tasks, f"{task}: Celery does not find it"
    scheduled = {name for name, _every_s, _expires_s in SCHEDULE.values()}
    assert task in scheduled or task.rpartition(".")[2] in enqueued(), f"{task}: not on SCHEDULE, and never enqueued"


@pytest.mark.parametrize("job", SCHEDULE)
def test_a_scheduled_job_exists_and_its_messages_expire(job: str) -> None:
    task, every_s, expires_s = SCHEDULE[job]
    assert task in tasks(), f"{job}: there is no task {task}"
    assert every_s > 0 < expires_s, job


def test_a_lost_broker_is_tried_every_other_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's own waits grow to half a minute."""
    waits: list[float] = []
    monkeypatch.setattr("kombu.utils.functional.sleep", lambda _s: None)
    connection = app.connection_for_read(f"redis://127.0.0.1:{free_port()}/1")
    with connection, pytest.raises(OperationalError):
        connection.ensure_connection(lambda _exc, wait: waits.append(wait), 6)
    assert len(waits) == 6
    assert max(waits) <= 2


def test_a_message_is_sent_after_its_connection_broke() -> None:
    """kombu passes the waits between two tries by position then, and beat would go on without ever sending again."""
    answers = iter((ConnectionError("gone"), "sent"))

    def publish() -> str:
        answer = next(answers)
        if isinstance(answer, ConnectionError):
            raise answer
        return answer

    with app.connection_for_write() as connection:
        assert connection.ensure(Producer(connection), publish)() == "sent"
