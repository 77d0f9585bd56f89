"""Files of the production image: they contain no development code, and they run."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import urlencode

import pytest
from django.conf import settings
from django.db import connection

from codexflow.dev.valkey import LOOPBACK, free_port
from codexflow.env import REPOSITORY
from tests.image.dockerignore import context, rules_of
from tests.support.waiting import until

# Folders that only development needs, and names that no path may contain at any depth.
DEVELOPMENT = {"codexflow/dev", "templates/dev", "bench", "frontend", ".git", ".ci"}
ANYWHERE = {"tests", "conftest.py", "__pycache__", "node_modules"}
PROGRAM = [sys.executable, "-m", "codexflow.programs"]

IMPORT_EVERYTHING = """
import importlib, pathlib, sys
import codexflow.asgi
import codexflow.celery
from codexflow.settings import ENV

assert ENV.is_production
codexflow.celery.app.loader.import_default_modules()
assert "logs.tasks.drain_usage" in codexflow.celery.app.tasks
root = pathlib.Path.cwd()
for path in sorted(root.rglob("*.py")):
    if path.parent != root:
        parts = path.relative_to(root).with_suffix("").parts
        importlib.import_module(".".join(parts).removesuffix(".__init__"))
known = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] in {"codexflow", "logs"}]
assert all(pathlib.Path(file).is_relative_to(root) for file in known if file), known
assert not [name for name in sys.modules if name.startswith(("codexflow.dev", "tests", "bench"))]
"""


def files() -> list[PurePosixPath]:
    return list(context(REPOSITORY, rules_of((REPOSITORY / ".dockerignore").read_text())))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the files that `COPY . .` copies."""
    folder = tmp_path_factory.mktemp("image") / "app"
    for path in files():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / path, folder / path)
    return folder


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Environment of production, with the servers of this session."""
    found = connection.settings_dict
    query = {"host": found["HOST"], "port": found["PORT"], "user": found["USER"], "password": found["PASSWORD"]}
    given = urlencode({name: value for name, value in query.items() if value})
    return {
        "PATH": os.environ["PATH"],  # noqa: TID251 - the only inherited variable
        "PYTHONDONTWRITEBYTECODE": "1",
        "DJANGO_SETTINGS_MODULE": "codexflow.settings",
        "CFX_ENV": "production",
        "CFX_HOME": str(tmp_path / "home"),
        "CFX_STATIC_ROOT": str(tmp_path / "static"),
        "CFX_REDIS_PREFIX": f"{settings.ENV.redis_prefix}_image",
        "DATABASE_URL": f"postgresql:///{found['NAME']}?{given}",
        "REDIS_URL": settings.ENV.redis_url,
        "LITELLM_URL": f"http://{LOOPBACK}:9",
        "LITELLM_API_KEY": "sk-for-the-test-of-the-image",
        "AUTH_SECRET": "for-the-test-of-the-image-and-nothing-else",
        "HASH_SALT": "for-the-test-of-the-image-and-nothing-else-either",
        "PORT": str(free_port()),
    }


def run(image: Path, environ: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=image, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_image_contains_no_development_services_tests_or_tools() -> None:
    found = files()
    assert PurePosixPath("codexflow/asgi.py") in found
    assert PurePosixPath("docker/entrypoint.sh") in found
    unwanted = [
        str(path)
        for path in found
        if not ANYWHERE.isdisjoint(path.parts) or any(path.is_relative_to(folder) for folder in DEVELOPMENT)
    ]
    assert unwanted == []


def test_nothing_secret_or_local_is_sent_to_the_build() -> None:
    names = {path.parts[0] for path in files()}
    assert not [name for name in names if name == ".env" or name.startswith((".venv", ".codexflow", ".git"))]


def test_every_remaining_module_can_be_imported(image: Path, environ: dict[str, str], db: None) -> None:
    run(image, environ, "-c", IMPORT_EVERYTHING)


@pytest.mark.parametrize(
    "command",
    [["check", "--fail-level", "ERROR"], ["check", "--deploy", "--fail-level", "ERROR"], ["migrate", "--check"]],
)
@pytest.mark.django_db(transaction=True)
def test_commands_run_in_the_image(image: Path, environ: dict[str, str], command: list[str]) -> None:
    run(image, environ, "manage.py", *command)


@pytest.mark.django_db(transaction=True)
def test_an_installation_behind_tls_passes_the_deployment_check(image: Path, environ: dict[str, str]) -> None:
    given = {"SITE_URL": "https://cfx.example.com", "EMAIL_URL": "smtps://u:p@mail.example.com?from=cfx@example.com"}
    given["CFX_PAYMENT_PROVIDERS"] = "none"  # or the seller of its invoices would be missing
    said = run(image, environ | given, "manage.py", "check", "--deploy", "--fail-level", "WARNING")
    assert "no issues" in said


@pytest.mark.django_db(transaction=True)
def test_the_image_has_no_up_command(image: Path, environ: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "up"], cwd=image, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Unknown command: 'up'" in done.stderr


@pytest.fixture
def web(image: Path, environ: dict[str, str], tmp_path: Path, transactional_db: None) -> Iterator[str]:
    """Start the image's web process, with static files collected as in its build."""
    run(image, environ, "manage.py", "collectstatic", "--noinput", "--verbosity", "0")
    log = tmp_path / "web.log"
    with log.open("w") as output:
        process = subprocess.Popen([*PROGRAM, "web"], cwd=image, env=environ, stdout=output, stderr=output)
    try:
        until(lambda: status(environ["PORT"], "/health/live") == 200 or process.poll() is not None, within_s=60)
        assert process.poll() is None, log.read_text()
        yield environ["PORT"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def test_the_web_process_serves_pages_but_no_development_pages(web: str) -> None:
    assert status(web, "/") == 200
    assert status(web, "/docs/") == 200
    assert status(web, "/dev/mail/") == 404
    assert status(web, "/dev/components/") == 404


def test_the_worker_starts(image: Path, environ: dict[str, str], tmp_path: Path, transactional_db: None) -> None:
    log = tmp_path / "worker.log"
    with log.open("w") as output:
        process = subprocess.Popen([*PROGRAM, "worker"], cwd=image, env=environ, stdout=output, stderr=output)
    try:
        until(lambda: " ready." in log.read_text() or process.poll() is not None, within_s=60)
        assert process.poll() is None, log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def status(port: str, path: str) -> int:
    """Request a path and return the status; 0 without a response."""
    client = HTTPConnection(LOOPBACK, int(port), timeout=5)
    try:
        client.request("GET", path, headers={"Host": "localhost"})
        return client.getresponse().status
    except (OSError, HTTPException):
        return 0
    finally:
        client.close()
