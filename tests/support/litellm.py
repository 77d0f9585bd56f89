"""A real LiteLLM proxy for tests, between a demo upstream and a recording webhook.

    caller -> LiteLLM (settings of config/litellm.yaml) -> demo upstream as the provider
                 `-> usage reports -> WebhookSink

Faults requested in a message therefore pass through the real LiteLLM. Starting it takes 5 to 75 seconds.
"""

import json
import os
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from codexflow.dev import litellm as program
from codexflow.dev.valkey import free_port
from codexflow.lib.ids import new_id
from tests.support.loopback import LoopbackServer, QuietHandler
from tests.support.upstream import Upstream, running_upstream

MASTER_KEY = "sk-litellm-master-key-for-tests"
WEBHOOK_KEY = "webhook-key-for-tests"
# Routed as in the shipped file, through LiteLLM's OpenRouter code; the other models through its OpenAI code.
SHIPPED_MODEL = "claude-sonnet-4.5-over-openrouter"
EXAMPLE = program.REPOSITORY / "config" / "examples" / "rerank.litellm.yaml"
_START_S = 180
_LOG_LINES = 200
_HOLD_S = 8  # less than the time-out of the shipped configuration
_REPORT_S = 4


class WebhookSink:
    """A loopback endpoint that records LiteLLM's reports; `fail_next` makes it refuse batches."""

    def __init__(self) -> None:
        self.payloads: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.refused = 0
        self.begun = 0  # batches that started to arrive
        self._refusals_left = 0
        self._open = threading.Event()  # cleared: batches wait for their response
        self._open.set()
        self._changed = threading.Condition()
        sink = self

        class Handler(QuietHandler):
            def do_POST(self) -> None:  # noqa: N802 - http.server asks for this name
                body = self.rfile.read(int(self.headers["content-length"]))
                self.send_response(sink.receive(self.headers.get("x-api-key"), body))
                self.send_header("content-length", "0")
                self.end_headers()

        self._server = LoopbackServer(Handler)

    @property
    def url(self) -> str:
        return f"{self._server.url}/api/webhook/litellm"

    def receive(self, key: str | None, body: bytes) -> int:
        """Record one batch. Returns the status to respond with."""
        with self._changed:
            self.begun += 1
            self._changed.notify_all()
        self._open.wait(_HOLD_S)
        with self._changed:
            if self._refusals_left:
                self._refusals_left -= 1
                self.refused += 1
                return 503
            self.keys.append(key)
            self.payloads += [payload for payload in json.loads(body) if payload is not None]
            self._changed.notify_all()
        return 200

    def fail_next(self, times: int) -> None:
        """Respond to the next `times` batches with 503."""
        with self._changed:
            self._refusals_left = times

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the responses to batches until the block ends."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    def wait_for_batch(self, seen: int, *, timeout_s: float = 20) -> None:
        """Wait until more than `seen` batches have begun to arrive. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.begun > seen, timeout_s):
                raise TimeoutError(f"LiteLLM sent no batch in {timeout_s} s")

    def wait(self, wanted: Callable[[dict[str, Any]], bool], *, count: int, timeout_s: float) -> list[dict[str, Any]]:
        """Wait for `count` payloads that are `wanted` and return them. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: sum(map(wanted, self.payloads)) >= count, timeout_s):
                seen = [payload.get("litellm_call_id") for payload in self.payloads]
                raise TimeoutError(f"LiteLLM did not report {count} such calls in {timeout_s} s; it reported {seen}")
            return [payload for payload in self.payloads if wanted(payload)]

    def close(self) -> None:
        self._server.close()


