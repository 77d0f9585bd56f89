import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from codexflow.dev.processes import Process, end, is_alive, process, running_in, started_with
from tests.support.waiting import until


def test_a_zombie_counts_as_dead() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        identity = process(child.pid)
        assert identity is not None
        child.kill()  # and not reaped: the pid still exists
        until(lambda: process(child.pid) is None)
        os.kill(child.pid, 0)
        assert not is_alive(identity)


def test_a_reused_pid_is_not_signalled() -> None:
    with subprocess.Popen(["sleep", "60"]) as innocent:
        identity = process(innocent.pid)
        assert identity is not None
        end([Process(innocent.pid, identity.started_ticks - 1)], with_signal=signal.SIGKILL, grace_s=0)
        assert is_alive(identity)
        innocent.kill()


def test_a_process_that_ignores_the_request_is_killed() -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        identity = process(child.pid)
        assert identity is not None
        end([identity], with_signal=signal.SIGTERM, grace_s=0.1)
        assert child.wait(5) == -signal.SIGKILL


def test_a_server_is_found_by_executable_and_folder_only(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    other.mkdir()
    sleep = str(shutil.which("sleep"))
    with (
        subprocess.Popen([sleep, "60"], cwd=mine) as wanted,
        subprocess.Popen([sleep, "60"], cwd=other) as elsewhere,
        subprocess.Popen([sys.executable, "-c", "input()"], cwd=mine, stdin=subprocess.PIPE) as another_program,
    ):
        name = Path(sleep).resolve().name
        found = until(lambda: [found.pid for found in running_in(mine, name)])
        assert found == [wanted.pid]
        for child in (wanted, elsewhere, another_program):
            child.kill()


def test_marked_processes_are_found_by_the_whole_value() -> None:
    with (
        subprocess.Popen(["sleep", "60"], env={"PATH": os.defpath, "CFX_MARK": "/a"}) as wanted,
        subprocess.Popen(["sleep", "60"], env={"PATH": os.defpath, "CFX_MARK": "/a/b"}) as other,
    ):
        assert until(lambda: [found.pid for found in started_with("CFX_MARK", "/a")]) == [wanted.pid]
        wanted.kill()
        other.kill()
