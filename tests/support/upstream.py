"""Run the demo upstream for tests: in a process of its own on a free port.

with running_upstream() as upstream:
    upstream.set_fault("503", model="deepseek-v4.1-flash", times=1)
    ...
    upstream.ledger(call_id=..., wait=1)
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

REPOSITORY = Path(__file__).resolve().parent.parent.parent
DEMO_API_KEY = "sk-demo-upstream-for-tests"
_LISTENING = re.compile(r"listening on (http://\S+)")

# Parts of paths of what gateways ask besides calls.
_QUESTIONS = ("/model/info", "/health")


class Upstream:
    """A running demo upstream."""

    def __init__(
        self,
        *,
        api_key: str = DEMO_API_KEY,
        as_provider: bool = False,
        records_bodies: bool = True,
        gap_ms: int = 0,
        counts_tokens: str = "",
        models: Sequence[str] = (),
        port: int = 0,
    ) -> None:
        """Start it and return once it listens. Streams have no pauses unless `gap_ms` is set; `models`: all it has."""
        self.api_key = api_key
        command = [
            sys.executable,
            "-m",
            "codexflow.dev.demo_upstream",
            "--port",
            str(port),
            "--gap-ms",
            str(gap_ms),
        ]
        command += ["--api-key", api_key] if api_key else []
        command += ["--as-provider"] if as_provider else []
        command += ["--record-bodies"] if records_bodies else []
        command += [f"--counts-tokens={counts_tokens}"] if counts_tokens else []
        command += ["--models", ",".join(models)] if models else []
        self.process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        self.url = self._listening()
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.control = httpx.Client(base_url=self.url, headers=headers, timeout=30.0, trust_env=False)

    def _listening(self) -> str:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            found = _LISTENING.search(lines.readline())
        if found is None:
            self.kill()
            raise RuntimeError("The demo upstream did not start; see its standard error")
        return found.group(1)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def ledger(
        self,
        *,
        since: int = 0,
        call_id: str | None = None,
        model: str | None = None,
        wait: int = 0,
        timeout_s: float = 5.0,
    ) -> list[dict[str, Any]]:
        """Its requests, oldest first. With `wait`, returns when that many have ended or the timeout passes.

        Gateways ask for its models once a minute, and for its health: those requests are left out.
        """
        state = self.state(since=since, call_id=call_id, model=model, wait=wait, timeout_s=timeout_s)
        return [entry for entry in state["entries"] if not any(each in entry["path"] for each in _QUESTIONS)]

    def state(self, **query: Any) -> dict[str, Any]:
        """Return the ledger with `last_seq`, `open` requests and `connections`."""
        params = {name: value for name, value in query.items() if value is not None}
        response = self.control.get("/demo/ledger", params=params)
        response.raise_for_status()
        found: dict[str, Any] = response.json()
        return found

    def set_fault(
        self,
        words: str,
        *,
        model: str | None = None,
        path: str | None = None,
        times: int | None = None,
        text: str | None = None,
    ) -> None:
        """Inject a fault into the next `times` matching requests (by default, all); `text` stands in their bodies."""
        body = {"fault": words, "model": model, "path": path, "times": times, "text": text}
        response = self.control.post("/demo/faults", json={k: v for k, v in body.items() if v is not None})
        assert response.status_code == httpx.codes.OK, response.text

    def release(self) -> None:
        """Let the streams end that the fault `held` stops."""
        self.control.post("/demo/release").raise_for_status()

    def clear(self) -> None:
        """Forget faults and ledger."""
        self.control.delete("/demo/faults").raise_for_status()
        self.control.delete("/demo/ledger").raise_for_status()

    def stop(self) -> None:
        """Send SIGTERM and wait until the process has ended."""
        self.control.close()
        self.process.terminate()
        self.process.wait(timeout=5)

    def kill(self) -> None:
        """Send SIGKILL: as when the machine dies."""
        self.process.kill()
        self.process.wait(timeout=5)


@contextmanager
def running_upstream(**settings: Any) -> Iterator[Upstream]:
    """Run an Upstream for a `with` block; settings as for Upstream."""
    upstream = Upstream(**settings)
    try:
        yield upstream
    finally:
        if upstream.process.poll() is None:
            upstream.stop()
        upstream.control.close()
