"""A complete CodexFlow as `manage.py up` runs it, in a folder of its own, for browser tests."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from codexflow.dev import valkey
from codexflow.dev.home import RUNTIME_PREFIX, Home
from codexflow.dev.quickstart import Quickstart
from codexflow.env import REPOSITORY
from tests.support.services import PROVIDERS
from tests.support.waiting import until

START_WITHIN_S = 90.0
STOP_WITHIN_S = 60.0
# A site inherits only these variables: not, for example, the test session's servers.
_INHERITED = ("PATH", "HOME", "LANG", "VIRTUAL_ENV")


@dataclass(frozen=True, slots=True)
class Site:
    """A running site."""

    url: str
    home: Home
    log: Path

    @property
    def quickstart(self) -> Quickstart:
        known = Quickstart.read(self.home)
        assert known is not None, self.log.read_text()
        return known

    @property
    def environ(self) -> dict[str, str]:
        return _environ(self.home, int(self.url.rpartition(":")[2]))

    def run(self, *words: str) -> str:
        """Run `python -m ...` with the site's environment and return its output. A failure fails the test."""
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=REPOSITORY,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def _environ(home: Home, port: int) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name in _INHERITED}  # noqa: TID251 - a clean copy
    return {
        **inherited,
        # So that the pages have the providers' buttons, which no test presses.
        **PROVIDERS,
        "CFX_HOME": str(home.path),
        "CFX_ENV": "development",
        "PORT": str(port),
        "LOG_LEVEL": "WARNING",
        "DJANGO_SETTINGS_MODULE": "codexflow.settings",
        # Static files are served as in production: compressed, with a hash in their names.
        "CFX_STATIC_ROOT": str(home.path / "static"),
    }


@contextmanager
def running_site() -> Iterator[Site]:
    """Start a site for a `with` block; stop it and remove its folder afterwards."""
    home = Home(Path(tempfile.mkdtemp(prefix=f"{RUNTIME_PREFIX}site-")))
    port = valkey.free_port()
    log = home.path.with_suffix(".log")
    with log.open("w") as output:
        gather = [sys.executable, "manage.py", "collectstatic", "--noinput", "--verbosity", "0"]
        subprocess.run(gather, cwd=REPOSITORY, env=_environ(home, port), stdout=output, stderr=output, check=True)
        argv: Sequence[str] = [sys.executable, "manage.py", "up"]
        process = subprocess.Popen(argv, cwd=REPOSITORY, env=_environ(home, port), stdout=output, stderr=output)
        site = Site(f"http://{valkey.LOOPBACK}:{port}", home, log)
        try:

            def is_ready() -> bool:
                assert process.poll() is None, log.read_text()
                return _is_live(f"{site.url}/health/live") and home.quickstart_file.exists()

            until(is_ready, within_s=START_WITHIN_S, what="the site responds")
            yield site
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
            shutil.rmtree(home.path, ignore_errors=True)
            log.unlink(missing_ok=True)


def _is_live(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1).status_code == 200
    except httpx.HTTPError:
        return False
