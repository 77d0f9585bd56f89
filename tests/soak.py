"""`python -m tests.soak --minutes 20`: a steady mixed load on one web process. Exit code 0 when it does not grow.

All surfaces, whole and streamed, on reused and new connections, with refusals of every kind, upstream faults and
callers who disconnect. Memory and open files of the process are sampled every few seconds.
"""

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from codexflow.lib.clock import monotonic_s
from tests.support.mini_stack import beside, memory_kb, mini_stack, unbreakable_models, web_pid
from tests.wire import Wire, request

SAMPLE_INTERVAL_S = 5.0
RESPONSE_WITHIN_S = 30.0
MAX_OPEN = 300
MAX_IDLE = 30
# Growth from the second quarter to the last; in the first, caches fill.
MAX_SHARE = 0.05
MAX_GROWTH_KB = 6 * 1024
MAX_MORE_FILES = 30

_WORDS: dict[str, tuple[str, str]] = {  # path -> its model and the field of the text
    "/v1/chat/completions": ("gpt-6-luna", "messages"),
    "/v1/completions": ("gpt-6-luna", "prompt"),
    "/v1/embeddings": ("text-embedding-3-small", "input"),
    "/v1/responses": ("gpt-6-luna", "input"),
    "/v1/messages": ("claude-haiku-5.5", "messages"),
    "/v1/messages/count_tokens": ("claude-haiku-5.5", "messages"),
}
_PATHS = tuple(_WORDS)
_PATH_WEIGHTS = (6, 1, 2, 3, 4, 1)
_FAULTS = ("503", "cut after=3", "error_event after=2", "malformed", "400 says=context", "429", "html")


@dataclass(frozen=True, slots=True)
class Sample:
    """Memory and open files of the process at one moment."""

    at_s: float
    memory_kb: int
    files: int


