"""A running CodexFlow for tests: real gateway, worker, beat and demo upstream on the session's servers.

One per session and xdist worker. Tests create their own organizations and so share it in any order; rows are committed,
because other processes must see them.
"""

import contextlib
import io
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import httpx
from django.conf import settings
from django.core.management import call_command
from django.db import close_old_connections, connection

from codexflow.catalogue import directory
from codexflow.catalogue import services as catalogue_services
from codexflow.catalogue.models import ConfigVersion
from codexflow.dev.valkey import free_port
from codexflow.env import REPOSITORY, Env
from codexflow.lib.redis import sync_client
from codexflow.programs import argv_of
from logs.models import RequestLog
from logs.pipeline.drain import drain
from tests.support import clock_skew
from tests.support.pgbouncer import running_pgbouncer
from tests.support.upstream import Upstream
from tests.support.waiting import until

# Timeouts are shorter here than in production, and longer than a busy machine stalls.
_SHORT_TIMEOUTS = {
    r"timeout: \d+": "timeout: 4",
    r"total_timeout: \d+": "total_timeout: 6",
    r"recovery_timeout: \d+": "recovery_timeout: 1",
    r"silence: \d+": "silence: 1",
}
# For gateways in front of a real LiteLLM.
PATIENT = {r"\btimeout: \d+": "timeout: 30", r"total_timeout: \d+": "total_timeout: 30"}
_SETTINGS = {
    "CFX_UPSTREAM_IDLE_S": "4",
    "CFX_UPSTREAM_TOTAL_S": "20",
    "CFX_REQUEST_BODY_TIMEOUT_S": "2",
    "CFX_HEADER_TIMEOUT_S": "3",
    "CFX_LEASE_MS": "2000",
    "CFX_HEARTBEAT_S": "0.5",
    "CFX_JOURNAL_SHIP_AFTER_S": "0.5",
    "CFX_DRAIN_GRACE_S": "5",
    # Other processes are still starting while the first tests run.
    "CFX_REDIS_TIMEOUT_MS": "1000",
}


def models_text(**changes: str) -> str:
    """Return the shipped models.yaml and the example of rerankers and moderations, with short timeouts.

    `changes` replace further patterns.
    """
    files = ("models.yaml", "examples/rerank.models.yaml")
    text = "\n".join((REPOSITORY / "config" / name).read_text() for name in files)
    for pattern, value in {**_SHORT_TIMEOUTS, **changes}.items():
        text = re.sub(pattern, value, text)
    return text


APPLICATION = "codexflow.asgi:application"
_DELETE_ALL = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end"


