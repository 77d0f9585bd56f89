import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from codexflow import web
from codexflow.env import REPOSITORY, Env
from codexflow.preflight.findings import error
from codexflow.programs import PROGRAMS, argv_of, main
from codexflow.server import Protocol
from codexflow.tests.test_env import GOOD

APPLICATION = "codexflow.asgi:application"


def an_env(tmp_path: Path, **variables: str) -> Env:
    return Env.read({"CFX_HOME": str(tmp_path), "CFX_ENV": "development", **variables})


def test_the_web_process_uses_the_strict_parser_and_outlasts_shutdown(tmp_path: Path) -> None:
    config = web.config_of(APPLICATION, an_env(tmp_path, PORT="9000", CFX_DRAIN_GRACE_S="30"))
    config.load()
    assert config.http_protocol_class is Protocol
    assert issubclass(Protocol, HttpToolsProtocol)
    assert config.lifespan == "on"
    assert config.port == 9000
    assert config.timeout_graceful_shutdown is not None
    assert config.timeout_graceful_shutdown > 30


@pytest.mark.parametrize("concurrency", ["", "3"])
def test_as_many_processes_start_as_the_limiter_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, concurrency: str
) -> None:
    """uvicorn reads WEB_CONCURRENCY by itself, unless it is told a number."""
    monkeypatch.setenv("WEB_CONCURRENCY", concurrency)
    for variables in ({}, {"CFX_WEB_PROCESSES": "2"}):
        env = an_env(tmp_path, WEB_CONCURRENCY=concurrency, **variables)
        workers = web.config_of(APPLICATION, env).workers
        assert workers == env.limiter_processes == int(variables.get("CFX_WEB_PROCESSES", 1))


class _Idle:
    """An application that does nothing."""

    async def __call__(self, *_: object) -> None: ...


async def test_a_server_that_rests_ends_as_soon_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    never = loop.call_later(3600, lambda: None)
    monkeypatch.setattr(loop, "call_later", lambda *_: never)  # only the signal may end the wait
    config = uvicorn.Config(_Idle(), lifespan="off", log_config=None)
    server = web.Server(config)
    ticks = []

    async def on_tick(counter: int) -> bool:
        ticks.append(counter)
        return server.should_exit

    server.on_tick = on_tick  # type: ignore[method-assign]
    running = asyncio.create_task(server.main_loop())
    await asyncio.sleep(0)
    server.handle_exit(signal.SIGTERM, None)
    await running
    assert ticks == [0, web.TICKS_PER_S]


def test_the_protocol_can_be_imported_before_django_is_set_up() -> None:
    """Of several web processes each imports it first, and the application after it."""
    done = subprocess.run(
        [sys.executable, "-c", "import codexflow.server"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_beat_stores_its_schedule_in_the_home_folder(tmp_path: Path) -> None:
    argv = argv_of("beat", an_env(tmp_path))
    assert argv[1:] == ["-m", "codexflow.beat", str(tmp_path / "beat-schedule")]


def test_beat_loads_neither_django_nor_an_app() -> None:
    """Memory at rest: beat only sends names of tasks."""
    program = "import sys, codexflow.beat; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    apps = {"accounts", "adminpanel", "billing", "keys", "logs", "routing"}
    assert not (apps | {"celery.bin", "django.db"}) & set(done.stdout.split())


def test_the_gateway_loads_neither_typst_nor_what_describes_the_api() -> None:
    """Memory at rest: drf-spectacular's generator brings Django's test client and unittest."""
    program = "import sys, codexflow.asgi; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not {"drf_spectacular.plumbing", "rest_framework.test", "typst", "httpcore"} & set(done.stdout.split())


# The worker's main, with a worker that only lists what its pool would inherit.
INHERITED = """
import sys
from types import SimpleNamespace
from codexflow import worker
from codexflow.celery import app

app.Worker = lambda **_: SimpleNamespace(start=lambda: print(*sys.modules), exitcode=0)
worker.main()
"""


def test_the_pool_inherits_what_each_of_its_processes_would_load() -> None:
    done = subprocess.run([sys.executable, "-c", INHERITED], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert {"httpcore", "pycparser.c_parser"} <= set(done.stdout.split())


@pytest.mark.parametrize("arguments", [[], ["webb"], [*PROGRAMS]])
def test_an_unknown_program_is_a_usage_error(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "codexflow.programs", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "usage" in done.stderr, "Traceback" in done.stderr) == (2, True, False)


@pytest.mark.parametrize(
    ("name", "part", "code"),
    [
        ("web", "litellm", 2),
        ("worker", "litellm", 0),
        ("beat", "litellm", 0),
        ("worker", "database", 2),
        ("web", "", 0),
    ],
)
def test_only_the_gateway_waits_for_litellm(
    name: str, part: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Usage is stored and plans end whatever LiteLLM is."""
    for variable, value in {**GOOD, "CFX_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(variable, value)
    found = [error(part, "wrong", "Correct it.")] if part else []
    monkeypatch.setattr("codexflow.preflight.run.preflight", lambda *_args, **_options: found)
    monkeypatch.setattr("os.execv", lambda _program, _argv: 0)
    assert main([name]) == code
    assert ("CodexFlow does not start" in capsys.readouterr().err) is (code == 2)