@dataclass(slots=True)
class Load:
    """Sends `rate` calls a second for `seconds`, and samples the process."""

    url: str
    keys: dict[str, str]
    pid: int
    seconds: float
    rate: float
    draw: Random
    ends: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    _idle: list[Wire] = field(default_factory=list)

    async def run(self) -> None:
        began_s = monotonic_s()
        sampling = asyncio.create_task(self._sample(began_s))
        calls: set[asyncio.Task[None]] = set()
        number = 0
        while (now_s := monotonic_s() - began_s) < self.seconds:
            number += 1
            if len(calls) >= MAX_OPEN:
                self.ends["skipped: too many open"] += 1
            else:
                task = asyncio.create_task(self._call(number))
                calls.add(task)
                task.add_done_callback(calls.discard)
            await asyncio.sleep(max(0.0, number / self.rate - now_s))
        if calls:
            await asyncio.wait(calls)
        sampling.cancel()
        for wire in self._idle:
            await wire.close()

    async def _sample(self, began_s: float) -> None:
        while True:
            await asyncio.sleep(SAMPLE_INTERVAL_S)
            self.samples.append(Sample(monotonic_s() - began_s, memory_kb(self.pid), open_files(self.pid)))

    async def _call(self, number: int) -> None:
        sent, is_stream = self._request(number)
        disconnects = is_stream and self.draw.random() < 0.08
        is_reused = bool(self._idle) and self.draw.random() < 0.7
        try:
            async with asyncio.timeout(RESPONSE_WITHIN_S):
                wire = self._idle.pop() if is_reused else await Wire.to(self.url)
                await self._exchange(wire, sent, disconnects=disconnects)
        except (OSError, EOFError, TimeoutError) as exc:
            # The gateway may close an idle connection at the moment it is reused.
            self.ends[f"{type(exc).__name__}{' on a reused connection' if is_reused else ''}"] += 1

    async def _exchange(self, wire: Wire, sent: bytes, *, disconnects: bool) -> None:
        try:
            await wire.send(sent)
            status, headers = await wire.head()
            if disconnects:
                await wire.reader.read(self.draw.randint(1, 2_000))
                self.ends[f"{status}, disconnected"] += 1
                return
            await wire.body(headers)
            self.ends[str(status)] += 1
            if len(self._idle) < MAX_IDLE and ("connection", "close") not in headers:
                self._idle.append(wire)
                return
        except BaseException:
            wire.abort()
            raise
        wire.abort() if disconnects else await wire.close()

    def _request(self, number: int) -> tuple[bytes, bool]:
        draw = self.draw
        (path,) = draw.choices(_PATHS, weights=_PATH_WEIGHTS)
        kind = draw.random()
        key = self.keys["good"]
        if kind < 0.04:
            return request(path, self.keys[draw.choice(("wrong", "unknown", "revoked", "expired"))], b"{}"), False
        if kind < 0.08:
            return request(path, key, draw.choice((b"{", b"{}", b'{"model":"unknown","messages":[]}', b"\xff"))), False
        model, name = _WORDS[path]
        words = f"Soak, call {number}. {'word ' * draw.choice((5, 50, 500, 5_000))}"
        if kind < 0.11:
            words += f"[[fault:{draw.choice(_FAULTS)}]]"
        elif kind < 0.5:
            words += f"[[fault:chunks n={draw.randint(3, 60)} gap_ms={draw.choice((0, 5, 30))}]]"
        text = [{"role": "user", "content": words}] if name == "messages" else words
        is_stream = path not in ("/v1/embeddings", "/v1/messages/count_tokens") and draw.random() < 0.6
        body: dict[str, Any] = {"model": model, name: text}
        if is_stream:
            body["stream"] = True
        if path == "/v1/messages":
            body["max_tokens"] = 100
        return request(path, key, json.dumps(body).encode()), is_stream


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def verdict(samples: list[Sample]) -> tuple[str, bool]:
    """Summarize the samples. Returns the text, and True when the process did not grow."""
    quarter = len(samples) // 4
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]
    if not second:
        return "too short for a verdict", False
    before, after = fmean(s.memory_kb for s in second), fmean(s.memory_kb for s in last)
    files_before, files_after = fmean(s.files for s in second), fmean(s.files for s in last)
    most = max(s.memory_kb for s in samples)
    tenths = samples[:: max(1, len(samples) // 10)]
    lines = [
        "memory over time: " + " ".join(f"{s.memory_kb / 1024:.1f}" for s in tenths) + " MB",
        f"memory: first {_mb(samples[0].memory_kb)}, last {_mb(samples[-1].memory_kb)}, most {_mb(most)}, "
        f"{_slope_kb(samples[quarter:]) / 1024:+.3f} MB per minute",
        f"memory: second quarter {_mb(before)}, last quarter {_mb(after)} ({after / before - 1:+.1%})",
        f"files: first {samples[0].files}, last {samples[-1].files}, second quarter {files_before:.0f}, "
        f"last quarter {files_after:.0f}",
    ]
    is_stable = (
        after - before <= min(MAX_GROWTH_KB, MAX_SHARE * before) and files_after - files_before <= MAX_MORE_FILES
    )
    return "\n".join(lines), is_stable


def _mb(kilobytes: float) -> str:
    return f"{kilobytes / 1024:.1f} MB"


def _slope_kb(samples: list[Sample]) -> float:
    """Slope of the linear regression, in kilobytes per minute."""
    middle_s, middle_kb = fmean(s.at_s for s in samples), fmean(s.memory_kb for s in samples)
    spread = sum((s.at_s - middle_s) ** 2 for s in samples)
    return 60 * sum((s.at_s - middle_s) * (s.memory_kb - middle_kb) for s in samples) / spread if spread else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rate", type=float, default=100, help="calls a second")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="default: random, and printed")
    parser.add_argument("--log", type=Path, default=Path(tempfile.gettempdir()) / "codexflow-soak.log")
    options = parser.parse_args()
    sys.stdout.write(f"soak: seed {options.seed}; log: {options.log}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as folder:
        models = unbreakable_models(Path(folder))
        with mini_stack(options.log, CFX_CONFIG_PATH=str(models)) as (stack, keys):
            load = Load(
                url=f"http://127.0.0.1:{stack.port}",
                keys=keys,
                pid=web_pid(stack),
                seconds=options.minutes * 60,
                rate=options.rate,
                draw=Random(options.seed),  # noqa: S311 - repeatable
            )
            beside(stack, load.run())
            is_alive = web_pid(stack) == load.pid
    text, is_stable = verdict(load.samples)
    tracebacks = options.log.read_text(errors="replace").count("Traceback (most recent call last)")
    sys.stdout.write(f"{sum(load.ends.values())} calls: {dict(load.ends.most_common())}\n{text}\n")
    sys.stdout.write(f"{tracebacks} tracebacks in the log; {'the same' if is_alive else 'ANOTHER'} process\n")
    is_clean = is_stable and is_alive and not tracebacks
    sys.stdout.write(f"soak: {'clean' if is_clean else 'NOT clean'}\n")
    return 0 if is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
