"""`python -m bench.lag [--seconds 4]`: what a caller of large bodies costs everybody else.

Sends bodies that are much work to a running stack, four at a time, and measures meanwhile, from another process, how
long a request to `/health/live` takes on one connection. It prints a table and asserts nothing.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

import httpx

from codexflow.lib.clock import monotonic_s
from tests.fuzz.worst import MAX_BYTES, PLACES, ShapeOfBody
from tests.support.mini_stack import beside, memory_kb, mini_stack, web_pid

AT_ONCE = 4
PATHS = {"Chat": "/v1/chat/completions", "Messages": "/v1/messages", "Responses": "/v1/responses"}
SHAPES = {
    "nothing": None,
    "3,000,000 empty parts": ShapeOfBody(0, b"{}", 9_000_000),
    "600,000 images": ShapeOfBody(0, b'{"image_url":1}', 9_600_000),
    "400,000 fields": ShapeOfBody(len(PLACES) - 2, b"1", 5_000_000),
    "39,000 images": ShapeOfBody(0, b'{"image_url":1}', 39_000 * 16),
    "32 KB of files": ShapeOfBody(0, b'{"file":1}', 32_700),
    "1 MB of text": ShapeOfBody(6, b"fix it. ", 1_048_000),
    "10 MB of text": ShapeOfBody(6, b"fix it. ", MAX_BYTES),
    "10 MB of escapes": ShapeOfBody(6, b"\\n", MAX_BYTES),
    "10 MB of emoji": ShapeOfBody(6, "😀a".encode(), MAX_BYTES),
}


async def measured(url: str, key: str, shape: ShapeOfBody | None, seconds: float, pid: int) -> str:
    """Send a body again and again, and return a row of the table."""
    statuses: set[int] = set()
    sent = 0
    until_s = monotonic_s() + seconds
    before_kb = memory_kb(pid)

    async def attack(body: bytes, path: str) -> None:
        nonlocal sent
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            while monotonic_s() < until_s:
                response = await client.post(path, content=body, headers={"authorization": f"Bearer {key}"})
                statuses.add(response.status_code)
                sent += 1

    attacks = []
    if shape is not None:
        attacks = [attack(shape.body(), PATHS[shape.schema.__name__]) for _ in range(AT_ONCE)]
    probe = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.lag", "--seconds", str(seconds), "--probe", url, stdout=asyncio.subprocess.PIPE
    )
    running = asyncio.gather(*attacks)
    waits, _ = await probe.communicate()
    await running
    grown_mb = (memory_kb(pid) - before_kb) / 1024
    seen = "/".join(map(str, sorted(statuses))) or "-"
    return f"{sent:>6} {seen:>8} {waits.decode().strip()} {grown_mb:>8.0f}"


def probed(url: str, seconds: float) -> str:
    """Ask for life on one connection, and return the middle, the 99th percentile and the longest wait in ms."""
    waits_s: list[float] = []
    with httpx.Client(base_url=url, timeout=60) as client:
        until_s = monotonic_s() + seconds
        while (began_s := monotonic_s()) < until_s:
            client.get("/health/live")
            waits_s.append(monotonic_s() - began_s)
    waits_s.sort()
    parts = [waits_s[min(int(len(waits_s) * part), len(waits_s) - 1)] * 1000 for part in (0.5, 0.99, 1)]
    return " ".join(f"{each:>8.1f}" for each in parts)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.lag", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each body")
    parser.add_argument(
        "--probe", metavar="URL", help="only measure this URL; the command itself starts such a process"
    )
    options = parser.parse_args()
    if options.probe:
        sys.stdout.write(probed(options.probe, options.seconds))
        return 0
    with tempfile.TemporaryDirectory() as folder, mini_stack(Path(folder) / "log") as (stack, keys):
        sys.stdout.write(
            f"{'body':<24} {'sent':>6} {'status':>8} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'+ MB':>8}\n"
        )
        for name, shape in SHAPES.items():
            work = measured(f"http://127.0.0.1:{stack.port}", keys["good"], shape, options.seconds, web_pid(stack))
            sys.stdout.write(f"{name:<24} {beside(stack, work)}\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