class Program:
    """A process of the installation, on the test session's servers."""

    def __init__(
        self, name: str, environ: dict[str, str], log: Path, *, clock_off_s: int = 0, application: str = ""
    ) -> None:
        """`application` is another than our own ASGI application, by its import name."""
        self.log = log
        self.environ = environ
        argv = argv_of(name, Env.read(environ))
        if application:
            argv[argv.index(APPLICATION)] = application
        if clock_off_s:
            argv = clock_skew.argv_with(clock_off_s, argv)
        with log.open("a") as output:
            self.process = subprocess.Popen(argv, cwd=REPOSITORY, env=environ, stdout=output, stderr=output)

    def kill(self) -> None:
        """Send SIGKILL: as when the machine dies."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.terminate()
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.kill()


class Gateway(Program):
    """A gateway process; `url` ends without a slash."""

    def __init__(self, environ: dict[str, str], log: Path, *, clock_off_s: int = 0, application: str = "") -> None:
        port = str(free_port())
        super().__init__("web", {**environ, "PORT": port}, log, clock_off_s=clock_off_s, application=application)
        self.url = f"http://127.0.0.1:{port}"
        until(self.is_ready, what=f"gateway ready, see {log}")

    def is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"The gateway ended:\n{self.log.read_text()[-4000:]}")
        with contextlib.suppress(httpx.HTTPError):
            # 503: it runs, and its settings let it admit nothing while Redis is away.
            return httpx.get(f"{self.url}/health", timeout=2).status_code in (200, 503)
        return False


class Installation:
    """A running CodexFlow and the verbs that tests need: send calls, read rows, look into Redis."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.redis = sync_client(settings.ENV.redis_url)
        self.prefix: str = settings.ENV.redis_prefix
        self.upstream = Upstream()
        self._programs: list[Program] = []
        self._resources = contextlib.ExitStack()
        self._configuration = models_text()
        self.environ = self._environ()
        if settings.HAS_POOLER:
            self.environ |= self._resources.enter_context(self.pooled())
        directory.load(Path(self.environ["CFX_CONFIG_PATH"]))
        call_command("seed", stdout=io.StringIO())
        self.gateway = self.new_gateway()
        self.worker, self.beat = (Program(name, self.environ, folder / f"{name}.log") for name in ("worker", "beat"))
        self._programs += [self.worker, self.beat]

    def _environ(self) -> dict[str, str]:
        found = connection.settings_dict
        query = {"host": found["HOST"], "port": found["PORT"], "user": found["USER"], "password": found["PASSWORD"]}
        given = urlencode({name: value for name, value in query.items() if value})
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}  # noqa: TID251 - a clean copy
        return {
            **inherited,
            **_SETTINGS,
            "DJANGO_SETTINGS_MODULE": "codexflow.settings",
            "CFX_ENV": "development",
            "CFX_HOME": str(self.folder / "home"),
            "CFX_JOURNAL_DIR": str(self.folder / "journal"),
            "CFX_CONFIG_PATH": str(self._models_file()),
            "CFX_REDIS_PREFIX": self.prefix,
            "DATABASE_URL": f"postgresql:///{found['NAME']}?{given}",
            "REDIS_URL": settings.ENV.redis_url,
            "AUTH_SECRET": settings.ENV.secret_key,
            "HASH_SALT": settings.ENV.hash_salt,
            "LITELLM_URL": self.upstream.url,
            "LITELLM_API_KEY": self.upstream.api_key,
        }

    @contextlib.contextmanager
    def pooled(self) -> Iterator[dict[str, str]]:
        """Run PgBouncer for the block; yields the variables of programs that go through it."""
        with running_pgbouncer(connection.settings_dict) as url:
            direct = self.environ.get("DATABASE_DIRECT_URL") or self.environ["DATABASE_URL"]
            yield {"DATABASE_URL": url, "DATABASE_DIRECT_URL": direct}

    @property
    def url(self) -> str:
        return self.gateway.url

    def new_gateway(self, *, clock_off_s: int = 0, application: str = "", **changes: str) -> Gateway:
        """Start another gateway process; it is stopped with the session unless a test stops it."""
        (self.folder / "home").mkdir(exist_ok=True)
        number = len(self._programs)
        log = self.folder / f"gateway{number}.log"
        gateway = Gateway({**self.environ, **changes}, log, clock_off_s=clock_off_s, application=application)
        self._programs.append(gateway)
        return gateway

    def new_program(self, name: str, **changes: str) -> Program:
        """Start another worker or beat; it is stopped with the session unless a test stops it."""
        log = self.folder / f"{name}{len(self._programs)}.log"
        program = Program(name, {**self.environ, **changes}, log)
        self._programs.append(program)
        return program

    def close(self) -> None:
        for program in self._programs:
            program.terminate() if program.process.poll() is None else None
        for program in self._programs:
            program.stop()
        self._resources.close()
        self.upstream.stop()

    def reset(self) -> None:
        """Clear upstream faults, and close circuits that earlier tests have opened."""
        self.upstream.clear()
        if circuits := self.keys("breaker:*"):
            self.redis.delete(*circuits)
            # Each gateway caches the circuits and would refuse calls by its copy.
            until(lambda: not any(map(self._has_open_circuits, self._gateways())), what="closed circuits")
        self._put_in_force()

    @contextlib.contextmanager
    def undrained(self) -> Iterator[None]:
        """Stop draining for the block: events wait in Redis and in the journals."""
        self.beat.process.send_signal(signal.SIGSTOP)
        self.drain_now()
        try:
            yield
        finally:
            self.beat.process.send_signal(signal.SIGCONT)

    def empty_redis(self) -> None:
        """Delete all that this installation has in Redis, in one step, as FLUSHALL does."""
        self.redis.eval(_DELETE_ALL, 0, f"{self.prefix}:*")

    def saved_redis(self) -> dict[bytes, bytes]:
        """Copy all that this installation has in Redis."""
        return {key: bytes(value) for key in self.keys("*") if (value := self.redis.dump(key)) is not None}

    def put_back(self, saved: dict[bytes, bytes]) -> None:
        """Replace all that this installation has in Redis by a copy, in one step, as an older replica does."""
        pipe = self.redis.pipeline(transaction=True)
        pipe.eval(_DELETE_ALL, 0, f"{self.prefix}:*")
        for key, value in saved.items():
            pipe.restore(key, 0, value)
        pipe.execute()

    @contextlib.contextmanager
    def configured(self, text: str = "", **changes: str) -> Iterator[None]:
        """Put another models.yaml in force for the block, in all processes: they share the configuration's versions.

        `text` is the whole file, `changes` those of the shipped one.
        """
        before, self._configuration = self._configuration, text or models_text(**changes)
        self._put_in_force()
        try:
            yield
        finally:
            self._configuration = before
            self._put_in_force()

    def _put_in_force(self) -> None:
        newest = ConfigVersion.objects.first()
        if newest is not None and newest.text == self._configuration:
            return
        version = catalogue_services.apply(self._configuration, author="test").version
        until(
            lambda: all(self.health(each.url)["details"]["config_version"] == version for each in self._gateways()),
            what=f"configuration {version}",
        )

    def _models_file(self) -> Path:
        path = self.folder / "models.yaml"
        path.write_text(self._configuration)
        return path

    def _gateways(self) -> list[Gateway]:
        return [each for each in self._programs if isinstance(each, Gateway) and each.process.poll() is None]

    def _has_open_circuits(self, gateway: Gateway) -> bool:
        report = self.health(gateway.url)
        return report["checks"]["redis"] and bool(report["details"]["circuits"])

    def health(self, url: str = "") -> Any:
        return httpx.get(f"{url or self.url}/health", timeout=5).json()

    # Verbs for tests

    def post(self, key: str, *, url: str = "", headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        """Make a chat call with a key; the body has one user message unless `body` has `messages`."""
        content = {"messages": [{"role": "user", "content": "Hello"}], **body}
        own = {"Authorization": f"Bearer {key}", **(headers or {})}
        return httpx.post(f"{url or self.url}/v1/chat/completions", json=content, headers=own, timeout=30)

    def ask(
        self, key: str, path: str, *, url: str = "", headers: dict[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        """Make a call on any surface; `path` begins with a slash."""
        own = {"Authorization": f"Bearer {key}", **(headers or {})}
        return httpx.post(f"{url or self.url}{path}", json=body, headers=own, timeout=30)

    def say(self, key: str, text: str, **more: Any) -> httpx.Response:
        """Make a chat call with this user message, which may request faults."""
        return self.post(key, messages=[{"role": "user", "content": text}], **more)

    def row(self, request_id: str | UUID, *, within_s: float = 60) -> RequestLog:
        """Wait for the worker to write the request's row and return it."""
        return until(lambda: self.row_now(request_id), within_s=within_s, what=f"row of {request_id}")

    def row_now(self, request_id: str | UUID) -> RequestLog | None:
        close_old_connections()
        return RequestLog.objects.filter(request_id=request_id).first()

    def row_of(self, response: httpx.Response, about: object = "") -> RequestLog:
        request_id = response.headers["x-cfx-request-id"]
        what = f"row of {request_id}: {response.status_code} {response.text[:200]} {about}"
        return until(lambda: self.row_now(request_id), what=what)

    def drain_now(self) -> None:
        """Run the drain in this process, when waiting for the worker is not the subject."""
        drain(self.redis, prefix=self.prefix, consumer="test")

    def keys(self, pattern: str) -> list[bytes]:
        return list(self.redis.scan_iter(match=f"{self.prefix}:{pattern}"))

    def scope(self, kind: str, owner: UUID) -> dict[str, int]:
        """Counters of a limiter scope; `kind` is o (organization) or k (key)."""
        found = self.keys(f"*scope:{kind}:{owner}")
        values: Any = self.redis.hgetall(found[0]) if found else {}
        return {name.decode(): int(value) for name, value in values.items()}

    def open_leases(self, request_id: str | UUID) -> list[bytes]:
        """Redis keys that still list the call as in flight."""
        name = str(request_id)
        leases = (*self.keys("*alive"), *self.keys("*slots:*"))
        found = [key for key in leases if self.redis.zscore(key, name) is not None]
        return found + [key for key in self.keys("*intents") if self.redis.hexists(key, name)]
