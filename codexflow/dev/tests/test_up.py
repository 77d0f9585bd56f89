"""`manage.py` as a developer runs it, in its own process: exit codes, messages and responses."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from codexflow.dev import services, valkey
from codexflow.dev.home import Home
from codexflow.dev.processes import end, running_in, started_with
from codexflow.dev.tests.conftest import environ_for
from codexflow.dev.up import MARK
from codexflow.env import REPOSITORY
from tests.support.waiting import until


def manage(home: Home, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=REPOSITORY,
        env=environ_for(home, **variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_refused(done: "subprocess.CompletedProcess[str]", code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    for word in words:
        assert word in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3


def test_a_taken_port_is_named(home: Home) -> None:
    with socket.create_server((valkey.LOOPBACK, 0)) as taken:
        port = str(taken.getsockname()[1])
        assert_refused(manage(home, "up", PORT=port), 4, port, "taken")
    assert not home.services_file.exists()


def test_a_second_up_is_refused_at_once(home: Home) -> None:
    with services.holding(home, "up"):
        assert_refused(manage(home, "up"), 5, str(home.path), f"up (pid {os.getpid()})")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"PORT": "http"}, ["PORT"]),
        ({"PORT": "http", "LOG_LEVEL": "loud"}, ["PORT", "LOG_LEVEL"]),
        ({"AUTH_SECRET": "short"}, ["AUTH_SECRET", "32"]),
        ({"CFX_CONFIG_PATH": "/nonexistent/models.yaml"}, ["CFX_CONFIG_PATH", "/nonexistent/models.yaml"]),
        ({"HOST": "203.0.113.7"}, ["203.0.113.7"]),
    ],
)
def test_wrong_variables_are_all_named(home: Home, variables: dict[str, str], words: list[str]) -> None:
    done = manage(home, "up", **variables)
    assert_refused(done, 4 if "HOST" in variables else 2, *words)


@pytest.mark.parametrize(
    ("name", "scheme", "path"), [("DATABASE_URL", "postgresql", "/x"), ("REDIS_URL", "redis", "/0")]
)
def test_a_named_server_that_does_not_respond_is_reported(home: Home, name: str, scheme: str, path: str) -> None:
    url = f"{scheme}://ada:hunter2@127.0.0.1:{valkey.free_port()}{path}"
    done = manage(home, "up", **{name: url})
    assert_refused(done, 6, name)
    assert "hunter2" not in done.stderr


def test_a_home_that_cannot_be_made_is_explained(home: Home) -> None:
    (home.path / "file").write_text("")
    assert_refused(manage(Home(home.path / "file"), "up"), 8, "cannot be created")
    assert_refused(manage(Home(home.path / "file"), "migrate"), 8, "cannot be created")


def test_a_command_has_its_servers_for_its_own_duration(home: Home) -> None:
    done = manage(home, "shell", "-c", "from django.db import connection as c; c.ensure_connection(); print(c.vendor)")
    assert done.stdout.strip().endswith("postgresql"), done.stderr
    assert not home.services_file.exists()
    assert running_in(home.postgres, "postgres") == []
    assert running_in(home.valkey, "valkey-server") == []


def test_commands_without_data_start_nothing(home: Home) -> None:
    for arguments in (["help"], ["--version"], ["migrate", "--help"], ["check"]):
        assert manage(home, *arguments).returncode == 0
    assert not home.postgres.exists()
    assert not home.valkey.exists()


def test_production_starts_nothing(home: Home) -> None:
    done = manage(home, "migrate", CFX_ENV="production")
    assert "DATABASE_URL is required in production" in done.stderr
    assert done.returncode == 2
    assert not home.postgres.exists()


@contextlib.contextmanager
def up(home: Home, port: int) -> Iterator["subprocess.Popen[str]"]:
    """Start `up` and wait until it serves; end all its processes afterwards."""
    log = home.path / "up.log"
    with log.open("a") as output:
        running = subprocess.Popen(
            [sys.executable, "manage.py", "up"],
            cwd=REPOSITORY,
            env=environ_for(home, PORT=str(port)),
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        until(lambda: running.poll() is not None or responds(port), within_s=60, what="a response")
        assert running.poll() is None, log.read_text()
        yield running
    finally:
        running.kill()
        running.wait()
        end(started_with(MARK, str(home.path)), with_signal=signal.SIGKILL, grace_s=0)


def responds(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=2):
            return True
    except urllib.error.HTTPError as exc:
        exc.close()
        return True  # it responded
    except OSError:
        return False


def pids(home: Home) -> dict[str, int]:
    try:
        return dict(json.loads(home.services_file.read_text())["pids"])
    except (OSError, ValueError):
        return {}


def test_the_house_heals_ends_in_order_and_comes_back(home: Home) -> None:
    port = valkey.free_port()
    names = {"postgres", "valkey", "stripe", "web", "worker", "beat"}
    with up(home, port) as first:
        until(lambda: names <= pids(home).keys())
        before = pids(home)
        for name in names:
            os.kill(before[name], signal.SIGKILL)
        until(lambda: all(pids(home).get(name, 0) not in (0, before[name]) for name in names), within_s=40)
        until(lambda: responds(port))
        assert manage(home, "up", PORT=str(valkey.free_port())).returncode == 5
        first.kill()  # the supervisor itself, without a chance to tidy up
        first.wait()
        until(lambda: not responds(port))
    with up(home, port) as second:
        second.send_signal(signal.SIGINT)
        assert second.wait(60) == 0
        assert started_with(MARK, str(home.path)) == []
        assert running_in(home.postgres, "postgres") == []
        assert running_in(home.valkey, "valkey-server") == []
        assert not home.services_file.exists()
