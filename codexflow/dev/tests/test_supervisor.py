import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from codexflow.dev import supervisor as module
from codexflow.dev.errors import ServiceFailed
from codexflow.dev.processes import is_alive, process
from codexflow.dev.supervisor import Child, ChildSpec, StopRequested, Supervisor
from codexflow.env import REPOSITORY
from codexflow.lib.clock import monotonic_s

POLITE = """
    import os, signal
    def end(*_):  # may interrupt the print below, so it uses no buffers
        os.write(1, b"ended\\n")
        os._exit(0)
    signal.signal(signal.SIGTERM, end)
    print("ready", flush=True)
    while True: signal.pause()
"""


class Lines:
    """Output that remembers."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def __call__(self, name: str, line: str) -> None:
        self.all.append((name, line))

    def of(self, name: str) -> list[str]:
        return [line for who, line in self.all if who == name]


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def running(lines: Lines) -> Iterator[Supervisor]:
    with Supervisor(lines) as made:
        yield made


def a_child(name: str, code: str = POLITE, *, grace_s: float = 10.0, restart: bool = True) -> ChildSpec:
    return ChildSpec(
        name=name,
        argv=[sys.executable, "-c", textwrap.dedent(code)],
        environ={"PATH": os.defpath},
        cwd=Path("/"),
        stop_grace_s=grace_s,
        is_restarted=restart,
    )


def pump_until_said(running: Supervisor, lines: Lines, name: str, text: str, *, times: int = 1) -> None:
    deadline_s = monotonic_s() + 20
    while sum(text in line for line in lines.of(name)) < times:
        assert monotonic_s() < deadline_s, f"{name} never said {text!r}: {lines.all}"
        running.pump(0.1)


def pid_of(child: Child) -> int:
    assert child.popen is not None
    return child.popen.pid


def test_a_killed_child_is_started_again(running: Supervisor, lines: Lines) -> None:
    child = running.start(a_child("one"))
    pump_until_said(running, lines, "one", "ready")
    first = pid_of(child)
    os.kill(first, signal.SIGKILL)
    pump_until_said(running, lines, "one", "ready", times=2)
    assert pid_of(child) != first
    assert any("SIGKILL" in line and "starting it again in 0.2 s" in line for line in lines.of("up"))


def test_a_child_that_keeps_dying_is_reported_with_its_last_output_and_retried(
    running: Supervisor, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKOFF_SLOW_S", 0.1)
    child = running.start(a_child("bad", "print('the reason', flush=True); raise SystemExit(9)"))
    child.backoff_s = 0.01
    pump_until_said(running, lines, "up", "died 5 times")
    report = next(line for line in lines.of("up") if "died 5 times" in line)
    assert "code 9" in report
    assert "the reason" in report
    pump_until_said(running, lines, "bad", "the reason", times=6)
    assert sum("died 5 times" in line for line in lines.of("up")) == 1


def test_backoff_grows_to_its_limit(running: Supervisor, lines: Lines) -> None:
    child = running.start(a_child("bad", "raise SystemExit(1)"))
    pump_until_said(running, lines, "up", "starting it again in 0.8 s")
    assert [line.rpartition(" in ")[2] for line in lines.of("up")] == ["0.2 s", "0.4 s", "0.8 s"]
    for _ in range(10):
        running._schedule(child)
    assert child.backoff_s == module.BACKOFF_LIMIT_S


def test_children_end_in_order_web_and_worker_first_the_database_last(lines: Lines) -> None:
    with Supervisor(lines) as running:
        for name in ("valkey", "postgres", "demo", "web", "worker", "beat"):
            running.start(a_child(name))
        for name in ("valkey", "postgres", "demo", "web", "worker", "beat"):
            pump_until_said(running, lines, name, "ready")
    ended = [name for name, line in lines.all if line == "ended"]
    assert set(ended[:2]) == {"web", "worker"}
    assert ended[2:] == ["beat", "demo", "valkey", "postgres"]


def test_a_child_that_ignores_the_request_is_killed_in_bounded_time(lines: Lines) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
    with Supervisor(lines) as running:
        child = running.start(a_child("deaf", deaf, grace_s=0.2))
        pump_until_said(running, lines, "deaf", "ready")
        started_s = monotonic_s()
    assert monotonic_s() - started_s < 5
    assert child.returncode == -signal.SIGKILL


def test_what_a_dead_child_had_started_is_ended(running: Supervisor, lines: Lines) -> None:
    parent = """
        import subprocess, signal
        print("pid", subprocess.Popen(["sleep", "600"]).pid, flush=True)
        signal.pause()
    """
    child = running.start(a_child("web", parent))
    pump_until_said(running, lines, "web", "pid")
    grandchild = process(int(lines.of("web")[0].split()[1]))
    assert grandchild is not None
    os.kill(pid_of(child), signal.SIGKILL)
    pump_until_said(running, lines, "up", "starting it again")
    deadline_s = monotonic_s() + 5
    while is_alive(grandchild):
        assert monotonic_s() < deadline_s
        running.pump(0.05)


def test_a_child_that_never_becomes_ready_fails_with_its_own_words(running: Supervisor) -> None:
    child = running.start(a_child("bad", "print('no space left', flush=True); raise SystemExit(1)"))
    child.backoff_s = 0.01
    with pytest.raises(ServiceFailed, match="no space left"):
        running.wait_until(lambda: False, child, within_s=20)


def test_a_missing_program_is_an_ordinary_failure(running: Supervisor) -> None:
    child = running.start(ChildSpec(name="gone", argv=["/nonexistent/program"], environ={}, cwd=Path("/")))
    child.backoff_s = 0.01
    with pytest.raises(ServiceFailed, match="cannot be run: No such file"):
        running.wait_until(lambda: False, child, within_s=20)


def test_a_single_run_returns_its_code_and_output(running: Supervisor, lines: Lines) -> None:
    done = running.run_once(a_child("setup", "print('half a line', end=''); raise SystemExit(3)", restart=False))
    assert done.returncode == 3
    assert lines.of("setup") == ["half a line"]
    assert done not in running.children


def test_a_signal_ends_waiting(running: Supervisor) -> None:
    child = running.start(a_child("one"))
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(StopRequested):
        running.wait_until(lambda: False, child, within_s=20)


def test_children_do_not_outlive_a_killed_supervisor() -> None:
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from codexflow.dev.supervisor import ChildSpec, Supervisor
        with Supervisor(lambda name, line: None) as running:
            spec = ChildSpec(name="x", argv=["sleep", "600"], environ={"PATH": "/bin:/usr/bin"}, cwd=Path("/"))
            child = running.start(spec)
            print(child.popen.pid, flush=True)
            running.run()
    """)
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        orphan = process(int(killed.stdout.readline()))
        assert orphan is not None
        killed.kill()
        killed.wait()
        deadline_s = monotonic_s() + 5
        while is_alive(orphan):
            assert monotonic_s() < deadline_s
