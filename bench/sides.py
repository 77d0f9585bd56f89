"""Checkouts under `manage.py up`, loaded in turn: what bench.compare and bench.pythons measure.

A checkout runs its own code, of which only what is stable from outside is used: `manage.py up`, CFX_HOME, PORT and
LITELLM_URL, and the files services.json and quickstart.json that `up` writes.
"""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import tools
from bench.contenders import READY_WITHIN_S, STREAM_CHUNKS, answers_chat
from bench.tools import Cpu, Load, Shape
from codexflow.dev.supervisor import ChildSpec, StopRequested, Supervisor
from codexflow.dev.valkey import LOOPBACK

PARTS = ("web", "valkey", "worker")  # names in services.json; only web is judged
STOP_WITHIN_S = 40.0
MAX_FAILED_SHARE = 0.01
_INHERITED = ("PATH", "HOME", "LANG")


class CompareError(Exception):
    """Nothing can be compared; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A tree on an interpreter, where it runs."""

    name: str
    commit: str
    folder: Path
    python: str
    home: Path
    port: int
    model: str


@dataclass(frozen=True, slots=True)
class Measured:
    """One load: what came of it, and CPU by part."""

    load: Load
    cpu: dict[str, Cpu]

    def cpu_per_request(self) -> dict[str, float]:
        """CPU seconds per answered request, by part. Requests of the warm-up count too: they cost the same."""
        return {part: each.total_s / self.load.ok_all for part, each in self.cpu.items()}


@dataclass(frozen=True, slots=True)
class Side:
    """A checkout that serves."""

    checkout: Checkout
    api_key: str
    pid: int  # of `manage.py up`

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop all of its processes for a while."""
        pids = tools.with_descendants(self.pid)
        try:
            for pid in pids:
                _send(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in reversed(pids):
                _send(pid, signal.SIGCONT)

    def measured(self, supervisor: Supervisor, shape: Shape, sent: bytes) -> Measured:
        """Load it once with a body. Raises CompareError when it failed."""
        pids = self._pids()
        before = {part: tools.cpu(pid) for part, pid in pids.items()}
        try:
            found = tools.load(self.checkout.port, self.api_key, sent, shape, meanwhile=lambda: supervisor.pump(0.2))
        except tools.LoadFailed as exc:
            if supervisor.stops_requested:
                raise StopRequested from exc
            raise
        after = {part: tools.cpu(pid) for part, pid in pids.items()}
        if supervisor.stops_requested:
            raise StopRequested
        if self._pids() != pids:
            raise CompareError(f"a process of {self.checkout.name} ended while it was measured")
        check(self.checkout.name, found, shape)
        return Measured(found, {part: after[part] - before[part] for part in PARTS})

    def _pids(self) -> dict[str, int]:
        found = _json(self.checkout.home / "services.json").get("pids", {})
        if not set(PARTS) <= set(found):
            raise CompareError(f"{self.checkout.name} ended")
        return {part: int(found[part]) for part in PARTS}


def check(name: str, found: Load, shape: Shape) -> None:
    """Raise CompareError when too many requests failed, or streams were cut."""
    failed = found.bad + found.err
    if not found.ok_all or failed > found.ok_all * MAX_FAILED_SHARE:
        raise CompareError(f"{name}: {failed} of {found.ok_all + failed} requests failed")
    if shape.is_stream and found.chunks < found.ok * (STREAM_CHUNKS - 2):
        raise CompareError(f"{name}: streams came with chunks missing")


def started(supervisor: Supervisor, checkout: Checkout, upstream: int) -> Side:
    """Run `manage.py up` in the checkout and wait for its first answered request."""
    environ = {name: value for name, value in os.environ.items() if name in _INHERITED}  # noqa: TID251 - a clean copy
    environ |= {
        "CFX_ENV": "development",
        "CFX_HOME": str(checkout.home),
        "PORT": str(checkout.port),
        "LOG_LEVEL": "WARNING",
        "LITELLM_URL": f"http://{LOOPBACK}:{upstream}",
        "LITELLM_API_KEY": "sk-bench",
    }
    child = supervisor.start(
        ChildSpec(
            name=checkout.name,
            argv=[checkout.python, "manage.py", "up"],
            environ=environ,
            cwd=checkout.folder,
            stop_grace_s=STOP_WITHIN_S,
            is_restarted=False,
        )
    )

    def is_serving() -> bool:
        if not child.is_running:
            raise CompareError(f"{checkout.name}: `manage.py up` {child.exit_summary()}")
        key = _json(checkout.home / "quickstart.json").get("api_key", "")
        return bool(key) and answers_chat(checkout.port, key, checkout.model)()

    supervisor.wait_until(is_serving, child, within_s=READY_WITHIN_S)
    assert child.identity is not None  # noqa: S101 - it serves
    return Side(checkout, _json(checkout.home / "quickstart.json")["api_key"], child.identity.pid)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # a child of a worker that has ended since
        os.kill(pid, number)


def _json(path: Path) -> dict[str, Any]:
    """Read one of the files that `up` replaces in one step; empty while it is not there."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return found