class LiteLLM:
    """A running LiteLLM proxy. `provider` is the demo upstream behind it."""

    def __init__(self, config: Path, provider: Upstream, sink: WebhookSink | None, *, webhook_url: str = "") -> None:
        """Start it and return once it listens. It reports to the sink, to `webhook_url`, or not at all."""
        webhook_url = sink.url if sink else webhook_url
        self.api_key = MASTER_KEY
        self.provider = provider
        self._sink = sink
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        given = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}  # noqa: TID251 - passed on
        environment = program.environment(
            {
                **given,
                **({"CODEXFLOW_WEBHOOK_URL": webhook_url, "LITELLM_WEBHOOK_KEY": WEBHOOK_KEY} if webhook_url else {}),
                "OPENROUTER_API_KEY": provider.api_key,
                "OPENROUTER_API_BASE": f"{provider.url}/v1",
                "DEFAULT_FLUSH_INTERVAL_SECONDS": "1",  # five as shipped, which would only slow tests down
            },
            master_key=MASTER_KEY,
        )
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._listens = threading.Event()
        self.process = subprocess.Popen(
            program.command(config, host="127.0.0.1", port=port),
            cwd=config.parent,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        if not self._listens.wait(_START_S) or self.process.poll() is not None:
            self.stop()
            raise RuntimeError(f"LiteLLM did not start:\n{self.log()}")
        self.client = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {MASTER_KEY}"}, timeout=60, trust_env=False
        )

    def _read_log(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._log.append(line)
                if "Uvicorn running on" in line:
                    self._listens.set()
        self._listens.set()  # it ended: wake the waiting constructor

    @property
    def sink(self) -> WebhookSink:
        """The sink it reports to. Raises LookupError when it has none."""
        if self._sink is None:
            raise LookupError("This LiteLLM has no webhook sink")
        return self._sink

    def log(self) -> str:
        """The last lines of its log, for failure messages."""
        return "".join(self._log)

    def callback_payloads(
        self, call_id: str | None = None, *, count: int = 1, timeout_s: float = 20
    ) -> list[dict[str, Any]]:
        """Wait for `count` reports (of one call) and return them. Raises TimeoutError."""
        return self.sink.wait(
            lambda payload: call_id is None or payload.get("litellm_call_id") == call_id,
            count=count,
            timeout_s=timeout_s,
        )

    def reported(self, call: Callable[[str], object]) -> tuple[str, dict[str, Any]]:
        """Make calls under new ids until LiteLLM reports one. Returns its id and the report.

        LiteLLM loses reports that arise while a batch is being sent, so one call may not be enough.
        """
        for _attempt in range(5):
            call_id = str(new_id())
            call(call_id)
            try:
                return call_id, self.callback_payloads(call_id, timeout_s=_REPORT_S)[0]
            except TimeoutError:
                continue
        raise TimeoutError(f"LiteLLM reported none of five calls:\n{self.log()}")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(timeout=60)
        self._reader.join(timeout=60)


def shipped_config() -> dict[str, Any]:
    """Parse config/litellm.yaml."""
    found: dict[str, Any] = yaml.safe_load(program.CONFIG.read_text())
    return found


def config_over(provider: Upstream) -> dict[str, Any]:
    """Return the shipped configuration with its models served by `provider`."""
    config = shipped_config()
    shipped = next(entry for entry in config["model_list"] if entry["model_name"] == "claude-sonnet-5.5")
    extra = {**shipped, "model_name": SHIPPED_MODEL}
    for entry in config["model_list"]:
        entry["litellm_params"] = {
            **entry["litellm_params"],
            "model": f"openai/{entry['model_name']}",
            "api_base": f"{provider.url}/v1",
            "api_key": provider.api_key,
        }
    config["model_list"] += [extra, *_examples_over(provider)]
    return config


def _examples_over(provider: Upstream) -> list[dict[str, Any]]:
    """Return the models of the example file, each through its own provider's code of LiteLLM, served by `provider`."""
    bases = {"cohere": provider.url, "voyage": f"{provider.url}/v1/rerank", "openai": f"{provider.url}/v1"}
    entries: list[dict[str, Any]] = yaml.safe_load(EXAMPLE.read_text())["model_list"]
    for entry in entries:
        params = entry["litellm_params"]
        params |= {"api_base": bases[params["model"].partition("/")[0]], "api_key": provider.api_key}
    return entries


@contextmanager
def running_litellm() -> Iterator[LiteLLM]:
    """Run LiteLLM with its provider and a recording webhook for a `with` block."""
    sink = WebhookSink()
    try:
        with running_upstream(as_provider=True) as provider, tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "litellm.yaml"
            config.write_text(yaml.safe_dump(config_over(provider)))
            with _stopping(LiteLLM(config, provider, sink)) as litellm:
                yield litellm
    finally:
        sink.close()


@contextmanager
def running_over(webhook_url: str) -> Iterator[LiteLLM]:
    """Run LiteLLM with its provider, reporting to the given webhook."""
    with running_upstream(as_provider=True) as provider, tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "litellm.yaml"
        config.write_text(yaml.safe_dump(config_over(provider)))
        with _stopping(LiteLLM(config, provider, sink=None, webhook_url=webhook_url)) as litellm:
            yield litellm


@contextmanager
def running_as_shipped(config: Path) -> Iterator[LiteLLM]:
    """Run LiteLLM with an unchanged configuration file; OpenRouter is replaced by a demo upstream, no webhook."""
    with (
        running_upstream(as_provider=True) as provider,
        _stopping(LiteLLM(config, provider, sink=None)) as litellm,
    ):
        yield litellm


@contextmanager
def running_as_operators() -> Iterator[LiteLLM]:
    """Run LiteLLM as an operator may have it already: OpenAI-like deployments, and nothing set for CodexFlow."""
    with running_upstream() as provider, tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "litellm.yaml"
        kept = [
            {
                "model_name": entry["model_name"],
                "litellm_params": {
                    "model": f"openai/{entry['model_name']}",
                    "api_base": f"{provider.url}/v1",
                    "api_key": provider.api_key,
                },
            }
            for entry in shipped_config()["model_list"]
        ]
        config.write_text(yaml.safe_dump({"model_list": kept}))
        with _stopping(LiteLLM(config, provider, sink=None)) as litellm:
            yield litellm


@contextmanager
def _stopping(litellm: LiteLLM) -> Iterator[LiteLLM]:
    try:
        yield litellm
    finally:
        litellm.stop()
        litellm.client.close()
