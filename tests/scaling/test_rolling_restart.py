"""Two gateways behind nginx, as docs/operators/scaling.md restarts them: under load no call fails or counts twice."""

import os
import re
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bench.tools import installed_nginx
from billing.ledger_audit import audit_ledger
from codexflow.dev.valkey import free_port
from codexflow.env import REPOSITORY
from keys.tests.factories import a_key
from logs.models import RequestLog
from tests.support.installation import Gateway, Installation
from tests.support.waiting import until

pytestmark = [pytest.mark.nginx, pytest.mark.xdist_group("rolling-restart")]
OPERATORS = REPOSITORY / "docs" / "operators"
CALLERS = 4


class Nginx:
    """nginx with the guides' blocks in front of several gateways."""

    def __init__(self, folder: Path) -> None:
        program = installed_nginx()
        if program is None:
            raise FileNotFoundError("nginx is not there: run `make nginx`")
        self._folder = folder
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._write([])
        argv = [str(program), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
        self._process = subprocess.Popen(argv)

    def send_to(self, gateways: list[Gateway]) -> None:
        """Put a list of servers in force; returns once no worker of nginx has the list before."""
        before = self._workers()
        self._write([each.url.removeprefix("http://") for each in gateways])
        self._process.send_signal(signal.SIGHUP)
        until(lambda: self._workers() and not self._workers() & before, what="new workers of nginx")
        until(lambda: httpx.get(f"{self.url}/health/live", timeout=5).status_code == 200, what="nginx")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=10)

    def _workers(self) -> set[str]:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return set(children.read_text().split())

    def _write(self, servers: list[str]) -> None:
        upstream = re.search(r"upstream codexflow \{.*?\}", (OPERATORS / "scaling.md").read_text(), re.DOTALL)
        location = re.search(r"location / \{.*?\n    \}", (OPERATORS / "nginx.conf").read_text(), re.DOTALL)
        assert upstream
        assert location
        own = " ".join(f"server {each};" for each in servers or ["127.0.0.1:9"])
        listed = re.sub(r"server [^;]+;.*\n", "", upstream[0]).replace("{", f"{{ {own}", 1)
        proxied = location[0].replace("http://127.0.0.1:8000", "http://codexflow")
        connection = "map $http_upgrade $connection_upgrade { default upgrade; '' ''; }"
        temporary = " ".join(
            f"{kind}_temp_path {self._folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.geteuid() == 0 else ""
        (self._folder / "nginx.conf").write_text(
            f"{user} daemon off; worker_processes 1; pid {self._folder}/pid; events {{}}\n"
            f"http {{ access_log off; {temporary}\n{connection}\n{listed}\n"
            f"server {{ listen 127.0.0.1:{self._port}; client_max_body_size 12m;\n{proxied} }}\n}}\n"
        )


class Load:
    """Callers that send one call after the other, every second one a stream."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key
        self._stop = threading.Event()
        self.outcomes: Counter[str] = Counter()
        self.request_ids: list[str] = []
        self._threads = [threading.Thread(target=self._call_on) for _ in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call_on(self) -> None:
        number = 0
        headers = {"Authorization": f"Bearer {self._key}"}
        while not self._stop.is_set():
            number += 1
            body = {"messages": [{"role": "user", "content": "Hello"}], "stream": number % 2 == 0}
            try:
                # A connection each: nginx closes idle ones when it is reloaded, maybe just when a call comes on one.
                response = httpx.post(f"{self._url}/v1/chat/completions", json=body, headers=headers, timeout=30)
            except httpx.HTTPError as exc:
                self.outcomes[repr(exc)] += 1
                continue
            is_whole = "[DONE]" in response.text if body["stream"] else response.text.endswith("}")
            self.outcomes["whole" if response.status_code == 200 and is_whole else response.text[:200]] += 1
            self.request_ids.append(response.headers.get("x-cfx-request-id", ""))


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    server = Nginx(tmp_path)
    yield server
    server.stop()


def test_a_rolling_restart_fails_no_call(running: Installation, nginx: Nginx) -> None:
    second_worker = running.new_program("worker")
    nodes = [_node(running, number) for number in (1, 2)]
    nginx.send_to(nodes)
    load = Load(nginx.url, a_key().plain)
    try:
        for number in (1, 2):
            until(lambda: load.outcomes["whole"] > 20 * number, what="calls")  # noqa: B023 - called at once
            old = nodes.pop(0)
            nginx.send_to(nodes)
            old.terminate()
            old.process.wait(timeout=30)
            nodes.append(_node(running, number))
            nginx.send_to(nodes)
        enough = load.outcomes["whole"] + 20
        until(lambda: load.outcomes["whole"] > enough, what="calls")
    finally:
        load.stop()
        for node in nodes:
            node.stop()
    assert set(load.outcomes) == {"whole"}
    ids = load.request_ids
    assert len(set(ids)) == len(ids)
    until(lambda: RequestLog.objects.filter(request_id__in=ids).count() == len(ids), what="a row of every call")
    second_worker.stop()
    assert audit_ledger() == []


def _node(running: Installation, number: int) -> Gateway:
    """A gateway with a journal of its own, as on a machine of its own."""
    journal = running.folder / f"journal-of-node-{number}"
    return running.new_gateway(clock_off_s=0, CFX_JOURNAL_DIR=str(journal), CFX_LIMITER_PROCESSES="2")
