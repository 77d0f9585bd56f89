"""`make smoke`: smoke test of `make run`, with nothing but what `make run` installs.

Starts a whole installation in a folder of its own, sends the first request, follows it to its row in the request log,
and ends everything. Exit code 1, with the reason, when any of it fails.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

from codexflow.dev.valkey import free_port
from codexflow.env import REPOSITORY
from codexflow.lib.clock import monotonic_s

START_WITHIN_S = 120.0
ROW_WITHIN_S = 30.0


class SmokeFailed(Exception):
    """A step of the smoke test failed."""


def main() -> int:
    try:
        with tempfile.TemporaryDirectory(prefix="cfx-smoke-") as home, running_installation(Path(home)) as quickstart:
            request_id = _call(quickstart)
            cost = _until(lambda: _row(quickstart, request_id), ROW_WITHIN_S, "the request's row")["cost"]["usd"]
    except SmokeFailed as exc:
        sys.stderr.write(f"smoke: {exc}\n")
        return 1
    sys.stdout.write(f"smoke: request {request_id} served, counted and priced at {cost} USD\n")
    return 0


@contextlib.contextmanager
def running_installation(home: Path, **settings: str) -> Iterator[dict[str, str]]:
    """Run a whole installation in `home` for the length of a `with` block; yields its quickstart.json.

    It uses the demo upstream, unless `settings` name another.
    """
    environ = {**os.environ, "CFX_HOME": str(home), "PORT": str(free_port())}  # noqa: TID251 - for the child
    for name in ("DATABASE_URL", "REDIS_URL", "REDIS_SHARED_URL", "LITELLM_URL", "CFX_ENV"):
        environ.pop(name, None)
    environ.update(settings)
    started_s = monotonic_s()
    log = (home.parent / f"{home.name}.log").open("w+")
    process = subprocess.Popen([sys.executable, "manage.py", "up"], cwd=REPOSITORY, env=environ, stdout=log, stderr=log)
    try:
        file = home / "quickstart.json"

        def quickstart() -> dict[str, str] | None:
            if process.poll() is not None:
                raise SmokeFailed(f"`up` ended with code {process.returncode}:\n{_tail(log)}")
            return json.loads(file.read_text()) if file.exists() and _answers(environ["PORT"]) else None

        found = _until(quickstart, START_WITHIN_S, "the first response")
        sys.stdout.write(f"smoke: first response after {monotonic_s() - started_s:.1f} s\n")
        try:
            yield found
        except SmokeFailed as exc:
            raise SmokeFailed(f"{exc}\n{_tail(log)}") from exc
        if " ended with code " in _tail(log):
            raise SmokeFailed(f"a program died:\n{_tail(log)}")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        log.close()
        Path(log.name).unlink()


def _tail(log: Any) -> str:
    return Path(log.name).read_text()[-8000:]


def _answers(port: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _call(quickstart: dict[str, str]) -> str:
    """Send a first chat request; returns its request id."""
    body = {"model": "cfx-code", "messages": [{"role": "user", "content": "Hello"}]}
    request = urllib.request.Request(  # noqa: S310 - our own loopback address
        f"{quickstart['base_url']}/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {quickstart['api_key']}", "Content-Type": "application/json"},
    )
    with _opened(request) as response:
        if not json.load(response)["choices"][0]["message"]["content"]:
            raise SmokeFailed("the response has no content")
        return str(response.headers["X-CFX-Request-Id"])


def _row(quickstart: dict[str, str], request_id: str) -> dict[str, Any] | None:
    url = f"{quickstart['base_url'].removesuffix('/v1')}/api/v1/requests/{request_id}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {quickstart['api_key']}"})  # noqa: S310
    with _opened(request) as response:
        return json.load(response) if response.status == 200 else None


def _opened(request: urllib.request.Request) -> Any:
    try:
        return urllib.request.urlopen(request, timeout=30)  # noqa: S310 - our own loopback address
    except urllib.error.HTTPError as exc:
        with exc:
            raise SmokeFailed(f"{request.full_url} returned {exc.code}: {exc.read(2000)!r}") from exc


def _until(condition: Callable[[], Any], within_s: float, what: str) -> Any:
    deadline_s = monotonic_s() + within_s
    while not (value := condition()):
        if monotonic_s() > deadline_s:
            raise SmokeFailed(f"{what} did not come within {within_s:g} s")
        Event().wait(0.1)
    return value


if __name__ == "__main__":
    sys.exit(main())
