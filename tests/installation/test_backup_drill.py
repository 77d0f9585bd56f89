"""Drill: backup and restore are killed at random moments; what is left is whole or refused, and the books add up."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from django.conf import settings
from django.db import connection

from codexflow.backup.load import BackupUnusable, read_manifest
from codexflow.env import REPOSITORY
from tests.seeds import seed_of
from tests.support.cast import Cast, an_event_of, happened
from tests.support.databases import drop_database

pytestmark = pytest.mark.django_db(transaction=True)
KILLS, LONGEST_S = 3, 6.0


def start(database: str, *words: str) -> "subprocess.Popen[str]":
    """Start a command on a database of the session's server, with the session's secrets."""
    found = connection.settings_dict
    query = {"host": found["HOST"], "port": found["PORT"], "user": found["USER"], "password": found["PASSWORD"]}
    environ = {
        "PATH": os.environ["PATH"],  # noqa: TID251 - the only inherited variable
        "CFX_ENV": "development",
        "CFX_HOME": str(settings.ENV.home),
        "DATABASE_URL": f"postgresql:///{database}?{urlencode({key: value for key, value in query.items() if value})}",
        "REDIS_URL": settings.ENV.redis_url,
        "AUTH_SECRET": settings.ENV.secret_key,
        "HASH_SALT": settings.ENV.hash_salt,
    }
    return subprocess.Popen(
        [sys.executable, "manage.py", *words],
        cwd=REPOSITORY,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def killed(process: "subprocess.Popen[str]", after_s: float) -> bool:
    """Kill a process after a time. Returns False if it ended before."""
    try:
        process.communicate(timeout=after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True
    return False


@pytest.fixture
def scratch() -> Iterator[str]:
    name = f"{connection.settings_dict['NAME']}_drill"
    with connection.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{name}"')
    yield name
    with connection.cursor() as cursor:
        drop_database(cursor.execute, name)


def test_kills_leave_no_half_backup_and_no_half_restore(
    cast: Cast, scratch: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    seed = seed_of(pytestconfig)
    sys.stdout.write(f"seed {seed}\n")  # shown when it fails
    draw = random.Random(seed)  # noqa: S311 - moments of kills
    for _ in range(20):
        happened(cast, an_event_of(cast))
    own, file = str(connection.settings_dict["NAME"]), tmp_path / "codexflow.backup"
    for _ in range(KILLS):
        was_killed = killed(start(own, "backup", str(file)), draw.uniform(0, LONGEST_S))
        if not was_killed or file.exists():
            assert read_manifest(str(file)).tables["request_log"].rows == 20
            file.unlink(missing_ok=True)
        elif (part := Path(f"{file}.part")).exists():
            try:
                assert read_manifest(str(part)).tables["request_log"].rows == 20
            except BackupUnusable:
                continue
    done = start(own, "backup", str(file))
    said, _ = done.communicate()
    assert done.returncode == 0, said
    for _ in range(KILLS):
        if not killed(start(scratch, "restore", str(file)), draw.uniform(0, LONGEST_S)):
            break
    done = start(scratch, "restore", str(file))
    said, _ = done.communicate()
    assert done.returncode == 0 or "overwrites nothing" in said, said  # one of the killed ones was through
    audit = start(scratch, "audit_ledger")
    said, _ = audit.communicate()
    assert audit.returncode == 0, said
    verify = start(own, "restore", str(file), "--verify")
    said, _ = verify.communicate()
    assert verify.returncode == 0, said
