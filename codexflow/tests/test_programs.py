import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import uvicorn.main
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from codexflow.env import REPOSITORY, Env
from codexflow.preflight.findings import error
from codexflow.programs import PROGRAMS, argv_of, main
from codexflow.server import Protocol
from codexflow.tests.test_env import GOOD


def an_env(tmp_path: Path, **variables: str) -> Env:
    return Env.read({"CFX_HOME": str(tmp_path), "CFX_ENV": "development", **variables})


def test_the_web_process_uses_the_strict_parser_and_outlasts_shutdown(tmp_path: Path) -> None:
    argv = argv_of("web", an_env(tmp_path, PORT="9000", CFX_DRAIN_GRACE_S="30"))
    options = dict(itertools.pairwise(argv))
    assert options["--http"] == "codexflow.server:Protocol"
    assert issubclass(Protocol, HttpToolsProtocol)
    assert options["--lifespan"] == "on"
    assert options["--port"] == "9000"
    assert int(options["--timeout-graceful-shutdown"]) > 30
    assert options["--workers"] == "1"


@pytest.mark.parametrize("concurrency", ["", "3"])
def test_as_many_processes_start_as_the_limiter_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, concurrency: str
) -> None:
    """uvicorn reads WEB_CONCURRENCY by itself, unless it is told a number."""
    monkeypatch.setenv("WEB_CONCURRENCY", concurrency)
    for variables in ({}, {"CFX_WEB_PROCESSES": "2"}):
        env = an_env(tmp_path, WEB_CONCURRENCY=concurrency, **variables)
        options = argv_of("web", env)[3:]
        with uvicorn.main.make_context("uvicorn", options) as context:
            assert context.params["workers"] == env.limiter_processes == int(variables.get("CFX_WEB_PROCESSES", 1))


def test_several_web_processes_are_passed_to_uvicorn(tmp_path: Path) -> None:
    argv = argv_of("web", an_env(tmp_path, CFX_WEB_PROCESSES="3"))
    assert argv[-2:] == ["--workers", "3"]


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
